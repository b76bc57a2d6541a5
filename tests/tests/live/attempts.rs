//! Attempts that never become a connection: floods, scans and full queues. Each number equals what the test sent, or the
//! kernel's own counter, to the unit.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    ledger::{Attempts, Ledger, Report},
    needs_tracing,
    port::Port,
    range::Range,
    snmp::Snmp,
    tracer::Setup,
    traffic::{
        handshake,
        listen::await_children,
        socket::{begin_connect, connect, set_option, tcp},
        syn::{SynSender, sources_v4, sources_v6},
    },
    truth::Direction,
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::Write as _,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
};

/// What is known everywhere; refused SYNs come on top.
fn known(attempts: u64, half_open: u64, abandoned: u64, dropped: u64) -> Attempts {
    Attempts {
        attempts: Some(attempts),
        half_open: Some(half_open),
        abandoned: Some(abandoned),
        dropped: Some(dropped),
        refused_by_us: None,
    }
}

/// The attempts without the number that old kernels do not have.
fn without_refused(attempts: Attempts) -> Attempts {
    Attempts { refused_by_us: None, ..attempts }
}

#[apply(needs_tracing)]
fn flood_without_cookies_fills_the_queue(_: &Host) -> Outcome {
    let range = Range::new("0");
    let _listener = range.listen(range.end.v4, 64);
    let ledger = range.stats();
    range.send(sources_v4().take(50), range.v4());
    range.await_attempts(&ledger, "fifty requests", |found| found.attempts == Some(50));
    range.send(sources_v4().skip(50).take(1_000), range.v4());
    let snmp = Snmp::of(&range.victim);
    let dropped = snmp.get("TcpExt.ListenDrops");
    assert!(dropped > 900, "{dropped}");
    range.await_settled(&ledger, (1_050 - dropped, 1_050 - dropped, dropped));
    Ok(())
}

#[apply(needs_tracing)]
fn flood_with_cookies_begins_what_the_queue_holds(_: &Host) -> Outcome {
    let range = Range::new("1");
    let _listener = range.listen(range.end.v4, 64);
    let ledger = range.stats();
    range.send(sources_v4().take(1_000), range.v4());
    let cookies = Snmp::of(&range.victim).get("TcpExt.SyncookiesSent");
    assert!(cookies > 800, "{cookies}");
    let report = range.await_settled(&ledger, (1_000 - cookies, 1_000 - cookies, 0));
    assert_eq!(report.kernel.of(range.victim.inum()).syncookies_sent, cookies);
    Ok(())
}

#[apply(needs_tracing)]
fn children_of_cookies_are_no_attempts_that_were_abandoned(_: &Host) -> Outcome {
    let range = Range::new("2");
    let listener = range.listen(range.end.v4, 64);
    let ledger = range.stats();
    range.send(sources_v4().take(5), range.v4());
    let pairs: Vec<_> = (0..3)
        .map(|_| (range.attacker.run(|| connect(range.v4())), range.victim.run(|| listener.accept())))
        .collect();
    assert_eq!(Snmp::of(&range.victim).get("TcpExt.SyncookiesSent"), 8);
    let opened = |report: &Report| report.numbers(Direction::In, range.port.number()).opened;
    ledger.await_report("three children", |report| opened(report) == 3);
    let found = |found| without_refused(found) == known(0, 0, 0, 0);
    range.await_attempts(&ledger, "no attempts", found);
    drop(pairs);
    Ok(())
}

#[apply(needs_tracing)]
fn fast_open_children_are_no_requests(_: &Host) -> Outcome {
    let range = Range::new("1");
    handshake::allow_fast_open(&range.victim).unwrap();
    let ledger = range.stats();
    let truth = range.victim.run(|| handshake::fast_open(range.port.v4()));
    ledger.await_equal(&truth);
    let report = ledger.stop();
    let found = report.attempts(range.port.number());
    assert_eq!((found.abandoned, found.half_open), (Some(0), Some(0)), "{found:?}");
    Ok(())
}

#[apply(needs_tracing)]
fn requests_that_time_out_are_abandoned(_: &Host) -> Outcome {
    let range = Range::new("1");
    range.victim.sysctl("net.ipv4.tcp_synack_retries", "0").unwrap();
    let _listener = range.listen(range.end.v4, 64);
    let ledger = range.stats();
    range.send(sources_v4().take(20), range.v4());
    range.await_attempts(&ledger, "half-open requests", |found| found.half_open == Some(20));
    let gone = |found| without_refused(found) == known(20, 0, 20, 0);
    range.await_attempts(&ledger, "abandoned requests", gone);
    // The same sources once more: new requests.
    range.send(sources_v4().take(20), range.v4());
    range.await_attempts(&ledger, "new requests", |found| found.attempts == Some(40));
    ledger.stop();
    Ok(())
}

#[apply(needs_tracing)]
fn retried_syn_is_one_attempt(_: &Host) -> Outcome {
    let range = Range::new("1");
    let _listener = range.listen(range.end.v4, 64);
    let ledger = range.stats();
    for _ in 0..3 {
        range.send(sources_v4().take(10), range.v4());
    }
    // The listener counts a SYN that changes nothing as dropped, though it answers (`tcp_check_req()`).
    range.await_settled(&ledger, (10, 10, 20));
    Ok(())
}

#[apply(needs_tracing)]
fn requests_of_both_families_are_counted(_: &Host) -> Outcome {
    let range = Range::new("0");
    let _listener = range.listen(Ipv6Addr::UNSPECIFIED, 4_096);
    let ledger = range.stats();
    let to_v6 = SocketAddr::new(range.end.v6.into(), range.port.number());
    range.send(sources_v6().take(30), to_v6);
    range.send(sources_v4().take(12), range.v4());
    range.await_settled(&ledger, (42, 42, 0));
    Ok(())
}

/// Every SYN of a scan is counted on its port, of both families.
#[apply(needs_tracing)]
fn scan_of_closed_ports_is_refused_port_by_port(_: &Host) -> Outcome {
    let range = Range::new("1");
    let field = Port::field(1_000);
    let ports: Vec<u16> = field.numbers().collect();
    let ledger = Ledger::start(&ports, "100ms");
    let scan = |ip: IpAddr, sources: Box<dyn Iterator<Item = SocketAddr> + Send>| {
        let to = ports.iter().map(|&port| SocketAddr::new(ip, port));
        let syns: Vec<_> = sources.zip(to).collect();
        range.attacker.run(|| SynSender::new().unwrap().send(syns));
    };
    scan(range.end.v4.into(), Box::new(sources_v4()));
    scan(range.end.v6.into(), Box::new(sources_v6()));
    let resets = Snmp::of(&range.victim).get("Tcp.OutRsts");
    let report = ledger.stop();
    let Some(refused) = report.attempts.refused_by_us else {
        assert!(report.attempts.unknown.contains_key("refused_by_us"), "{report:?}");
        return Err(Skip("this kernel shows no resets without a socket".into()));
    };
    assert_eq!((refused, report.attempts.refused_ports), (2_000, Some(1_000)));
    assert_eq!(resets, 2_000);
    assert!(ports.iter().all(|&port| report.attempts(port).refused_by_us == Some(2)));
    Ok(())
}

/// Dropped SYNs equal the kernel's counter of the namespace, also once the listener is closed.
#[apply(needs_tracing)]
fn full_accept_queue_drops(_: &Host) -> Outcome {
    let range = Range::new("1");
    let earlier = range.listen(range.end.v4, 0);
    // Drops from before the start.
    let _first = range.attacker.run(|| connect(range.v4()));
    range.victim.run(|| await_children(&earlier, 1));
    range.send(sources_v4().take(7), range.v4());
    assert_eq!(Snmp::of(&range.victim).get("TcpExt.ListenDrops"), 7);
    let ledger = range.stats();
    range.send(sources_v4().take(18), range.v4());
    let found = |found| without_refused(found) == known(0, 0, 0, 18);
    range.await_attempts(&ledger, "drops of a listener from before", found);
    drop(earlier);
    range.await_attempts(&ledger, "drops of a listener that ended", found);
    let _later = range.listen(range.end.v4, 0);
    let _second = range.attacker.run(|| connect(range.v4()));
    range.send(sources_v4().take(4), range.v4());
    let drops = Snmp::of(&range.victim).get("TcpExt.ListenDrops") - 7;
    range.await_attempts(&ledger, "drops of a later listener", |found| found.dropped == Some(drops));
    Ok(())
}

/// All connections of real clients are counted, whatever arrives meanwhile.
#[apply(needs_tracing)]
fn clients_in_the_middle_of_a_flood_are_counted(_: &Host) -> Outcome {
    let range = Range::new("1");
    let listener = range.listen(range.end.v4, 128);
    let ledger = range.stats();
    let clients = 50;
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| range.send(sources_v4().take(20_000), range.v4()));
        for _ in 0..clients {
            let client = range.attacker.run(|| {
                let socket = tcp(range.v4());
                begin_connect(&socket, range.v4());
                socket
            });
            drop(range.victim.run(|| listener.accept()));
            drop(client);
        }
        assert_eq!(flood.join().unwrap(), 20_000);
    });
    let drops = Snmp::of(&range.victim).get("TcpExt.ListenDrops");
    let number = range.port.number();
    // Beside the SYNs that found no room, a listener counts those that were sent again.
    let report = ledger.await_report("all clients and drops", |report| {
        let opened = report.numbers(Direction::In, number).opened;
        opened == clients && report.attempts(number).dropped >= Some(drops)
    });
    let numbers = report.numbers(Direction::In, number);
    assert_eq!(numbers.opened, clients);
    assert_eq!(numbers.opened, Snmp::of(&range.victim).get("Tcp.PassiveOpens"));
    Ok(())
}

/// The first `count` events of `-e KINDS -o json` on the range's port.
fn events(range: &Range, kinds: &str, more: &[&str], act: impl FnOnce(), count: usize) -> Vec<Value> {
    let (port, count) = (range.port.to_string(), count.to_string());
    let arguments = ["-e", kinds, "-o", "json", "--dport", &port, "--count", &count];
    let tracer = Setup::new(arguments.into_iter().chain(more.iter().copied())).start();
    act();
    let ended = tracer.await_end();
    ended.expect_code(0);
    ended.stdout.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[apply(needs_tracing)]
fn each_half_open_request_is_an_event_with_its_source(_: &Host) -> Outcome {
    let range = Range::new("0");
    // The default depends on the memory of the machine; a quarter of it is kept for peers that the kernel knows.
    range.victim.sysctl("net.ipv4.tcp_max_syn_backlog", "4096").unwrap();
    let _listener = range.listen(Ipv6Addr::UNSPECIFIED, 4_096);
    let to_v6 = SocketAddr::new(range.end.v6.into(), range.port.number());
    let act = || {
        range.send(sources_v4().take(300), range.v4());
        range.send(sources_v6().take(200), to_v6);
    };
    let events = events(&range, "ATTEMPT", &[], act, 500);
    let found: BTreeSet<SocketAddr> = events
        .iter()
        .map(|event| {
            assert_eq!((&event["event"], &event["attempt"]), (&json!("attempt"), &json!("half_open")));
            assert_eq!((&event["state"], &event["direction"]), (&json!("syn_recv"), &json!("in")));
            assert_eq!(event["netns"], json!(range.victim.inum()));
            let ip: IpAddr = event["src"].as_str().unwrap().parse().unwrap();
            let here: IpAddr = if ip.is_ipv4() { range.end.v4.into() } else { range.end.v6.into() };
            assert_eq!(event["dst"].as_str().unwrap().parse::<IpAddr>().unwrap(), here);
            SocketAddr::new(ip, event["sport"].as_u64().unwrap() as u16)
        })
        .collect();
    assert_eq!(found, sources_v4().take(300).chain(sources_v6().take(200)).collect());
    Ok(())
}

#[apply(needs_tracing)]
fn each_refused_syn_is_an_event_with_its_source(_: &Host) -> Outcome {
    let range = Range::new("1");
    let to_v6 = SocketAddr::new(range.end.v6.into(), range.port.number());
    let act = || {
        range.send(sources_v4().take(30), range.v4());
        range.send(sources_v6().take(20), to_v6);
    };
    let events = events(&range, "ATTEMPT", &[], act, 50);
    assert!(events.iter().all(|event| event["attempt"] == "refused"), "{events:?}");
    assert!(events.iter().all(|event| event["netns"] == json!(range.victim.inum())), "{events:?}");
    let ports: BTreeSet<u64> = events.iter().map(|event| event["sport"].as_u64().unwrap()).collect();
    assert_eq!(ports, (1_024..1_054).collect());
    Ok(())
}

/// `ALL` has no attempts, and the filter of addresses chooses among them in the kernel.
#[apply(needs_tracing)]
fn attempts_are_chosen_by_kind_and_filter(_: &Host) -> Outcome {
    let range = Range::new("0");
    let listener = range.listen(range.end.v4, 4_096);
    let act = || {
        range.send(sources_v4().take(20), range.v4());
        let client = range.attacker.run(|| connect(range.v4()));
        drop(range.victim.run(|| listener.accept()));
        drop(client);
    };
    let all = events(&range, "ALL", &[], act, 2);
    assert!(all.iter().all(|event| event["event"] != "attempt"), "{all:?}");
    let act = || {
        range.send(sources_v4().take(40), range.v4());
    };
    let chosen = events(&range, "all,attempt", &["--src", "10.128.0.20/31"], act, 2);
    let sources: Vec<_> = chosen.iter().map(|event| event["src"].as_str().unwrap()).collect();
    assert_eq!(sources, ["10.128.0.20", "10.128.0.21"]);
    // An attempt has no socket, so its mark is unknown.
    let act = || {
        range.send(sources_v4().skip(40).take(20), range.v4());
        let client = range.attacker.run(|| connect(range.v4()));
        drop(range.victim.run(|| listener.accept()));
        drop(client);
    };
    let marked = events(&range, "NEW,ATTEMPT", &["fwmark = 0"], act, 1);
    assert_eq!(marked[0]["event"], "new");
    let act = || {
        range.send(sources_v4().skip(60).take(2), range.v4());
    };
    let unmarked = events(&range, "ATTEMPT", &["not fwmark = 0"], act, 2);
    assert!(unmarked.iter().all(|event| event["event"] == "attempt"), "{unmarked:?}");
    Ok(())
}

/// A last ACK that finds the accept queue full. The request waits for data, so it is there before the queue is full.
#[apply(needs_tracing)]
fn ack_that_finds_the_queue_full_is_an_event(_: &Host) -> Outcome {
    let range = Range::new("1");
    let listener = range.listen(range.end.v4, 5);
    range
        .victim
        .run(|| set_option(listener.socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 5));
    let (first, second) = range.attacker.run(|| (connect(range.v4()), connect(range.v4())));
    let port = range.port.to_string();
    let tracer = Setup::new(["-e", "ATTEMPT", "-o", "json", "--dport", &port]).start();
    if tracer.has_stderr(|line| line.contains("dropped: the kernel shows no")) {
        return Err(Skip("this kernel shows no ACK that finds the accept queue full".into()));
    }
    range.victim.run(|| listener.socket.listen(0)).unwrap();
    (&first).write_all(b"x").unwrap();
    range.victim.run(|| await_children(&listener, 1));
    (&second).write_all(b"x").unwrap();
    let line = tracer.await_stdout("a dropped ACK", |line| line.contains("\"dropped\""));
    let event: Value = serde_json::from_str(&line).unwrap();
    let tuple = second.local_addr().unwrap().as_socket().unwrap();
    assert_eq!((&event["attempt"], &event["netns"]), (&json!("dropped"), &json!(range.victim.inum())));
    assert_eq!(event["src"].as_str().unwrap().parse::<IpAddr>().unwrap(), tuple.ip());
    assert_eq!(event["sport"], json!(tuple.port()));
    Ok(())
}

/// Attempts that find no room in the ring are counted.
#[apply(needs_tracing)]
fn attempts_without_room_are_lost_and_counted(_: &Host) -> Outcome {
    let range = Range::new("0");
    for limit in ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"] {
        range.victim.sysctl(limit, "65535").unwrap();
    }
    let _listener = range.listen(range.end.v4, 65_535);
    let port = range.port.to_string();
    let sent = 20_000;
    let tracer =
        Setup::new(["-e", "ATTEMPT", "-o", "json", "--dport", &port, "--buffer-size", "64K"]).start();
    tracer.signal(Signal::SIGSTOP);
    range.send(sources_v4().take(sent), range.v4());
    tracer.signal(Signal::SIGCONT);
    let ended = tracer.stop();
    let lines = ended.stdout.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let counts = lines.fold((0, 0), |(shown, lost), line| match line["lost"].as_u64() {
        Some(count) => (shown, lost + count),
        None => (shown + 1, lost),
    });
    assert_eq!(counts.0 + counts.1, sent as u64, "{counts:?}");
    assert!(counts.1 > 0, "the ring had room for all: {counts:?}");
    Ok(())
}
