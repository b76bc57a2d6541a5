//! Bits of the filters that the kernel programs apply before an event reaches the ring.

/// Both directions.
pub const ANY_DIRECTION: u8 = 0b11;
/// Both families.
pub const ANY_FAMILY: u8 = 0b11;
/// Every event kind.
pub const ANY_KIND: u8 = 0b111;

/// Words in a bitmap of all ports.
pub const PORT_WORDS: usize = 65_536 / 64;

/// One bit per port: 0 to 65,535.
pub type PortBits = [u64; PORT_WORDS];

/// The bit of a family (4 or 6) in the family mask.
#[inline(always)]
pub const fn family_bit(family: u8) -> u8 {
    if family == 6 { 0b10 } else { 0b01 }
}

/// The bit of a direction or an event kind in its mask.
#[inline(always)]
pub const fn bit(number: u8) -> u8 {
    1 << (number & 7)
}

/// Word and bit of `port` in a [`PortBits`].
#[inline(always)]
pub const fn port_place(port: u16) -> (usize, u64) {
    ((port >> 6) as usize, 1 << (port & 63))
}
