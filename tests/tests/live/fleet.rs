//! The packaged files of a fleet: the collectors' configurations, and the events of hosts in the engine of `ClickHouse`.

use answers::{Lines, Truth};
use conn_tests::{
    daemon::Daemon,
    flood::{self, Flood},
    harness::{Outcome, Skip},
    host::Host,
    needs_nothing, needs_tracing,
    netns::NetNs,
    port::Port,
    python,
    tracer::{Setup, Tracer},
};
use macro_rules_attribute::apply;
use scene::{ABANDONED, CALLS, CRON, REFUSED, SCANNED, SHOP, Scene, THEN};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    collections::BTreeMap,
    env, fs,
    io::Write as _,
    path::Path,
    process::{self, Command, Stdio},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

mod answers;
mod scene;

/// What the interpreter needs.
const PACKAGES: &str = "chdb, pyvrl, yaml";
/// The engines.
const ENGINES: &str = include_str!("fleet.py");
/// The names of the hosts: of the clients, of the servers, and of one with losses.
const WEB: &str = "web-1";
const DB: &str = "db-1";
const EDGE: &str = "edge-1";

fn packaging() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging"))
}

/// What the engines print, given this.
fn engines(job: &str, packaging: &Path, input: &Value) -> Result<Value, Skip> {
    let mut command = Command::new(python::with(PACKAGES)?);
    command.args(["-c", ENGINES]).arg(packaging).arg(job).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It reads all before it prints.
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{job}: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout).unwrap())
}

/// The streams of one host.
struct Streams {
    json: Tracer,
    otel: Tracer,
}

impl Streams {
    /// Vector's command, by a user without privileges, and a stream of records for the collector.
    fn of(ns: &NetNs, daemon: &Daemon, command: &[String]) -> Self {
        let asked =
            command.iter().map(|word| if word == "--daemon" { daemon.option() } else { word.clone() });
        let json = Setup::new(asked).arguments(["--netns", "."]).unprivileged();
        let otel = ["events", "-e", "ALL,ATTEMPT", "-o", "json-otel", "--netns", ".", "--local"];
        ns.run(|| Self { json: json.start(), otel: Tracer::start(otel) })
    }

    /// The lines, once this many connections have begun and ended in both.
    fn end(self, begun: u64, ended: u64) -> [Vec<String>; 2] {
        for (stream, [new, destroy]) in [
            (&self.json, ["\"event\":\"new\"", "\"event\":\"destroy\""]),
            (&self.otel, ["connection.new\"", "connection.destroy\""]),
        ] {
            let seen = [Cell::new(0), Cell::new(0)];
            stream.await_stdout("all connections", |line| {
                for (word, seen) in [new, destroy].iter().zip(&seen) {
                    seen.set(seen.get() + u64::from(line.contains(word)));
                }
                seen.each_ref().map(Cell::get) == [begun, ended]
            });
        }
        [self.json, self.otel].map(|stream| stream.stop().stdout)
    }
}

/// Lines about losses of a stream whose ring is too small, in both formats. How many events they count.
fn lossy_streams(port: &Port) -> [(Vec<String>, u64); 2] {
    let start = |format| Tracer::start(["-b", "4K", "-o", format, "--dport", &port.to_string()]);
    let tracers = [start("json"), start("json-otel")];
    let flood = Flood::new(port.number(), u64::MAX, flood::Ending::Mixed).start();
    for tracer in &tracers {
        tracer.await_stderr("a line about lost events", |line| line.contains("events were lost"));
    }
    flood.stop();
    tracers.map(|tracer| {
        let ended = tracer.stop();
        let account = ended.stderr.lines().find(|line| line.contains("produced ")).expect("an account");
        let digits = account.split_once("lost ").unwrap().1;
        let digits: String = digits.chars().take_while(char::is_ascii_digit).collect();
        // The other lines would be in each answer.
        let is_loss = |line: &String| line.contains("\"lost\"") || line.contains("conntrace.los");
        (ended.stdout.into_iter().filter(is_loss).collect(), digits.parse().unwrap())
    })
}

/// Fields that only `--forwarded` has, and that have no column.
const OF_FORWARDED: [&str; 20] = [
    "assured",
    "icmp_code",
    "icmp_id",
    "icmp_type",
    "lost_event",
    "mark",
    "nat",
    "offload",
    "protocol_number",
    "replied",
    "reply_dport",
    "reply_dst",
    "reply_icmp_code",
    "reply_icmp_id",
    "reply_icmp_type",
    "reply_sport",
    "reply_src",
    "sctp_state",
    "time_source",
    "timeout_s",
];

/// Each field of a line has a column that takes its values, and no column takes more.
fn check_columns(columns: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/events.schema.json")).unwrap();
    let kinds = schema["oneOf"].as_array().unwrap();
    let fields = kinds.iter().flat_map(|kind| kind["properties"].as_object().unwrap());
    let is_left_out = |name: &str| OF_FORWARDED.contains(&name) || name.starts_with("zone");
    let fields: BTreeMap<_, _> = fields.filter(|(name, _)| !is_left_out(name)).collect();
    let columns: BTreeMap<_, _> = columns
        .as_array()
        .unwrap()
        .iter()
        .map(|column| (column["name"].as_str().unwrap(), column["type"].as_str().unwrap()))
        .collect();
    for (name, field) in &fields {
        let column = *columns.get(name.as_str()).unwrap_or_else(|| panic!("{name} has no column"));
        let types = &field["type"];
        let is_nullable = types.as_array().is_some_and(|types| types.contains(&"null".into()));
        assert_eq!(column.contains("Nullable"), is_nullable, "{name}: {column}, {types}");
        let types = types.to_string();
        let fits = match name.as_str() {
            "time" => column == "DateTime64(9, 'UTC')",
            "src" | "dst" => column == "IPv6",
            "schema" => column == "UInt8",
            _ if types.contains("integer") => column.contains("UInt"),
            _ if types.contains("boolean") => column.contains("Bool"),
            _ => column.contains("String"),
        };
        assert!(fits, "{name}: {column}, {types}");
    }
    let more: Vec<_> = columns.keys().filter(|name| !fields.contains_key(&name.to_string())).collect();
    assert_eq!(more, [&"dst_text", &"host", &"peer_text", &"src_text"]);
}

/// The sum of a field of all lines that have it.
fn retransmits(lines: &[String], field: fn(&Value) -> &Value) -> u64 {
    let of = |line: &String| field(&serde_json::from_str(line).unwrap()).as_u64();
    lines.iter().filter_map(of).sum()
}

/// A record of a time without a stream.
fn gap(since: SystemTime, until: SystemTime) -> String {
    let [since, until] =
        [since, until].map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64);
    let attributes = json!({"conntrace.gap.since": since, "conntrace.gap.until": until});
    let record = json!({"Timestamp": until, "SeverityText": "WARN", "SeverityNumber": 13, "EventName": "conntrace.gap"});
    let mut record = record.as_object().unwrap().clone();
    record.insert("Attributes".into(), attributes);
    Value::from(record).to_string()
}

#[apply(needs_tracing)]
fn ten_questions_have_true_answers(_: &Host) -> Outcome {
    let checked = engines("check", packaging(), &Value::Null)?;
    let command: Vec<String> = serde_json::from_value(checked["command"].clone()).unwrap();
    assert_eq!(command[0], "/usr/bin/conntrace");
    let (scene, daemon) = (Scene::new(), Daemon::start());
    let [web, db] = [&scene.web, &scene.db].map(|ns| Streams::of(ns, &daemon, &command[1..]));
    let since = SystemTime::now();
    let known = scene.traffic();
    let ended_in = SHOP + CRON + THEN + CALLS + 1;
    let ended_out = ended_in + REFUSED + ABANDONED + u64::from(SCANNED);
    let [web_json, web_otel] = web.end(ended_out + 1, ended_out);
    let [db_json, db_otel] = db.end(ended_in + 1, ended_in);
    let seen = Instant::now();
    let [(lost_json, lost), (mut lost_otel, lost_in_otel)] = lossy_streams(&Port::claim());
    let losses = [lost_json.len(), lost_otel.len()];
    // The export writes such a record when it begins again. Lines of JSON have none.
    lost_otel.push(gap(since, SystemTime::now()));
    let input = json!({
        "json": {WEB: web_json, DB: db_json, EDGE: lost_json},
        "otel": {WEB: web_otel, DB: db_otel, EDGE: lost_otel},
    });
    let lines = (web_json.len() + db_json.len() + losses[0]) as u64;
    let answered = engines("answers", packaging(), &input)?;

    check_columns(&answered["columns"]);
    // A batch that came twice is there once. An id beyond the integers of Vector is there.
    assert_eq!(answered["stored"]["rows"], lines);
    assert_eq!(answered["large"], json!([{"id": u64::MAX, "time_ns": 3_976_311_845_000_000_006_u64}]));
    let minutes =
        [since, SystemTime::now()].map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs() / 60);
    let truth = Truth { known: &known, ips: [scene.web_ip, scene.db_ip], seen, minutes };
    let again = retransmits(&web_json, |line| &line["retransmits"]);
    truth.check(&answered["json"], &Lines { lost, losses: losses[0], gaps: 0, again });
    let again = retransmits(&web_otel, |line| &line["Attributes"]["conntrace.retransmits"]);
    truth.check(&answered["otel"], &Lines { lost: lost_in_otel, losses: losses[1], gaps: 1, again });
    Ok(())
}

#[apply(needs_nothing)]
fn configurations_hold_together(_: &Host) -> Outcome {
    let checked = engines("check", packaging(), &Value::Null)?;
    assert_eq!(checked["mistakes"], json!([]));
    let copy = env::temp_dir().join(format!("conn-fleet-{}", process::id()));
    fs::create_dir(&copy).unwrap();
    // The daemon takes the configuration of the DaemonSet.
    let config = copy.join("c.toml");
    fs::write(&config, checked["toml"].as_str().unwrap()).unwrap();
    Setup::new(["serve", "--check", "--config", config.to_str().unwrap()])
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://192.0.2.1:4318")
        .run()
        .expect_code(0);
    // Each mistake is found.
    for (file, right, wrong, mistake) in [
        ("otel/agent.yaml", "exporters: [otlp_grpc]", "exporters: [otlp]", "otlp is used and not defined"),
        ("otel/gateway.yaml", ", kafka]", "]", "kafka is defined and not used"),
        ("otel/gateway.yaml", "storage: file_storage", "storage: disk", "no such storage"),
        ("otel/gateway.yaml", "otel_logs", "logs", "the schema does not make the table"),
        ("otel/agent.yaml", "${env:GATEWAY}", "${env:OTHER}", "OTHER is not explained"),
        ("vector/vector.yaml", "inputs: [records]", "inputs: [record]", "record is no input"),
        ("vector/vector.yaml", "SECRET[server.", "SECRET[other.", "is not explained"),
        ("container/daemonset.yaml", "name: run, mountPath", "name: runs, mountPath", "runs is no volume"),
        ("otel/daemonset.yaml", "name: otel-agent}", "name: agent}", "no such ConfigMap"),
    ] {
        for part in ["clickhouse", "container", "otel", "vector"] {
            fs::create_dir_all(copy.join(part)).unwrap();
            for entry in fs::read_dir(packaging().join(part)).unwrap() {
                let entry = entry.unwrap();
                fs::copy(entry.path(), copy.join(part).join(entry.file_name())).unwrap();
            }
        }
        let text = fs::read_to_string(copy.join(file)).unwrap();
        assert!(text.contains(right), "{file}: {right}");
        fs::write(copy.join(file), text.replace(right, wrong)).unwrap();
        let checked = engines("check", &copy, &Value::Null);
        fs::remove_dir_all(&copy).unwrap();
        let mistakes = checked?["mistakes"].to_string();
        assert!(mistakes.contains(mistake), "{file}: {mistake}: {mistakes}");
    }
    Ok(())
}
