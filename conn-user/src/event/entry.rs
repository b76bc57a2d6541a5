//! An entry of the kernel's connection tracking, as plain values, and the event that it makes.

use std::net::{IpAddr, SocketAddr};

use conn_common::connection::{Connection, PREEXISTING};
use conn_common::flow::{ASSURED, REPLIED, UNREPLIED};
use conn_common::protocol::TCP;
use conn_common::state::{self, CLOSE, UNSEEN};
use conn_common::traffic::Traffic;

use crate::event::Event;
use crate::event::kind::Kind;
use crate::event::tracked::{EntryFacts, Icmp, Offload, SctpState, TimeSource, Tracked};

/// `IPS_SEEN_REPLY`, `include/uapi/linux/netfilter/nf_conntrack_common.h`.
const SEEN_REPLY: u32 = 1 << 1;
/// `IPS_ASSURED`.
const STAYS: u32 = 1 << 2;
/// `IPS_OFFLOAD`.
const OFFLOAD: u32 = 1 << 14;
/// `IPS_HW_OFFLOAD`.
const HARDWARE_OFFLOAD: u32 = 1 << 15;

/// One direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// The source: address and port. The port is 0 of protocols without ports; of GRE, a key.
    pub source: SocketAddr,
    /// The destination, likewise.
    pub destination: SocketAddr,
    /// The identity of a flow of ICMP.
    pub icmp: Option<Icmp>,
    /// The layer-4 protocol.
    pub protocol: u8,
    /// The zone of this direction alone.
    pub zone: Option<u16>,
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes, with IP headers.
    pub bytes: u64,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kernel's id of the entry, a hash; 0 if it was not shown. Other entries may have the same id, and a later entry with
    /// the same tuples often has.
    pub id: u32,
    /// The direction of the packet that made the entry.
    pub original: Tuple,
    /// The direction of replies.
    pub reply: Tuple,
    /// The status bits; `None` if they were not shown.
    pub status: Option<u32>,
    /// The time until an idle entry goes, seconds.
    pub timeout_s: Option<u32>,
    /// The state of TCP, by conntrack's number.
    pub tcp_state: Option<u8>,
    /// The state of SCTP.
    pub sctp_state: Option<SctpState>,
    /// The mark.
    pub mark: Option<u32>,
    /// The zone of both directions.
    pub zone: Option<u16>,
    /// The counters of both directions, where accounting is on.
    pub counters: Option<[Counters; 2]>,
    /// When the entry was made, nanoseconds of unix time, where the kernel stamps.
    pub started_unix_ns: Option<u64>,
    /// When it ended, likewise.
    pub stopped_unix_ns: Option<u64>,
    /// When the event happened, likewise; since Linux 6.14.
    pub happened_unix_ns: Option<u64>,
}

/// Flows that never came about, or were given up, by the kernel's counters of one network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Entries that found no place: another one with the same tuple was faster.
    pub insert_failed: u64,
    /// Packets that were dropped, mostly since the table was full.
    pub dropped: u64,
    /// Entries that had to go for others, since the table was full.
    pub dropped_early: u64,
}

impl Failures {
    /// What was counted since an earlier reading.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self {
            insert_failed: self.insert_failed.saturating_sub(before.insert_failed),
            dropped: self.dropped.saturating_sub(before.dropped),
            dropped_early: self.dropped_early.saturating_sub(before.dropped_early),
        }
    }
}

/// The change that a message reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry was made.
    New,
    /// The entry changed, or a dump shows it.
    Update,
    /// The entry ended.
    Destroy,
}

impl Change {
    /// All of them, in the order of a flow's life.
    pub const ALL: [Self; 3] = [Self::New, Self::Update, Self::Destroy];

    /// The kind of its event.
    pub const fn kind(self) -> Kind {
        match self {
            Self::New => Kind::New,
            Self::Update => Kind::Update,
            Self::Destroy => Kind::Destroy,
        }
    }
}

/// What the reader of an entry knows beside it. Times are nanoseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The network namespace, by inode number.
    pub netns: u32,
    /// The direction, see [`conn_common::connection`].
    pub direction: u8,
    /// The kind of the event.
    pub kind: Kind,
    /// When it happened.
    pub time_ns: u64,
    /// When the flow began; `None` if that is not known.
    pub began_ns: Option<u64>,
    /// The flow existed before the run.
    pub preexisting: bool,
    /// The time for which it existed at least; `None` if its beginning is known.
    pub at_least_ns: Option<u64>,
    /// Where the times come from.
    pub clock: TimeSource,
}

impl Entry {
    /// The layer-4 protocol.
    pub const fn protocol(&self) -> u8 {
        self.original.protocol
    }

    /// The event of the entry.
    pub fn event(&self, reading: &Reading) -> Event {
        let (original, reply) = (&self.original, &self.reply);
        let status = self.status.unwrap_or(0);
        let has = |bit: u32| status & bit != 0;
        let offload = match () {
            () if has(HARDWARE_OFFLOAD) => Some(Offload::Hardware),
            () if has(OFFLOAD) => Some(Offload::Software),
            () => None,
        };
        let is_reversed = reply.source == original.destination && reply.destination == original.source;
        let [sent, received] = self.counters.unwrap_or_default();
        let state = self.state();
        let is_end = reading.kind == Kind::Destroy;
        Event {
            time_ns: reading.time_ns,
            kind: reading.kind,
            protocol: self.protocol(),
            old_state: if is_end || reading.kind == Kind::Open { state } else { UNSEEN },
            traffic: Traffic { bytes_sent: sent.bytes, bytes_received: received.bytes, ..Traffic::NONE },
            error: 0,
            end: None,
            reset: None,
            attempt: None,
            idle_ns: None,
            at_least_ns: reading.at_least_ns,
            half_open: None,
            dropped: None,
            tracked: Tracked {
                reply: (!is_reversed).then_some([reply.source, reply.destination]),
                mark: self.mark,
                zone: self.zone,
                timeout_s: self.timeout_s,
                packets: self.counters.map(|counters| counters.map(|one| one.packets)),
                entry: Some(EntryFacts {
                    replied: has(SEEN_REPLY),
                    assured: has(STAYS),
                    offload,
                    zones: [original.zone, reply.zone],
                    sctp: self.sctp_state,
                    icmp: original.icmp.zip(reply.icmp).map(<[Icmp; 2]>::from),
                    clock: reading.clock,
                }),
            },
            connection: Connection {
                netns: reading.netns,
                sport: original.source.port(),
                dport: original.destination.port(),
                family: if original.source.is_ipv6() { 6 } else { 4 },
                direction: reading.direction,
                state: if is_end { CLOSE } else { state },
                flags: if reading.preexisting { PREEXISTING } else { 0 },
                id: self.id.into(),
                attempt_ns: reading.began_ns.unwrap_or(0),
                src: octets(original.source.ip()),
                dst: octets(original.destination.ip()),
                ..Connection::UNSEEN
            },
        }
    }

    /// The state by our numbers: of TCP the tracked one, of other protocols what the status says. `UNSEEN` if neither was
    /// shown.
    fn state(&self) -> u8 {
        match (self.protocol(), self.tcp_state, self.status) {
            (TCP, Some(number), _) => state_of_tcp(number),
            (TCP, None, _) | (_, _, None) => UNSEEN,
            (_, _, Some(status)) if status & STAYS != 0 => ASSURED,
            (_, _, Some(status)) if status & SEEN_REPLY != 0 => REPLIED,
            _ => UNREPLIED,
        }
    }
}

/// Our number of a state that connection tracking gives a flow of TCP (`enum tcp_conntrack`,
/// `include/uapi/linux/netfilter/nf_conntrack_tcp.h`). Of both ends that sent a SYN, the state is that of one end.
const fn state_of_tcp(number: u8) -> u8 {
    match number {
        1 | 9 => state::SYN_SENT,
        2 => state::SYN_RECV,
        3 => state::ESTABLISHED,
        4 => state::FIN_WAIT1,
        5 => state::CLOSE_WAIT,
        6 => state::LAST_ACK,
        7 => state::TIME_WAIT,
        8 => CLOSE,
        _ => UNSEEN,
    }
}

/// An address in the form of a [`Connection`].
pub(crate) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
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
            Tuple {
                source: port_less(tuple.source),
                destination: port_less(tuple.destination),
                icmp,
                ..tuple
            }
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
        let icmp =
            (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(kind, code, id)| Icmp { kind, code, id });
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
        let ended =
            Entry { status, reply, counters: Some(counted), ..entry() }.event(&reading(Kind::Destroy));
        assert_eq!((ended.connection.state, ended.old_state), (CLOSE, ASSURED));
        assert_eq!((ended.tracked.reply, ended.tracked.packets), (None, Some([2, 1])));
        assert_eq!(ended.tracked.entry.unwrap().offload, Some(Offload::Software));
        assert_eq!(ended.traffic_of(|traffic| traffic.bytes_received), Some(40));
        assert!(!ended.is_failed() && ended.lifetime_ns() == Some(0));
    }

    #[test]
    fn states_of_tcp_have_our_numbers() {
        let numbers: Vec<_> =
            (0..=10).map(|number| state::name(state_of_tcp(number)).unwrap_or("-")).collect();
        assert_eq!(
            numbers.join(" "),
            "- SYN_SENT SYN_RECV ESTABLISHED FIN_WAIT1 CLOSE_WAIT LAST_ACK TIME_WAIT CLOSE SYN_SENT -"
        );
    }
}
