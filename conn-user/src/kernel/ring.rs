//! The programs' ring of events, as a typed handle.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya::maps::{Map, MapData, RingBuf};

use crate::kernel::map::{Handle, MapAction, MapError};
use crate::output::async_fd::OwnsFd;

/// The reader's end of the ring. Two handles of one ring would read the same records: a probe's ring is
/// opened once.
pub struct Ring(RingBuf<MapData>);

impl Ring {
    /// The next record, if there is one. Its room in the ring is free again once it is dropped.
    pub fn record(&mut self) -> Option<impl Deref<Target = [u8]> + '_> {
        self.0.next()
    }
}

impl Handle for Ring {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        let ring = RingBuf::try_from(map);
        ring.map(Self).map_err(|error| MapError::new(name, MapAction::Open, &error))
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Ring {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

// SAFETY: a ring owns the descriptor of its map, which it cannot replace.
#[expect(unsafe_code, reason = "the promise that AsyncFd asks for")]
unsafe impl OwnsFd for Ring {}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ring").field(&self.as_raw_fd()).finish()
    }
}
