//! The programs' counters of their own work and failures.

use std::fmt;

use conn_common::{counter, name};

use crate::kernel::map::{MapError, PerCpuArray};
use crate::kernel::probe::Probe;

/// Reads the counters.
#[derive(Debug)]
pub struct Counters(PerCpuArray<[u64; counter::CELLS]>);

impl Counters {
    /// Opens the map.
    ///
    /// # Errors
    /// The map cannot be opened.
    pub fn new(probe: &Probe) -> Result<Self, MapError> {
        probe.map(name::COUNTERS).map(Self)
    }

    /// All counters, added up over all possible CPUs, in the order of [`counter::NAMES`].
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn read(&self) -> Result<[u64; counter::COUNT], MapError> {
        let mut sum = [0; counter::COUNT];
        for cpu in self.0.get(0)? {
            for (sum, value) in sum.iter_mut().zip(cpu) {
                *sum += value;
            }
        }
        Ok(sum)
    }
}

/// The counters of failures. While one of them is not 0, no verdict says that the numbers hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures([u64; counter::FAILURES.len()]);

impl Failures {
    /// The failures among all counters.
    pub(crate) fn of(counters: &[u64; counter::COUNT]) -> Self {
        Self(counter::FAILURES.map(|at| counters[at as usize]))
    }

    /// All of them.
    pub(crate) fn total(self) -> u64 {
        self.0.iter().sum()
    }
}

impl fmt::Display for Failures {
    /// The counters that are not 0: `storage_failed 3, owner_failed 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = counter::FAILURES.iter().zip(self.0).filter(|&(_, number)| number > 0);
        for (nth, (&at, number)) in failed.enumerate() {
            let separator = if nth == 0 { "" } else { ", " };
            write!(f, "{separator}{} {number}", counter::NAMES[at as usize])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_named() {
        let mut counters = [0; counter::COUNT];
        counters[counter::CLOSED_LATE as usize] = 9;
        assert_eq!(
            (Failures::of(&counters).total(), Failures::of(&counters).to_string()),
            (0, String::new())
        );
        counters[counter::OWNER_FAILED as usize] = 2;
        counters[counter::STORAGE_FAILED as usize] = 3;
        let failures = Failures::of(&counters);
        assert_eq!(
            (failures.total(), failures.to_string().as_str()),
            (5, "storage_failed 3, owner_failed 2")
        );
    }
}
