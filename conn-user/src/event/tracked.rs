//! What only a protocol with flows, or connection tracking, knows of an event. Events of TCP sockets have none of it.

use std::net::SocketAddr;

/// Facts beside those of a socket. Each is `None` if the source does not know it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// The tuple of the replies, source first, if address translation makes it differ from the reversed tuple.
    pub reply: Option<[SocketAddr; 2]>,
    /// The mark of the flow.
    pub mark: Option<u32>,
    /// The zone of connection tracking.
    pub zone: Option<u16>,
    /// The time after which an idle flow ends, seconds.
    pub timeout_s: Option<u32>,
    /// Packets sent and received; of an entry of connection tracking, those of the original direction and of replies.
    pub packets: Option<[u64; 2]>,
    /// What an entry of connection tracking shows; `None` of everything that a socket or its packets show.
    pub entry: Option<EntryFacts>,
}

impl Tracked {
    /// Nothing is known.
    pub const NONE: Self =
        Self { reply: None, mark: None, zone: None, timeout_s: None, packets: None, entry: None };
}

/// Facts that only an entry of connection tracking has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryFacts {
    /// A reply was seen.
    pub replied: bool,
    /// The entry outlives a full table: packets have gone both ways.
    pub assured: bool,
    /// Where packets of the flow pass beside connection tracking.
    pub offload: Option<Offload>,
    /// The zones of the original direction and of replies, if each has one of its own.
    pub zones: [Option<u16>; 2],
    /// The identity of a flow of ICMP, in place of ports: of the original direction and of replies.
    pub icmp: Option<[Icmp; 2]>,
    /// The state of a flow of SCTP.
    pub sctp: Option<SctpState>,
    /// Where the times of the event come from.
    pub clock: TimeSource,
}

/// The identity of a flow of ICMP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Icmp {
    /// The type, such as 8 for an echo request of IPv4.
    pub kind: u8,
    /// The code.
    pub code: u8,
    /// The id of the request, host order.
    pub id: u16,
}

/// The state that connection tracking gives a flow of SCTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SctpState(u8);

impl SctpState {
    /// conntrack's names, by the kernel's numbers (`enum sctp_conntrack`,
    /// `include/uapi/linux/netfilter/nf_conntrack_sctp.h`).
    const NAMES: [&str; 10] = [
        "NONE",
        "CLOSED",
        "COOKIE_WAIT",
        "COOKIE_ECHOED",
        "ESTABLISHED",
        "SHUTDOWN_SENT",
        "SHUTDOWN_RECD",
        "SHUTDOWN_ACK_SENT",
        "HEARTBEAT_SENT",
        "HEARTBEAT_ACKED",
    ];

    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::NAMES.len() as u8).map(Self)
    }

    /// The state with the kernel's number.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < Self::NAMES.len() { Some(Self(number)) } else { None }
    }

    /// conntrack's name.
    pub const fn name(self) -> &'static str {
        Self::NAMES[self.0 as usize]
    }
}

/// Where packets of a flow pass beside connection tracking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// A flowtable of the kernel.
    Software,
    /// The network card.
    Hardware,
}

impl Offload {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Software, Self::Hardware];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Software => "software",
            Self::Hardware => "hardware",
        }
    }
}

/// Where the times of an event come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// The kernel stamped the entry (`nf_conntrack_timestamp`).
    Kernel,
    /// The moment at which conntrace read the message.
    Reading,
}

impl TimeSource {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kernel, Self::Reading];

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Reading => "reading",
        }
    }
}

/// What address translation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// The source.
    Source,
    /// The destination.
    Destination,
    /// Source and destination.
    Both,
}

impl Nat {
    /// The translation of a flow whose source changes, whose destination changes, or both. `None` if neither does.
    pub const fn of(source: bool, destination: bool) -> Option<Self> {
        match (source, destination) {
            (false, false) => None,
            (true, false) => Some(Self::Source),
            (false, true) => Some(Self::Destination),
            (true, true) => Some(Self::Both),
        }
    }

    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
            Self::Both => "both",
        }
    }

    /// True if the source is translated.
    pub const fn is_of_source(self) -> bool {
        matches!(self, Self::Source | Self::Both)
    }

    /// True if the destination is translated.
    pub const fn is_of_destination(self) -> bool {
        matches!(self, Self::Destination | Self::Both)
    }
}
