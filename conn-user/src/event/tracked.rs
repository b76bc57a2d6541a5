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
    /// Packets sent and received.
    pub packets: Option<[u64; 2]>,
}

impl Tracked {
    /// Nothing is known.
    pub const NONE: Self = Self { reply: None, mark: None, zone: None, timeout_s: None, packets: None };
}
