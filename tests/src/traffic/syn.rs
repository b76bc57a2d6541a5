//! SYNs without a socket: half-open connections of many sources, scans of ports. The sender answers nothing, so no SYN
//! becomes a connection.

#![expect(unsafe_code, reason = "sendmmsg() takes addresses of buffers")]

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsRawFd as _,
};

/// How many SYNs a call hands over to the kernel.
const BATCH: usize = 64;
/// Bytes of the largest packet: an IPv6 and a TCP header.
const PACKET: usize = 60;
/// `IPV6_HDRINCL`, `include/uapi/linux/in6.h`.
const IPV6_HDRINCL: libc::c_int = 36;
/// The byte of flags of a SYN.
const SYN: u8 = 2;

/// A raw socket in the network namespace of the thread that made it.
#[derive(Debug)]
pub struct SynSender {
    v4: Socket,
    v6: Socket,
}

impl SynSender {
    /// Makes the sockets.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new() -> io::Result<Self> {
        let v4 = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        let v6 = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(libc::IPPROTO_RAW)))?;
        let one: libc::c_int = 1;
        // SAFETY: the option takes an int.
        let set = unsafe {
            libc::setsockopt(
                v6.as_raw_fd(),
                libc::IPPROTO_IPV6,
                IPV6_HDRINCL,
                (&raw const one).cast(),
                size_of_val(&one) as u32,
            )
        };
        if set == 0 { Ok(Self { v4, v6 }) } else { Err(io::Error::last_os_error()) }
    }

    /// Sends a SYN for each pair of addresses, in order.
    ///
    /// # Panics
    /// The kernel takes no packets.
    pub fn send(&self, syns: impl IntoIterator<Item = (SocketAddr, SocketAddr)>) -> u64 {
        let mut syns = syns.into_iter().peekable();
        let mut sent = 0;
        while let Some(&(_, first)) = syns.peek() {
            let mut packets = [[0_u8; PACKET]; BATCH];
            let mut lengths = [0; BATCH];
            let mut targets: Vec<SockAddr> = Vec::with_capacity(BATCH);
            while targets.len() < BATCH
                && let Some((from, to)) = syns.next_if(|(_, to)| to.is_ipv4() == first.is_ipv4())
            {
                lengths[targets.len()] = write(&mut packets[targets.len()], from, to);
                // The port of a raw socket is a protocol.
                targets.push(SocketAddr::new(to.ip(), 0).into());
            }
            let socket = if first.is_ipv4() { &self.v4 } else { &self.v6 };
            send_all(socket, &packets, &lengths, &targets);
            sent += targets.len() as u64;
        }
        sent
    }
}

fn send_all(socket: &Socket, packets: &[[u8; PACKET]], lengths: &[usize], targets: &[SockAddr]) {
    let mut parts: Vec<libc::iovec> = packets
        .iter()
        .zip(lengths)
        .take(targets.len())
        .map(|(packet, &length)| libc::iovec { iov_base: packet.as_ptr().cast_mut().cast(), iov_len: length })
        .collect();
    let mut messages: Vec<libc::mmsghdr> = parts
        .iter_mut()
        .zip(targets)
        .map(|(part, target)| {
            // SAFETY: all zeros are a valid header.
            let mut message: libc::mmsghdr = unsafe { mem::zeroed() };
            message.msg_hdr.msg_name = target.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = target.len();
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let mut done = 0;
    while done < messages.len() {
        let rest = &mut messages[done..];
        // SAFETY: the headers, parts and packets live until the call returns.
        let taken = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as u32, 0) };
        if let Ok(taken) = usize::try_from(taken) {
            done += taken;
        } else {
            let error = io::Error::last_os_error();
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "sendmmsg: {error}");
        }
    }
}

/// Writes a SYN, and returns its length.
fn write(packet: &mut [u8; PACKET], from: SocketAddr, to: SocketAddr) -> usize {
    let (header, pseudo) = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            packet[0] = 0x45;
            packet[3] = 40;
            packet[6] = 0x40;
            packet[8] = 64;
            packet[9] = libc::IPPROTO_TCP as u8;
            packet[12..16].copy_from_slice(&from.octets());
            packet[16..20].copy_from_slice(&to.octets());
            let sum = !sum(&packet[..20], 0);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            (20, 12..20)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            packet[0] = 0x60;
            packet[5] = 20;
            packet[6] = libc::IPPROTO_TCP as u8;
            packet[7] = 64;
            packet[8..24].copy_from_slice(&from.octets());
            packet[24..40].copy_from_slice(&to.octets());
            (40, 8..40)
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    let tcp = &mut packet[header..header + 20];
    tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[12] = 5 << 4;
    tcp[13] = SYN;
    tcp[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let start = u32::from(sum(&packet[pseudo], 0)) + libc::IPPROTO_TCP as u32 + 20;
    let sum = !sum(&packet[header..header + 20], start);
    packet[header + 16..header + 18].copy_from_slice(&sum.to_be_bytes());
    header + 20
}

/// The Internet's sum of words.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.fold(start, |sum, word| sum + word);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sources in 10.128.0.0/9, none twice before eight million.
pub fn sources_v4() -> impl Iterator<Item = SocketAddr> {
    (0_u32..).map(|number| {
        let address = Ipv4Addr::from(0x0a80_0000 | (number & 0x7f_ffff));
        SocketAddr::new(address.into(), 1_024 + (number % 50_000) as u16)
    })
}

/// Sources in `fdff::/16`.
pub fn sources_v6() -> impl Iterator<Item = SocketAddr> {
    (0_u32..).map(|number| {
        let address = Ipv6Addr::from(0xfdff_u128 << 112 | u128::from(number) << 64 | 1);
        SocketAddr::new(address.into(), 1_024 + (number % 50_000) as u16)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_add_up() {
        let mut packet = [0; PACKET];
        let (from, to) = ("192.0.2.1:1024".parse().unwrap(), "192.0.2.9:80".parse().unwrap());
        assert_eq!(write(&mut packet, from, to), 40);
        assert_eq!(sum(&packet[..20], 0), 0xffff);
        let start = u32::from(sum(&packet[12..20], 0)) + 6 + 20;
        assert_eq!(sum(&packet[20..40], start), 0xffff);
        let (from, to) = ("[2001:db8::1]:1024".parse().unwrap(), "[2001:db8::2]:80".parse().unwrap());
        let mut packet = [0; PACKET];
        assert_eq!(write(&mut packet, from, to), 60);
        let start = u32::from(sum(&packet[8..40], 0)) + 6 + 20;
        assert_eq!(sum(&packet[40..60], start), 0xffff);
    }

    #[test]
    fn sources_differ() {
        let distinct: std::collections::BTreeSet<_> =
            sources_v4().take(10_000).chain(sources_v6().take(10_000)).collect();
        assert_eq!(distinct.len(), 20_000);
    }
}
