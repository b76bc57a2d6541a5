//! The headers of a received packet.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_probe_read_kernel;

use conn_common::connection::Connection;

use crate::config;
use crate::kernel::{follow, read_u16, read_u32};
use crate::remote::Remote;

/// `SYN` and `ACK` in the byte of flags of a TCP header.
const SYN: u8 = 1 << 1;
const ACK: u8 = 1 << 4;

/// `IPPROTO_TCP`, as headers have it.
const TCP: u8 = 6;

/// Inode number of the network namespace whose device received the packet; 0 if it has none.
#[inline(always)]
fn netns(skb: *mut c_void) -> u32 {
    let device = follow(skb, &config::SKB_DEV);
    if device.is_null() { 0 } else { read_u32(follow(device, &config::NETDEV_NET), &config::NET_INUM) }
}

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

    /// The connection that the packet asks for: tuple and namespace. `None` if the packet is not of TCP.
    #[inline(always)]
    pub(crate) fn connection(&self, skb: *mut c_void) -> Option<Connection> {
        let head = follow(skb, &config::SKB_HEAD);
        let at = read_u16(skb, &config::SKB_NETWORK_HEADER);
        // SAFETY: the helper fails instead of faulting. A TCP packet over IPv4 has as many bytes, too.
        let ip: [u8; 40] = unsafe { bpf_probe_read_kernel(head.byte_add(at.into()).cast()) }.ok()?;
        let mut connection = Connection { netns: netns(skb), ..Connection::UNSEEN };
        match (ip[0] >> 4, ip[9], ip[6]) {
            (4, TCP, _) => {
                connection.family = 4;
                connection.src[..4].copy_from_slice(&ip[12..16]);
                connection.dst[..4].copy_from_slice(&ip[16..20]);
            }
            (6, _, TCP) => {
                connection.family = 6;
                connection.src.copy_from_slice(&ip[8..24]);
                connection.dst.copy_from_slice(&ip[24..40]);
            }
            _ => return None,
        }
        connection.sport = u16::from_be_bytes([self.tcp[0], self.tcp[1]]);
        connection.dport = self.dport();
        Some(connection)
    }

    /// The sender of a packet of TCP.
    #[inline(always)]
    pub(crate) fn sender(skb: *mut c_void) -> Option<Remote> {
        let head = follow(skb, &config::SKB_HEAD);
        let at = read_u16(skb, &config::SKB_NETWORK_HEADER);
        // SAFETY: the helper fails instead of faulting. A TCP packet over IPv4 has as many words, too.
        let ip: [u32; 6] = unsafe { bpf_probe_read_kernel(head.byte_add(at.into()).cast()) }.ok()?;
        let both = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        match ip[0].to_ne_bytes()[0] >> 4 {
            4 => Some(Remote { family: 4, words: [ip[3].into(), 0] }),
            6 => Some(Remote { family: 6, words: [both(ip[2], ip[3]), both(ip[4], ip[5])] }),
            _ => None,
        }
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
