//! Sort keys of `list`, `life` and `stats --sources`: which of two rows stands first.

use clap::ValueEnum;
use conn_common::remote;

use crate::event::Event;

/// A sort key of `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SocketKey {
    /// The oldest first.
    Age,
    /// The most bytes, both ways, first.
    Bytes,
    /// The longest round trip first.
    Rtt,
    /// The most retransmissions first.
    Retransmits,
    /// The fullest queue, either way, first.
    Queue,
    /// By service port.
    Port,
    /// By process.
    Pid,
}

impl SocketKey {
    /// The value of a socket; the largest value stands first.
    pub fn of(self, event: &Event) -> u64 {
        let traffic = &event.traffic;
        match self {
            Self::Age => event.at_least_ns.unwrap_or(0),
            Self::Bytes => traffic.bytes_sent.saturating_add(traffic.bytes_received),
            Self::Rtt => traffic.srtt_us.into(),
            Self::Retransmits => traffic.retransmits.into(),
            Self::Queue => traffic.receive_queue.max(traffic.send_queue).into(),
            // The smallest number first.
            Self::Port => u64::MAX - u64::from(event.connection.dport),
            Self::Pid => u64::MAX - u64::from(event.connection.owner.pid),
        }
    }
}

/// A sort key of `stats --sources`, the largest count first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum SourceKey {
    /// All SYNs and connections: half-open requests, refused SYNs and connections.
    #[default]
    All,
    /// Half-open requests.
    Attempts,
    /// SYNs that this host refused.
    RefusedByUs,
    /// Connections.
    Opened,
    /// Connections that were never established.
    Failed,
}

/// What `stats --sources` counts by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
pub enum SourceGroup {
    /// Remote addresses.
    #[default]
    Address,
    /// Their prefixes: /24 of IPv4, /64 of IPv6.
    Prefix,
}

impl SourceGroup {
    /// The number for the kernel programs.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Address => remote::BY_ADDRESS,
            Self::Prefix => remote::BY_PREFIX,
        }
    }

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Address => "address",
            Self::Prefix => "prefix",
        }
    }
}

/// The sources that `stats --sources` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopSources {
    /// How many.
    pub most: usize,
    /// Addresses, or prefixes of them.
    pub group: SourceGroup,
    /// The count by which they are compared.
    pub key: SourceKey,
}

/// A sort key of `life`: ended connections, the largest value first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LifeKey {
    /// From the attempt to the end.
    #[default]
    Lifetime,
    /// From the attempt to the end of the handshake.
    Handshake,
    /// Bytes both ways.
    Bytes,
    /// Smoothed round trip time.
    Rtt,
    /// Segments retransmitted.
    Retransmits,
}

impl LifeKey {
    /// The value of an ended connection; `None` if it is not known.
    pub fn of(self, event: &Event) -> Option<u64> {
        let traffic = &event.traffic;
        match self {
            Self::Lifetime => event.lifetime_ns().or(event.at_least_ns),
            Self::Handshake => event.handshake_ns(),
            Self::Bytes => Some(traffic.bytes_sent.saturating_add(traffic.bytes_received)),
            Self::Rtt => Some(traffic.srtt_us.into()).filter(|&us: &u64| us != 0),
            Self::Retransmits => Some(traffic.retransmits.into()),
        }
    }
}
