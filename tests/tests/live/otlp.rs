//! Metrics by OTLP: what a collector decodes with the official package equals the ledger.

mod events;
mod sink;

use self::sink::{Place, Sink, attribute, number};
use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing,
    pins::{Pins, kill},
    port::Port,
    python,
    tracer::Setup,
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use std::{
    fs,
    net::{Ipv4Addr, TcpStream},
    process::Command,
};

/// The metric of a request.
fn metric<'a>(request: &'a Value, name: &str) -> &'a Value {
    let metrics = &request["body"]["resource_metrics"][0]["scope_metrics"][0]["metrics"];
    let found = metrics.as_array().into_iter().flatten().find(|metric| metric["name"] == name);
    found.unwrap_or(&Value::Null)
}

/// The points of a metric that have a direction and a port.
fn points<'a>(request: &'a Value, name: &str, direction: &str, port: &Port) -> Vec<&'a Value> {
    let metric = metric(request, name);
    let data = ["sum", "gauge", "exponential_histogram"].iter().find_map(|kind| metric.get(kind));
    let points = data.and_then(|data| data["data_points"].as_array());
    let is_of = |point: &&Value| {
        attribute(point, "conntrace.direction").as_deref() == Some(direction)
            && attribute(point, "server.port") == Some(port.to_string())
    };
    points.into_iter().flatten().filter(is_of).collect()
}

/// The sum of the points of a metric.
fn sum(request: &Value, name: &str, direction: &str, port: &Port) -> i64 {
    points(request, name, direction, port).iter().map(|point| number(&point["as_int"])).sum()
}

/// A metric without attributes.
fn own(request: &Value, name: &str) -> i64 {
    number(&metric(request, name)["sum"]["data_points"][0]["as_int"])
}

/// Nanoseconds of the epoch that the daemon shows.
fn epoch_ns(stats: &Value) -> i64 {
    let text = stats["epoch"]["time"].as_str().unwrap();
    let time = Command::new("date").args(["-d", text, "+%s%N"]).output().unwrap();
    String::from_utf8(time.stdout).unwrap().trim().parse().unwrap()
}

/// What arrived equals what the daemon says of a port that stands still.
fn assert_equal(request: &Value, stats: &Value, port: &Port) {
    for direction in ["in", "out"] {
        let rows = stats["ports"].as_array().unwrap();
        let is_of = |row: &&Value| row["port"] == port.number() && row["direction"] == direction;
        let row = rows.iter().find(is_of).unwrap_or_else(|| panic!("{direction}: {rows:?}"));
        for (name, column) in [
            ("conntrace.tcp.connections.opened", "opened"),
            ("conntrace.tcp.connections.preexisting", "preexisting"),
            ("conntrace.tcp.connections.established", "established"),
            ("conntrace.tcp.connections.failed", "failed"),
            ("conntrace.tcp.connections.ended", "closed"),
            ("conntrace.tcp.connection.count", "open"),
            ("conntrace.tcp.retransmits", "retransmits"),
        ] {
            assert_eq!(sum(request, name, direction, port), row[column], "{name} {direction}: {row}");
        }
        let bytes: Vec<_> = ["bytes_sent", "bytes_received"].iter().map(|name| row[name].as_i64()).collect();
        let of = |way: &str| {
            let points = points(request, "conntrace.tcp.io", direction, port);
            let is_of = |point: &&&Value| attribute(point, "network.io.direction").as_deref() == Some(way);
            points.iter().find(is_of).map(|point| number(&point["as_int"]))
        };
        assert_eq!(vec![of("transmit"), of("receive")], bytes, "{direction}: {row}");
    }
}

/// The options of a filter that names the port in both directions.
fn ports(port: &Port) -> String {
    format!("ports = [{port}]\nlifetimes = true")
}

#[apply(needs_tracing)]
fn what_arrives_equals_the_ledger(_: &Host) -> Outcome {
    let python = python::with("opentelemetry.proto")?;
    let (port, collector) = (Port::claim(), Port::claim());
    let mut sink = Sink::start(&python, &collector);
    let place = Place::new("equal", &collector, &ports(&port));
    let daemon = place.daemon();
    close::orderly(port.v4(), 100, First::Client);
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_err());
    let is_whole = |request: &Value| {
        let ends = ["in", "out"].map(|way| sum(request, "conntrace.tcp.connections.ended", way, &port));
        ends == [100, 100] && sum(request, "conntrace.tcp.connections.failed", "out", &port) == 1
    };
    let request = sink.await_one("100 connections", is_whole);
    let stats = daemon.json("/v1/stats?output=json&lifetimes");
    assert_equal(&request, &stats, &port);
    assert_eq!(
        (&request["path"], &request["headers"]["authorization"]),
        (&"/v1/metrics".into(), &"Bearer x".into())
    );

    // Each sum is cumulative since the epoch.
    assert_eq!(daemon.json("/v1/health")["commands"], 0, "no stream of events");
    let opened = metric(&request, "conntrace.tcp.connections.opened");
    assert_eq!(opened["sum"]["is_monotonic"], true);
    assert_eq!(opened["sum"]["aggregation_temporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    let point = points(&request, "conntrace.tcp.connections.opened", "in", &port)[0];
    let start = number(&point["start_time_unix_nano"]);
    assert_eq!(start, epoch_ns(&stats));
    assert!(number(&point["time_unix_nano"]) > start);
    let resource = &request["body"]["resource_metrics"][0]["resource"];
    assert_eq!(attribute(resource, "service.name").as_deref(), Some("conntrace"));
    assert_eq!(attribute(resource, "os.type").as_deref(), Some("linux"));

    // Histograms have the buckets of the ledger.
    for (name, span) in
        [("conntrace.tcp.handshake.duration", "handshake"), ("conntrace.tcp.connection.duration", "lifetime")]
    {
        let rows = stats["lifetimes"].as_array().unwrap();
        let is_of =
            |row: &&Value| row["port"] == port.number() && row["direction"] == "out" && row["span"] == span;
        let row = rows.iter().find(is_of).unwrap();
        let point = points(&request, name, "out", &port)[0];
        assert_eq!((point["scale"].as_i64(), number(&point["count"])), (Some(2), 100), "{point}");
        let offset = number(&point["positive"]["offset"]);
        let counts = point["positive"]["bucket_counts"].as_array().unwrap();
        let arrived: Vec<_> = counts
            .iter()
            .enumerate()
            .filter(|(_, count)| number(count) != 0)
            .map(|(at, count)| {
                let upper = 2_f64.powf((offset as f64 + at as f64 + 1.0) / 4.0) * 1e9;
                (upper.floor(), number(count))
            })
            .collect();
        let known: Vec<_> = row["buckets"]
            .as_array()
            .unwrap()
            .iter()
            .map(|bucket| (bucket["to_ns"].as_f64().unwrap(), bucket["count"].as_i64().unwrap()))
            .collect();
        assert_eq!(arrived, known, "{name}");
    }

    // Rejected points are counted, and named.
    sink.answer("partial 3");
    let request =
        sink.await_one("rejected points", |request| own(request, "conntrace.otlp.points.rejected") >= 3);
    assert_eq!(own(&request, "conntrace.otlp.requests.dropped"), 0);
    let text = daemon.end(Signal::SIGTERM).stderr;
    assert!(text.contains("rejects 3 data points: too old"), "{text}");
    assert!(!text.contains("Bearer"), "{text}");
    Ok(())
}

#[apply(needs_tracing)]
fn a_collector_that_is_away_gets_what_waits_and_hears_what_does_not(_: &Host) -> Outcome {
    let python = python::with("opentelemetry.proto")?;
    let (port, collector) = (Port::claim(), Port::claim());
    let place = Place::new("away", &collector, &ports(&port));
    let daemon = place.daemon();
    daemon.tracer().await_stderr("a failure", |line| line.contains("it is tried again"));
    close::orderly(port.v4(), 7, First::Client);
    // More readings than may wait: the oldest are dropped.
    daemon.tracer().await_stderr("dropped requests", |line| line.contains("requests that wait dropped"));
    let mut sink = Sink::start(&python, &collector);
    // Those that waited come first, in their order, and each is one reading.
    let first: Vec<_> = (0..16).map(|_| sink.next()).collect();
    let times: Vec<_> = first
        .iter()
        .map(|request| {
            number(&metric(request, "conntrace.exact")["gauge"]["data_points"][0]["time_unix_nano"])
        })
        .collect();
    assert!(times.is_sorted_by(|one, next| one < next), "{times:?}");
    let request =
        sink.await_one("dropped requests", |request| own(request, "conntrace.otlp.requests.dropped") > 0);
    assert_eq!(sum(&request, "conntrace.tcp.connections.opened", "in", &port), 7);
    daemon.tracer().await_stderr("the end of trouble", |line| line.contains("takes metrics again"));

    // A request that the collector is too busy for comes again, after the time that it asks for.
    sink.answer("503 1");
    let refused = sink.await_one("a refusal", |request| request["status"] == 503);
    sink.answer("200");
    let again = sink.await_one("the same request", |request| request["status"] == 200);
    assert_eq!(again["body"], refused["body"]);
    // One that it will never take does not.
    let before = own(&sink.next(), "conntrace.otlp.requests.dropped");
    sink.answer("400");
    let refused = sink.await_one("a refusal", |request| request["status"] == 400);
    sink.answer("200");
    let next = sink.await_one("dropped requests", |request| {
        own(request, "conntrace.otlp.requests.dropped") > before && request["status"] == 200
    });
    assert_ne!(next["body"], refused["body"]);
    let text = daemon.end(Signal::SIGTERM).stderr;
    assert!(text.contains("refuses metrics (status 400"), "{text}");
    Ok(())
}

#[apply(needs_tracing)]
fn sums_go_on_over_a_killed_daemon_and_a_killed_export(_: &Host) -> Outcome {
    let python = python::with("opentelemetry.proto")?;
    let (port, collector) = (Port::claim(), Port::claim());
    let sink = Sink::start(&python, &collector);
    let pins = Pins::new();
    // The file is empty: the environment has the endpoint.
    let endpoint = format!("http://127.0.0.1:{collector}");
    let start = || {
        pins.serve()
            .arguments(["--config", "/dev/null"])
            .variable("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .variable("OTEL_METRIC_EXPORT_INTERVAL", "200")
            .variable("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
            .start()
    };
    let opened = |request: &Value| sum(request, "conntrace.tcp.connections.opened", "in", &port);
    let start_of = |request: &Value| {
        points(request, "conntrace.tcp.connections.opened", "in", &port)[0]["start_time_unix_nano"].clone()
    };
    let daemon = start();
    close::orderly(port.v4(), 10, First::Client);
    let before = sink.await_one("10 connections", |request| opened(request) == 10);
    let resource = &before["body"]["resource_metrics"][0]["resource"];
    assert_eq!(attribute(resource, "deployment.environment.name").as_deref(), Some("test"));
    kill(daemon);
    // Counted without a daemon.
    close::orderly(port.v4(), 5, First::Client);
    let daemon = start();
    let after = sink.await_one("15 connections", |request| opened(request) >= 15);
    assert_eq!((opened(&after), start_of(&after)), (15, start_of(&before)));

    // The export ends alone, and is started again.
    let pid = daemon.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let is_export = |child: &&str| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).nth(1) == Some(b"export-otlp")
    };
    let export = children.split_ascii_whitespace().find(is_export).expect("a process");
    let status = fs::read_to_string(format!("/proc/{export}/status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(!status.contains("Uid:\t0\t"), "{status}");
    nix::sys::signal::kill(Pid::from_raw(export.parse().unwrap()), Signal::SIGKILL).unwrap();
    close::orderly(port.v4(), 3, First::Client);
    let after = sink.await_one("18 connections", |request| opened(request) >= 18);
    assert_eq!((opened(&after), start_of(&after)), (18, start_of(&before)));
    daemon.signal(Signal::SIGTERM);
    let text = daemon.await_end().stderr;
    assert!(text.contains("the export by OTLP has ended (signal: 9"), "{text}");
    pins.detach();
    Ok(())
}

#[apply(needs_tracing)]
fn a_real_collector_passes_on_what_the_ledger_has(_: &Host) -> Outcome {
    let python = python::with("rotel, opentelemetry.proto")?;
    let (port, collector, grpc, behind) = (Port::claim(), Port::claim(), Port::claim(), Port::claim());
    let sink = Sink::start(&python, &behind);
    let place = Place::new("real", &collector, &ports(&port));
    let start = || place.rotel(&python, &collector, &grpc, &behind);
    let rotel = start();
    let daemon = place.daemon();
    close::orderly(port.v4(), 50, First::Client);
    let ended = |request: &Value| {
        ["in", "out"].map(|way| sum(request, "conntrace.tcp.connections.ended", way, &port))
    };
    let request = sink.await_one("50 connections", |request| ended(request) == [50, 50]);
    assert_equal(&request, &daemon.json("/v1/stats?output=json"), &port);
    // The collector is killed, and comes back.
    drop(rotel);
    daemon.tracer().await_stderr("a failure", |line| line.contains("it is tried again"));
    close::orderly(port.v4(), 20, First::Client);
    let _rotel = start();
    let request = sink.await_one("70 connections", |request| ended(request) == [70, 70]);
    let stats = daemon.json("/v1/stats?output=json");
    assert_equal(&request, &stats, &port);
    let point = points(&request, "conntrace.tcp.connections.opened", "in", &port)[0];
    assert_eq!(number(&point["start_time_unix_nano"]), epoch_ns(&stats));
    daemon.end(Signal::SIGTERM);
    Ok(())
}

#[apply(needs_tracing)]
fn mistakes_have_their_place(_: &Host) -> Outcome {
    let place = Place::new("mistakes", &Port::claim(), "");
    fs::write(place.config(), "[otlp]\nendpoint = \"collector:4318\"\n").unwrap();
    let wrong = Setup::new(["serve", "--check", "--config", &place.config()]).run();
    assert!(wrong.expect_code(1).contains("line 2, column 12: an endpoint is a URL"), "{wrong:?}");
    fs::write(place.config(), "[otlp]\nendpoint = \"http://c\"\n[otlp.events]\ndprot = 22\n").unwrap();
    let wrong = Setup::new(["serve", "--check", "--config", &place.config()]).run();
    assert!(wrong.expect_code(1).contains("line 4, column 1: unknown key"), "{wrong:?}");
    fs::write(place.config(), "").unwrap();
    let wrong = Setup::new(["serve", "--check", "--config", &place.config()])
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1]:4317")
        .variable("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .run();
    assert!(wrong.expect_code(2).contains("OTEL_EXPORTER_OTLP_PROTOCOL: conntrace speaks"), "{wrong:?}");
    Ok(())
}
