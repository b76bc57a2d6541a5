//! A UDP packet as hooks see it.

use conn_common::flow::FlowHash;

use crate::config;

/// A packet: the identity of its flow, and its size.
#[derive(Clone, Copy)]
pub(crate) struct Datagram {
    /// The hashes of the flow's identity.
    pub hashes: [u64; 2],
    /// The socket's cookie.
    pub cookie: u64,
    /// The address of this side, in the order of memory.
    pub local: [u64; 2],
    /// The address of the other side.
    pub peer: [u64; 2],
    /// Payload bytes of all segments.
    pub payload: u64,
    /// Segments of a GSO or GRO packet; 1 for any other.
    pub segments: u32,
    /// Host order.
    pub local_port: u16,
    /// Host order.
    pub peer_port: u16,
    /// 4 or 6.
    pub family: u8,
    /// [`conn_common::flow::SENT`] or [`conn_common::flow::RECEIVED`].
    pub way: u8,
}

impl Datagram {
    /// The same with the hashes of its flow.
    #[inline(always)]
    #[must_use]
    pub(crate) fn hashed(mut self) -> Self {
        let Self { cookie, local, peer, local_port, peer_port, family, .. } = self;
        let ports = u64::from(local_port) | u64::from(peer_port) << 16 | u64::from(family) << 32;
        let seeds = [config::FLOW_SEED.load(), config::FLOW_SEED_2.load()];
        let hash = FlowHash(seeds).word(cookie).word(ports);
        self.hashes = if family == 4 {
            hash.word(local[0] | peer[0] << 32).finish()
        } else {
            hash.word(local[0]).word(local[1]).word(peer[0]).word(peer[1]).finish()
        };
        self
    }
}
