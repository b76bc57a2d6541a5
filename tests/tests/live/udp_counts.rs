//! `stats -p udp`: begun, ended and open flows per port, with packets and bytes, and the audit against the kernel's counters.

use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing, needs_whole_machine,
    netns::NetNs,
    port::Port,
    snmp::Snmp,
    tracer::{Setup, Tracer},
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    env,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

fn watch(options: &[&str]) -> Tracer {
    Setup::new(["stats", "-p", "udp", "-o", "json"].iter().chain(options)).start()
}

/// The flows of the last report.
fn stop(tracer: Tracer) -> Value {
    let ended = tracer.stop();
    ended.expect_code(0);
    let last = ended.stdout.last().expect("a report");
    serde_json::from_str::<Value>(last).unwrap()["udp"].take()
}

/// Columns of the row of a direction and a port; all `null` if there is no row.
fn row<const N: usize>(report: &Value, direction: &str, port: &Port, columns: [&str; N]) -> [Value; N] {
    let rows = report["ports"].as_array().unwrap();
    let is_wanted = |row: &&Value| row["direction"] == direction && row["port"] == port.number();
    let found = rows.iter().find(is_wanted).cloned().unwrap_or_default();
    columns.map(|column| found[column].clone())
}

/// What the audit says of a namespace.
fn audit<const N: usize>(report: &Value, netns: &NetNs, columns: [&str; N]) -> [Value; N] {
    let all = report["audit"]["netns"].as_array().unwrap();
    let found = all.iter().find(|one| one["netns"] == netns.inum()).unwrap_or_else(|| panic!("{report}"));
    columns.map(|column| found[column].clone())
}

fn numbers<const N: usize>(values: [u64; N]) -> [Value; N] {
    values.map(Value::from)
}

fn bind(netns: &NetNs, address: impl Into<SocketAddr>) -> UdpSocket {
    let address = address.into();
    netns.run(|| UdpSocket::bind(address).unwrap())
}

/// A client that is connected to a server.
fn connect(netns: &NetNs, to: SocketAddr) -> UdpSocket {
    let client = bind(netns, (Ipv4Addr::LOCALHOST, 0));
    client.connect(to).unwrap();
    client
}

const ENDS: [&str; 6] = ["begun", "replied", "closed", "timed_out", "refused", "open"];
const TRAFFIC: [&str; 4] = ["packets_sent", "packets_received", "bytes_sent", "bytes_received"];
const AUDIT: [&str; 5] = ["agrees", "out_datagrams", "sent_from", "in_datagrams", "received_from"];

#[apply(needs_tracing)]
fn counts_equal_the_exchanges(_: &Host) -> Outcome {
    const CLIENTS: u64 = 200;
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let tracer = watch(&[]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, port.number()));
    let clients: Vec<UdpSocket> =
        (0..CLIENTS).map(|_| connect(&netns, server.local_addr().unwrap())).collect();
    let mut buffer = [0; 64];
    for client in &clients {
        client.send(b"query").unwrap();
        let (_, from) = server.recv_from(&mut buffer).unwrap();
        server.send_to(b"the answer", from).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 10);
    }
    drop((clients, server));
    let report = stop(tracer);
    let ends = numbers([CLIENTS, CLIENTS, CLIENTS, 0, 0, 0]);
    for (direction, bytes) in [("out", [5, 10]), ("in", [10, 5])] {
        assert_eq!(row(&report, direction, &port, ENDS), ends, "{direction}: {report}");
        let [sent, received] = bytes.map(|bytes| bytes * CLIENTS);
        let traffic = numbers([CLIENTS, CLIENTS, sent, received]);
        assert_eq!(row(&report, direction, &port, TRAFFIC), traffic, "{direction}: {report}");
    }
    let packets = Value::from(2 * CLIENTS);
    let expected = [json!(true), packets.clone(), packets.clone(), packets.clone(), packets];
    assert_eq!(audit(&report, &netns, AUDIT), expected, "{report}");
    Ok(())
}

/// A small table has room for a few flows. The packets of the others are counted, also by the audit. Other flows of this host
/// may be in the table, too.
#[apply(needs_tracing)]
fn packets_without_room_are_counted(_: &Host) -> Outcome {
    const PEERS: u8 = 100;
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let tracer = watch(&["--max-flows", "16"]);
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    for peer in 1..=PEERS {
        client.send_to(b"query", (Ipv4Addr::new(127, 0, 1, peer), port.number())).unwrap();
    }
    let report = stop(tracer);
    let [begun] = row(&report, "out", &port, ["begun"]).map(|value| value.as_u64().unwrap_or_default());
    let [packets, bytes] = ["packets_untracked", "bytes_untracked"].map(|key| report[key].as_u64().unwrap());
    assert!(begun <= 16 && begun + packets >= PEERS.into(), "{report}");
    assert!(bytes >= 5 * (u64::from(PEERS) - begun), "{report}");
    assert_eq!(audit(&report, &netns, ["agrees", "sent_from"]), [json!(true), PEERS.into()], "{report}");
    Ok(())
}

#[apply(needs_tracing)]
fn flows_that_are_alive_are_open(_: &Host) -> Outcome {
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let tracer = watch(&["--dport", &port.to_string()]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, port.number()));
    let client = connect(&netns, server.local_addr().unwrap());
    client.send(b"query").unwrap();
    let report = stop(tracer);
    let open = numbers([1, 0, 0, 0, 0, 1]);
    assert_eq!(row(&report, "out", &port, ENDS), open, "{report}");
    assert_eq!(row(&report, "in", &port, ENDS), open, "{report}");
    // Other ports do not pass the filter. The kernel counts a packet when a process reads it.
    assert_eq!(report["ports"].as_array().unwrap().len(), 2, "{report}");
    let expected = [json!(true), json!(1), json!(1), json!(0), json!(1)];
    assert_eq!(audit(&report, &netns, AUDIT), expected, "{report}");
    Ok(())
}

#[apply(needs_tracing)]
fn refused_flows_are_counted(_: &Host) -> Outcome {
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let tracer = watch(&[]);
    for _ in 0..3 {
        let client = connect(&netns, (Ipv4Addr::LOCALHOST, port.number()).into());
        client.send(b"x").unwrap();
        let error = client.recv(&mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    let report = stop(tracer);
    assert_eq!(row(&report, "out", &port, ENDS), numbers([3, 0, 0, 0, 3, 0]), "{report}");
    assert_eq!(row(&report, "in", &port, ENDS), [const { Value::Null }; 6], "{report}");
    Ok(())
}

#[apply(needs_tracing)]
fn full_receive_buffers_are_counted(_: &Host) -> Outcome {
    const SENT: u64 = 300;
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let tracer = watch(&[]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, port.number()));
    socket2::SockRef::from(&server).set_recv_buffer_size(4_096).unwrap();
    let client = connect(&netns, server.local_addr().unwrap());
    for _ in 0..SENT {
        client.send(&[7; 500]).unwrap();
    }
    let dropped = Snmp::of(&netns).get("Udp.RcvbufErrors");
    assert!(dropped > 0);
    // What was queued is never read.
    drop((client, server));
    let report = stop(tracer);
    let columns = ["packets_received", "bytes_received", "dropped"];
    let expected = numbers([SENT, 500 * SENT, dropped]);
    assert_eq!(row(&report, "in", &port, columns), expected, "{report}");
    let columns = ["agrees", "in_datagrams", "receive_errors", "received_to"];
    let expected = [json!(true), json!(0), json!(dropped), json!(SENT)];
    assert_eq!(audit(&report, &netns, columns), expected, "{report}");
    Ok(())
}

/// A socket per query, on two CPUs, as fast as they can, while conntrace does not run. The table of flows is the host's: other
/// tests would take its room.
#[apply(needs_whole_machine)]
fn load_is_counted_while_the_tracer_is_stopped(_: &Host) -> Outcome {
    const CLIENTS: usize = 2;
    let queries = env::var("CONNTRACE_TEST_QUERIES").map_or(40_000, |text| text.parse().unwrap());
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
    let tracer = watch(&[]);
    tracer.signal(Signal::SIGSTOP);
    let (server, began) = (bind(&netns, address), Instant::now());
    let peers = thread::scope(|scope| {
        let serve = scope.spawn(|| {
            let (mut buffer, mut peers) = ([0; 64], BTreeSet::new());
            loop {
                let (length, from) = server.recv_from(&mut buffer).unwrap();
                if length == 0 {
                    return peers;
                }
                peers.insert(from);
                server.send_to(b"answer", from).unwrap();
            }
        });
        let clients = [(); CLIENTS].map(|()| {
            scope.spawn(|| {
                netns.run(|| {
                    for _ in 0..queries / CLIENTS {
                        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
                        client.connect(address).unwrap();
                        client.send(b"ask").unwrap();
                        assert_eq!(client.recv(&mut [0; 64]).unwrap(), 6);
                    }
                });
            })
        });
        for client in clients {
            client.join().unwrap();
        }
        connect(&netns, address).send(b"").unwrap();
        serve.join().unwrap()
    });
    let made_in = began.elapsed();
    drop(server);
    tracer.signal(Signal::SIGCONT);
    let report = stop(tracer);
    let total = queries as u64;
    let [begun, replied, closed, .., open] = row(&report, "out", &port, ENDS);
    assert_eq!([begun, replied, closed, open], numbers([total + 1, total, total + 1, 0]), "{report}");
    let traffic = numbers([total + 1, total, 3 * total, 6 * total]);
    assert_eq!(row(&report, "out", &port, TRAFFIC), traffic, "{report}");
    let traffic = numbers([total, total + 1, 6 * total, 3 * total]);
    assert_eq!(row(&report, "in", &port, TRAFFIC), traffic, "{report}");
    // The last packet may come from a port that was used before. On a slow machine, flows end by their idle time, and ports
    // that are used again begin others.
    let most = if made_in < Duration::from_secs(30) { 1 } else { total };
    let [begun, closed, open] = row(&report, "in", &port, ["begun", "closed", "open"]);
    let flows = begun.as_u64().unwrap();
    assert!((0..=most).contains(&(flows - peers.len() as u64)), "{flows} {}", peers.len());
    assert_eq!([closed, open], numbers([flows, 0]), "{report}");
    assert_eq!(audit(&report, &netns, ["agrees"]), [json!(true)], "{report}");
    Ok(())
}

/// Both protocols in one report, and again at an interval.
#[apply(needs_tracing)]
fn both_protocols_are_in_one_report(_: &Host) -> Outcome {
    let (netns, port) = (NetNs::new().unwrap(), Port::claim());
    let options =
        ["stats", "-p", "tcp,udp", "--interval", "200ms", "-o", "json", "--dport", &port.to_string()];
    let tracer = Setup::new(options).start();
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, port.number()));
    let address = server.local_addr().unwrap();
    connect(&netns, address).send(b"x").unwrap();
    let listener = netns.run(|| std::net::TcpListener::bind(address).unwrap());
    let client = netns.run(|| std::net::TcpStream::connect(address).unwrap());
    let both = |report: &Value| {
        let [begun] = row(&report["udp"], "out", &port, ["begun"]);
        let [opened] = row(report, "out", &port, ["opened"]);
        begun == 1 && opened == 1
    };
    tracer.await_json("both protocols", both);
    tracer.await_json("no change", |report| {
        both(report) && report["udp"]["total"]["begun_per_s"] == 0.0 && report["total"]["opened_per_s"] == 0.0
    });
    drop((client, listener));
    Ok(())
}

/// The text for people ends with the verdict.
#[apply(needs_tracing)]
fn text_has_a_verdict(_: &Host) -> Outcome {
    let tracer = Setup::new(["stats", "-p", "udp", "--timeout", "1s"]).start();
    let ended = tracer.await_end();
    ended.expect_code(0);
    assert!(ended.stdout[0].starts_with("PORT "), "{ended:?}");
    let verdict = ended.stdout.iter().find(|line| line.starts_with("udp: ")).expect("a verdict");
    assert!(verdict.contains(" begun") && verdict.contains("the kernel counts"), "{verdict}");
    Ok(())
}
