//! Tables in which the kernel programs find a value by a number of its owner, without a hash lookup. Such a table is a
//! cache, not a limit: whoever finds his place taken keeps the value elsewhere.

/// A place in a table, and whose it is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TableSlot<T> {
    /// Nobody's, and free, if 0.
    pub key: u64,
    /// Means something to the owner only.
    pub value: T,
}

/// The owner of a place that is lent for a moment.
pub const BUSY: u64 = 1;

/// How many places each CPU has to lend, behind all others.
pub const SCRATCH_SLOTS: u32 = 4;

/// Which of `1 << bits` places is that of `number`. `bits` is neither 0 nor more than 31.
#[inline(always)]
pub const fn first_way(number: u32, bits: u32) -> u32 {
    // The golden ratio spreads numbers that are near each other (Knuth, multiplicative hashing).
    number.wrapping_mul(0x9E37_79B1) >> (u32::BITS - bits)
}

/// How many places an owner may have, where owners leave again.
pub const WAYS: u32 = 4;

/// The number of the owner's place number `way`, if `first` is what [`of`] tells of a table with at least [`WAYS`]
/// places: they are next to each other.
#[inline(always)]
pub const fn way(first: u32, number: u32) -> u32 {
    first ^ number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_have_places_of_their_own() {
        for bits in [8, 16] {
            let places: std::collections::BTreeSet<_> =
                (0..64).map(|number| first_way(number, bits)).collect();
            assert!(places.len() > 56, "{bits}: {places:?}");
            assert!(places.iter().all(|&place| place < 1 << bits));
        }
    }

    #[test]
    fn ways_are_next_to_each_other() {
        for first in [0, 5, 1 << 14 | 2, (1 << 17) - 1] {
            let ways: std::collections::BTreeSet<_> = (0..WAYS).map(|number| way(first, number)).collect();
            assert!(ways.contains(&first));
            assert_eq!(ways, (first / WAYS * WAYS..).take(WAYS as usize).collect());
        }
    }
}
