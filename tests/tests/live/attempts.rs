//! Attempts that never become a connection: floods, scans and full queues. Each number equals what the test sent, or the
//! kernel's own counter, to the unit.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    ledger::{Attempts, Ledger, Report},
    needs_tracing,
    netns::{End, NetNs},
    port::Port,
    snmp::Snmp,
    traffic::{
        Server, handshake,
        listen::await_children,
        socket::{begin_connect, connect, tcp},
        syn::{SynSender, sources_v4, sources_v6},
    },
};
use macro_rules_attribute::apply;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A victim and an attacker. Answers of the victim reach nobody.
struct Range {
    victim: NetNs,
    attacker: NetNs,
    /// The victim's end.
    end: End,
    port: Port,
}

impl Range {
    /// `cookies`: see `net.ipv4.tcp_syncookies`.
    fn new(cookies: &str) -> Self {
        let (victim, attacker) = (NetNs::new().unwrap(), NetNs::new().unwrap());
        let veth = victim.join(&attacker).unwrap();
        victim.sysctl("net.ipv4.tcp_syncookies", cookies).unwrap();
        for rp_filter in ["all", "default", &veth.name] {
            victim.sysctl(&format!("net.ipv4.conf.{rp_filter}.rp_filter"), "0").unwrap();
        }
        victim.route(Ipv4Addr::new(10, 128, 0, 0).into(), 9, veth.there.v4.into()).unwrap();
        victim.route(Ipv6Addr::new(0xfdff, 0, 0, 0, 0, 0, 0, 0).into(), 16, veth.there.v6.into()).unwrap();
        Self { victim, attacker, end: veth.here, port: Port::claim() }
    }

    fn v4(&self) -> SocketAddr {
        SocketAddr::new(self.end.v4.into(), self.port.number())
    }

    /// A listener of the victim with room for `backlog` connections.
    fn listen(&self, ip: impl Into<IpAddr>, backlog: i32) -> Server {
        let address = SocketAddr::new(ip.into(), self.port.number());
        self.victim.run(|| Server::listen_with(address, backlog, |_| {}))
    }

    /// Sends a SYN from each source.
    fn send(&self, sources: impl Iterator<Item = SocketAddr> + Send, to: SocketAddr) -> u64 {
        self.attacker.run(|| SynSender::new().unwrap().send(sources.map(|from| (from, to))))
    }

    /// `conntrace stats` of the port.
    fn stats(&self) -> Ledger {
        Ledger::start(&[self.port.number()], "100ms")
    }

    /// Waits until these are the attempts on the port.
    fn await_attempts(&self, ledger: &Ledger, what: &str, accept: impl Fn(Attempts) -> bool) -> Report {
        let report = ledger.await_report(what, |report| accept(report.attempts(self.port.number())));
        report
    }

    fn last(&self, ledger: Ledger) -> Attempts {
        let report = ledger.stop();
        report.check_identity();
        report.attempts(self.port.number())
    }
}

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
    range.await_attempts(&ledger, "fifty requests", |found| without_refused(found) == known(50, 50, 0, 0));
    range.send(sources_v4().skip(50).take(1_000), range.v4());
    let snmp = Snmp::of(&range.victim);
    let dropped = snmp.get("TcpExt.ListenDrops");
    assert!(dropped > 900, "{dropped}");
    let found = range.last(ledger);
    assert_eq!(without_refused(found), known(1_050 - dropped, 1_050 - dropped, 0, dropped));
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
    let found = range.last(ledger);
    assert_eq!(without_refused(found), known(1_000 - cookies, 1_000 - cookies, 0, 0));
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
    let report = ledger.stop();
    let number = range.port.number();
    assert_eq!(without_refused(report.attempts(number)), known(0, 0, 0, 0));
    assert_eq!(report.numbers(conn_tests::truth::Direction::In, number).opened, 3);
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
    assert_eq!(without_refused(range.last(ledger)), known(10, 10, 0, 20));
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
    assert_eq!(without_refused(range.last(ledger)), known(42, 42, 0, 0));
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
    let snmp = Snmp::of(&range.victim);
    let last = range.last(ledger);
    assert_eq!(last.dropped, Some(snmp.get("TcpExt.ListenDrops") - 7));
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
    let report = ledger.stop();
    let number = range.port.number();
    let numbers = report.numbers(conn_tests::truth::Direction::In, number);
    assert_eq!(numbers.opened, clients);
    assert_eq!(numbers.opened, Snmp::of(&range.victim).get("Tcp.PassiveOpens"));
    let found = report.attempts(number);
    let snmp = Snmp::of(&range.victim);
    assert_eq!(found.dropped, Some(snmp.get("TcpExt.ListenDrops")));
    Ok(())
}
