//! Maps of the programs, read as a whole: many entries with one system call, where aya makes two for each of a hash.
//!
//! Meanwhile the kernel holds off programs on kprobes and classic tracepoints on this CPU
//! (`bpf_disable_instrumentation()`), as in every reading of a value, here for up to a millisecond in parts. Of
//! ours, only the one for exits of accept(2) is of this kind; runs that read the ledger while they go on have none.

use std::marker::PhantomData;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Array, HashMap, Map, MapData};
use aya::{Ebpf, Pod};
use nix::errno::Errno;
use nix::libc;

use crate::error::Error;

/// `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h), since 5.6: so wherever sockets can be walked.
const LOOKUP_BATCH: libc::c_int = 24;

/// How many entries are asked for at once.
const ROOM: usize = 256;

/// The part of `union bpf_attr` that belongs to batches.
#[repr(C)]
struct Attributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// A map from a number to `V`, from which no program deletes; of an array, all entries.
pub struct Entries<V> {
    map: MapData,
    values: PhantomData<V>,
}

impl<V: Pod> Entries<V> {
    /// Takes the map of this name, once.
    ///
    /// # Errors
    /// It is not there, was taken before, or holds something else.
    pub fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, Error> {
        let map =
            ebpf.take_map(name).ok_or_else(|| Error::Internal(format!("the object has no map {name}")))?;
        // Compares the sizes of keys and values.
        let checked = match &map {
            Map::Array(_) => Array::<_, V>::try_from(&map).map(|_| ()),
            _ => HashMap::<_, u32, V>::try_from(&map).map(|_| ()),
        };
        match (checked, map) {
            (Ok(()), Map::Array(map) | Map::HashMap(map)) => Ok(Self { map, values: PhantomData }),
            (Err(error), _) => Err(Error::Internal(format!("map {name}: {error}"))),
            _ => Err(Error::Internal(format!("map {name} is of a kind that is not expected"))),
        }
    }

    /// Visits each entry once. One that is made meanwhile may come or not.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn each(&self, mut visit: impl FnMut(u32, &V)) -> Result<(), Errno> {
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let (mut from, mut room) = (None, ROOM);
        loop {
            match self.read(from, room, &mut keys, &mut values) {
                Ok(next) => {
                    keys.iter().zip(&values).for_each(|(&key, value)| visit(key, value));
                    if next.is_none() {
                        return Ok(());
                    }
                    from = next;
                }
                // The next bucket alone has more.
                Err(Errno::ENOSPC) => room *= 2,
                Err(error) => return Err(error),
            }
        }
    }

    /// Reads up to `room` entries of the kernel's buckets (or of the array), beginning with the one of this number or
    /// the first. Tells with which one to go on.
    fn read(
        &self,
        from: Option<u32>,
        room: usize,
        keys: &mut Vec<u32>,
        values: &mut Vec<V>,
    ) -> Result<Option<u32>, Errno> {
        keys.clear();
        keys.reserve(room);
        values.clear();
        values.reserve(room);
        let mut next = 0_u32;
        let mut attributes = Attributes {
            in_batch: from.as_ref().map_or(0, |from| std::ptr::from_ref(from).expose_provenance() as u64),
            out_batch: (&raw mut next).expose_provenance() as u64,
            keys: keys.as_mut_ptr().expose_provenance() as u64,
            values: values.as_mut_ptr().expose_provenance() as u64,
            count: room as u32,
            map_fd: self.map.fd().as_fd().as_raw_fd().cast_unsigned(),
            elem_flags: 0,
            flags: 0,
        };
        // SAFETY: the two numbers live until the call returns, and there is room for so many keys and values, the
        // sizes of which are the map's.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut attributes, size_of::<Attributes>())
        };
        let next = match Errno::result(done) {
            Ok(_) => Some(next),
            // These are the last ones.
            Err(Errno::ENOENT) => None,
            Err(error) => return Err(error),
        };
        let read = room.min(attributes.count as usize);
        // SAFETY: the kernel has written so many of both, and any bytes are a key and a `Pod`.
        unsafe {
            keys.set_len(read);
            values.set_len(read);
        }
        Ok(next)
    }
}
