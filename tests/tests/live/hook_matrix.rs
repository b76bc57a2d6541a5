//! Hooks that conntrace does not plan here, forced: whatever hooks see a connection, they must say the same.

use super::owner::{check_call, event, hook_for_accepts};
use conn_tests::{
    harness::{Outcome, Skip, Test},
    host::Need,
    ledger::Ledger,
    port::Port,
    scenario::{self, Scenario},
    test_family,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        crew::{Call, Owner, Worker, call, called, serve},
        ring,
        socket::{await_end, connect},
    },
    truth::{Direction, Truth},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{collections::BTreeMap, os::fd::AsRawFd as _};

/// Sets of hooks, each of which sees every connection from its beginning to its end. What a single tracing
/// program is skipped for takes more traffic than is made here.
const TRANSITIONS: [&str; 7] = [
    "set_state,sock_ops,destroy_sock",
    "set_state,set_state_again,destroy_sock",
    "set_state,destroy_sock",
    "set_state_again,destroy_sock",
    "sock_ops,destroy_sock",
    "set_state",
    "sock_ops",
];

/// All hooks for accepts.
const ACCEPTS: [&str; 3] = ["graft", "function", "syscalls"];

/// Every way into a connection and out of it, and none that waits for a timer.
const SCENARIOS: [&str; 14] = [
    "client_first",
    "server_first",
    "ipv6",
    "mapped",
    "refused_then_connected",
    "abandoned",
    "unread_data",
    "linger0",
    "half_close",
    "simultaneous_close",
    "simultaneous_open",
    "disconnected_and_reused",
    "unaccepted",
    "listeners",
];

/// A test for each set and for each hook: `hook_matrix::transitions_by_set_state`, `hook_matrix::accepts_by_graft`.
#[apply(test_family)]
fn tests() -> Vec<Test> {
    let transitions = TRANSITIONS.map(|set| {
        let name = format!("hook_matrix::transitions_by_{}", set.replace(',', "_and_"));
        Test::new(name, Need::Tracing, move |_| transitions(set))
    });
    let accepts = ACCEPTS.map(|hook| {
        Test::new(format!("hook_matrix::accepts_by_{hook}"), Need::Tracing, move |_| accepts(hook))
    });
    transitions.into_iter().chain(accepts).collect()
}

/// Ledger and events of these hooks are the truth.
fn transitions(set: &str) -> Outcome {
    if set.contains("sock_ops") {
        super::workload::cgroup_root()?;
    }
    let chosen: Vec<&Scenario> =
        scenario::ALL.iter().filter(|scenario| SCENARIOS.contains(&scenario.name)).collect();
    assert_eq!(chosen.len(), SCENARIOS.len());
    let ports: Vec<Vec<Port>> = chosen.iter().map(|_| Port::block(2)).collect();
    let numbers: Vec<u16> = ports.iter().flatten().map(Port::number).collect();
    let forced = ["--witnesses", set];
    let ledger = Ledger::start_with(&numbers, "100ms", &forced);
    let wanted = numbers.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let tracer = Setup::new(["-o", "json", "--dport", &wanted]).arguments(forced).start();
    let mut truth = Truth::default();
    // One after the other: two at a time might interrupt each other.
    for (scenario, ports) in chosen.iter().zip(&ports) {
        truth += (scenario.run)(ports[0].number())?;
    }
    ledger.await_equal(&truth);
    let last = ledger.stop();
    last.check_identity();
    assert_eq!(last.differences(&truth), Vec::<String>::new());
    assert_eq!(last.repaired, 0, "what the hooks saw, not what an audit made good: {}", last.to_text());
    // `refused` sees packets without a socket, and no connection.
    let used: Vec<&str> =
        last.programs.keys().map(String::as_str).filter(|hook| *hook != "refused").collect();
    assert!(
        set.split(',').all(|hook| used.contains(&hook)) && used.len() == set.split(',').count(),
        "{used:?}"
    );
    let shown = lives(&tracer.stop().stdout);
    let done = lives_of(&truth);
    assert_eq!(shown, done);
    Ok(())
}

/// The counts of one port and direction by events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Lives {
    begun: u64,
    established: u64,
    failed: u64,
    closed: u64,
}

type AllLives = BTreeMap<(Direction, u16), Lives>;

/// Counts events. Each connection must have its events from beginning to end, in this order.
fn lives(lines: &[String]) -> AllLives {
    let mut all = AllLives::new();
    let mut open: BTreeMap<u64, (String, bool)> = BTreeMap::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).expect("an object");
        let direction = if event["direction"] == "out" { Direction::Out } else { Direction::In };
        let port = event["dport"].as_u64().expect("a port") as u16;
        let of = all.entry((direction, port)).or_default();
        let id = event["id"].as_u64().expect("an id");
        match event["event"].as_str().expect("a kind") {
            "new" => {
                of.begun += 1;
                assert!(open.insert(id, (line.clone(), false)).is_none(), "twice: {line}");
            }
            "update" => {
                let known = open.get_mut(&id).unwrap_or_else(|| panic!("before its beginning: {line}"));
                if event["state"] == "established" {
                    of.established += 1;
                }
                known.1 = true;
            }
            "destroy" => {
                assert!(open.remove(&id).is_some(), "an end without a beginning: {line}");
                *(if event["failed"] == true { &mut of.failed } else { &mut of.closed }) += 1;
            }
            other => panic!("{other}: {line}"),
        }
    }
    assert!(open.is_empty(), "without an end: {open:?}");
    all
}

/// The expected counts.
fn lives_of(truth: &Truth) -> AllLives {
    let lives = truth.counts.iter().map(|(key, counts)| {
        let lives = Lives {
            begun: counts.opened,
            established: counts.established,
            failed: counts.failed() + counts.died,
            closed: counts.closed,
        };
        ((key.direction, key.port), lives)
    });
    lives.collect()
}

/// The owner of an accepted connection is the acceptor that announced itself.
fn accepts(hook: &str) -> Outcome {
    let port = Port::claim();
    let forced = ["--accept-hook", hook];
    let tracer = Setup::new(["-v", "-o", "json", "--dport", &port.to_string()]).arguments(forced).start();
    match hook_for_accepts(&tracer) {
        Some(used) => assert_eq!(used, hook),
        None => return Err(Skip(format!("this kernel lets no program see accepts by {hook}"))),
    }
    let server = Server::listen(port.v4());
    // Processes that inherited the listener, one of which lets threads accept.
    let names = ["conn-accept-0", "conn-accept-1"];
    let workers = names.map(|name| Worker::start(name, &[server.socket.as_raw_fd()], |_| serve(&server)));
    let calls: Vec<Call> = names.iter().map(|_| call(server.address)).collect();
    assert_ne!(calls[0].acceptor.pid, calls[1].acceptor.pid, "each serves one at a time");
    for call in calls {
        let worker = workers.iter().position(|worker| worker.pid() == call.acceptor.pid);
        check_call(&tracer, call, names[worker.expect("a worker")]);
    }
    drop(workers);
    let thread = Worker::start("conn-process", &[server.socket.as_raw_fd()], |_| {
        let job = || serve(&server);
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("conn-thread".into())
                .spawn_scoped(scope, job)
                .expect("a thread");
        });
    });
    let called_thread = call(server.address);
    assert_eq!(called_thread.acceptor.thread(), "conn-thread");
    check_call(&tracer, called_thread, "conn-process");
    drop(thread);
    by_a_ring(&tracer, hook, &server);
    Ok(())
}

/// An accept that is no system call.
fn by_a_ring(tracer: &Tracer, hook: &str, server: &Server) {
    if ring::is_allowed().is_err() {
        return;
    }
    let acceptor = Worker::start("conn-ring", &[server.socket.as_raw_fd()], |_| {
        let accepted = ring::accept(server);
        Owner::current().announce(&accepted).expect("the client waits");
        await_end(&accepted);
    });
    let call = called(connect(server.address));
    let client = call.tuple.client.port();
    assert_eq!(call.acceptor.pid, acceptor.pid());
    drop(call);
    let end = event(tracer, "destroy", "in", client);
    let expected =
        if hook == "syscalls" { ("listener", std::process::id()) } else { ("accept", acceptor.pid()) };
    assert_eq!((&end["owner"], &end["pid"]), (&expected.0.into(), &expected.1.into()), "{end}");
}
