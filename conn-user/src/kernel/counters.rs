//! What the programs counted about themselves.

use aya::maps::{MapData, PerCpuArray};
use aya::{Ebpf, Pod};
use conn_common::{counter, name};

use crate::error::Error;

/// One CPU's counters, for the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Cpu([u64; counter::COUNT]);

// SAFETY: integers only.
unsafe impl Pod for Cpu {}

/// Reads the counters.
pub struct Counters(PerCpuArray<MapData, Cpu>);

impl Counters {
    /// Takes the map, once.
    ///
    /// # Errors
    /// It was taken before.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let map = ebpf
            .take_map(name::COUNTERS)
            .ok_or_else(|| Error::Internal(format!("the object has no map {}", name::COUNTERS)))?;
        PerCpuArray::try_from(map).map(Self).map_err(|error| Error::Internal(error.to_string()))
    }

    /// All counters, added up over all possible CPUs, in the order of [`counter::NAMES`].
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn read(&self) -> Result<[u64; counter::COUNT], Error> {
        let cpus = self.0.get(&0, 0).map_err(|error| Error::Internal(error.to_string()))?;
        let mut sum = [0; counter::COUNT];
        for cpu in cpus.iter() {
            for (sum, value) in sum.iter_mut().zip(cpu.0) {
                *sum += value;
            }
        }
        Ok(sum)
    }
}
