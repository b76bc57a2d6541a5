//! One event of a connection's life, decoded.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conn_common::cause::Cause;
use conn_common::connection::{Connection, PREEXISTING};
use conn_common::owner::{KERNEL, SOURCES};
use conn_common::state;
use conn_common::traffic::Traffic;
use nix::libc;

use crate::kind::Kind;

/// An event. Times are nanoseconds of `CLOCK_BOOTTIME`, see [`crate::clock`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub time_ns: u64,
    /// What it tells.
    pub kind: Kind,
    /// The TCP state before, see [`conn_common::state`]; `UNSEEN` for a new connection.
    pub old_state: u8,
    /// What was sent and received. Known at the end, else zero.
    pub traffic: Traffic,
    /// The socket's error at the end, an errno number; 0 for none.
    pub error: u16,
    /// Why the connection ended, if it did.
    pub end: Option<Cause>,
    /// The connection as it is after the event.
    pub connection: Connection,
}

/// The task that opened, accepted or holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Process id, in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// Name of the process. Any bytes but zero.
    pub comm: &'a [u8],
    /// Name of the thread. Any bytes but zero.
    pub thread: &'a [u8],
    /// The cgroup v2 id, 0 if none.
    pub cgroup: u64,
    /// When its process began, nanoseconds of `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// A kernel thread.
    pub is_kernel: bool,
}

impl Event {
    /// The initiator's address.
    pub fn src(&self) -> IpAddr {
        address(self.connection.family, &self.connection.src)
    }

    /// The responder's address.
    pub fn dst(&self) -> IpAddr {
        address(self.connection.family, &self.connection.dst)
    }

    /// True if the connection ended without ever being established.
    pub fn is_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// Why it was never established, if it ended like that.
    pub fn failure(&self) -> Option<Cause> {
        self.end.filter(|_| state::is_opening(self.old_state))
    }

    /// From the attempt to the end, in nanoseconds. `None` before the end, and for a connection whose
    /// attempt nobody saw.
    pub fn lifetime_ns(&self) -> Option<u64> {
        let attempt = self.attempt_ns().filter(|_| self.kind == Kind::Destroy)?;
        Some(self.time_ns.saturating_sub(attempt))
    }

    /// How long the connection has existed at least, for one that was there before conntrace.
    pub fn at_least_ns(&self) -> Option<u64> {
        let connection = &self.connection;
        connection.is(PREEXISTING).then(|| self.time_ns.saturating_sub(connection.first_seen_ns()))
    }

    /// From the attempt to the end of the handshake, in nanoseconds.
    pub fn handshake_ns(&self) -> Option<u64> {
        Some(self.established_ns()?.saturating_sub(self.attempt_ns()?))
    }

    /// When the connection was attempted, if somebody saw it.
    pub fn attempt_ns(&self) -> Option<u64> {
        known(self.connection.attempt_ns)
    }

    /// When its handshake was complete, if it was and somebody saw it.
    pub fn established_ns(&self) -> Option<u64> {
        known(self.connection.established_ns)
    }

    /// Who it belongs to, if that is known.
    pub fn owner(&self) -> Option<Owner<'_>> {
        let owner = &self.connection.owner;
        owner.is_known().then(|| Owner {
            pid: owner.pid,
            tid: owner.tid,
            uid: owner.uid,
            comm: until_zero(&owner.comm),
            thread: until_zero(&owner.thread),
            cgroup: owner.cgroup,
            start_ns: owner.start_ns,
            is_kernel: owner.flags & KERNEL != 0,
        })
    }

    /// How the owner is known: `connect`, `accept`, `listener`, `files`, or `-`.
    pub fn owner_source(&self) -> &'static str {
        SOURCES.get(usize::from(self.connection.owner.source)).unwrap_or(&SOURCES[0])
    }
}

fn known(ns: u64) -> Option<u64> {
    (ns != 0).then_some(ns)
}

fn until_zero(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn address(family: u8, bytes: &[u8; 16]) -> IpAddr {
    if family == 6 {
        IpAddr::V6(Ipv6Addr::from(*bytes))
    } else {
        let [a, b, c, d, ..] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }
}

/// Pairs numbers of errors with their names.
macro_rules! errno_names {
    ($($name:ident)*) => {
        /// The name of an errno number (`ECONNREFUSED`), for those a TCP socket can end with.
        pub fn errno_name(errno: u16) -> Option<&'static str> {
            match i32::from(errno) {
                $(libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

errno_names! {
    EPERM EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY ENODEV EINVAL EPIPE
    EMSGSIZE EPROTO ENOPROTOOPT EPROTONOSUPPORT EOPNOTSUPP EAFNOSUPPORT
    EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ENONET
    ECANCELED EKEYREJECTED EKEYEXPIRED EBADMSG
}

#[cfg(test)]
pub(crate) mod tests {
    use conn_common::connection::{HELD, IN, OUT, TUPLE_KNOWN, WAS_ESTABLISHED};
    use conn_common::owner::{ACCEPT, CONNECT, Owner as Record};
    use conn_common::state::{CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT2, SYN_RECV, SYN_SENT, UNSEEN};
    use proptest::prelude::*;

    use super::*;
    use conn_common::cause::Ending;

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
        event
    }

    /// Its process has a name that wants to be something else.
    pub(crate) fn nasty() -> Event {
        let mut event = new_out();
        event.connection.owner.comm = name(b"x\n[NEW] pid=1\x1b\xff");
        event.connection.owner.thread = name(b"\"\\ \xe2\x80\xae");
        event
    }

    /// Everything that `decode` lets through.
    pub(crate) fn any_event() -> impl Strategy<Value = Event> {
        let state = 1_u8..=11;
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
                flags: rest.3,
                reserved: 0,
                owner: times.4,
            });
        let counts = (any::<u64>(), any::<u64>(), any::<[u32; 7]>(), any::<u16>());
        let end = prop::sample::select(&Cause::ALL[..]);
        (prop::sample::select(&Kind::ALL[..]), state, any::<u64>(), counts, end, connection).prop_map(
            |(kind, old_state, time_ns, counts, end, connection)| Event {
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
                    at_least_jiffies: 0,
                },
                error: counts.3,
                end: (kind == Kind::Destroy).then_some(end),
                connection,
            },
        )
    }

    #[test]
    fn spans_are_known_when_their_ends_are() {
        assert_eq!((new_out().lifetime_ns(), new_out().handshake_ns()), (None, None));
        assert_eq!((established().lifetime_ns(), established().handshake_ns()), (None, Some(1_500_000)));
        assert_eq!(
            (closed().lifetime_ns(), closed().handshake_ns()),
            (Some(61_000_000_042), Some(1_500_000))
        );
        assert_eq!((preexisting().lifetime_ns(), preexisting().handshake_ns()), (None, None));
        assert_eq!((preexisting().at_least_ns(), closed().at_least_ns()), (Some(61_000_000_042), None));
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
}
