"""Runs the packaged files of a fleet in the real engines: `fleet.py PACKAGING answers|check`.

`answers` reads {"json": {host: [line, ...]}, "otel": {host: [line, ...]}} from standard input. The first go through Vector's
transform into ClickHouse, the second become rows as the OpenTelemetry Collector's exporter inserts them. It prints what the
questions answer for each. `check` prints the mistakes in the configurations, and the command that Vector runs.
"""

import json
import pathlib
import re
import sys
import tempfile

import yaml

PACKAGING = pathlib.Path(sys.argv[1])


def load(name):
    return yaml.safe_load((PACKAGING / name).read_text())


def head(name):
    """The comment at the beginning of a file."""
    return (PACKAGING / name).read_text().split("\n\n")[0]


def statements(name):
    """Those of a file of SQL. No string in these files has a semicolon at the end of a line."""
    text = re.sub(r"^\s*--.*\n", "", (PACKAGING / name).read_text(), flags=re.MULTILINE)
    return [statement for statement in re.split(r";\s*\n", text + "\n") if statement.strip()]


class Database:
    """An empty ClickHouse with the packaged schema."""

    def __init__(self, directory):
        from chdb import session

        self.session = session.Session(directory)
        self.reset()

    def reset(self):
        self.session.query("DROP DATABASE IF EXISTS conntrace SYNC")
        for statement in statements("clickhouse/schema.sql"):
            self.session.query(statement)

    def rows(self, query):
        settings = " SETTINGS output_format_json_quote_64bit_integers = 0, date_time_output_format = 'unix_timestamp'"
        answer = self.session.query(query + settings, "JSONEachRow")
        return [json.loads(line) for line in str(answer).splitlines()]

    def insert(self, table, rows, settings):
        body = "\n".join(json.dumps(row) for row in rows)
        self.session.query(f"INSERT INTO conntrace.{table} SETTINGS {settings} FORMAT JSONEachRow {body}")

    def answers(self):
        # What `shop` did is three days older in a copy: it is no first time.
        self.session.query(
            "INSERT INTO conntrace.events SELECT * REPLACE (time - INTERVAL 3 DAY AS time) FROM conntrace.events"
            " WHERE comm = 'shop'"
        )
        return [self.rows(question) for question in statements("clickhouse/questions.sql")]


def by_vector(host, line):
    """The record that Vector's transform makes of a line, which its source has given these fields."""
    import pyvrl

    program = load("vector/vector.yaml")["transforms"]["records"]["source"]
    given = {"message": line, "host": host, "pid": 1, "command": ["x"], "source_type": "exec", "stream": "stdout"}
    # The event is what the program leaves behind.
    return pyvrl.Transform(program + "\n.").remap(given)


def by_collector(host, line):
    """The row that the exporter inserts for a record: its attributes are text."""
    record = json.loads(line)
    text = lambda value: value if isinstance(value, str) else json.dumps(value)
    seconds, ns = divmod(record["Timestamp"], 10**9)
    return {
        "Timestamp": f"{seconds}.{ns:09}",
        "SeverityText": record["SeverityText"],
        "SeverityNumber": record["SeverityNumber"],
        "ServiceName": "conntrace",
        "ResourceAttributes": {"service.name": "conntrace", "host.name": host},
        "LogAttributes": {name: text(value) for name, value in record["Attributes"].items()},
        "EventName": record["EventName"],
    }


def answers():
    lines = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as directory:
        database = Database(directory)
        columns = database.rows("SELECT name, type, default_kind FROM system.columns WHERE database = 'conntrace' AND table = 'events'")
        records = [by_vector(host, line) for host, of_host in lines["json"].items() for line in of_host]
        # Vector sends a batch again if it has not seen the answer.
        for _ in range(2):
            database.insert("events", records, "date_time_input_format = 'best_effort', input_format_skip_unknown_fields = 1")
        stored = database.rows("SELECT count() AS rows, max(id) AS id FROM conntrace.events")[0]
        # An id above 2^63, as after months of uptime. Rows live for 30 days, so its time is far away.
        large = by_vector("h", '{"event":"new","time":"2096-01-02T03:04:05.000000006Z","id":18446744073709551615}')
        by_json = database.answers()
        database.insert("events", [large], "date_time_input_format = 'best_effort'")
        large = database.rows("SELECT id, time_ns FROM conntrace.events WHERE host = 'h'")
        database.reset()
        rows = [by_collector(host, line) for host, of_host in lines["otel"].items() for line in of_host]
        database.insert("otel_logs", rows, "async_insert = 0")
        sample = database.rows("SELECT * FROM conntrace.events WHERE event = 'destroy' ORDER BY time LIMIT 1")
        answered = {"columns": columns, "stored": stored, "large": large, "json": by_json, "sample": sample}
        print(json.dumps(answered | {"otel": database.answers()}))


def collector_mistakes(name, config):
    """Each component is defined and used; each variable is explained."""
    service = config["service"]
    pipelines = service["pipelines"].values()
    used = {kind: {part for pipeline in pipelines for part in pipeline.get(kind, [])} for kind in ("receivers", "processors", "exporters")}
    used["extensions"] = set(service["extensions"])
    for kind, parts in used.items():
        defined = set(config.get(kind, {}))
        yield from (f"{name}: {kind}: {part} is used and not defined" for part in parts - defined)
        yield from (f"{name}: {kind}: {part} is defined and not used" for part in defined - parts)
    for part, options in config["exporters"].items():
        queue = options.get("sending_queue", {})
        if queue.get("storage", "file_storage") not in config["extensions"]:
            yield f"{name}: {part}: no such storage"
        batch = queue.get("batch", {})
        if batch.get("min_size", 0) > batch.get("max_size", 0):
            yield f"{name}: {part}: min_size is above max_size"
    for pipeline, parts in service["pipelines"].items():
        if parts["processors"][0] != "memory_limiter":
            yield f"{name}: {pipeline}: memory_limiter is not the first processor"
    for variable in set(re.findall(r"\$\{env:(\w+)", json.dumps(config))):
        if variable not in head(name):
            yield f"{name}: the variable {variable} is not explained"


def vector_mistakes(name, config):
    outputs = set(config["sources"]) | set(config["transforms"])
    inputs = {part for kind in ("transforms", "sinks") for options in config[kind].values() for part in options["inputs"]}
    yield from (f"{name}: {part} is no input" for part in inputs - outputs)
    yield from (f"{name}: nothing takes {part}" for part in outputs - inputs)
    sink = config["sinks"]["clickhouse"]
    made = f"CREATE TABLE IF NOT EXISTS {sink['database']}.{sink['table']}\n"
    if made not in (PACKAGING / "clickhouse/schema.sql").read_text():
        yield f"{name}: the schema does not make the table"
    for backend, key in re.findall(r"SECRET\[(\w+)\.(\w+)\]", json.dumps(config)):
        if backend not in config["secret"] or key not in head(name):
            yield f"{name}: the secret {key} is not explained"


def manifest_mistakes(name):
    """The volumes and the variables of each pod, and what the pods name of each other."""
    objects = list(yaml.safe_load_all((PACKAGING / name).read_text()))
    made = {thing["metadata"]["name"] for thing in objects if thing["kind"] == "ConfigMap"}
    # Others are made as the comment says.
    made |= set(re.findall(r"create configmap (\S+)", head(name)))
    for thing in objects:
        if thing["kind"] != "DaemonSet":
            continue
        pod = thing["spec"]["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for volume in pod["volumes"]:
            if "configMap" in volume and volume["configMap"]["name"] not in made:
                yield f"{name}: no such ConfigMap: {volume['configMap']['name']}"
        if thing["spec"]["selector"]["matchLabels"] != thing["spec"]["template"]["metadata"]["labels"]:
            yield f"{name}: the selector does not select the pods"
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            yield from (f"{name}: {volume} is no volume" for volume in mounted - volumes)
            yield from (f"{name}: the volume {volume} is not mounted" for volume in volumes - mounted)
            if container["securityContext"]["capabilities"]["drop"] != ["ALL"]:
                yield f"{name}: capabilities are kept"
            # $(NAME) means a variable that is defined before.
            known = set()
            for variable in container["env"]:
                for used in set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) - known:
                    yield f"{name}: {variable['name']}: {used} is not defined before"
                known.add(variable["name"])


def check():
    collectors = {name: load(name) for name in ("otel/agent.yaml", "otel/gateway.yaml")}
    vector = load("vector/vector.yaml")
    mistakes = [mistake for item in collectors.items() for mistake in collector_mistakes(*item)]
    mistakes += vector_mistakes("vector/vector.yaml", vector)
    clickhouse = collectors["otel/gateway.yaml"]["exporters"]["clickhouse"]
    made = f"CREATE TABLE IF NOT EXISTS {clickhouse['database']}.{clickhouse['logs_table_name']}\n"
    if made not in (PACKAGING / "clickhouse/schema.sql").read_text():
        mistakes.append("otel/gateway.yaml: the schema does not make the table")
    manifests = ("container/daemonset.yaml", "otel/daemonset.yaml")
    mistakes += [mistake for name in manifests for mistake in manifest_mistakes(name)]
    objects = {thing["kind"]: thing for thing in yaml.safe_load_all((PACKAGING / manifests[0]).read_text())}
    command = vector["sources"]["events"]["command"]
    print(json.dumps({"mistakes": mistakes, "command": command, "toml": objects["ConfigMap"]["data"]["conntrace.toml"]}))


{"answers": answers, "check": check}[sys.argv[2]]()
