use conn_common::connection::{HELD, IN, PREEXISTING, TUPLE_KNOWN, UNDIRECTED, WAS_ESTABLISHED};
use conn_common::owner::{ACCEPT, CONNECT, Owner as Record};
use conn_common::state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT2, SYN_RECV, SYN_SENT, UNSEEN};
use proptest::prelude::*;

use super::*;
use conn_common::cause::Ending;

/// A container, by the path that systemd gives docker's.
fn place() -> Place {
    let place = Place::of_path(&format!("/system.slice/docker-{}.scope", "0123456789abcdef".repeat(4)));
    let [name, pod, namespace] = ["app", "web-1", "prod"].map(|name| Some(name.to_owned()));
    place.container.as_ref().unwrap().set_names(Names { name, pod, namespace });
    place
}

/// One second after boot, when the samples are attempted.
const ATTEMPT: u64 = 1_000_000_000;

fn name(text: &[u8]) -> [u8; 16] {
    let mut name = [0; 16];
    name[..text.len()].copy_from_slice(text);
    name
}

/// `curl` opens 192.0.2.7:43210 → 198.51.100.9:443.
pub(crate) fn new_out() -> Event {
    let mut connection = Connection {
        id: 41,
        attempt_ns: ATTEMPT,
        netns: 4_026_531_840,
        sport: 43_210,
        dport: 443,
        family: 4,
        direction: OUT,
        state: SYN_SENT,
        flags: TUPLE_KNOWN | HELD,
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
    Event {
        time_ns: ATTEMPT,
        kind: Kind::New,
        old_state: UNSEEN,
        traffic: Traffic::NONE,
        error: 0,
        end: None,
        reset: None,
        idle_ns: None,
        at_least_ns: None,
        place: None,
        process: None,
        src_name: None,
        dst_name: None,
        connection,
    }
}

/// Somebody connects over IPv6 to our port 22; no owner yet.
pub(crate) fn new_in_v6() -> Event {
    let mut event = new_out();
    event.connection.src = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
    event.connection.dst = "2001:db8::22".parse::<Ipv6Addr>().unwrap().octets();
    event.connection.dport = 22;
    event.connection.family = 6;
    event.connection.direction = IN;
    event.connection.state = SYN_RECV;
    without_owner(event)
}

pub(crate) fn without_owner(mut event: Event) -> Event {
    event.connection.owner = Record::NONE;
    event
}

/// 1.5 ms later its handshake is complete.
pub(crate) fn established() -> Event {
    let mut event = new_out();
    event.time_ns += 1_500_000;
    event.kind = Kind::Update;
    event.old_state = SYN_SENT;
    event.connection.state = ESTABLISHED;
    event.connection.established_ns = event.time_ns;
    event.connection.set(WAS_ESTABLISHED);
    event
}

/// 61.000000042 s later it ends.
pub(crate) fn closed() -> Event {
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

/// Or it is closed with data that nobody has read.
pub(crate) fn reset() -> Event {
    let mut event = closed();
    event.old_state = ESTABLISHED;
    event.end = Some(Cause::ResetByUs);
    event.reset = Some(Reset::UnreadData);
    event
}

/// Instead, its handshake fails.
pub(crate) fn failed(error: i32, after_ns: u64) -> Event {
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
    }));
    event
}

/// The end of a connection that was there before conntrace.
pub(crate) fn preexisting() -> Event {
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

/// Its process has a name that wants to be something else.
pub(crate) fn nasty() -> Event {
    let mut event = new_out();
    event.connection.owner.comm = name(b"x\n[NEW] pid=1\x1b\xff");
    event.connection.owner.thread = name(b"\"\\ \xe2\x80\xae");
    event.src_name = Some("x dst=1\n\u{1b}[2J".into());
    event
}

/// Ten seconds after its attempt, `established` is looked at.
pub(crate) fn open() -> Event {
    let mut event = established();
    event.time_ns = ATTEMPT + 10_000_000_000;
    event.kind = Kind::Open;
    event.old_state = ESTABLISHED;
    event.place = Some(Arc::new(place()));
    event.process = Some(Arc::new(Process::called(b"curl -s http://x")));
    event.src_name = Some("laptop.example".into());
    event.dst_name = Some("web.example".into());
    event.traffic = Traffic { receive_queue: 12, send_queue: 3_456, ..closed().traffic };
    event.idle_ns = Some(4_000_000);
    event
}

/// Everything that `decode` lets through, and what is open.
pub(crate) fn any_event() -> impl Strategy<Value = Event> {
    let state = 1_u8..=12;
    let owner = (
        (any::<u64>(), any::<u64>(), any::<u32>(), any::<u32>(), any::<u32>()),
        (0_u8..6, any::<u8>(), any::<[u8; 16]>(), any::<[u8; 16]>()),
    )
        .prop_map(|(numbers, (source, flags, comm, thread))| Record {
            cgroup: numbers.0,
            start_ns: numbers.1,
            pid: numbers.2,
            tid: numbers.3,
            uid: numbers.4,
            source,
            flags,
            reserved: 0,
            comm,
            thread,
        });
    let connection = (
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>(), owner),
        (any::<u16>(), any::<u16>(), any::<[u8; 16]>(), any::<[u8; 16]>()),
        (prop_oneof![Just(4), Just(6)], 0..=UNDIRECTED, state.clone(), any::<u8>()),
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
            flags: rest.3,
            last_sport: 0,
            scratch: 0,
            owner: times.4,
        });
    let counts = (any::<u64>(), any::<u64>(), any::<[u32; 7]>(), any::<u16>());
    let end = prop::sample::select(&Cause::ALL[..]);
    let kinds = [Kind::New, Kind::Update, Kind::Destroy, Kind::Open];
    // Any text, but never none at all.
    let name = || prop::option::of("(?s).{1,20}");
    let names = (name(), name());
    (prop::sample::select(kinds.to_vec()), state, any::<u64>(), counts, end, connection, names).prop_map(
        |(kind, old_state, time_ns, counts, end, connection, names)| Event {
            time_ns,
            kind,
            old_state: if kind == Kind::New { UNSEEN } else { old_state },
            traffic: Traffic {
                bytes_sent: counts.0,
                bytes_received: counts.1,
                segments_sent: counts.2[0],
                segments_received: counts.2[1],
                retransmits: counts.2[2],
                srtt_us: counts.2[3],
                min_rtt_us: counts.2[4],
                receive_queue: counts.2[5],
                send_queue: counts.2[6],
                idle_jiffies: 0,
            },
            error: counts.3,
            end: (kind == Kind::Destroy).then_some(end),
            reset: (kind == Kind::Destroy && end == Cause::ResetByUs).then_some(Reset::Linger0),
            idle_ns: connection.is(WAS_ESTABLISHED).then_some(5),
            at_least_ns: connection.is(PREEXISTING).then_some(7),
            place: None,
            process: None,
            src_name: names.0.map(Into::into),
            dst_name: names.1.map(Into::into),
            connection,
        },
    )
}

#[test]
fn spans_are_known_when_their_ends_are() {
    assert_eq!((new_out().lifetime_ns(), new_out().handshake_ns()), (None, None));
    assert_eq!((established().lifetime_ns(), established().handshake_ns()), (None, Some(1_500_000)));
    assert_eq!((closed().lifetime_ns(), closed().handshake_ns()), (Some(61_000_000_042), Some(1_500_000)));
    assert_eq!((preexisting().lifetime_ns(), preexisting().handshake_ns()), (None, None));
    assert_eq!((preexisting().at_least_ns, closed().at_least_ns), (Some(61_000_000_042), None));
}

#[test]
fn owners_end_at_the_zero() {
    let event = new_out();
    let owner = event.owner().unwrap();
    assert_eq!((owner.pid, owner.comm, owner.thread), (1_234, &b"curl"[..], &b"resolver"[..]));
    assert_eq!((owner.is_kernel, event.owner_source()), (false, "connect"));
    assert_eq!(without_owner(event).owner(), None);
    let mut accepted = new_in_v6();
    assert_eq!(accepted.owner_source(), "-");
    accepted.connection.owner.source = ACCEPT;
    assert_eq!(accepted.owner_source(), "accept");
    accepted.connection.owner.flags = conn_common::owner::SHARED;
    assert_eq!((accepted.owner(), accepted.owner_source()), (None, "accept"));
    assert_eq!(until_zero(&[b'x'; 16]).len(), 16);
    assert_eq!(until_zero(b"\0leftover"), b"");
}

#[test]
fn errors_have_their_names() {
    assert_eq!(errno_name(111), Some("ECONNREFUSED"));
    assert_eq!(errno_name(0), None);
}
