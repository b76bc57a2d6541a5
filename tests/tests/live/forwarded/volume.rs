//! Very many flows, as fast as one thread makes them: every one is counted, and none is lost with the default buffers.

use super::{counts::Limit, flush, tracked};
use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_whole_machine,
    routed::Routed,
    tracer::{Setup, Tracer},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

/// Connections of TCP, at most and by default. An emulated machine makes fewer.
const MOST: u64 = 50_000;
/// The variable with the number of rounds, each with all flows: 1, unless it is set.
const ROUNDS: &str = "CONNTRACE_TEST_ROUNDS";

/// How many connections of TCP a round makes.
fn connections() -> u64 {
    let chosen = std::env::var("CONNTRACE_TEST_CONNECTIONS");
    chosen.map_or(MOST, |number| number.parse().expect("a number")).min(MOST)
}

/// The account of the router in a report.
fn account(routed: &Routed, report: &Value) -> Value {
    let all = report["forwarded"]["namespaces"].as_array().unwrap();
    all.iter().find(|one| one["netns"] == routed.router.inum()).unwrap_or(&Value::Null).clone()
}

/// The account of the router, once so many flows began and ended.
fn await_account(routed: &Routed, tracer: &Tracer, begun: u64, ended: u64) -> Value {
    let report = tracer.await_json("the account", |report| {
        let account = account(routed, report);
        account["begun"] == begun && account["ended"] == ended
    });
    account(routed, &report)
}

/// Where flows go: two ports of UDP, and a server of TCP that closes each connection at once.
struct Goal {
    sinks: [UdpSocket; 2],
    server: SocketAddr,
}

fn goal(routed: &Routed) -> Goal {
    let ip = routed.server_end().v4;
    let sinks = [(); 2].map(|()| routed.server_socket(ip.into()).unwrap());
    let listener = routed.server.run(|| TcpListener::bind((ip, 0))).unwrap();
    let server = listener.local_addr().unwrap();
    // Ends with the process of the tests: it waits for connections only.
    thread::spawn(move || listener.incoming().for_each(drop));
    Goal { sinks, server }
}

#[apply(needs_whole_machine)]
fn every_flow_is_counted_and_none_is_lost(_: &Host) -> Outcome {
    let routed = tracked()?;
    // Flows of UDP have one packet each: two from each source port.
    let (tcp, udp) = (connections(), 2 * connections());
    let wanted = udp + tcp + 1_000;
    // A small machine has a small table.
    let _limit = (Limit::now() < wanted).then(|| Limit::set(&routed, wanted));
    let goal = goal(&routed);
    routed.client.sysctl("net.ipv4.ip_local_port_range", "1024 65535").unwrap();
    let stats = Setup::new(["stats", "--forwarded", "-o", "json", "--interval", "1s", "--total"]).start();
    let file = std::env::temp_dir().join(format!("conntrace-volume-{}", std::process::id()));
    let lines = Setup::new(["--forwarded", "-e", "NEW", "--netns", &routed.router.inum().to_string()])
        .stdout_to(&file)
        .start();
    let rounds = std::env::var(ROUNDS).map_or(1, |rounds| rounds.parse().unwrap());
    let all = rounds * (udp + tcp);
    let mut account = Value::Null;
    for round in 0..rounds {
        let before = round * (udp + tcp);
        send_udp(&routed, &goal, udp);
        let full = await_account(&routed, &stats, before + udp, before);
        assert_eq!((&full["holds"], &full["tracked"]), (&true.into(), &udp.into()), "{full}");
        flush(&routed)?;
        await_account(&routed, &stats, before + udp, before + udp);
        connect(&routed, &goal, tcp);
        let begun = before + udp + tcp;
        // A port that comes again ends the entry before, which was closed.
        stats.await_json("all beginnings", |report| self::account(&routed, report)["begun"] == begun);
        flush(&routed)?;
        account = await_account(&routed, &stats, begun, begun);
    }
    for (key, value) in
        [("tracked", 0), ("lost_begun", 0), ("lost_ended", 0), ("drop", 0), ("insert_failed", 0)]
    {
        assert_eq!(account[key], value, "{key}: {account}");
    }
    assert_eq!(account["holds"], true, "{account}");
    stats.stop().expect_code(0);
    let stderr = lines.stop().stderr;
    let wanted = format!("shown {all} + filtered 0 + lost 0: holds");
    let text = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let shown = text.lines().count() as u64;
    assert!(stderr.contains(&wanted) && shown == all, "{shown} {stderr}");
    // All sockets are those of this process.
    let own = format!(" pid={} ", std::process::id());
    let named = text.lines().filter(|line| line.contains(&own)).count() as u64;
    let unnamed = text.lines().filter(|line| line.contains(" pid=- ")).count() as u64;
    assert_eq!(named + unnamed, all, "a wrong owner");
    println!("{unnamed} of {all} flows have no owner");
    Ok(())
}

/// Sends one packet of each flow of UDP.
fn send_udp(routed: &Routed, goal: &Goal, flows: u64) {
    let to = goal.sinks.each_ref().map(|sink| sink.local_addr().unwrap());
    let from = routed.client_end().v4;
    routed.client.run(|| {
        for port in 10_000..10_000 + (flows / 2) as u16 {
            let socket = UdpSocket::bind((from, port)).unwrap();
            for to in &to {
                socket.send_to(b"x", to).unwrap();
            }
        }
    });
}

/// Connects, and resets each connection at once.
fn connect(routed: &Routed, goal: &Goal, connections: u64) {
    routed.client.run(|| {
        for _ in 0..connections {
            let stream = TcpStream::connect_timeout(&goal.server, Duration::from_secs(20)).unwrap();
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
    });
}
