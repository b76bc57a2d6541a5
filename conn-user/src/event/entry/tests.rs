use std::net::{Ipv4Addr, Ipv6Addr};

use conn_common::connection::FORWARD;
use conn_common::protocol::{SCTP, UDP};
use proptest::prelude::*;

use super::*;

/// A query of DNS that passes through, and whose source is translated.
pub(crate) fn entry() -> Entry {
    let end = |text: &str| text.parse().unwrap();
    let tuple = |source, destination| Tuple {
        source: end(source),
        destination: end(destination),
        icmp: None,
        protocol: UDP,
        zone: None,
    };
    Entry {
        id: 77,
        original: tuple("10.0.0.1:40000", "10.1.0.1:53"),
        reply: tuple("10.1.0.1:53", "10.1.0.2:1024"),
        status: Some(0),
        timeout_s: Some(30),
        tcp_state: None,
        sctp_state: None,
        mark: None,
        zone: None,
        counters: None,
        started_unix_ns: None,
        stopped_unix_ns: None,
        happened_unix_ns: None,
    }
}

/// One entry of each kind that looks different.
pub(crate) fn entries() -> Vec<Event> {
    let end = |text: &str| text.parse::<SocketAddr>().unwrap();
    let udp = entry();
    let plain = |protocol| {
        let original = Tuple { protocol, ..udp.original };
        let reply = Tuple { source: original.destination, destination: original.source, ..original };
        Entry { original, reply, ..udp }
    };
    let tcp = Entry {
        tcp_state: Some(3),
        timeout_s: Some(432_000),
        status: Some(SEEN_REPLY | STAYS),
        mark: Some(7),
        zone: Some(3),
        counters: Some([Counters { packets: 2, bytes: 80 }, Counters { packets: 1, bytes: 40 }]),
        ..plain(TCP)
    };
    let offloaded = Entry { timeout_s: None, status: Some(SEEN_REPLY | STAYS | OFFLOAD), ..tcp };
    let ended = Entry { tcp_state: None, timeout_s: None, ..tcp };
    let echo = |kind, id| Some(Icmp { kind, code: 0, id });
    let ping = plain(1);
    let of_ping = |tuple: Tuple, icmp| {
        let port_less = |mut end: SocketAddr| {
            end.set_port(0);
            end
        };
        Tuple { source: port_less(tuple.source), destination: port_less(tuple.destination), icmp, ..tuple }
    };
    let ping = Entry {
        original: of_ping(ping.original, echo(8, 9)),
        reply: of_ping(ping.reply, echo(0, 9)),
        ..ping
    };
    let v6 = |source: &str, destination: &str| Tuple {
        source: end(source),
        destination: end(destination),
        zone: Some(5),
        ..udp.original
    };
    let zoned = Entry {
        original: v6("[2001:db8::1]:40000", "[2001:db8:1::1]:53"),
        reply: Tuple { zone: None, ..v6("[2001:db8:1::1]:53", "[2001:db8::1]:40000") },
        ..udp
    };
    [
        (udp, Kind::New),
        (tcp, Kind::Update),
        (offloaded, Kind::Update),
        (ended, Kind::Destroy),
        (ping, Kind::New),
        (zoned, Kind::New),
        (plain(47), Kind::New),
        (plain(2), Kind::New),
        (Entry { sctp_state: SctpState::new(4), ..plain(SCTP) }, Kind::Update),
        (tcp, Kind::Open),
    ]
    .map(|(entry, kind)| entry.event(&reading(kind)))
    .to_vec()
}

/// Any event of an entry.
pub(crate) fn any_entry_event() -> impl Strategy<Value = Event> {
    let icmp = (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(kind, code, id)| Icmp { kind, code, id });
    let ends = prop_oneof![
        any::<[(Ipv4Addr, u16); 4]>().prop_map(|ends| ends.map(SocketAddr::from)),
        any::<[(Ipv6Addr, u16); 4]>().prop_map(|ends| ends.map(SocketAddr::from)),
    ];
    let tuples = (ends, any::<u8>(), any::<[Option<u16>; 2]>(), prop::option::of([icmp.clone(), icmp]));
    let counters = any::<Option<[(u64, u64); 2]>>().prop_map(|counters| {
        counters.map(|counters| counters.map(|(packets, bytes)| Counters { packets, bytes }))
    });
    let facts = (any::<[u32; 2]>(), any::<[Option<u32>; 3]>(), any::<Option<u16>>(), counters, 0_u8..12);
    let kind = prop_oneof![Just(Kind::New), Just(Kind::Update), Just(Kind::Destroy), Just(Kind::Open)];
    let reading = (kind, 0..=FORWARD, any::<bool>(), any::<bool>());
    (tuples, facts, reading).prop_map(|((ends, protocol, zones, icmp), facts, reading)| {
        let ([id, status], [timeout_s, mark, netns], zone, counters, tcp_state) = facts;
        let (kind, direction, preexisting, is_stamped) = reading;
        let tuple = |at: usize| Tuple {
            source: ends[2 * at],
            destination: ends[2 * at + 1],
            icmp: icmp.map(|icmp| icmp[at]),
            protocol,
            zone: zones[at],
        };
        let entry = Entry {
            id,
            original: tuple(0),
            reply: tuple(1),
            status: Some(status),
            timeout_s,
            tcp_state: Some(tcp_state).filter(|_| protocol == TCP),
            sctp_state: SctpState::new(tcp_state).filter(|_| protocol == SCTP),
            mark,
            zone,
            counters: counters.filter(|_| matches!(kind, Kind::Destroy | Kind::Open)),
            started_unix_ns: None,
            stopped_unix_ns: None,
            happened_unix_ns: None,
        };
        entry.event(&Reading {
            netns: netns.unwrap_or(0),
            direction,
            preexisting,
            at_least_ns: Some(7).filter(|_| preexisting && matches!(kind, Kind::Destroy | Kind::Open)),
            clock: if is_stamped { TimeSource::Kernel } else { TimeSource::Reading },
            ..self::reading(kind)
        })
    })
}

/// What a reader of an entry knows.
pub(crate) fn reading(kind: Kind) -> Reading {
    Reading {
        netns: 4_026_531_840,
        direction: FORWARD,
        kind,
        time_ns: 1_000_000_000,
        began_ns: Some(1_000_000_000),
        preexisting: false,
        at_least_ns: None,
        clock: TimeSource::Reading,
    }
}

#[test]
fn status_and_tuples_become_an_event() {
    let event = entry().event(&reading(Kind::New));
    assert_eq!(
        (event.connection.state, event.old_state, event.state()),
        (UNREPLIED, UNSEEN, Some("unreplied"))
    );
    assert_eq!(event.direction(), Some("forward"));
    assert!(event.tracked.reply.is_some() && event.traffic_of(|traffic| traffic.bytes_sent).is_none());
    let counted = [Counters { packets: 2, bytes: 80 }, Counters { packets: 1, bytes: 40 }];
    let reply = Tuple { destination: entry().original.source, ..entry().reply };
    let status = Some(SEEN_REPLY | STAYS | OFFLOAD);
    let ended = Entry { status, reply, counters: Some(counted), ..entry() }.event(&reading(Kind::Destroy));
    assert_eq!((ended.connection.state, ended.old_state), (CLOSE, ASSURED));
    assert_eq!((ended.tracked.reply, ended.tracked.packets), (None, Some([2, 1])));
    assert_eq!(ended.tracked.entry.unwrap().offload, Some(Offload::Software));
    assert_eq!(ended.traffic_of(|traffic| traffic.bytes_received), Some(40));
    assert!(!ended.is_failed() && ended.lifetime_ns() == Some(0));
}

#[test]
fn states_of_tcp_have_our_numbers() {
    let numbers: Vec<_> = (0..=10).map(|number| state::name(state_of_tcp(number)).unwrap_or("-")).collect();
    assert_eq!(
        numbers.join(" "),
        "- SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT -"
    );
}
