//! A connection of QUIC between two real ends: one flow at each, with its owner, its protocol and its bytes.

use super::{await_json, watch};
use conn_tests::{harness::Outcome, host::Host, needs_tracing, netns::NetNs, port::Port, python};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
};

/// Both ends.
const PAIR: &str = include_str!("quic.py");

/// Starts an end in a namespace.
fn start(netns: &NetNs, python: &OsString, end: &str, port: &Port) -> Child {
    let mut command = Command::new(python);
    command.args(["-c", PAIR, end, &port.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    netns.run(|| command.spawn()).unwrap()
}

/// What an end that is done has counted.
fn totals(child: Child) -> Value {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[apply(needs_tracing)]
fn quic_is_one_flow_at_each_end(_: &Host) -> Outcome {
    let python = python::with("aioquic")?;
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let tracer = watch(&netns, &["-o", "json"]);
    let mut server = start(&netns, &python, "server", &port);
    let mut said = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let client = start(&netns, &python, "client", &port);
    let pids = [client.id(), server.id()];
    let asked = totals(client);
    drop(server.stdin.take());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert!(server.wait().unwrap().success());
    let answered: Value = serde_json::from_str(&rest).unwrap();
    assert!(asked["bytes_sent"].as_u64() > Some(100_000), "{asked}");

    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    let new =
        tracer.await_json("the first packet", |event| event["event"] == "new" && event["direction"] == "out");
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, new["sport"].as_u64().unwrap() as u16));
    for (direction, pid, counted) in [("out", pids[0], &asked), ("in", pids[1], &answered)] {
        let new = await_json(&tracer, "new", direction, client, address);
        let end = await_json(&tracer, "destroy", direction, client, address);
        for event in [&new, &end] {
            assert_eq!((&event["app"], &event["pid"]), (&"quic".into(), &pid.into()), "{event}");
        }
        let numbers = ["segments_sent", "bytes_sent", "segments_received", "bytes_received"];
        let names = ["packets_sent", "bytes_sent", "packets_received", "bytes_received"];
        let of = |value: &Value, names: [&str; 4]| names.map(|name| value[name].as_u64());
        assert_eq!(of(&end, numbers), of(counted, names), "{end} {counted}");
    }
    let events = tracer.stop();
    let begun = events.stdout.iter().filter(|line| line.contains("\"new\"")).count();
    assert_eq!(begun, 2, "{events:#?}");
    Ok(())
}
