//! Counts per remote address. Only runs that ask for sources keep them.

/// How many remote addresses, or prefixes of them, have counts of their own. The table takes 8 MB of kernel memory.
pub const CAPACITY: u32 = 65_536;

/// In [`crate::name::WANTED_KINDS`]: the run counts remote addresses and has no events. No kind has this bit.
pub const INSTEAD_OF_EVENTS: u8 = 1 << 7;
/// In [`crate::name::COUNTS_ON`]: the run counts remote addresses, too.
pub const BESIDE_COUNTS: u8 = 2;

/// What a run counts by: by address.
pub const BY_ADDRESS: u8 = 0;
/// By prefix: /24 of IPv4, /64 of IPv6.
pub const BY_PREFIX: u8 = 1;

/// Bits of an IPv4 prefix.
pub const PREFIX_V4: u8 = 24;
/// Bits of an IPv6 prefix.
pub const PREFIX_V6: u8 = 64;

/// Words of the bitmap of service ports whose remote addresses are counted: one bit for each direction and port.
pub const SLOT_WORDS: u32 = 2 << 10;

/// The word and the bit of a direction ([`crate::connection::IN`] or `OUT`) and service port in that bitmap.
pub const fn slot_bit(direction: u8, port: u16) -> (u32, u64) {
    ((direction as u32) << 10 | port as u32 >> 6, 1 << (port & 63))
}

/// A remote address and a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct RemoteKey {
    /// The address in network byte order. IPv4 has the first 4 bytes. The bits behind a prefix are 0.
    pub address: [u8; 16],
    /// 4 or 6.
    pub family: u8,
    /// The end that opens the connections: [`crate::connection::IN`] or `OUT`.
    pub direction: u8,
    /// Explicit padding.
    pub reserved: [u8; 6],
}

/// The counts of a remote address in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RemoteCounts {
    /// Half-open requests that began.
    pub attempts: u64,
    /// SYNs that this host refused.
    pub refused: u64,
    /// Connections that began.
    pub opened: u64,
    /// Connections that ended and were never established.
    pub failed: u64,
}

impl RemoteCounts {
    /// All counts are 0.
    pub const ZERO: Self = Self { attempts: 0, refused: 0, opened: 0, failed: 0 };
}

const _: () = {
    assert!(size_of::<RemoteKey>() == 24);
    assert!(size_of::<RemoteCounts>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{IN, OUT};

    #[test]
    fn each_direction_and_port_has_a_bit_of_its_own() {
        let mut words = std::vec![0_u64; SLOT_WORDS as usize];
        for direction in [IN, OUT] {
            for port in 0..=u16::MAX {
                let (word, bit) = slot_bit(direction, port);
                assert_eq!(words[word as usize] & bit, 0, "{direction} {port}");
                words[word as usize] |= bit;
            }
        }
        assert!(words.iter().all(|&word| word == u64::MAX));
    }
}
