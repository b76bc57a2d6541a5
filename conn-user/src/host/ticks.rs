//! The rate of the ticks (jiffies) in which the kernel counts coarse times.

use nix::time::{ClockId, clock_getres};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Ticks of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRate {
    /// 0 for an unknown rate.
    frequency: u64,
}

impl TickRate {
    /// An unknown rate, by which every length of time is unknown.
    pub const UNKNOWN: Self = Self { frequency: 0 };

    /// The running kernel's rate. The kernel does not export its `CONFIG_HZ`, but its coarse clock has that resolution.
    pub fn probe() -> Self {
        let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE);
        tick.map_or(Self::UNKNOWN, |tick| Self::of_tick(tick.tv_nsec().unsigned_abs()))
    }

    /// The rate of ticks of `ns` nanoseconds, rounded as the kernel does (`TICK_NSEC`, include/linux/jiffies.h).
    pub const fn of_tick(ns: u64) -> Self {
        match (SECOND + ns / 2).checked_div(ns) {
            Some(frequency) => Self { frequency },
            None => Self::UNKNOWN,
        }
    }

    /// The length of one tick in nanoseconds; `None` if the rate is unknown.
    pub fn tick_ns(self) -> Option<u64> {
        SECOND.checked_div(self.frequency)
    }

    /// The length of `ticks` in nanoseconds; `None` if the rate is unknown. A measured time may be up to one tick
    /// longer or shorter.
    pub fn ns(self, ticks: u32) -> Option<u64> {
        (u64::from(ticks) * SECOND).checked_div(self.frequency)
    }

    /// The shortest time in which `ticks` can begin, in nanoseconds; `None` if the rate is unknown.
    pub fn at_least_ns(self, ticks: u32) -> Option<u64> {
        self.ns(ticks.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tick_rates_are_found() {
        // The rates that kernels are configured with (kernel/Kconfig.hz, and Alpha's).
        for frequency in [24, 100, 128, 250, 300, 1_000, 1_024] {
            let tick = (SECOND + frequency / 2) / frequency;
            assert_eq!(TickRate::of_tick(tick), TickRate { frequency });
        }
        assert_eq!(TickRate::of_tick(0), TickRate::UNKNOWN);
        assert!((24..=1_024).contains(&TickRate::probe().frequency));
    }

    #[test]
    fn ticks_become_nanoseconds() {
        let rate = TickRate { frequency: 250 };
        assert_eq!(rate.ns(251), Some(1_004_000_000));
        assert_eq!([0, 1, 251].map(|ticks| rate.at_least_ns(ticks)), [Some(0), Some(0), Some(SECOND)]);
        assert_eq!(rate.ns(u32::MAX), Some(17_179_869_180_000_000));
        assert_eq!(TickRate::UNKNOWN.ns(1), None);
    }
}
