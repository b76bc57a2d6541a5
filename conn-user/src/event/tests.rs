#![expect(unsafe_code, reason = "a record is read as bytes")]

use std::sync::Arc;

use conn_common::cause::Ending;
use conn_common::connection::{IN, LISTENER, PERHAPS_IN, PREEXISTING, UNDIRECTED, WAS_ESTABLISHED};
use conn_common::event::{
    ATTEMPT as TRIED, CLOSED, DESTROY, EventRecord, LISTEN as LISTENS, NEW, NO_CAUSE, UPDATE,
};
use conn_common::owner::{ACCEPT, COMM, CONNECT, Owner as Record};
use conn_common::row::SocketRow;
use conn_common::state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT2, LISTEN, SYN_RECV, SYN_SENT, UNSEEN};
use proptest::prelude::*;

use super::*;
use crate::event::enriched::Enriched;
use crate::event::process::until_zero;
use crate::event::workload::{Container, ContainerNames, Workload};
use crate::host::ticks::TickRate;

/// Moments that a kernel can give: below 2^62 nanoseconds, 146 years.
const TIMES: std::ops::Range<u64> = 0..1 << 62;

/// The tick of most kernels.
const RATE: TickRate = TickRate::of_tick(4_000_000);

/// A docker container of a pod.
fn workload() -> Workload {
    let id = "0123456789abcdef".repeat(4);
    let unit = Some(format!("docker-{id}.scope"));
    let [name, pod, namespace] = ["app", "web-1", "prod"].map(|name| Some(name.to_owned()));
    let names = ContainerNames { name, pod, namespace };
    let known = |name: &str| Some(name.to_owned());
    Workload {
        container: Some(Container { id, user: Some(1_000), names }),
        unit,
        slice: known("system.slice"),
        user_unit: known("app.service"),
        user_slice: known("app.slice"),
    }
}

/// One second after boot, when the samples are attempted.
const ATTEMPT: u64 = 1_000_000_000;

fn name(text: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text);
    name
}

/// `curl` opens 192.0.2.7:43210 → 198.51.100.9:443.
pub(crate) fn new_out() -> Enriched {
    let mut connection = Connection {
        id: 41,
        attempt_ns: ATTEMPT,
        netns: 4_026_531_840,
        sport: 43_210,
        dport: 443,
        family: 4,
        direction: OUT,
        state: SYN_SENT,
        owner: Record {
            cgroup: 6_789,
            start_ns: ATTEMPT - 7,
            pid: 1_234,
            tid: 1_235,
            uid: 1_000,
            source: CONNECT,
            comm: name(b"curl"),
            thread: name(b"resolver"),
            ..Record::NONE
        },
        ..Connection::UNSEEN
    };
    connection.src[..4].copy_from_slice(&[192, 0, 2, 7]);
    connection.dst[..4].copy_from_slice(&[198, 51, 100, 9]);
    Enriched::from(Event {
        time_ns: ATTEMPT,
        kind: Kind::New,
        protocol: TCP,
        old_state: UNSEEN,
        traffic: Traffic::NONE,
        error: 0,
        end: None,
        reset: None,
        attempt: None,
        idle_ns: None,
        at_least_ns: None,
        half_open: None,
        dropped: None,
        tracked: Tracked::NONE,
        connection,
    })
}

/// A peer connects over IPv6 to port 22 of this host; no owner yet.
pub(crate) fn new_in_v6() -> Enriched {
    let mut event = new_out();
    event.connection.src = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
    event.connection.dst = "2001:db8::22".parse::<Ipv6Addr>().unwrap().octets();
    event.connection.dport = 22;
    event.connection.family = 6;
    event.connection.direction = IN;
    event.connection.state = SYN_RECV;
    without_owner(event)
}

/// A SYN to port 22 that a listener took.
pub(crate) fn attempt() -> Enriched {
    let mut event = new_in_v6();
    event.kind = Kind::Attempt;
    event.attempt = Some(Attempt::HalfOpen);
    event
}

/// nginx listens at port 80.
pub(crate) fn listen() -> Enriched {
    let mut event = new_out();
    event.kind = Kind::Listen;
    let connection = &mut event.connection;
    (connection.direction, connection.state) = (UNDIRECTED, LISTEN);
    connection.set(LISTENER);
    (connection.sport, connection.dport) = (0, 80);
    (connection.src, connection.dst) = ([0; 16], [0; 16]);
    connection.owner.comm = name(b"nginx");
    connection.owner.source = conn_common::owner::LISTENER;
    event
}

/// The listener of [`listen`] ends after a minute.
pub(crate) fn listener_closed() -> Enriched {
    let mut event = listen();
    event.kind = Kind::Closed;
    event.time_ns += 60_000_000_000;
    event.old_state = LISTEN;
    event.connection.state = CLOSE;
    event
}

/// A peer on the link of the interface v0 connects to this host.
pub(crate) fn link_local() -> Enriched {
    let mut event = new_in_v6();
    event.connection.src = "fe80::7".parse::<Ipv6Addr>().unwrap().octets();
    event.connection.dst = "fe80::22".parse::<Ipv6Addr>().unwrap().octets();
    event.connection.set_interface(65_539);
    event.interface = Some("v0".into());
    event
}

pub(crate) fn without_owner(mut event: Enriched) -> Enriched {
    event.connection.owner = Record::NONE;
    event
}

/// The connection of [`new_out`] completes its handshake after 1.5 ms.
pub(crate) fn established() -> Enriched {
    let mut event = new_out();
    event.time_ns += 1_500_000;
    event.kind = Kind::Update;
    event.old_state = SYN_SENT;
    event.connection.state = ESTABLISHED;
    event.connection.established_ns = event.time_ns;
    event.connection.set(WAS_ESTABLISHED);
    event
}

/// The connection of [`established`] ends after 61.000000042 s.
pub(crate) fn closed() -> Enriched {
    let mut event = established();
    event.time_ns = ATTEMPT + 61_000_000_042;
    event.kind = Kind::Destroy;
    event.old_state = FIN_WAIT2;
    event.connection.state = CLOSE;
    event.end = Some(Cause::ClosedByUs);
    event.traffic = Traffic {
        bytes_sent: 517,
        bytes_received: 65_536,
        segments_sent: 49,
        segments_received: 51,
        retransmits: 2,
        srtt_us: 1_480,
        min_rtt_us: 1_390,
        ..Traffic::NONE
    };
    event.idle_ns = Some(2_004_000_000);
    event
}

/// The connection of [`established`] is closed with unread data.
pub(crate) fn reset() -> Enriched {
    let mut event = closed();
    event.old_state = ESTABLISHED;
    event.end = Some(Cause::ResetByUs);
    event.reset = Some(Reset::UnreadData);
    event
}

/// The handshake of [`new_out`] fails.
pub(crate) fn failed(error: i32, after_ns: u64) -> Enriched {
    let mut event = new_out();
    event.time_ns += after_ns;
    event.kind = Kind::Destroy;
    event.old_state = SYN_SENT;
    event.connection.state = CLOSE;
    event.error = u16::try_from(error).unwrap();
    event.end = Some(Cause::of(Ending {
        from: SYN_SENT,
        error: event.error,
        sent: true,
        held: true,
        holds: true,
        peer_closed: false,
        never_lingers: false,
        in_repair: false,
    }));
    event
}

/// The end of a connection that existed before conntrace.
pub(crate) fn preexisting() -> Enriched {
    let mut event = without_owner(closed());
    event.old_state = CLOSE_WAIT;
    event.end = Some(Cause::ResetByPeer);
    event.connection.id = ATTEMPT << 10 | 3;
    event.connection.attempt_ns = 0;
    event.connection.established_ns = 0;
    event.connection.set(PREEXISTING);
    event.at_least_ns = Some(61_000_000_042);
    event
}

/// The names of process and host hold control characters and keys of other columns.
pub(crate) fn nasty() -> Enriched {
    let mut event = new_out();
    event.connection.owner.comm = name(b"x\n[NEW] pid=1\x1b\xff");
    event.connection.owner.thread = name(b"\"\\ \xe2\x80\xae");
    event.src_name = Some("x dst=1\n\u{1b}[2J".into());
    event
}

/// The row of [`established`] ten seconds after the attempt.
pub(crate) fn open() -> Enriched {
    let mut event = established();
    event.time_ns = ATTEMPT + 10_000_000_000;
    event.kind = Kind::Open;
    event.old_state = ESTABLISHED;
    event.connection.owner.holders = 2;
    event.workload = Some(Arc::new(workload()));
    event.command_line = Some(b"curl -s http://x"[..].into());
    event.src_name = Some("laptop.example".into());
    event.dst_name = Some("web.example".into());
    event.traffic = Traffic { receive_queue: 12, send_queue: 3_456, ..closed().traffic };
    event.idle_ns = Some(4_000_000);
    event
}

/// A listener of port 80 now, whose queues are full.
pub(crate) fn listening() -> Enriched {
    let mut event = listen();
    event.kind = Kind::Open;
    event.old_state = LISTEN;
    event.traffic = Traffic { receive_queue: 129, send_queue: 128, ..Traffic::NONE };
    (event.half_open, event.dropped) = (Some(64), Some(1_000));
    event
}

/// Any bytes as a record, with the values that a kernel gives where a record is checked.
fn any_record() -> impl Strategy<Value = EventRecord> {
    let state = 1_u8..=11;
    let owner = (
        (any::<u64>(), TIMES, any::<u32>(), any::<u32>(), any::<u32>()),
        (0_u8..6, 0_u8..4, any::<[u8; COMM]>(), any::<[u8; COMM]>()),
    )
        .prop_map(|(numbers, (source, flags, comm, thread))| Record {
            cgroup: numbers.0,
            start_ns: numbers.1,
            pid: numbers.2,
            tid: numbers.3,
            uid: numbers.4,
            source,
            flags,
            holders: numbers.4 as u16,
            comm,
            thread,
        });
    let connection = (
        (any::<u64>(), TIMES, TIMES, any::<u32>(), owner),
        (any::<u16>(), any::<u16>(), any::<[u8; 16]>(), any::<[u8; 16]>()),
        (prop_oneof![Just(4), Just(6)], prop_oneof![Just(IN), Just(OUT)], state.clone(), any::<u8>()),
    )
        .prop_map(|(times, tuple, rest)| Connection {
            id: times.0,
            attempt_ns: times.1,
            established_ns: times.2,
            netns: times.3,
            sport: tuple.0,
            dport: tuple.1,
            src: tuple.2,
            dst: tuple.3,
            family: rest.0,
            direction: rest.1,
            state: rest.2,
            flags: rest.3 & !LISTENER,
            last_sport: 0,
            scratch: 0,
            owner: times.4,
        });
    let counts = (any::<u64>(), any::<u64>(), any::<[u32; 8]>());
    let traffic = counts.prop_map(|(bytes_sent, bytes_received, counts)| Traffic {
        bytes_sent,
        bytes_received,
        segments_sent: counts[0],
        segments_received: counts[1],
        retransmits: counts[2],
        srtt_us: counts[3],
        min_rtt_us: counts[4],
        receive_queue: counts[5],
        send_queue: counts[6],
        idle_jiffies: counts[7],
    });
    let ending = (any::<u16>(), 0..=Cause::COUNT as u8, any::<u8>());
    let kind = prop_oneof![Just(NEW), Just(UPDATE), Just(DESTROY), Just(TRIED), Just(LISTENS), Just(CLOSED)];
    (kind, state, TIMES, ending, traffic, connection).prop_map(
        |(kind, old_state, time_ns, (error, cause, reset), traffic, connection)| EventRecord {
            time_ns,
            error,
            kind,
            old_state: match kind {
                NEW | TRIED | LISTENS => UNSEEN,
                CLOSED => LISTEN,
                _ => old_state,
            },
            cause: if kind == TRIED { cause % Attempt::ALL.len() as u8 } else { cause },
            reset,
            version: conn_common::event::VERSION,
            protocol: TCP,
            traffic,
            connection: if matches!(kind, LISTENS | CLOSED) {
                Connection { direction: UNDIRECTED, flags: connection.flags | LISTENER, ..connection }
            } else {
                connection
            },
        },
    )
}

/// The record that an event of the stream is decoded from, but for its idle time.
pub(crate) fn record(event: &Event) -> EventRecord {
    EventRecord {
        time_ns: event.time_ns,
        error: event.error,
        kind: event.kind.bit().trailing_zeros() as u8,
        old_state: event.old_state,
        cause: event
            .attempt
            .map_or_else(|| event.end.map_or(NO_CAUSE, |cause| cause as u8), |attempt| attempt as u8),
        reset: 0,
        version: conn_common::event::VERSION,
        protocol: TCP,
        traffic: event.traffic,
        connection: event.connection,
    }
}

/// The bytes of a record.
pub(crate) fn bytes(record: &EventRecord) -> Vec<u8> {
    // SAFETY: a record is `repr(C)` of integers without padding, and lives until this function returns.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<EventRecord>()) }
        .to_vec()
}

/// Any event of the stream, and any open connection or listener.
fn any_plain_event() -> impl Strategy<Value = Event> {
    let open = (
        any_record(),
        prop_oneof![Just(IN), Just(OUT), Just(UNDIRECTED), Just(PERHAPS_IN)],
        any::<[u32; 3]>(),
        0_u8..4,
    )
        .prop_map(|(record, direction, [at_least_jiffies, half_open, drops], known)| {
            let EventRecord { time_ns, traffic, connection, .. } = record;
            let direction = if connection.is_listener() { UNDIRECTED } else { direction };
            let row = SocketRow {
                cookie: 7,
                traffic,
                at_least_jiffies,
                known,
                connection,
                half_open,
                drops,
                ..SocketRow::EMPTY
            };
            decode::open(&row, &Connection { direction, ..connection }, time_ns, RATE)
        });
    let stream = any_record().prop_map(|record| decode::decode(&bytes(&record), RATE).unwrap());
    prop_oneof![3 => stream, 1 => open]
}

/// Any event, with anything that may be known about it.
pub(crate) fn any_event() -> impl Strategy<Value = Enriched> {
    // Any text, but never an empty one.
    let name = || prop::option::of("(?s).{1,20}");
    let names =
        (name(), name(), name()).prop_map(|(name, pod, namespace)| ContainerNames { name, pod, namespace });
    let container = ("(?s).{1,70}", any::<Option<u32>>(), names).prop_map(|(id, user, names)| Container {
        id,
        user,
        names,
    });
    let workload = (prop::option::of(container), name(), name()).prop_map(|(container, unit, user_unit)| {
        Workload { container, unit, user_unit, ..Workload::default() }
    });
    (any_plain_event(), workload, name(), name()).prop_map(|(event, workload, src_name, dst_name)| Enriched {
        workload: Some(workload).filter(|workload| !workload.is_empty()).map(Arc::new),
        src_name: src_name.map(Into::into),
        dst_name: dst_name.map(Into::into),
        ..Enriched::from(event)
    })
}

#[test]
fn durations_need_both_ends() {
    assert_eq!((new_out().lifetime_ns(), new_out().handshake_ns()), (None, None));
    assert_eq!((established().lifetime_ns(), established().handshake_ns()), (None, Some(1_500_000)));
    assert_eq!((closed().lifetime_ns(), closed().handshake_ns()), (Some(61_000_000_042), Some(1_500_000)));
    assert_eq!((preexisting().lifetime_ns(), preexisting().handshake_ns()), (None, None));
    assert_eq!((preexisting().at_least_ns, closed().at_least_ns), (Some(61_000_000_042), None));
}

#[test]
fn owner_names_end_at_the_zero() {
    let event = new_out();
    let owner = event.owner().unwrap();
    assert_eq!((owner.pid, owner.comm, owner.thread), (1_234, &b"curl"[..], &b"resolver"[..]));
    assert_eq!(event.owner_source(), "connect");
    assert_eq!(without_owner(new_out()).owner(), None);
    let mut accepted = new_in_v6();
    assert_eq!(accepted.owner_source(), "-");
    accepted.connection.owner.source = ACCEPT;
    assert_eq!(accepted.owner_source(), "accept");
    accepted.connection.owner.flags = conn_common::owner::SHARED;
    assert_eq!((accepted.owner(), accepted.owner_source()), (None, "accept"));
    assert_eq!(until_zero(&[b'x'; 16]).len(), 16);
    assert_eq!(until_zero(b"\0leftover"), b"");
}
