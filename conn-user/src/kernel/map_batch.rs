//! Maps read as a whole: many entries with one system call, where aya makes two calls for each entry of a hash.
//!
//! During each call the kernel runs no programs on kprobes and classic tracepoints on this CPU
//! (`bpf_disable_instrumentation()`), for up to a millisecond a part. Of our programs only the one on exits of
//! accept(2) is of this kind, and runs that read the ledger while they go on do not load it.

#![expect(unsafe_code, reason = "the kernel writes entries into our buffers, whose sizes are checked here")]

use std::marker::PhantomData;
use std::os::fd::AsFd as _;

use aya::maps::{Array, HashMap, Map, MapData};
use nix::libc;

use crate::kernel::map::{Handle, MapAction, MapError};
use crate::kernel::plain::{Cell, Plain};
use crate::kernel::syscall::{Batch, first_value, lookup_batch};

/// How many entries one call asks for at first.
const CAPACITY: usize = 256;

/// A map from `K` to `V`, from which no program deletes; of an array, all entries.
#[derive(Debug)]
pub(crate) struct Entries<V, K = u32> {
    name: &'static str,
    map: MapData,
    values: PhantomData<fn() -> (K, V)>,
}

impl<K: Plain, V: Plain> Entries<V, K> {
    /// Visits each entry once. An entry that is made during the walk may be visited or not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn each(&self, mut visit: impl FnMut(K, &V)) -> Result<(), MapError> {
        let mut batch = Batch { keys: Vec::new(), values: Vec::new(), next: None };
        let (mut from, mut room) = (None, CAPACITY);
        loop {
            // SAFETY: `open` has compared the sizes of keys and values with those of the map.
            let (read, done) = unsafe { lookup_batch(self.map.fd().as_fd(), from, room, batch) };
            batch = read;
            match done {
                Ok(()) => {
                    batch.keys.iter().zip(&batch.values).for_each(|(&key, value)| visit(key, value));
                    if batch.next.is_none() {
                        return Ok(());
                    }
                    from = batch.next;
                }
                // The next bucket alone has more entries.
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => room *= 2,
                Err(source) => {
                    return Err(MapError::Kernel { action: MapAction::Read, name: self.name, source });
                }
            }
        }
    }
}

/// The bytes of a section of frozen globals, which is an array of one value.
pub(super) fn globals(section: &MapData) -> Result<Vec<u8>, MapError> {
    let name = "of globals";
    let info = section.info().map_err(|error| MapError::new(name, MapAction::Read, &error))?;
    // SAFETY: the size is that of the map, which has one value for all CPUs: `Map::Array`, as the caller has it.
    let read = unsafe { first_value(section.fd().as_fd(), info.value_size() as usize) };
    read.map_err(|source| MapError::Kernel { action: MapAction::Read, name, source })
}

impl<K: Plain, V: Plain> Handle for Entries<V, K> {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        // Compares the sizes of keys and values, which `lookup_batch` needs.
        let checked = match &map {
            Map::Array(_) if size_of::<K>() == size_of::<u32>() => {
                Array::<_, Cell<V>>::try_from(&map).map(|_| ())
            }
            _ => HashMap::<_, Cell<K>, Cell<V>>::try_from(&map).map(|_| ()),
        };
        match (checked, map) {
            (Ok(()), Map::Array(map) | Map::HashMap(map)) => Ok(Self { name, map, values: PhantomData }),
            (Err(error), _) => Err(MapError::Mismatch { name, reason: error.to_string() }),
            _ => Err(MapError::Mismatch { name, reason: "neither an array nor a hash map".into() }),
        }
    }
}
