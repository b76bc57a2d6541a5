//! The headers of a received packet.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_probe_read_kernel;

use crate::config;
use crate::kernel::{follow, read_u16};

/// `SYN` and `ACK` in the byte of flags of a TCP header.
const SYN: u8 = 1 << 1;
const ACK: u8 = 1 << 4;

/// The TCP header of a received packet, up to its flags.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    tcp: [u8; 14],
}

impl Packet {
    /// Reads the header. `skb` is a `struct sk_buff` that the verifier knows, past the network layer.
    #[inline(always)]
    pub(crate) fn read(skb: *mut c_void) -> Option<Self> {
        let head = follow(skb, &config::SKB_HEAD);
        let at = read_u16(skb, &config::SKB_TRANSPORT_HEADER);
        // SAFETY: the helper fails instead of faulting.
        let tcp = unsafe { bpf_probe_read_kernel(head.byte_add(at.into()).cast()) }.ok()?;
        Some(Self { tcp })
    }

    /// True if the packet asks for a connection.
    #[inline(always)]
    pub(crate) const fn is_syn(&self) -> bool {
        self.tcp[13] & (SYN | ACK) == SYN
    }

    /// The destination port, host order.
    #[inline(always)]
    pub(crate) const fn dport(&self) -> u16 {
        u16::from_be_bytes([self.tcp[2], self.tcp[3]])
    }
}
