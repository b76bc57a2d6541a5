//! `-e LISTEN`: one line when a listener begins and one when it ends, with its owner.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::Kind,
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        crew::{Worker, process_name},
        listen,
        socket::{connect, set_option, tcp},
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    net::{Ipv6Addr, Shutdown, SocketAddr},
    os::fd::AsRawFd as _,
    process,
};

/// `-e KINDS` of this port, as JSON.
fn watch(kinds: &str, port: &Port, more: &[&str]) -> Tracer {
    let port = port.to_string();
    let arguments = ["-e", kinds, "-o", "json", "--dport", &port];
    Setup::new(arguments.into_iter().chain(more.iter().copied())).start()
}

/// All events. Nothing was lost.
fn events(tracer: Tracer) -> Vec<Value> {
    let ended = tracer.stop();
    let accounting = ended.expect_balance();
    assert!(accounting.contains("lost 0: holds"), "{accounting}");
    ended.stdout.iter().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// Kind, address and owner.
fn summary(event: &Value) -> String {
    let fields = ["event", "direction", "state", "dst", "owner", "pid", "comm"];
    fields.map(|name| event[name].to_string().replace('"', "")).join(" ")
}

/// Both lines of a listener at an address, of a process.
fn both(address: SocketAddr, pid: u32, comm: &str) -> [String; 2] {
    let ip = address.ip();
    [
        format!("listen listen listen {ip} listener {pid} {comm}"),
        format!("closed listen close {ip} listener {pid} {comm}"),
    ]
}

fn ours(address: SocketAddr) -> [String; 2] {
    both(address, process::id(), &process_name())
}

#[apply(needs_tracing)]
fn each_listener_is_two_lines(_: &Host) -> Outcome {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let (v4, v6) = (port.v4(), SocketAddr::new(Ipv6Addr::LOCALHOST.into(), port.number()));
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.number());
    let tracer = watch("LISTEN", &port, &[]);
    for address in [v4, v6, any] {
        drop(Server::listen(address));
    }
    drop(ns.run(|| Server::listen(v4)));
    // Connections have no lines.
    let server = Server::listen(v4);
    drop(server.pair());
    // The same socket listens a second time. A larger backlog is no event.
    server.socket.shutdown(Shutdown::Read).unwrap();
    server.socket.listen(1).unwrap();
    server.socket.listen(2).unwrap();
    drop(server);
    // Of two sockets, only one may listen.
    listen::in_use(v4);
    let events = events(tracer);
    let found: Vec<String> = events.iter().map(summary).collect();
    let expected = [v4, v6, any, v4, v4, v4, v4].map(ours).concat();
    assert_eq!(found, expected, "{events:#?}");
    for pair in events.chunks(2) {
        assert_eq!((&pair[0]["id"], &pair[0]["attempt_ns"]), (&pair[1]["id"], &pair[1]["attempt_ns"]));
        assert_eq!(pair[0]["time_ns"], pair[0]["attempt_ns"]);
        assert!(pair[0]["time_ns"].as_u64() < pair[1]["time_ns"].as_u64(), "{pair:?}");
        assert_eq!((&pair[0]["sport"], &pair[0]["preexisting"]), (&0.into(), &false.into()));
    }
    let netns: Vec<&Value> = events.iter().map(|event| &event["netns"]).collect();
    assert_eq!((netns[6], netns[7]), (&ns.inum().into(), &ns.inum().into()));
    assert_ne!(netns[0], netns[6]);
    Ok(())
}

/// Two processes listen at one port, and die one after the other.
#[apply(needs_tracing)]
fn listener_of_a_process_that_dies_is_closed(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    let tracer = watch("listen", &port, &[]);
    let start = |name: &str| {
        let worker = Worker::start(name, &[], |line| {
            let socket = tcp(address);
            set_option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
            let _server = Server::listen_on(socket, address, 16, |_| {});
            line.ready();
            line.wait();
        });
        worker.await_ready();
        worker
    };
    let (old, new) = (start("conn-old"), start("conn-new"));
    let [old_begins, old_ends] = both(address, old.pid(), "conn-old");
    let [new_begins, new_ends] = both(address, new.pid(), "conn-new");
    drop(old);
    tracer.await_json("the end of the first", |event| summary(event) == old_ends);
    drop(new);
    tracer.await_json("the end of the second", |event| summary(event) == new_ends);
    let found: Vec<String> = events(tracer).iter().map(summary).collect();
    assert_eq!(found, [old_begins, new_begins, old_ends, new_ends]);
    Ok(())
}

/// A listener from before the start has no begin, and at its end the process that had it open.
#[apply(needs_tracing)]
fn older_listener_has_an_end(_: &Host) -> Outcome {
    let port = Port::claim();
    let worker = Worker::server("conn-older", || Server::listen(port.v4()));
    let [_, end] = both(port.v4(), worker.pid(), "conn-older");
    let only = watch("LISTEN", &port, &[]);
    let with_all = watch("ALL,LISTEN", &port, &[]);
    drop(worker);
    for tracer in [only, with_all] {
        tracer.await_json("the end", |event| event["event"] == "closed");
        let events = events(tracer);
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!(summary(event), end);
        assert_eq!((&event["preexisting"], &event["attempt_ns"]), (&true.into(), &Value::Null));
        assert_eq!(event["holders"], Value::from(1));
    }
    Ok(())
}

#[apply(needs_tracing)]
fn listeners_are_chosen_by_kind_and_filter(_: &Host) -> Outcome {
    let (port, other) = (Port::claim(), Port::claim());
    let (pid, comm, sport) = (process::id().to_string(), process_name(), format!("sport = :{port}"));
    let ns = NetNs::new().unwrap();
    let netns = ns.inum().to_string();
    let without = watch("ALL", &port, &[]);
    let alone = |more: &[&str]| Setup::new(["-e", "LISTEN", "-o", "json"]).arguments(more).start();
    let taken = [
        watch("all,listen", &port, &[]),
        watch("LISTEN", &port, &["--pid", &pid]),
        watch("LISTEN", &port, &["--comm", &comm]),
        watch("LISTEN", &port, &["--src", "0.0.0.0"]),
        alone(&[&sport]),
        alone(&["--netns", &netns, "direction = listen"]),
    ];
    let left = [
        watch("LISTEN", &other, &[]),
        watch("LISTEN", &port, &["--comm", &format!("!{comm}")]),
        watch("LISTEN", &port, &["--direction", "in"]),
        alone(&["--netns", &netns, "sport", "=", ":1"]),
    ];
    ns.run(|| {
        let server = Server::listen(port.v4());
        drop(connect(server.address));
        drop(server.accept());
    });
    let of_listeners = |tracer| {
        let kinds = events(tracer).into_iter().map(|mut event| event["event"].take());
        kinds.filter(|kind| kind == "listen" || kind == "closed").collect::<Vec<_>>()
    };
    for (at, tracer) in taken.into_iter().enumerate() {
        assert_eq!(of_listeners(tracer), ["listen", "closed"], "{at}");
    }
    let all = events(without);
    assert!(all.iter().all(|event| event["direction"] != "listen"), "{all:?}");
    assert!(all.iter().any(|event| event["event"] == "destroy"), "{all:?}");
    for (at, tracer) in left.into_iter().enumerate() {
        assert_eq!(events(tracer), [] as [Value; 0], "{at}");
    }
    Ok(())
}

/// In the form of conntrack's lines.
#[apply(needs_tracing)]
fn lines_have_words_of_eight_characters(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Setup::new(["-e", "LISTEN", "--dport", &port.to_string(), "--count", "2"]).start();
    drop(Server::listen(port.v4()));
    let ended = tracer.await_end();
    ended.expect_code(0);
    let rest = format!(
        "src=0.0.0.0 dst=127.0.0.1 sport=0 dport={port} src=127.0.0.1 dst=0.0.0.0 sport={port} dport=0 dir=listen pid={} \
         comm={} owner=listener",
        process::id(),
        process_name()
    );
    let words = [" [LISTEN] tcp      6 LISTEN ", " [CLOSED] tcp      6 CLOSE "];
    assert_eq!(ended.stdout, words.map(|words| format!("{words}{rest}")));
    let kinds: Vec<Kind> = ended.events().iter().map(|line| line.kind).collect();
    assert_eq!(kinds, [Kind::Listen, Kind::Closed]);
    Ok(())
}
