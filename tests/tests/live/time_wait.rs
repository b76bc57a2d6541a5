//! Connections in TIME_WAIT, which either side may have closed first, beside `ss`.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    tracer::Setup,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    io::Read as _,
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::Command,
};

/// Connections of each kind. The kernel keeps some thousands in TIME_WAIT in each namespace.
const MANY: usize = 1_500;
/// The server closes first, and still listens.
const SERVER_FIRST: u16 = 7_101;
/// The client closes first.
const CLIENT_FIRST: u16 = 7_102;
/// The server closes first, and listens no more.
const SERVER_GONE: u16 = 7_103;

/// `count` connections to `port`, closed in good order. Returns the listener.
fn closed(ns: &NetNs, port: u16, count: usize, is_server_first: bool) -> TcpListener {
    ns.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        for _ in 0..count {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let (first, mut second) = if is_server_first { (server, client) } else { (client, server) };
            drop(first);
            assert_eq!(second.read(&mut [0]).unwrap(), 0);
        }
        listener
    })
}

/// What conntrace prints about connections in TIME_WAIT.
fn lines(ns: &NetNs, command: &[&str]) -> Vec<String> {
    let netns = ns.inum().to_string();
    let options = ["--state", "time-wait", "--netns", &netns];
    let ended = Setup::new(command.iter().copied().chain(options)).run();
    ended.expect_code(0);
    ended.stdout
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

/// How many connections in TIME_WAIT `ss` shows.
fn of_ss(ns: &NetNs, filter: &str) -> Result<usize, Skip> {
    let output = ns
        .run(|| Command::new("ss").args(["-tanH", "-O", "state", "time-wait", filter]).output())
        .map_err(|error| Skip(format!("cannot run ss: {error}")))?;
    assert!(output.status.success(), "ss {filter}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout).unwrap().lines().count())
}

#[apply(needs_tracing)]
fn service_port_is_that_of_the_listener(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let _listeners = [closed(&ns, SERVER_FIRST, MANY, true), closed(&ns, CLIENT_FIRST, MANY, false)];
    drop(closed(&ns, SERVER_GONE, 20, true));
    let counts = json(&lines(&ns, &["count", "--by", "port", "-o", "json"]).concat());
    let counted = |port: u16| {
        let row = counts.as_array().unwrap().iter().find(|row| row["port"] == port);
        row.and_then(|row| row["open"].as_u64()).unwrap_or(0) as usize
    };
    for (port, filter, least) in [
        (SERVER_FIRST, "sport = :7101", MANY / 2),
        (CLIENT_FIRST, "dport = :7102", MANY / 2),
        (SERVER_GONE, "sport = :7103", 10),
    ] {
        let expected = of_ss(&ns, filter)?;
        assert!(expected >= least, "ss {filter}: {expected}");
        assert_eq!(counted(port), expected, "{port}");
    }
    assert_eq!(counts.as_array().unwrap().len(), 3, "{counts}");
    Ok(())
}

#[apply(needs_tracing)]
fn direction_is_shown_where_it_is_certain(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let _listeners = [closed(&ns, SERVER_FIRST, 1, true), closed(&ns, CLIENT_FIRST, 1, false)];
    drop(closed(&ns, SERVER_GONE, 1, true));
    let rows: Vec<Value> = lines(&ns, &["list", "-o", "json"]).iter().map(|line| json(line)).collect();
    let documents: Vec<Value> =
        lines(&ns, &["list", "-o", "json-ecs"]).iter().map(|line| json(line)).collect();
    assert_eq!((rows.len(), documents.len()), (3, 3), "{rows:#?}");
    for (port, direction, local_end) in [
        (SERVER_FIRST, "in".into(), Value::Null),
        (CLIENT_FIRST, "out".into(), Value::Null),
        (SERVER_GONE, Value::Null, "dst".into()),
    ] {
        let row = rows.iter().find(|row| row["dport"] == port).unwrap_or_else(|| panic!("{port}: {rows:#?}"));
        assert_eq!((&row["direction"], &row["local_end"]), (&direction, &local_end), "{row}");
        // A mini-socket has none of these.
        for unknown in ["id", "bytes_sent", "bytes_received", "segments_sent", "send_queue", "pid", "age_ns"]
        {
            assert_eq!(row.get(unknown), Some(&Value::Null), "{unknown}: {row}");
        }
        let document = documents.iter().find(|document| document["destination.port"] == port).unwrap();
        assert!(document.get("source.bytes").is_none(), "{document}");
        let server = document.get("server.port");
        assert_eq!(server, Some(&Value::from(port)).filter(|_| !direction.is_null()), "{document}");
    }
    Ok(())
}
