//! How long a jiffy is. The kernel does not tell its `CONFIG_HZ`, but it counts jiffies from a known number
//! since boot.

/// The frequencies that kernels are configured with (`kernel/Kconfig.hz`, and Alpha's).
const FREQUENCIES: [u64; 7] = [24, 100, 128, 250, 300, 1_000, 1_024];
/// How far the count may be off, in seconds: it starts a moment before the clock does, and may lag.
const SLACK: u64 = 5;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A jiffy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jiffy {
    frequency: u64,
}

impl Jiffy {
    /// From a count of jiffies at a moment of `CLOCK_MONOTONIC`. `None` if they fit no frequency.
    ///
    /// The count begins 300 seconds before its lower half wraps (`INITIAL_JIFFIES`, include/linux/jiffies.h).
    pub fn measured(jiffies: u64, monotonic_ns: u64) -> Option<Self> {
        let off = |frequency: u64| {
            let counted = jiffies.checked_sub((1 << 32) - 300 * frequency)?;
            let expected = u128::from(monotonic_ns) * u128::from(frequency) / u128::from(SECOND);
            // In units that frequencies have in common.
            let off = u128::from(counted).abs_diff(expected) * 1_000 / u128::from(frequency);
            (off <= u128::from(SLACK * 1_000)).then_some(off)
        };
        let frequency = FREQUENCIES.into_iter().filter_map(|one| Some((off(one)?, one))).min()?.1;
        Some(Self { frequency })
    }

    /// The shortest time in which so many jiffies can begin, in nanoseconds.
    pub fn at_least_ns(self, jiffies: u32) -> u64 {
        u64::from(jiffies.saturating_sub(1)) * SECOND / self.frequency
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn jiffies_are_counted_from_before_boot() {
        // 250 Hz, 4,294,967,296 - 75,000 at boot, 1,000 s later.
        assert_eq!(Jiffy::measured(4_295_142_296, 1_000 * SECOND), Some(Jiffy { frequency: 250 }));
        assert_eq!(Jiffy::measured(7, 1_000 * SECOND), None);
        let jiffy = Jiffy { frequency: 250 };
        assert_eq!((jiffy.at_least_ns(0), jiffy.at_least_ns(1), jiffy.at_least_ns(251)), (0, 0, SECOND));
    }

    proptest! {
        #[test]
        fn the_frequency_is_found(
            frequency in prop::sample::select(&FREQUENCIES[..]),
            uptime in 600_u64..100_000_000,
            late in 0_u64..2,
        ) {
            let jiffies = (1_u64 << 32) - 300 * frequency + uptime * frequency;
            let found = Jiffy::measured(jiffies, (uptime + late) * SECOND);
            prop_assert_eq!(found, Some(Jiffy { frequency }));
        }
    }
}
