//! The life of a flow: without a reply, with one, a stream, and its end by idle time.

use super::{await_flow, bind, check_end, exchange, numbers, watch};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    tracer::Tracer,
};
use macro_rules_attribute::apply;
use std::{
    cell::Cell,
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Sets both idle times of a namespace, in seconds. Where nothing tracks connections, there are none to set.
pub(super) fn set_idle_times(netns: &NetNs, flow_s: u32, stream_s: u32) -> Result<(), Skip> {
    let set = || {
        netns.sysctl("net.netfilter.nf_conntrack_udp_timeout", &flow_s.to_string())?;
        netns.sysctl("net.netfilter.nf_conntrack_udp_timeout_stream", &stream_s.to_string())
    };
    if set().is_err() {
        // A rule that needs connection tracking loads it.
        let rule = "add table inet t; add chain inet t c; add rule inet t c ct state new";
        let _ = netns.run(|| Command::new("nft").arg(rule).output());
    }
    set().map_err(|error| Skip(format!("the kernel cannot track connections: {error}")))
}

/// A tracer that takes the idle times of the namespace.
fn watch_inside(netns: &NetNs, arguments: &[&str]) -> Tracer {
    netns.run(|| watch(netns, arguments))
}

fn lifetime(end: &Line) -> f64 {
    end.key("lifetime").unwrap_or_else(|| panic!("no lifetime: {end:?}")).parse().unwrap()
}

/// A packet more than two seconds after the first one makes a stream of a flow with a reply.
#[apply(needs_tracing)]
fn long_exchange_becomes_a_stream(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &[]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let address = server.local_addr().unwrap();
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    client.connect(address).unwrap();
    let begun = Instant::now();
    let from = client.local_addr().unwrap();
    let mut exchanges = 0;
    let streams = |lines: &[Line]| lines.iter().filter(|line| line.assured).count();
    while streams(&tracer.events()) < 2 {
        exchange(&client, &server);
        exchanges += 1;
        assert!(begun.elapsed() < Duration::from_secs(60), "no stream");
        thread::sleep(Duration::from_millis(50));
    }
    drop((client, server));
    for direction in ["out", "in"] {
        let end = await_flow(&tracer, Kind::Destroy, direction, from, address);
        let (sent, received) = if direction == "out" { (5, 10) } else { (10, 5) };
        assert_eq!(numbers(&end), [exchanges, sent * exchanges, exchanges, received * exchanges]);
        assert!(end.assured && !end.unreplied && lifetime(&end) > 2.0, "{end:?}");
        let own: Vec<_> = tracer
            .events()
            .into_iter()
            .filter(|line| line.key("dir") == Some(direction))
            .map(|line| (line.kind, line.timeout, line.unreplied, line.assured))
            .collect();
        let expected = [
            (Kind::New, Some(30), true, false),
            (Kind::Update, Some(30), false, false),
            (Kind::Update, Some(120), false, true),
            (Kind::Destroy, None, false, true),
        ];
        assert_eq!(own, expected, "{direction}");
    }
    Ok(())
}

/// Each socket sends, is idle for longer than the idle time, and sends again: two flows. Some of the first ones are ended by
/// the second packet, others by the sweep.
#[apply(needs_tracing)]
fn idle_flow_ends_and_the_next_packet_begins_another(_: &Host) -> Outcome {
    const SOCKETS: usize = 12;
    let netns = NetNs::new().unwrap();
    set_idle_times(&netns, 1, 2)?;
    let tracer = watch_inside(&netns, &[]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let address = server.local_addr().unwrap();
    let sent: Vec<(UdpSocket, Instant)> = (0..SOCKETS)
        .map(|_| {
            let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
            client.send_to(b"first", address).unwrap();
            // Their times are spread over the time between two sweeps.
            thread::sleep(Duration::from_millis(43));
            (client, Instant::now())
        })
        .collect();
    let clients: Vec<SocketAddr> = sent.iter().map(|(client, _)| client.local_addr().unwrap()).collect();
    for (client, at) in &sent {
        // A tick is at most 10 ms. The process was idle since a while before `at`.
        let wait = Duration::from_millis(1_030).saturating_sub(at.elapsed());
        thread::sleep(wait);
        client.send_to(b"2nd", address).unwrap();
    }
    drop((sent, server));
    let flows = 4 * SOCKETS;
    let ends = Cell::new(0);
    tracer.await_event("all ends", |line| {
        ends.set(ends.get() + usize::from(line.kind == Kind::Destroy));
        ends.get() == flows
    });
    let events = tracer.stop().events();
    for client in clients {
        for direction in ["out", "in"] {
            let own: Vec<&Line> = events
                .iter()
                .filter(|line| line.original.source == client && line.key("dir") == Some(direction))
                .collect();
            let ends: Vec<_> = own
                .iter()
                .filter(|line| line.kind == Kind::Destroy)
                .map(|line| (numbers(line), line.key("reason").unwrap()))
                .collect();
            let one = |packets, bytes| {
                if direction == "out" { [packets, bytes, 0, 0] } else { [0, 0, packets, bytes] }
            };
            assert_eq!(ends.len(), 2, "{own:?}");
            assert_eq!(ends[0], (one(1, 5), "timed_out"), "{client} {direction}");
            assert_eq!(ends[1].0, one(1, 3), "{client} {direction}");
            let first = own.iter().find(|line| line.key("reason") == Some("timed_out")).unwrap();
            // The idle time in whole ticks after the only packet.
            assert!((1.0..1.02).contains(&lifetime(first)), "{first:?}");
            let news: Vec<_> =
                own.iter().filter(|line| line.kind == Kind::New).map(|line| line.timeout).collect();
            assert_eq!(news, [Some(1); 2]);
        }
    }
    Ok(())
}

/// Packets that come in time keep a flow alive for longer than its idle time.
#[apply(needs_tracing)]
fn busy_flow_outlives_its_idle_time(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    set_idle_times(&netns, 1, 2)?;
    let tracer = watch_inside(&netns, &["-e", "NEW,DESTROY"]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let address = server.local_addr().unwrap();
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let from = client.local_addr().unwrap();
    let (mut packets, mut since) = (0, Instant::now());
    let (begun, mut last) = (since, since);
    // Of a machine that is too busy, the last packets in time count.
    while since.elapsed() < Duration::from_millis(1_600) {
        assert!(begun.elapsed() < Duration::from_secs(60), "this machine stands still too often");
        client.send_to(b"x", address).unwrap();
        if last.elapsed() > Duration::from_millis(900) {
            (packets, since) = (0, Instant::now());
        }
        packets += 1;
        last = Instant::now();
        thread::sleep(Duration::from_millis(100));
    }
    drop(client);
    let end = tracer.await_event("the end by the close", |line| {
        line.kind == Kind::Destroy && line.original.source == from && line.key("reason") == Some("closed")
    });
    let [sent, bytes, ..] = numbers(&end);
    assert!(sent >= packets && bytes == sent && lifetime(&end) > 1.4, "{packets}: {end:?}");
    Ok(())
}

/// The idle time ends a flow that was refused, too: it failed all the same.
#[apply(needs_tracing)]
fn refused_flow_that_is_idle_has_failed(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    set_idle_times(&netns, 1, 2)?;
    let tracer = watch_inside(&netns, &["-e", "DESTROY"]);
    let closed = bind(&netns, (Ipv4Addr::LOCALHOST, 0)).local_addr().unwrap();
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    client.connect(closed).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let end = check_end(&tracer, "out", client.local_addr().unwrap(), closed, [1, 1, 0, 0]);
    assert_eq!((end.key("failed"), end.key("reason")), (Some("refused"), None));
    assert!((1.0..1.02).contains(&lifetime(&end)), "{end:?}");
    Ok(())
}
