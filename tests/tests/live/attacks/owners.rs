//! Framing: a user makes an event or a list name another process, or no process.

use super::super::{
    mptcp,
    owner::{check, event, watch},
};
use conn_tests::{
    attack::{Attacker, may_attack, sockets},
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing, needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        crew::{Worker, call},
        process::{receive, send},
        socket::connect,
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    net::{Ipv4Addr, SocketAddr},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
};

/// Entries of the map of MPTCP owners, and some more (`MPTCP_OWNERS` in conn-ebpf).
const ATTEMPTS: usize = 66_000;
/// Processes that share a large number of sockets.
const CREW: usize = 4;

/// The ends of a connection in a list, by their direction.
fn listed(port: &Port) -> Vec<Value> {
    let ended = Setup::new(["list", "-o", "json", "--dport", &port.to_string()]).run();
    ended.expect_code(0);
    ended.stdout.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// A service of root's takes descriptors from every user, as many do. Its process is older than the user's, so its id is
/// lower.
#[apply(needs_tracing)]
fn a_socket_that_root_was_sent_stays_the_users(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let service = Worker::start("conn-root", &[theirs.as_raw_fd()], |line| {
        let kept = receive(&theirs);
        line.ready();
        line.wait();
        drop(kept);
    });
    let server = Server::listen(address);
    let attacker = Attacker::start_with("conn-frames", &[ours.as_raw_fd()], |line| {
        let socket = connect(address);
        send(&ours, &socket);
        line.ready();
        line.wait();
    });
    attacker.await_ready();
    service.await_ready();
    let accepted = server.accept();
    assert!(service.pid() < attacker.pid(), "the process ids have begun anew");
    let ends = listed(&port);
    let out = ends.iter().find(|end| end["direction"] == "out").expect("the user's end");
    println!("passed: pid {} comm {} uid {}", out["pid"], out["comm"], out["uid"]);
    assert_eq!((&out["pid"], &out["comm"]), (&attacker.pid().into(), &"conn-frames".into()), "{out}");
    // The same owner at the end of a connection that was there before the tracer.
    let tracer = watch(&port);
    let client = out["sport"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    service.resume();
    attacker.resume();
    let end = event(&tracer, "destroy", "out", client);
    assert_eq!((&end["pid"], &end["comm"]), (&attacker.pid().into(), &"conn-frames".into()), "{end}");
    drop(accepted);
    Ok(())
}

/// A user fills the map of MPTCP owners. A subflow of another process still has its owner.
#[apply(needs_whole_machine)]
fn attempts_by_mptcp_take_no_owner_away(_: &Host) -> Outcome {
    may_attack()?;
    let port = Port::claim();
    let probe = NetNs::new().unwrap();
    probe.run(|| mptcp::mptcp(port.v4())).map_err(|error| Skip(format!("no MPTCP: {error}")))?;
    let count = ATTEMPTS / CREW;
    let attempts = || {
        let attack =
            |_| Attacker::start("conn-mptcp", |line| sockets::attempt_by_mptcp(line, count, port.number()));
        let attackers: Vec<Attacker> = (0..CREW).map(attack).collect();
        attackers.iter().for_each(Attacker::await_ready);
        attackers
    };
    mptcp::subflows_have_owners(attempts)
}

/// A user listens on all ports of a namespace. Another process's NEW still has its owner.
#[apply(needs_whole_machine)]
fn listeners_on_all_ports_take_no_owner_away(_: &Host) -> Outcome {
    may_attack()?;
    let port = Port::claim();
    let tracer = watch(&port);
    let listen = |part: usize| {
        let first = (part * (1 << 16) / CREW).max(1) as u16;
        let last = ((part + 1) * (1 << 16) / CREW - 1) as u16;
        Attacker::start("conn-listens", move |line| sockets::listen_everywhere(line, first..=last))
    };
    let attackers: Vec<Attacker> = (0..CREW).map(listen).collect();
    attackers.iter().for_each(Attacker::await_ready);
    let address = port.v4();
    let server = Worker::server("conn-honest", || Server::listen(address));
    let called = call(address);
    let new = event(&tracer, "new", "in", called.tuple.client.port());
    println!("listeners: owner {} pid {}", new["owner"], new["pid"]);
    check(&new, "listener", called.acceptor, "conn-honest");
    drop((server, attackers));
    // Notes of listeners that this run does not watch are no failure of this run.
    let ended = tracer.stop();
    assert!(ended.expect_code(0).contains(": holds"), "{}", ended.stderr);
    Ok(())
}

/// A user listens on another address of the same port for a moment.
#[apply(needs_tracing)]
fn a_listener_on_another_address_takes_no_owner_away(_: &Host) -> Outcome {
    let port = Port::claim();
    let ns = NetNs::new().unwrap();
    let address = port.v4();
    let server = ns.run(|| Worker::server("conn-honest", || Server::listen(address)));
    let tracer = watch(&port);
    let other = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port.number()));
    let new_of = |tracer: &Tracer| {
        let called = ns.run(|| call(address));
        (event(tracer, "new", "in", called.tuple.client.port()), called.acceptor)
    };
    let (new, acceptor) = new_of(&tracer);
    check(&new, "listener", acceptor, "conn-honest");
    let attacker = ns.run(|| {
        Attacker::start_here("conn-frames", |line| {
            let server = Server::listen(other);
            line.ready();
            line.wait();
            drop(server);
        })
    });
    attacker.await_ready();
    // Beside the other listener, and once it is gone.
    let (new, acceptor) = new_of(&tracer);
    println!("127.0.0.2: owner {} comm {}", new["owner"], new["comm"]);
    check(&new, "listener", acceptor, "conn-honest");
    attacker.resume();
    attacker.join();
    let (new, acceptor) = new_of(&tracer);
    println!("127.0.0.2 gone: owner {} comm {}", new["owner"], new["comm"]);
    check(&new, "listener", acceptor, "conn-honest");
    drop(server);
    Ok(())
}
