//! The table of flows, mapped into memory. The kernel programs change it at the same moment: tags change by
//! compare-and-exchange, and a slot is written only by the side whose exchange succeeded.

#![expect(unsafe_code, reason = "memory that the kernel programs write at the same time")]

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Map, MapData};
use conn_common::flow::{Flow, FlowSocket, RECEIVED, SENT};
use conn_common::flow_counts::FlowTraffic;
use conn_common::name;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::kernel::map::{Handle, HashMap, MapAction, MapError};
use crate::kernel::plain::Plain;
use crate::kernel::probe::Probe;

/// An array of the programs in memory, to read and write.
struct Mapping<V> {
    start: NonNull<V>,
    entries: usize,
    _map: MapData,
}

// SAFETY: the mapping is shared memory without a thread of its own; all access is by whole words.
unsafe impl<V> Send for Mapping<V> {}

impl<V: Plain> Mapping<V> {
    /// The address of an entry.
    fn entry(&self, index: u32) -> NonNull<V> {
        assert!((index as usize) < self.entries, "an index behind the end of an array");
        // SAFETY: inside the mapping.
        unsafe { self.start.add(index as usize) }
    }

    /// The word of an entry at a byte offset.
    fn word(&self, index: u32, offset: usize) -> &AtomicU64 {
        assert!(offset + size_of::<u64>() <= size_of::<V>() && offset.is_multiple_of(size_of::<u64>()));
        // SAFETY: an aligned word of the mapping, which all sides access atomically.
        unsafe { self.entry(index).byte_add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// A copy of an entry. Each word is whole; words that a program writes meanwhile may be of different moments.
    fn copy(&self, index: u32) -> V {
        // SAFETY: any bytes are a plain value.
        unsafe { self.entry(index).read_volatile() }
    }
}

impl<V: Plain> Handle for Mapping<V> {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        let mismatch = |reason: String| MapError::Mismatch { name, reason };
        let Map::Array(map) = map else { return Err(mismatch("not an array".into())) };
        let info = map.info().map_err(|error| MapError::new(name, MapAction::Open, &error))?;
        if info.value_size() as usize != size_of::<V>() {
            return Err(mismatch(format!("values of {} bytes", info.value_size())));
        }
        let entries = info.max_entries() as usize;
        let length = NonZeroUsize::new(entries * size_of::<V>()).ok_or_else(|| mismatch("empty".into()))?;
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_SHARED,
                map.fd().as_fd(),
                0,
            )
        }
        .map_err(|errno| MapError::Kernel {
            action: MapAction::Open,
            name,
            source: io::Error::from(errno),
        })?;
        Ok(Self { start: start.cast(), entries, _map: map })
    }
}

impl<V> Drop for Mapping<V> {
    fn drop(&mut self) {
        // SAFETY: the mapping of `open`, of which no reference is left.
        let unmapped = unsafe { munmap(self.start.cast(), self.entries * size_of::<V>()) };
        if let Err(error) = unmapped {
            log::debug!("unmapping an array: {error}");
        }
    }
}

/// The table and its neighbours.
pub(crate) struct FlowMaps {
    flows: Mapping<Flow>,
    tags: Mapping<[u64; 8]>,
    sockets: Mapping<FlowSocket>,
    closed: HashMap<u64, u64>,
}

impl fmt::Debug for FlowMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowMaps").field("flows", &self.flows.entries).finish_non_exhaustive()
    }
}

/// A word of a flow that the sweep writes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FlowWord {
    /// [`Flow::cause`] and, in the upper half, [`Flow::index`].
    Cause,
    /// [`Flow::end_ns`].
    EndNs,
    /// [`Flow::ended`].
    Ended,
}

impl FlowMaps {
    /// Opens the maps.
    ///
    /// # Errors
    /// The kernel refuses to map one of them.
    pub(crate) fn new(probe: &Probe) -> Result<Self, MapError> {
        Ok(Self {
            flows: probe.map(name::FLOWS)?,
            tags: probe.map(name::FLOW_TAGS)?,
            sockets: probe.map(name::FLOW_SOCKETS)?,
            closed: probe.map(name::FLOW_CLOSED)?,
        })
    }

    /// How many slots there are.
    pub(crate) fn slots(&self) -> u32 {
        self.flows.entries as u32
    }

    /// The tag of a slot.
    pub(crate) fn tag(&self, index: u32) -> u64 {
        self.tag_word(index).load(Ordering::SeqCst)
    }

    /// Replaces the tag `old` by `new`, and returns whether the tag was `old`.
    pub(crate) fn exchange_tag(&self, index: u32, old: u64, new: u64) -> bool {
        self.tag_word(index).compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn tag_word(&self, index: u32) -> &AtomicU64 {
        let (bucket, way) = (index / 8, index % 8);
        self.tags.word(bucket, way as usize * size_of::<u64>())
    }

    /// The flow in a slot.
    pub(crate) fn flow(&self, index: u32) -> Flow {
        self.flows.copy(index)
    }

    /// Writes a word of a flow whose tag this side has changed.
    pub(crate) fn set(&self, index: u32, word: FlowWord, value: u64) {
        let offset = match word {
            FlowWord::Cause => std::mem::offset_of!(Flow, cause),
            FlowWord::EndNs => std::mem::offset_of!(Flow, end_ns),
            FlowWord::Ended => std::mem::offset_of!(Flow, ended),
        };
        self.flows.word(index, offset).store(value, Ordering::SeqCst);
    }

    /// Takes the packets and bytes out of a slot, for the counts of its port and namespace.
    pub(crate) fn take_traffic(&self, index: u32) -> (FlowTraffic, [u64; 2]) {
        let take = |offset: usize| {
            [SENT, RECEIVED]
                .map(|way| self.flows.word(index, offset + way * size_of::<u64>()).swap(0, Ordering::SeqCst))
        };
        let traffic = FlowTraffic {
            packets: take(std::mem::offset_of!(Flow, packets)),
            merged: take(std::mem::offset_of!(Flow, merged)),
        };
        (traffic, take(std::mem::offset_of!(Flow, bytes)))
    }

    /// Sockets with several flows that closed: entry, cookie and time.
    pub(crate) fn closed_sockets(&self) -> Vec<(u32, u64, u64)> {
        let offset = std::mem::offset_of!(FlowSocket, closed_ns);
        let closed = (0..self.sockets.entries as u32).filter_map(|index| {
            let closed_ns = self.sockets.word(index, offset).load(Ordering::SeqCst);
            (closed_ns != 0).then(|| (index, self.sockets.copy(index).cookie, closed_ns))
        });
        closed.collect()
    }

    /// Frees the entry of a socket that closed.
    pub(crate) fn release_socket(&self, index: u32) {
        // The cookie comes last: then another socket may have the entry.
        for offset in [
            std::mem::offset_of!(FlowSocket, flows),
            std::mem::offset_of!(FlowSocket, closed_ns),
            std::mem::offset_of!(FlowSocket, cookie),
        ] {
            self.sockets.word(index, offset).store(0, Ordering::SeqCst);
        }
    }

    /// Sockets that closed and had no entry, by cookie, with the time. Each is returned once.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn take_closed(&mut self) -> Result<Vec<(u64, u64)>, MapError> {
        let closed: Vec<_> = self.closed.entries()?.into_iter().collect();
        for (cookie, _) in &closed {
            self.closed.remove(*cookie)?;
        }
        Ok(closed)
    }
}
