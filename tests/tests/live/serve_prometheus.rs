//! Prometheus and `VictoriaMetrics` scrape a daemon: its numbers there, the rules, native histograms, and every query of the
//! dashboards.

use super::metrics::{Ended, program};
use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    pins::{Pins, kill},
    port::Port,
    timeout,
    tracer::Tracer,
    traffic::handshake,
    truth::{Counts, Truth},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Where the daemon and the server listen, in a namespace of their own.
const DAEMON: u16 = 9436;
const SERVER: u16 = 9090;
/// Both addresses of the daemon: two hosts of a fleet.
const INSTANCES: [&str; 2] = ["127.0.0.1:9436", "[::1]:9436"];
/// The families that a kernel may not show, by a part of their names.
const OPTIONAL: [&str; 4] = ["conntrack_entries", "tcp_attempts", "tcp_half_open", "tcp_syns_refused"];

/// A directory that is removed with this value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("conn-tests-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A file below `packaging`.
fn packaged(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(path)
}

/// What asks the daemon for metrics, and is asked for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    Prometheus,
    /// With native histograms, for which it asks for messages.
    Native,
    Victoria,
}

/// A daemon, a server that scrapes it each second, and traffic to a port, in a namespace.
struct Scene {
    port: Port,
    ns: NetNs,
    pins: Pins,
    daemon: Option<Tracer>,
    config: PathBuf,
    truth: Truth,
    /// Connections that stay open.
    held: Vec<conn_tests::traffic::Pair>,
    _server: Ended,
    directory: Directory,
}

impl Scene {
    fn start(engine: Engine) -> Result<Self, Skip> {
        let (name, ready) = match engine {
            Engine::Prometheus | Engine::Native => ("prometheus", "Server is ready to receive web requests"),
            Engine::Victoria => ("victoria-metrics", "started VictoriaMetrics in"),
        };
        let server = program(name)?;
        let (port, ns, pins, directory) =
            (Port::claim(), NetNs::new().unwrap(), Pins::new(), Directory::new(&format!("{engine:?}")));
        let listen = INSTANCES.map(|address| format!("\"{address}\"")).join(", ");
        let config = directory
            .write("conntrace.toml", &format!("listen = [{listen}]\nports = [{port}]\nlifetimes = true\n"));
        let daemon = Some(serve(&ns, &pins, &config));
        // The packaged configuration, with the hosts and the pace of this test.
        let mut text = fs::read_to_string(packaged("prometheus/scrape.yml")).unwrap();
        for (from, to) in
            [("\"127.0.0.1:9436\"", listen.as_str()), ("scrape_interval: 15s", "scrape_interval: 1s")]
        {
            assert!(text.contains(from), "{text}");
            text = text.replace(from, to);
        }
        let mut command = Command::new(server);
        let data = directory.0.join("data");
        let address = format!("127.0.0.1:{SERVER}");
        match engine {
            Engine::Prometheus | Engine::Native => {
                let rules = packaged("prometheus/rules.yml");
                text = format!("{text}rule_files: [\"{}\"]\n", rules.canonicalize().unwrap().display());
                text = text.replace("scrape_interval: 1s", "scrape_interval: 1s\n  evaluation_interval: 1s");
                command
                    .arg(format!("--config.file={}", directory.write("server.yml", &text).display()))
                    .arg(format!("--storage.tsdb.path={}", data.display()))
                    .arg(format!("--web.listen-address={address}"));
                if engine == Engine::Native {
                    command.arg("--enable-feature=native-histograms");
                }
            }
            Engine::Victoria => {
                command
                    .arg(format!("-promscrape.config={}", directory.write("server.yml", &text).display()))
                    .arg(format!("-storageDataPath={}", data.display()))
                    .arg(format!("-httpListenAddr={address}"))
                    .args(["-search.latencyOffset=0s", "-memory.allowedBytes=128MB", "-enableTCP6"]);
            }
        }
        command.current_dir(&directory.0).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = ns.run(|| command.spawn()).unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let child = Ended(child);
        let mut before = Vec::new();
        let started = said.by_ref().any(|line| {
            before.push(line);
            before.last().is_some_and(|line| line.contains(ready))
        });
        assert!(started, "{name} ended: {before:#?}");
        // It writes on.
        thread::spawn(move || said.for_each(drop));
        // One of them says so before it listens.
        let limit = Instant::now() + timeout::seconds(40);
        while let Err(error) = ns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, SERVER))) {
            assert!(Instant::now() < limit, "{name}: {error}");
            thread::sleep(Duration::from_millis(10));
        }
        let truth = Truth::default();
        Ok(Self { port, ns, pins, daemon, config, truth, held: Vec::new(), _server: child, directory })
    }

    /// Makes connections to the port: some stay open, most end in each way, some are refused.
    fn traffic(&mut self, connections: u64) {
        let port = self.port.number();
        let flood = Flood { refused: true, ..Flood::new(port, connections, Ending::Mixed) };
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let (more, (held, pairs)) = self.ns.run(|| (flood.run(), handshake::held(server, 7)));
        self.truth += more;
        self.truth += held;
        self.held.extend(pairs);
    }

    /// The body of an answer at a port of the namespace.
    fn get(&self, port: u16, target: &str, accept: &str) -> String {
        self.ns.run(|| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            stream.set_read_timeout(Some(timeout::seconds(40))).unwrap();
            let request = format!("GET {target} HTTP/1.0\r\nhost: x\r\naccept: {accept}\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text}"));
            assert!(head.lines().next().unwrap().contains(" 200 "), "{target}: {text}");
            body.to_owned()
        })
    }

    /// The series of a query now.
    fn query(&self, query: &str) -> Vec<(BTreeMap<String, String>, f64)> {
        let encoded: String = query
            .bytes()
            .map(|byte| match byte {
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02X}"),
            })
            .collect();
        let body = self.get(SERVER, &format!("/api/v1/query?query={encoded}"), "*/*");
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap_or_else(|| panic!("{query}: {answer}"));
        let series = series.iter().map(|one| {
            let labels = serde_json::from_value(one["metric"].clone()).unwrap();
            (labels, one["value"][1].as_str().unwrap().parse().unwrap())
        });
        series.collect()
    }

    /// Waits until a query has one series with this value.
    fn await_value(&self, query: &str, wanted: u64) {
        let limit = Instant::now() + timeout::seconds(90);
        loop {
            let found = self.query(query);
            if matches!(&found[..], &[(_, value)] if (value - wanted as f64).abs() < f64::EPSILON) {
                return;
            }
            assert!(Instant::now() < limit, "{query} is {found:?}, not {wanted}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the server has the numbers of the traffic, of both instances.
    fn await_truth(&self) {
        let port = self.port.number();
        let sides: [(&str, Counts); 2] =
            [("in", self.truth.incoming(port)), ("out", self.truth.outgoing(port))];
        for instance in INSTANCES {
            self.await_value(&format!("up{{instance=\"{instance}\"}}"), 1);
            for (direction, counts) in sides {
                let labels = format!("{{instance=\"{instance}\",direction=\"{direction}\",port=\"{port}\"}}");
                for (family, wanted) in [
                    ("connections_opened_total", counts.opened),
                    ("connections_established_total", counts.established),
                    ("connections_failed_total", counts.failed()),
                    ("connections_ended_total", counts.closed),
                    ("connections", counts.open()),
                    // What is held has neither sent nor received a byte.
                    ("sent_bytes_total", counts.sent),
                    ("received_bytes_total", counts.received),
                ] {
                    self.await_value(&format!("sum(conntrace_tcp_{family}{labels})"), wanted);
                }
            }
            let refused = format!(
                "conntrace_tcp_connections_failed_total{{instance=\"{instance}\",direction=\"out\",port=\"{port}\",cause=\"refused\"}}"
            );
            self.await_value(&refused, self.truth.outgoing(port).refused);
        }
    }

    /// Runs each query of the dashboards, and expects numbers.
    fn check_dashboards(&self) {
        let text = self.get(DAEMON, "/metrics", "text/plain");
        let missing: Vec<&str> =
            OPTIONAL.into_iter().filter(|family| !text.contains(&format!("\nconntrace_{family}"))).collect();
        let mut count = 0;
        for file in ["host.json", "fleet.json"] {
            let dashboard: Value =
                serde_json::from_str(&fs::read_to_string(packaged("grafana").join(file)).unwrap()).unwrap();
            assert!(dashboard["schemaVersion"].as_u64() >= Some(38), "{file}");
            let variables = dashboard["templating"]["list"].as_array().unwrap();
            assert!(variables.iter().any(|variable| variable["type"] == "datasource"), "{file}");
            for query in queries(&dashboard) {
                if missing.iter().any(|family| query.contains(family)) {
                    println!("prometheus: this kernel does not show what {query} needs");
                    continue;
                }
                let instance = if file == "host.json" { INSTANCES[0] } else { ".*" };
                let query = query.replace("$instance", instance).replace("$__rate_interval", "5m");
                self.await_data(&format!("{file}: "), &query);
                count += 1;
            }
        }
        assert!(count > 60, "{count} queries");
        println!(
            "prometheus: {count} queries of the dashboards have data, families that are missing: {missing:?}"
        );
    }

    /// Waits until a query has a number.
    fn await_data(&self, context: &str, query: &str) {
        let limit = Instant::now() + timeout::seconds(30);
        loop {
            let found = self.query(query);
            if found.iter().any(|(_, value)| value.is_finite()) {
                return;
            }
            assert!(Instant::now() < limit, "{context}{query} has no data: {found:?}");
            thread::sleep(Duration::from_millis(200));
        }
    }
}

/// A daemon that pins, in a namespace.
fn serve(ns: &NetNs, pins: &Pins, config: &Path) -> Tracer {
    ns.run(|| pins.serve().arguments(["--config", config.to_str().unwrap()]).start())
}

/// All queries of a dashboard: those of panels, and those of variables as the queries that find their values.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut queries: Vec<String> =
        targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if variable["type"] == "query" {
            let definition = variable["definition"].as_str().unwrap();
            let inner = definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (family, label) = inner.and_then(|inner| inner.split_once(", ")).unwrap();
            queries.push(format!("count by ({label}) ({family})"));
        }
    }
    queries
}

/// `opened + preexisting - failed - ended - open` of each instance.
const IDENTITY: &str = "sum by (instance) (conntrace_tcp_connections_opened_total) \
                        + sum by (instance) (conntrace_tcp_connections_preexisting_total) \
                        - sum by (instance) (conntrace_tcp_connections_failed_total) \
                        - sum by (instance) (conntrace_tcp_connections_ended_total) \
                        - sum by (instance) (conntrace_tcp_connections)";

#[apply(needs_tracing)]
fn prometheus_has_the_numbers_over_a_restart(_: &Host) -> Outcome {
    let (promtool, mut scene) = (program("promtool")?, Scene::start(Engine::Prometheus)?);
    // Rates need two scrapes that differ.
    for _ in 0..2 {
        scene.traffic(40);
        scene.await_truth();
    }
    scene.check_dashboards();
    for accept in ["text/plain", "application/openmetrics-text"] {
        let text = scene.get(DAEMON, "/metrics", accept);
        assert_eq!(text.ends_with("# EOF\n"), accept != "text/plain", "{text}");
        if accept == "text/plain" {
            let file = scene.directory.write("metrics", &text);
            let mut check = Command::new(&promtool);
            let verdict =
                check.args(["check", "metrics"]).stdin(fs::File::open(file).unwrap()).output().unwrap();
            assert!(verdict.status.success(), "{verdict:?} of {text}");
        }
    }
    // The programs count while no daemon is there.
    kill(scene.daemon.take().unwrap());
    scene.await_value("sum(up)", 0);
    scene.traffic(40);
    scene.daemon = Some(serve(&scene.ns, &scene.pins, &scene.config));
    scene.await_truth();
    let port = scene.port.number();
    // To Prometheus, nothing began anew, and the identity held at each scrape.
    let resets = format!("sum(resets(conntrace_tcp_connections_opened_total{{port=\"{port}\"}}[10m]))");
    scene.await_value(&resets, 0);
    scene.await_value("max(changes(conntrace_start_time_seconds[10m]))", 0);
    scene.await_value(&format!("max(max_over_time(abs({IDENTITY})[5m:1s]))"), 0);
    scene.await_value("min(conntrace_pinned)", 1);
    check_rules(&scene);
    Ok(())
}

/// Each rule is evaluated without an error, and those that record have data.
fn check_rules(scene: &Scene) {
    let rules: Value = serde_json::from_str(&scene.get(SERVER, "/api/v1/rules", "*/*")).unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 15, "{rules:?}");
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        if rule["type"] == "recording" {
            scene.await_data("rule ", rule["name"].as_str().unwrap());
        }
    }
    scene.await_value("max(abs(instance:conntrace_tcp_identity:difference))", 0);
}

#[apply(needs_tracing)]
fn native_histograms_have_the_same_durations(_: &Host) -> Outcome {
    let mut scene = Scene::start(Engine::Native)?;
    let port = scene.port.number();
    let begun = Instant::now();
    scene.traffic(40);
    let made = Instant::now();
    // Counters and gauges come as messages, too.
    scene.await_truth();
    // This connection was longer than those that have ended.
    drop(scene.held.pop());
    for counts in scene.truth.counts.iter_mut().filter(|(key, _)| key.port == port).map(|(_, counts)| counts)
    {
        counts.closed += 1;
    }
    let (least, most) = (made.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64());
    scene.await_truth();
    for (direction, counts) in [("in", scene.truth.incoming(port)), ("out", scene.truth.outgoing(port))] {
        for instance in INSTANCES {
            let labels = format!("{{instance=\"{instance}\",direction=\"{direction}\",port=\"{port}\"}}");
            let [handshake, lifetime] = ["handshake", "connection"]
                .map(|name| format!("conntrace_tcp_{name}_duration_seconds{labels}"));
            scene.await_value(&format!("histogram_count({handshake})"), counts.established);
            scene.await_value(&format!("histogram_count({lifetime})"), counts.closed);
            // The upper bound of the longest: a bucket is a quarter of an octave.
            let longest = scene.query(&format!("histogram_quantile(1, {lifetime})"))[0].1;
            assert!((least..most * 1.2).contains(&longest), "{longest} is not from {least} to {most}");
            let half = scene.query(&format!("histogram_quantile(0.5, {handshake})"))[0].1;
            assert!(half > 0.0 && half < most, "{half}");
        }
    }
    // This version keeps one form, as docs/metrics.md has it.
    let classic = scene.query("conntrace_tcp_handshake_duration_seconds_bucket");
    assert_eq!(classic, []);
    Ok(())
}

#[apply(needs_tracing)]
fn victoria_metrics_has_the_same_numbers(_: &Host) -> Outcome {
    let mut scene = Scene::start(Engine::Victoria)?;
    for _ in 0..2 {
        scene.traffic(40);
        scene.await_truth();
    }
    scene.check_dashboards();
    scene.await_value(&format!("max(abs({IDENTITY}))"), 0);
    Ok(())
}

#[apply(needs_tracing)]
fn rules_pass_their_tests(_: &Host) -> Outcome {
    let promtool = program("promtool")?;
    for arguments in [&["check", "rules", "rules.yml"][..], &["test", "rules", "rules.test.yml"]] {
        let verdict =
            Command::new(&promtool).args(arguments).current_dir(packaged("prometheus")).output().unwrap();
        assert!(verdict.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&verdict.stderr));
    }
    // Each alert has a test.
    let read = |name: &str| fs::read_to_string(packaged("prometheus").join(name)).unwrap();
    let (rules, tests) = (read("rules.yml"), read("rules.test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 8, "{alerts:?}");
    for alert in alerts {
        assert!(tests.contains(&format!("- alertname: {alert}\n")), "{alert} has no test that fires");
    }
    Ok(())
}
