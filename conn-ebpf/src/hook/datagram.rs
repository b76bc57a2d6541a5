//! Packets of sockets on the cgroup v2 root: `BPF_CGROUP_INET_EGRESS` before fragmentation (`ip_finish_output()`),
//! `BPF_CGROUP_INET_INGRESS` after reassembly, before the receive buffer is checked (`sk_filter_trim_cap()`). The data of the
//! packet begin at the network header.

use aya_ebpf::programs::SkBuffContext;
use conn_common::flow::SENT;
use conn_common::protocol::{TCP, UDP};

use crate::datagram::Datagram;
use crate::flow;
use crate::gate::is_enabled;
use crate::skb::Skb;

/// Lets the packet pass.
const PASS: i32 = 1;
/// Bytes of an IPv6 header, and of an IPv4 header without options.
const IPV6: usize = 40;
const IPV4: usize = 20;
/// Bytes of a UDP header.
const HEADER: usize = 8;
/// The longest header that is looked for behind extension headers.
const MAX_HEADERS: usize = 1 << 10;
/// `IPPROTO_ICMPV6`, which needs no further look, as TCP.
const ICMPV6: u8 = 58;

/// The hook.
#[inline(always)]
pub(crate) fn on_packet(ctx: &SkBuffContext, way: usize) -> i32 {
    let skb = Skb(ctx.skb.skb);
    if let Some(datagram) = read(skb, way) {
        flow::on_datagram(skb, &datagram);
    }
    PASS
}

/// Reads the headers. `None` if the packet is not of UDP, or if the programs are not enabled.
#[inline(always)]
fn read(skb: Skb, way: usize) -> Option<Datagram> {
    let (data, end) = skb.data();
    if data + IPV4 + HEADER > end {
        return None;
    }
    let first: u8 = load(data, 0);
    let (family, src, dst, header);
    if first >> 4 == 4 {
        if load::<u8>(data, 9) != UDP || !is_enabled() {
            return None;
        }
        header = usize::from(first & 0xf) * 4;
        family = 4;
        src = [u64::from(load::<u32>(data, 12)), 0];
        dst = [u64::from(load::<u32>(data, 16)), 0];
    } else {
        if data + IPV6 + HEADER > end {
            return None;
        }
        let next: u8 = load(data, 6);
        if matches!(next, TCP | ICMPV6) || !is_enabled() {
            return None;
        }
        header = if next == UDP { IPV6 } else { header_behind_extensions(skb)? };
        family = 6;
        src = [pair(data, 8), pair(data, 16)];
        dst = [pair(data, 24), pair(data, 32)];
    }
    let udp = data + header;
    if udp + HEADER > end {
        return None;
    }
    let ports: u32 = load(udp, 0);
    let (sport, dport) = (u16::from_be(ports as u16), u16::from_be((ports >> 16) as u16));
    let cookie = skb.cookie();
    if cookie == 0 {
        return None;
    }
    let (local, peer, local_port, peer_port) =
        if way == SENT { (src, dst, sport, dport) } else { (dst, src, dport, sport) };
    let datagram = Datagram {
        hashes: [0; 2],
        cookie,
        local,
        peer,
        payload: u64::from(skb.len()).wrapping_sub((header + HEADER) as u64),
        segments: skb.segments(),
        local_port,
        peer_port,
        family,
        way: way as u8,
    };
    Some(datagram.hashed())
}

/// Reads a part of the packet that was checked against its end.
#[inline(always)]
fn load<T: Copy>(data: usize, offset: usize) -> T {
    // SAFETY: the verifier refuses a load that was not checked.
    unsafe { ((data + offset) as *const T).read_volatile() }
}

/// Reads eight bytes. The kernel aligns headers to four.
#[inline(always)]
fn pair(data: usize, offset: usize) -> u64 {
    u64::from(load::<u32>(data, offset)) | u64::from(load::<u32>(data, offset + 4)) << 32
}

/// The offset of the UDP header behind extension headers, if the socket is of UDP.
#[inline(always)]
fn header_behind_extensions(skb: Skb) -> Option<usize> {
    if !skb.is_of_udp_socket() {
        return None;
    }
    let offset = usize::from(skb.transport_offset()?);
    (offset < MAX_HEADERS).then_some(offset)
}
