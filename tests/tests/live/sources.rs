//! `conntrace stats --sources`: counts per remote address equal what was sent, to the unit.

use conn_common::remote::CAPACITY as ROOM;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    ledger::{Ledger, Report},
    needs_tracing,
    port::Port,
    range::Range,
    sources::Sources,
    tracer::Setup,
    traffic::{
        fail, handshake,
        socket::connect,
        syn::{sources_v4, sources_v6},
    },
};
use macro_rules_attribute::apply;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `conntrace stats --sources` of these ports.
fn start(ports: &[u16], most: &str, more: &[&str]) -> Ledger {
    let words: Vec<&str> = ["--sources", most].into_iter().chain(more.iter().copied()).collect();
    Ledger::start_with(ports, "100ms", &words)
}

fn sources(report: &Report) -> &Sources {
    report.sources.as_ref().expect("sources")
}

/// Waits until these are the sums of all sources: attempts, refused SYNs, connections and failed ones. So many attempts
/// have no entry: a report may have read the entries before the last SYNs, and the sums after them.
fn await_total(ledger: &Ledger, total: [u64; 4], unlisted: u64) -> Sources {
    let report = ledger.await_report(&format!("sums {total:?}"), |report| {
        let is_hidden = report.attempts.unknown.contains_key("refused_by_us");
        let expected = if is_hidden { [total[0], 0, total[2], total[3]] } else { total };
        let found = sources(report);
        found.total.counts() == expected && found.unlisted.counts() == [unlisted, 0, 0, 0]
    });
    sources(&report).check_sum();
    sources(&report).clone()
}

/// A listener's queue takes so many requests, which wait for a second.
fn with_long_queues() -> Range {
    let range = Range::new("0");
    for limit in ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"] {
        range.victim.sysctl(limit, "1000000").unwrap();
    }
    range.victim.sysctl("net.ipv4.tcp_synack_retries", "0").unwrap();
    range
}

/// The same address with another port.
fn from_port(source: SocketAddr, port: u16) -> SocketAddr {
    SocketAddr::new(source.ip(), port)
}

/// Of 10,000 sources, the 100 with more SYNs than the others.
#[apply(needs_tracing)]
fn heavy_sources_of_a_flood_are_exact(_: &Host) -> Outcome {
    let range = with_long_queues();
    let _listener = range.listen(range.end.v4, 1_000_000);
    let ledger = start(&[range.port.number()], "100", &[]);
    range.send(sources_v4().take(10_000), range.v4());
    let heavy: Vec<SocketAddr> = sources_v4().step_by(77).take(100).collect();
    for port in 60_001..60_011 {
        range.send(heavy.iter().map(|&source| from_port(source, port)), range.v4());
    }
    let found = await_total(&ledger, [11_000, 0, 0, 0], 0);
    assert_eq!((found.rows.len(), found.listed, found.full), (100, 10_000, false), "{found:?}");
    for source in heavy {
        assert_eq!(found.of(&source.ip().to_string(), "in"), Some([11, 0, 0, 0]), "{source}");
    }
    assert_eq!((found.others.address.as_str(), found.others.counts()), ("9900 others", [9_900, 0, 0, 0]));
    Ok(())
}

/// Both families, in one listener: IPv4 addresses stay IPv4.
#[apply(needs_tracing)]
fn prefixes_gather_their_addresses(_: &Host) -> Outcome {
    let range = with_long_queues();
    let _listener = range.listen(Ipv6Addr::UNSPECIFIED, 1_000_000);
    let (ledger, exact) = (
        start(&[range.port.number()], "10", &["--sources-by", "prefix"]),
        start(&[range.port.number()], "10", &[]),
    );
    range.send(sources_v4().take(600), range.v4());
    let to_v6 = SocketAddr::new(range.end.v6.into(), range.port.number());
    range.send(sources_v6().take(3), to_v6);
    let network = u128::from(Ipv6Addr::new(0xfdff, 0, 0, 9, 0, 0, 0, 0));
    let neighbours = (1..=50).map(|host| SocketAddr::new(Ipv6Addr::from(network | host << 40 | 1).into(), 9));
    range.send(neighbours, to_v6);
    let found = await_total(&ledger, [653, 0, 0, 0], 0);
    assert_eq!((found.by.as_str(), found.listed), ("prefix", 7), "{found:?}");
    for (prefix, count) in [
        ("10.128.0.0/24", 256),
        ("10.128.1.0/24", 256),
        ("10.128.2.0/24", 88),
        ("fdff:0:0:9::/64", 50),
        ("fdff::/64", 1),
        ("fdff:0:0:1::/64", 1),
        ("fdff:0:0:2::/64", 1),
    ] {
        assert_eq!(found.of(prefix, "in"), Some([count, 0, 0, 0]), "{prefix}: {found:?}");
    }
    let found = await_total(&exact, [653, 0, 0, 0], 0);
    assert_eq!((found.listed, found.others.counts()), (653, [643, 0, 0, 0]));
    Ok(())
}

/// Of other ports nothing is counted.
#[apply(needs_tracing)]
fn refused_syns_are_counted_by_source(_: &Host) -> Outcome {
    let range = Range::new("1");
    let (other, heavy) = (Port::claim(), sources_v4().nth(5).unwrap());
    let ledger = start(&[range.port.number()], "1", &["--sources-sort", "refused_by_us"]);
    range.send(sources_v4().take(30), range.v4());
    range.send((1..=9).map(|port| from_port(heavy, port)), range.v4());
    range.send(sources_v4().take(40), SocketAddr::new(range.end.v4.into(), other.number()));
    let to_v6 = SocketAddr::new(range.end.v6.into(), range.port.number());
    range.send(sources_v6().take(20), to_v6);
    let found = await_total(&ledger, [0, 59, 0, 0], 0);
    if found.total.refused_by_us.is_none() {
        return Err(Skip("this kernel shows no resets without a socket".into()));
    }
    assert_eq!(found.of(&heavy.ip().to_string(), "in"), Some([0, 10, 0, 0]), "{found:?}");
    assert_eq!((found.listed, found.others.counts()), (50, [0, 49, 0, 0]));
    Ok(())
}

/// Both ends of a connection are on this host, and so are both remote addresses.
#[apply(needs_tracing)]
fn connections_and_failures_are_counted_by_remote_address(_: &Host) -> Outcome {
    let range = Range::new("1");
    let closed = Port::claim();
    let listener = range.listen(range.end.v4, 64);
    let ports = [range.port.number(), closed.number()];
    let (ledger, incoming) = (start(&ports, "10", &[]), start(&ports, "10", &["--direction", "in"]));
    let pairs: Vec<_> = (0..5)
        .map(|_| (range.attacker.run(|| connect(range.v4())), range.victim.run(|| listener.accept())))
        .collect();
    let client = pairs[0].0.local_addr().unwrap().as_socket().unwrap().ip().to_string();
    let victim = range.end.v4.to_string();
    let refused = SocketAddr::new(range.end.v4.into(), closed.number());
    range.attacker.run(|| fail::refused(refused, 3));
    // A child that fails, and its client that gives up.
    handshake::allow_fast_open(&range.victim).unwrap();
    let local = closed.v4();
    range.victim.run(|| handshake::fast_open_reset(local));
    let report = ledger.await_report("all connections", |report| {
        let total = sources(report).total.counts();
        (total[2], total[3]) == (5 + 5 + 3 + 2, 3 + 2) && sources(report).unlisted.counts() == [0; 4]
    });
    let found = sources(&report);
    found.check_sum();
    let refused_by_us = if found.total.refused_by_us.is_some() { 3 } else { 0 };
    assert_eq!(found.of(&client, "in"), Some([5, refused_by_us, 5, 0]), "{found:?}");
    assert_eq!(found.of(&victim, "out"), Some([0, 0, 8, 3]), "{found:?}");
    let loopback = local.ip().to_string();
    assert_eq!(found.of(&loopback, "in").map(|counts| (counts[2], counts[3])), Some((1, 1)), "{found:?}");
    assert_eq!(found.of(&loopback, "out"), Some([0, 0, 1, 1]), "{found:?}");
    // As many as the ledger has.
    assert_eq!((found.total.opened, found.total.failed), (report.total.opened, report.total.failed));
    let found =
        incoming.await_report("incoming ones", |report| sources(report).total.counts()[2..] == [6, 1]);
    assert!(sources(&found).rows.iter().all(|row| row.direction == "in"), "{found:?}");
    Ok(())
}

/// A table without room says so, and the sums stay exact.
#[apply(needs_tracing)]
fn table_that_overflows_keeps_exact_sums(_: &Host) -> Outcome {
    const SOURCES: u64 = 70_000;
    let range = with_long_queues();
    let _listener = range.listen(range.end.v4, 1_000_000);
    let ledger = start(&[range.port.number()], "5", &[]);
    let heavy: Vec<SocketAddr> = sources_v4().take(5).collect();
    let send_heavy = |port| range.send(heavy.iter().map(|&source| from_port(source, port)), range.v4());
    send_heavy(60_001);
    range.send(sources_v4().take(SOURCES as usize), range.v4());
    send_heavy(60_002);
    let found = await_total(&ledger, [SOURCES + 10, 0, 0, 0], SOURCES - u64::from(ROOM));
    assert_eq!((found.full, found.listed), (true, u64::from(ROOM)), "{found:?}");
    for source in heavy {
        assert_eq!(found.of(&source.ip().to_string(), "in"), Some([3, 0, 0, 0]), "{found:?}");
    }
    assert_eq!(found.others.counts(), [found.room - 5, 0, 0, 0]);
    Ok(())
}

/// Without a filter, all ports count; and CSV has the sources instead of the ports.
#[apply(needs_tracing)]
fn csv_has_sources_with_rates(_: &Host) -> Outcome {
    let range = with_long_queues();
    let _listener = range.listen(range.end.v4, 4_096);
    let arguments = ["stats", "--sources", "100000", "-o", "csv", "--interval", "100ms"];
    let tracer = Setup::new(arguments).start();
    // An address that no other test has.
    let [high, low] = range.port.number().to_be_bytes();
    let own: IpAddr = Ipv4Addr::new(10, 250, high, low).into();
    range.send((1..=7).map(|port| SocketAddr::new(own, port)), range.v4());
    let header = tracer.await_stdout("the header", |line| line.starts_with("time,"));
    let expected = "time,address,direction,attempts,refused_by_us,opened,failed,attempts_per_s,\
                    refused_by_us_per_s,opened_per_s,failed_per_s";
    assert_eq!(header, expected);
    let begins = format!(",{own},in,7,");
    let row = tracer.await_stdout("the source", |line| line.contains(&begins) && line.ends_with(",0.0,0.0"));
    assert_eq!(row.split(',').count(), expected.split(',').count(), "{row}");
    for name in [" others", "unlisted", "total"] {
        tracer.await_stdout(name, |line| line.contains(&format!("{name},both,")));
    }
    Ok(())
}
