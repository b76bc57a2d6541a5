//! Events by OTLP: what a collector decodes equals the connections that were made.

use super::{
    metric, own,
    sink::{Place, Sink, attribute, number},
};
use conn_tests::{
    daemon::Daemon,
    harness::Outcome,
    host::Host,
    needs_tracing,
    netns::NetNs,
    pins::{Pins, kill},
    port::Port,
    python, timeout,
    tracer::Tracer,
};
use macro_rules_attribute::apply;
use nix::{
    sys::signal::{Signal, kill as send},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    process,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// The line of an export whose stream has begun.
const BEGUN: &str = "the stream of events has begun";

/// One event of a connection: kind, direction, port of the client, bytes sent and received, reason and error.
type Event = (String, String, u16, Option<(i64, i64)>, Option<String>, Option<String>);

/// Makes connections in a namespace, 3 bytes up and 5 down in each, closed by the client. Returns the client's ports.
fn connect(netns: &NetNs, port: &Port, count: usize) -> Vec<u16> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    netns.run(|| {
        let listener = TcpListener::bind(address).unwrap();
        let one = |_| {
            let mut client = TcpStream::connect(address).unwrap();
            let mut server = listener.accept().unwrap().0;
            client.write_all(b"123").unwrap();
            server.read_exact(&mut [0; 3]).unwrap();
            server.write_all(b"12345").unwrap();
            client.read_exact(&mut [0; 5]).unwrap();
            let from = client.local_addr().unwrap().port();
            drop(client);
            // The server hears the end before it ends.
            assert_eq!(server.read(&mut [0]).unwrap(), 0);
            from
        };
        (0..count).map(one).collect()
    })
}

/// What should arrive of such connections.
fn expected(ports: &[u16], directions: &[&str]) -> BTreeSet<Event> {
    let event = |kind: &str, direction: &str, from, bytes, reason: Option<&str>| {
        (kind.to_owned(), direction.to_owned(), from, bytes, reason.map(str::to_owned), None)
    };
    let of = |&from: &u16| {
        directions.iter().flat_map(move |&direction| {
            let (bytes, reason) =
                if direction == "out" { ((3, 5), "closed_by_us") } else { ((5, 3), "closed_by_peer") };
            [
                event("new", direction, from, None, None),
                event("destroy", direction, from, Some(bytes), Some(reason)),
            ]
        })
    };
    ports.iter().flat_map(of).collect()
}

/// What a record says.
fn event(record: &Value) -> Event {
    let number = |key| attribute(record, key).map(|text| text.parse::<i64>().unwrap());
    let name = record["event_name"].as_str().unwrap_or_default();
    (
        name.strip_prefix("conntrace.connection.").unwrap_or_else(|| panic!("{record}")).to_owned(),
        attribute(record, "conntrace.direction").unwrap(),
        number("client.port").unwrap().try_into().unwrap(),
        number("conntrace.bytes_sent").zip(number("conntrace.bytes_received")),
        attribute(record, "conntrace.reason"),
        attribute(record, "error.type"),
    )
}

/// What a collector has got.
#[derive(Default)]
struct Got {
    events: Vec<Value>,
    losses: Vec<Value>,
    gaps: Vec<Value>,
    /// The last request with metrics.
    metrics: Value,
}

impl Got {
    /// Reads requests until this holds.
    fn until(&mut self, sink: &Sink, what: &str, accept: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !accept(self) {
            assert!(begun.elapsed() < timeout::seconds(60), "{what}: {} events", self.events.len());
            let request = sink.next();
            if request["status"] != 200 {
                continue;
            }
            if request["path"] == "/v1/metrics" {
                self.metrics = request;
                continue;
            }
            assert_eq!(request["path"], "/v1/logs");
            let records = &request["body"]["resource_logs"][0]["scope_logs"][0]["log_records"];
            for record in records.as_array().unwrap() {
                match record["event_name"].as_str() {
                    Some("conntrace.loss") => self.losses.push(record.clone()),
                    Some("conntrace.gap") => self.gaps.push(record.clone()),
                    _ => self.events.push(record.clone()),
                }
            }
        }
    }

    /// The events, each of which arrived once.
    fn set(&self) -> BTreeSet<Event> {
        let all: BTreeSet<_> = self.events.iter().map(event).collect();
        assert_eq!(all.len(), self.events.len(), "an event arrived twice");
        all
    }

    /// A count of the export, once metrics came.
    fn count(&self, name: &str) -> i64 {
        let name = format!("conntrace.otlp.events.{name}");
        if metric(&self.metrics, &name).is_null() { -1 } else { own(&self.metrics, &name) }
    }
}

/// A configuration that exports events of these connections.
fn place(name: &str, collector: &Port, port: &Port, netns: &NetNs, more: &str) -> Place {
    let place = Place::new(name, collector, "");
    let state = place.0.join("state").display().to_string();
    place.prepend(&format!(
        "state = \"{state}\"\n[otlp.events]\nevent-mask = \"NEW,DESTROY\"\ndport = {port}\nnetns = {}\n\
         delay = \"100ms\"\n{more}\n",
        netns.inum()
    ));
    place
}

fn await_stream(tracer: &Tracer) {
    tracer.await_stderr("the stream", |line| line.contains(BEGUN));
}

fn unix_now_ns() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

#[apply(needs_tracing)]
fn what_arrives_equals_the_connections(_: &Host) -> Outcome {
    let python = python::with("opentelemetry.proto")?;
    let (port, collector) = (Port::claim(), Port::claim());
    let mut sink = Sink::start(&python, &collector);
    let netns = NetNs::new().unwrap();
    let place = place("events", &collector, &port, &netns, "");
    let daemon = place.daemon();
    await_stream(daemon.tracer());
    let begun = unix_now_ns();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    netns.run(|| assert!(TcpStream::connect(address).is_err()));
    let ports = connect(&netns, &port, 40);
    let mut got = Got::default();
    got.until(&sink, "all events", |got| got.events.len() >= 162 && got.count("exported") >= 162);

    // A connection to nobody has one end.
    let (mut all, mut wanted) = (got.set(), expected(&ports, &["in", "out"]));
    let refused: Vec<_> = all.iter().filter(|event| !ports.contains(&event.2)).cloned().collect();
    let from = refused[0].2;
    let out = || "out".to_owned();
    wanted.insert(("new".into(), out(), from, None, None, None));
    wanted.insert((
        "destroy".into(),
        out(),
        from,
        Some((0, 0)),
        Some("refused".into()),
        Some("ECONNREFUSED".into()),
    ));
    assert_eq!(all, wanted);
    assert_eq!(
        ["read", "exported", "dropped", "rejected", "lost", "gaps"].map(|name| got.count(name)),
        [162, 162, 0, 0, 0, 0]
    );
    assert!(got.losses.is_empty() && got.gaps.is_empty());
    for record in &got.events {
        let is = |key, value: &str| assert_eq!(attribute(record, key).as_deref(), Some(value), "{record}");
        let (kind, direction, from, ..) = event(record);
        is("server.port", &port.to_string());
        is("client.address", "127.0.0.1");
        is("network.transport", "tcp");
        is("conntrace.netns.inode", &netns.inum().to_string());
        if kind == "destroy" || direction == "out" {
            is("process.pid", &process::id().to_string());
        }
        let body = record["body"]["string_value"].as_str().unwrap();
        let kind = kind.to_uppercase();
        assert_eq!(body, format!("{kind} 127.0.0.1:{from} -> 127.0.0.1:{port}"));
        assert_eq!(record["severity_text"], "INFO");
        let (time, observed) =
            (number(&record["time_unix_nano"]), number(&record["observed_time_unix_nano"]));
        assert!(begun - 1_000_000 < time && time < observed && observed < unix_now_ns(), "{record}");
    }

    // Rejected records are counted, and a request that is refused is told by the next one.
    sink.answer("partial 3");
    let more = connect(&netns, &port, 1);
    got.until(&sink, "rejected events", |got| got.count("rejected") >= 3);
    sink.answer("400");
    connect(&netns, &port, 1);
    daemon.tracer().await_stderr("a refusal", |line| line.contains("refuses events (status 400"));
    sink.answer("200");
    let last = connect(&netns, &port, 1);
    got.until(&sink, "the loss", |got| {
        let parts = ["exported", "dropped", "rejected"].map(|name| got.count(name));
        parts.iter().sum::<i64>() == 162 + 12 && !got.losses.is_empty()
    });
    assert_eq!(attribute(&got.losses[0], "conntrace.loss.count"), Some(got.count("dropped").to_string()));
    all = got.set();
    let known = expected(&[ports, more, last].concat(), &["in", "out"]);
    assert!(all.difference(&wanted).all(|event| known.contains(event)), "{all:?}");
    let text = daemon.end(Signal::SIGTERM).stderr;
    assert!(text.contains("rejects 3 events: too old"), "{text}");
    Ok(())
}

#[apply(needs_tracing)]
fn a_collector_that_is_away_gets_what_waits_and_the_number_of_the_rest(_: &Host) -> Outcome {
    let python = python::with("opentelemetry.proto")?;
    let (port, collector) = (Port::claim(), Port::claim());
    let netns = NetNs::new().unwrap();
    let place = place("events-away", &collector, &port, &netns, "direction = \"out\"\nbatch = 5");
    let daemon = place.daemon();
    await_stream(daemon.tracer());
    // As many as may wait.
    let first = connect(&netns, &port, 40);
    daemon.tracer().await_stderr("a failure", |line| line.contains("sending events to"));
    let sink = Sink::start(&python, &collector);
    let mut got = Got::default();
    got.until(&sink, "what waited", |got| got.events.len() >= 80 && got.count("exported") >= 80);
    assert_eq!(got.set(), expected(&first, &["out"]));
    assert_eq!((got.count("dropped"), got.losses.len()), (0, 0));

    // Far more.
    drop(sink);
    let second = connect(&netns, &port, 150);
    daemon.tracer().await_stderr("dropped events", |line| line.contains("does not take events"));
    let sink = Sink::start(&python, &collector);
    got.until(&sink, "the rest", |got| {
        let [read, exported, dropped] = ["read", "exported", "dropped"].map(|name| got.count(name));
        let told = got.losses.iter().map(|loss| attribute(loss, "conntrace.loss.count").unwrap());
        let told: i64 = told.map(|count| count.parse::<i64>().unwrap()).sum();
        read == 380 && exported + dropped == read && told == dropped
    });
    let (arrived, dropped) = (got.set(), got.count("dropped"));
    let all = expected(&[first, second].concat(), &["out"]);
    assert!(arrived.is_subset(&all));
    assert_eq!(arrived.len().cast_signed() as i64 + dropped, 380, "{dropped} dropped");
    // 16 requests wait, of which the first may have fewer than 5, and a batch that is not full.
    assert!((300 - 16 * 5 - 4..300 - 15 * 5).contains(&dropped), "{dropped}");
    for loss in &got.losses {
        assert_eq!(attribute(loss, "conntrace.loss.place").as_deref(), Some("export"));
        assert_eq!(loss["severity_number"], "SEVERITY_NUMBER_WARN");
        let bound = |key| attribute(loss, key).unwrap().parse::<i64>().unwrap();
        assert!(bound("conntrace.loss.since") < bound("conntrace.loss.until"));
    }
    daemon.end(Signal::SIGTERM);
    Ok(())
}

#[apply(needs_tracing)]
fn a_gap_is_told_after_a_killed_front_and_a_killed_daemon(_: &Host) -> Outcome {
    let python = python::with("opentelemetry.proto")?;
    let (port, collector) = (Port::claim(), Port::claim());
    let sink = Sink::start(&python, &collector);
    let netns = NetNs::new().unwrap();
    let place = place("events-gap", &collector, &port, &netns, "direction = \"out\"");
    let pins = Pins::new();
    let start = || pins.serve().arguments(["--config", &place.config()]).start();
    let daemon = start();
    await_stream(&daemon);
    let first = connect(&netns, &port, 10);
    let mut got = Got::default();
    got.until(&sink, "the first", |got| got.events.len() >= 20);

    // The stream ends, and the export goes on with another one.
    let killed = unix_now_ns();
    send(Pid::from_raw(front(&daemon)), Signal::SIGKILL).unwrap();
    got.until(&sink, "a gap", |got| got.gaps.len() == 1 && got.count("gaps") == 1);
    let second = connect(&netns, &port, 10);
    got.until(&sink, "the second", |got| got.events.len() >= 40);
    assert_eq!(got.set(), expected(&[first.clone(), second.clone()].concat(), &["out"]));
    let bounds = |gap: &Value| {
        ["conntrace.gap.since", "conntrace.gap.until"]
            .map(|key| attribute(gap, key).unwrap().parse::<i64>().unwrap())
    };
    let [since, until] = bounds(&got.gaps[0]);
    assert!(since < killed && killed < until && until < unix_now_ns(), "{since} {killed} {until}");

    // The daemon ends with the export, and the next one knows since when.
    let killed = unix_now_ns();
    kill(daemon);
    connect(&netns, &port, 5);
    let missed = unix_now_ns();
    let daemon = start();
    await_stream(&daemon);
    let third = connect(&netns, &port, 10);
    got.until(&sink, "the third", |got| got.events.len() >= 60 && got.gaps.len() == 2);
    assert_eq!(got.set(), expected(&[first, second, third].concat(), &["out"]));
    let [since, until] = bounds(&got.gaps[1]);
    assert!(since < killed && missed < until && until < unix_now_ns(), "{since} {killed} {missed} {until}");
    // The state is kept, so the gap does not begin with the epoch.
    assert!(since > killed - 60_000_000_000, "{since} {killed}");
    daemon.signal(Signal::SIGTERM);
    let text = daemon.await_end().stderr;
    assert!(text.contains("the export of events has a gap"), "{text}");
    pins.detach();
    Ok(())
}

/// The process that speaks to clients.
fn front(daemon: &Tracer) -> i32 {
    Daemon::front_of(daemon.pid()).cast_signed()
}

#[apply(needs_tracing)]
fn a_real_collector_passes_events_on(_: &Host) -> Outcome {
    let python = python::with("rotel, opentelemetry.proto")?;
    let (port, collector, grpc, behind) = (Port::claim(), Port::claim(), Port::claim(), Port::claim());
    let sink = Sink::start(&python, &behind);
    let netns = NetNs::new().unwrap();
    let place = place("events-real", &collector, &port, &netns, "");
    let _rotel = place.rotel(&python, &collector, &grpc, &behind);
    let daemon = place.daemon();
    await_stream(daemon.tracer());
    let ports = connect(&netns, &port, 30);
    let mut got = Got::default();
    got.until(&sink, "all events", |got| got.events.len() >= 120);
    assert_eq!(got.set(), expected(&ports, &["in", "out"]));
    daemon.end(Signal::SIGTERM);
    Ok(())
}
