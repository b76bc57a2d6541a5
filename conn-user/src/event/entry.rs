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
pub(crate) mod tests;
