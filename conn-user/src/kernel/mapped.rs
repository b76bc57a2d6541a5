//! Arrays of the programs that are mapped into memory: a large array is read without a copy through the kernel.

#![expect(unsafe_code, reason = "memory that the kernel programs write while it is read")]

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;

use aya::maps::{Map, MapData};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::kernel::map::{Handle, MapAction, MapError};
use crate::kernel::plain::Plain;

/// An array of words (`u64`), `V` of them after each other for one entry.
pub(crate) struct MappedArray<V> {
    name: &'static str,
    map: MapData,
    entries: usize,
    values: PhantomData<fn() -> V>,
}

/// Bytes of a word.
const WORD: usize = 8;

impl<V: Plain> MappedArray<V> {
    /// Visits each entry with its index, as words. The memory is mapped for the length of the call only.
    ///
    /// # Errors
    /// The kernel refuses to map the array.
    pub(crate) fn each(&self, mut visit: impl FnMut(u32, &[u64])) -> Result<(), MapError> {
        let words = size_of::<V>() / WORD;
        let Some(length) = NonZeroUsize::new(self.entries * words * WORD) else { return Ok(()) };
        let refused = |errno: nix::Error| MapError::Kernel {
            action: MapAction::Read,
            name: self.name,
            source: errno.into(),
        };
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, self.map.fd().as_fd(), 0)
        }
        .map_err(refused)?;
        let first = start.cast::<u64>();
        let mut entry = vec![0; words];
        for index in 0..self.entries {
            for (at, word) in entry.iter_mut().enumerate() {
                // SAFETY: inside the mapping, which is aligned to a page. Each word is read once: a program may change
                // it meanwhile, and an aligned word is never torn.
                *word = unsafe { first.add(index * words + at).read_volatile() };
            }
            visit(index as u32, &entry);
        }
        // SAFETY: the mapping of above, of which no reference is left.
        unsafe { munmap(start, length.get()) }.map_err(refused)
    }
}

impl<V: Plain> Handle for MappedArray<V> {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        const { assert!(size_of::<V>().is_multiple_of(WORD)) };
        let mismatch = |reason: String| MapError::Mismatch { name, reason };
        let Map::Array(map) = map else { return Err(mismatch("not an array".into())) };
        let info = map.info().map_err(|error| MapError::new(name, MapAction::Open, &error))?;
        if info.value_size() as usize != size_of::<V>() {
            return Err(mismatch(format!("values of {} bytes", info.value_size())));
        }
        Ok(Self { name, map, entries: info.max_entries() as usize, values: PhantomData })
    }
}

impl<V> fmt::Debug for MappedArray<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MappedArray")
            .field("name", &self.name)
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}
