//! The kernel's tick rate. The kernel counts coarse times in ticks (jiffies).

use std::sync::OnceLock;

use nix::time::{ClockId, clock_getres};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Ticks per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRate {
    frequency: u64,
}

impl TickRate {
    /// The rate of the running kernel, from the resolution of a coarse clock, which is one tick. `None` if the clock
    /// is missing.
    pub fn probe() -> Option<Self> {
        static RATE: OnceLock<Option<TickRate>> = OnceLock::new();
        *RATE.get_or_init(|| {
            let tick = clock_getres(ClockId::CLOCK_MONOTONIC_COARSE).ok()?;
            Self::from_tick_ns(u64::try_from(tick.tv_nsec()).ok()?)
        })
    }

    /// The rate with ticks of `ns` nanoseconds, rounded as the kernel does (`TICK_NSEC`, include/linux/jiffies.h).
    fn from_tick_ns(ns: u64) -> Option<Self> {
        let frequency = (SECOND + ns / 2).checked_div(ns)?;
        (frequency > 0).then_some(Self { frequency })
    }

    /// A number of ticks in nanoseconds. The measured time may be up to one tick longer or shorter.
    pub fn ns(self, jiffies: u32) -> Option<u64> {
        (u64::from(jiffies) * SECOND).checked_div(self.frequency)
    }

    /// The shortest time, in nanoseconds, in which `jiffies` ticks can begin.
    pub fn at_least_ns(self, jiffies: u32) -> Option<u64> {
        self.ns(jiffies.saturating_sub(1))
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
            assert_eq!(TickRate::from_tick_ns(tick), Some(TickRate { frequency }));
        }
        assert_eq!(TickRate::from_tick_ns(0), None);
        assert!(TickRate::probe().is_some_and(|jiffy| (24..=1_024).contains(&jiffy.frequency)));
    }

    #[test]
    fn ticks_become_nanoseconds() {
        let jiffy = TickRate { frequency: 250 };
        assert_eq!(jiffy.ns(251), Some(1_004_000_000));
        assert_eq!([0, 1, 251].map(|jiffies| jiffy.at_least_ns(jiffies)), [Some(0), Some(0), Some(SECOND)]);
        assert_eq!(jiffy.ns(u32::MAX), Some(17_179_869_180_000_000));
    }
}
