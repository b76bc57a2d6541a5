//! QUIC, as the first datagram of a flow shows it.

/// Its name in events.
pub const NAME: &str = "quic";
/// Bytes of a datagram that [`begins`] reads.
pub const HEAD: usize = 5;

/// The header form bit (a long header) and the fixed bit (RFC 9000, 17.2).
const LONG_HEADER: u8 = 0b1100_0000;
/// Version 1 (RFC 9000), and version 2 (RFC 9369).
const VERSIONS: [u32; 2] = [1, 0x6B33_43CF];
/// The versions of drafts have these upper three bytes (RFC 9000, 15).
const DRAFTS: u32 = 0xFF00_0000;

/// True if a datagram with these first bytes begins a connection of QUIC: a long header of a known version. Later packets have
/// short headers without a version.
#[inline(always)]
#[must_use]
pub const fn begins(head: [u8; HEAD]) -> bool {
    let [first, v0, v1, v2, v3] = head;
    let version = u32::from_be_bytes([v0, v1, v2, v3]);
    first & LONG_HEADER == LONG_HEADER
        && (version == VERSIONS[0] || version == VERSIONS[1] || version & 0xFFFF_FF00 == DRAFTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_headers_of_known_versions_begin_a_connection() {
        for (head, expected) in [
            ([0xC0, 0, 0, 0, 1], true),
            ([0xC3, 0, 0, 0, 1], true),
            ([0xD0, 0x6B, 0x33, 0x43, 0xCF], true),
            ([0xC0, 0xFF, 0, 0, 29], true),
            // A short header, no fixed bit, version negotiation, and an unknown version.
            ([0x40, 0, 0, 0, 1], false),
            ([0x80, 0, 0, 0, 1], false),
            ([0xC0, 0, 0, 0, 0], false),
            ([0xC0, 0xFF, 0, 1, 0], false),
            // A query of DNS and a message of syslog.
            ([0x12, 0x34, 1, 0, 0], false),
            (*b"<13>O", false),
        ] {
            assert_eq!(begins(head), expected, "{head:02x?}");
        }
    }
}
