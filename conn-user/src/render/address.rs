//! Addresses as text, written by hand. Every line has several addresses, and the formatter of the standard library
//! takes longer than the rest of a line.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Range;

use super::integer;
use crate::event::enriched::Link;
use crate::render::sanitize;

/// Appends an address.
pub(super) fn address(address: IpAddr, out: &mut Vec<u8>) {
    match address {
        IpAddr::V4(address) => ipv4(address, out),
        // `::ffff:192.0.2.1`, which is rare: the decoder turns mapped addresses into IPv4. Writing into a vector does
        // not fail.
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => _ = write!(out, "{address}"),
        IpAddr::V6(address) => ipv6(address.segments(), out),
    }
}

/// Appends an address, and the interface of a link-local one behind `%`.
pub(super) fn scoped(ip: IpAddr, scope: Option<Link<'_>>, out: &mut Vec<u8>) {
    address(ip, out);
    if let Some(scope) = scope {
        out.push(b'%');
        link(scope, out);
    }
}

/// Appends the name of an interface, or its index.
pub(super) fn link(link: Link<'_>, out: &mut Vec<u8>) {
    match link {
        Link::Name(name) => sanitize::word(name.as_bytes(), out),
        Link::Index(index) => integer(index, out),
    }
}

/// Appends an address and a port, an IPv6 address in brackets.
pub(super) fn endpoint(endpoint: SocketAddr, out: &mut Vec<u8>) {
    if endpoint.is_ipv6() {
        out.push(b'[');
    }
    address(endpoint.ip(), out);
    if endpoint.is_ipv6() {
        out.push(b']');
    }
    out.push(b':');
    integer(endpoint.port(), out);
}

/// A short text that grows in place: one copy into the line instead of one for each part.
struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    const fn new() -> Self {
        Self { bytes: [0; N], length: 0 }
    }

    /// Appends the first `length` of four bytes. The buffer has room for all four.
    fn push(&mut self, four: [u8; 4], length: usize) {
        if let Some(room) = self.bytes.get_mut(self.length..self.length + 4) {
            room.copy_from_slice(&four);
        }
        self.length += length;
    }

    /// A copy of constant length is faster than a copy of the exact length.
    fn append_to(&self, out: &mut Vec<u8>) {
        let end = out.len() + self.length;
        out.extend_from_slice(&self.bytes);
        out.truncate(end);
    }
}

/// Every octet in decimal with a trailing dot, and the length of that text.
const OCTETS: [([u8; 4], u8); 256] = {
    let mut octets = [([b'.'; 4], 0); 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        let mut first = if octet < 10 {
            2
        } else if octet < 100 {
            1
        } else {
            0
        };
        while first < 3 {
            octets[octet].0[octets[octet].1 as usize] = digits[first];
            octets[octet].1 += 1;
            first += 1;
        }
        octets[octet].1 += 1;
        octet += 1;
    }
    octets
};

fn ipv4(address: Ipv4Addr, out: &mut Vec<u8>) {
    let mut text = Text::<16>::new();
    for octet in address.octets() {
        let (four, length) = OCTETS[usize::from(octet)];
        text.push(four, length.into());
    }
    // The last dot is dropped.
    text.length -= 1;
    text.append_to(out);
}

/// RFC 5952: `::` replaces the first of the longest runs of two or more zero segments.
fn ipv6(segments: [u16; 8], out: &mut Vec<u8>) {
    // Eight segments with a colon each, and room for the four bytes of each write.
    let mut text = Text::<44>::new();
    let zeros = longest_zeros(segments);
    for (at, segment) in segments.into_iter().enumerate() {
        if zeros.contains(&at) {
            if at == zeros.start {
                // The segment before wrote the first colon.
                text.push([b':'; 4], if at == 0 { 2 } else { 1 });
            }
            continue;
        }
        let digits = [12, 8, 4, 0].map(|shift| b"0123456789abcdef"[usize::from(segment >> shift & 0xf)]);
        let skipped = (segment | 1).leading_zeros() / 4;
        let four = u32::from_be_bytes(digits) << (8 * skipped);
        text.push(four.to_be_bytes(), 4 - skipped as usize);
        if at < 7 {
            text.push([b':'; 4], 1);
        }
    }
    text.append_to(out);
}

/// The first of the longest runs of two or more zero segments; empty without such a run.
fn longest_zeros(segments: [u16; 8]) -> Range<usize> {
    let (mut longest, mut run) = (0..0, 0..0);
    for (at, segment) in segments.into_iter().enumerate() {
        run = if segment == 0 { run.start..at + 1 } else { at + 1..at + 1 };
        if run.len() > longest.len().max(1) {
            longest = run.clone();
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use proptest::prelude::*;

    use super::*;

    fn text(ip: IpAddr) -> String {
        let mut out = Vec::new();
        address(ip, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn zero_runs_and_octets_match_the_standard_library() {
        for zeros in 0..=u8::MAX {
            for other in [1_u16, 0x20, 0x300, 0xfedc] {
                let segments: [u16; 8] =
                    std::array::from_fn(|at| if zeros >> at & 1 == 1 { 0 } else { other });
                let ip = Ipv6Addr::from(segments);
                assert_eq!(text(ip.into()), ip.to_string());
            }
            let ip = Ipv4Addr::new(zeros, 0, 10, !zeros);
            assert_eq!(text(ip.into()), ip.to_string());
        }
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(text(mapped.into()), "::ffff:192.0.2.1");
    }

    proptest! {
        #[test]
        fn addresses_match_the_standard_library(ip: IpAddr, port: u16) {
            prop_assert_eq!(text(ip), ip.to_string());
            let mut out = Vec::new();
            endpoint(SocketAddr::new(ip, port), &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), SocketAddr::new(ip, port).to_string());
        }
    }
}
