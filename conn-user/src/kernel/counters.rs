//! The programs' counters of their own work and failures.

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
