//! How far the reader of a pinned ring has come: memory that the kernel keeps when the reader is killed.
//!
//! The kernel keeps the reader's position in the ring, too. Before each step of that position, the reader notes here what
//! its output has by then, in the oldest of four slots. A step has two notes at the most. So the note of the position that
//! the kernel has is whole, whenever the reader is killed.

#![expect(unsafe_code, reason = "memory that outlives the process is mapped")]

use std::error::Error;
use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use aya::maps::{Map, MapData};
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::kernel::map::{Handle, MapAction, MapError};
use crate::kernel::pin::error::PinError;
use crate::kernel::syscall;

/// The name of the pin.
pub(super) const NAME: &str = "progress";
/// The name of the map in the kernel.
const MAP: &str = "conntrace_read";
/// `BPF_F_MMAPABLE`.
const MMAPABLE: u32 = 1 << 10;
/// Bytes of the memory: less than a page of any kernel.
const BYTES: usize = 4096;
const WORDS: usize = BYTES / size_of::<u64>();
/// The first word, which changes with the meaning of the others.
const MAGIC: u64 = u64::from_be_bytes(*b"ctread01");
/// The kernel's header before each record (`BPF_RINGBUF_HDR_SZ`).
const HEADER: usize = 8;
/// Places in the memory, in words.
const MARKED: usize = 1;
const SLOTS: usize = 2;
const SLOT: usize = 2 + FIELDS;
const MARKS: usize = 64;
/// How many losses that were reported are remembered.
const MAX_MARKS: usize = 64;
/// How many notes are kept.
const NOTES: usize = 4;
const _: () = assert!(SLOTS + NOTES * SLOT <= MARKS && MARKS + 2 * MAX_MARKS <= WORDS);

/// What the output has by a position in the ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Lines that were handed to the output.
    pub lines: u64,
    /// Events among them.
    pub shown: u64,
    /// Events that a filter rejected.
    pub filtered: u64,
    /// Events that the output had no room for.
    pub unwritten: u64,
    /// Records that could not be decoded.
    pub undecoded: u64,
    /// Losses of the ring that lines report.
    pub reported: u64,
    /// Events that the output had no room for, and that no line reports yet.
    pub unreported: u64,
    /// When the last event happened, nanoseconds of `CLOCK_BOOTTIME`.
    pub time_ns: u64,
}

const FIELDS: usize = 8;

impl Standing {
    const fn words(&self) -> [u64; FIELDS] {
        [
            self.lines,
            self.shown,
            self.filtered,
            self.unwritten,
            self.undecoded,
            self.reported,
            self.unreported,
            self.time_ns,
        ]
    }

    const fn of(
        [lines, shown, filtered, unwritten, undecoded, reported, unreported, time_ns]: [u64; FIELDS],
    ) -> Self {
        Self { lines, shown, filtered, unwritten, undecoded, reported, unreported, time_ns }
    }
}

/// A line that reports a loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The number of the line, from 1.
    pub line: u64,
    /// How many events it stands for.
    pub lost: u64,
}

/// What the last reader left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// What its output had.
    pub standing: Standing,
    /// The last lines that report losses, the oldest first.
    pub marks: Vec<Mark>,
    /// There were more of these lines.
    pub has_more: bool,
}

impl Left {
    /// How many events a client misses that has `lines`, and how many of them were handed to the output. None if that is not
    /// known, or if there were never so many lines.
    pub(crate) fn missing(&self, lines: u64) -> Option<(u64, u64)> {
        let undelivered = self.standing.lines.checked_sub(lines)?;
        // A line that is forgotten may be among them.
        if self.has_more && self.marks.first().is_none_or(|mark| mark.line > lines) {
            return None;
        }
        let marks = self.marks.iter().filter(|mark| mark.line > lines);
        let (count, lost) = marks.fold((0, 0), |(count, lost), mark| (count + 1, lost + mark.lost));
        let events = undelivered.checked_sub(count)?;
        Some((events + lost + self.standing.unreported, events))
    }
}

/// The memory of a reader.
#[derive(Debug)]
pub(crate) struct Progress {
    page: Page,
    ring: RingPosition,
    generation: u64,
    marked: u64,
    /// The position of the last note.
    noted: u64,
}

impl Progress {
    /// Makes and pins the memory below the directory of a stream. What an earlier reader left is gone.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn make(point: &Path, ring: RingPosition) -> Result<Self, PinError> {
        let path = point.join(NAME);
        // There may be none.
        let _ = fs::remove_file(&path);
        let fd = syscall::create_array(MAP, BYTES as u32, MMAPABLE);
        let fd = fd.map_err(PinError::io("making the memory of a reader"))?;
        let page = Page::map(&fd, BYTES, true).map_err(PinError::io("mapping the memory of a reader"))?;
        let data = MapData::from_fd(fd).map_err(|error| PinError::other("opening the memory", error))?;
        data.pin(&path).map_err(|error| PinError::other("pinning the memory of a reader", error))?;
        page.word(0).store(MAGIC, Ordering::Release);
        Ok(Self { page, ring, generation: 0, marked: 0, noted: 0 })
    }

    /// Opens the memory, and reads what the last reader left. None if there is nothing of a reader.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn open(point: &Path, ring: RingPosition) -> Result<Option<(Self, Left)>, PinError> {
        let refused = |error: &dyn Error| PinError::other("opening the memory", error.to_string());
        let data = match MapData::from_pin(point.join(NAME)) {
            Ok(data) => data,
            Err(_) if !point.join(NAME).exists() => return Ok(None),
            Err(error) => return Err(refused(&error)),
        };
        let info = data.info().map_err(|error| refused(&error))?;
        if info.value_size() as usize != BYTES || info.map_flags() & MMAPABLE == 0 {
            return Ok(None);
        }
        let page =
            Page::map(&data.fd(), BYTES, true).map_err(PinError::io("mapping the memory of a reader"))?;
        if page.word(0).load(Ordering::Acquire) != MAGIC {
            return Ok(None);
        }
        let mut progress = Self { page, ring, generation: 0, marked: 0, noted: 0 };
        let Some((generation, standing)) = progress.last() else { return Ok(None) };
        let marked = progress.page.word(MARKED).load(Ordering::Acquire);
        let kept = marked.min(MAX_MARKS as u64);
        // A reader may have been killed before it noted the line of its last mark.
        let marks = (marked - kept..marked)
            .map(|number| progress.mark(number))
            .filter(|mark| mark.line <= standing.lines)
            .collect();
        progress.generation = generation;
        Ok(Some((progress, Left { standing, marks, has_more: marked > kept })))
    }

    /// Notes where the output of this reader begins. The lines of the last one that report losses are no longer needed.
    pub(crate) fn begin(&mut self, standing: &Standing) {
        self.note(None, standing);
        self.page.word(MARKED).store(0, Ordering::Release);
    }

    /// Notes what the output has once the ring is read up to now, and beyond the record of so many bytes that is being read.
    pub(crate) fn note(&mut self, record: Option<usize>, standing: &Standing) {
        let beyond = record.map_or(0, |length| (HEADER + length).next_multiple_of(8) as u64);
        // A loss is noted while its record is still being read.
        let position = (self.ring.get() + beyond).max(self.noted);
        self.noted = position;
        self.generation += 1;
        let at = slot(self.generation);
        for (field, word) in standing.words().into_iter().enumerate() {
            self.page.word(at + 2 + field).store(word, Ordering::Relaxed);
        }
        self.page.word(at + 1).store(position, Ordering::Relaxed);
        self.page.word(at).store(self.generation, Ordering::Release);
    }

    /// Notes a line that reports a loss, before [`Self::note`] counts the line.
    pub(crate) fn report(&mut self, mark: Mark) {
        let at = MARKS + 2 * (self.marked as usize % MAX_MARKS);
        self.page.word(at).store(mark.line, Ordering::Relaxed);
        self.page.word(at + 1).store(mark.lost, Ordering::Relaxed);
        self.marked += 1;
        self.page.word(MARKED).store(self.marked, Ordering::Release);
    }

    fn mark(&self, number: u64) -> Mark {
        let at = MARKS + 2 * (number as usize % MAX_MARKS);
        let [line, lost] = [at, at + 1].map(|at| self.page.word(at).load(Ordering::Acquire));
        Mark { line, lost }
    }

    /// The newest note of a position that the ring has reached. Records behind it were discarded by the programs.
    fn last(&self) -> Option<(u64, Standing)> {
        let reached = self.ring.get();
        let read = |slot: usize| {
            let word = |at: usize| self.page.word(slot + at).load(Ordering::Acquire);
            let (generation, position) = (word(0), word(1));
            let fields = std::array::from_fn(|at| word(2 + at));
            (generation != 0 && position <= reached).then_some((generation, Standing::of(fields)))
        };
        (0..NOTES as u64).filter_map(|one| read(slot(one))).max_by_key(|&(generation, _)| generation)
    }
}

/// The place of a note, in words.
const fn slot(generation: u64) -> usize {
    SLOTS + SLOT * (generation as usize % NOTES)
}

/// The reader's position in the ring, as the kernel keeps it.
#[derive(Debug)]
pub(crate) struct RingPosition(Page);

impl RingPosition {
    fn get(&self) -> u64 {
        self.0.word(0).load(Ordering::Acquire)
    }
}

impl Handle for RingPosition {
    fn open(name: &'static str, map: Map) -> Result<Self, MapError> {
        let Map::RingBuf(map) = map else {
            return Err(MapError::Mismatch { name, reason: "not a ring".into() });
        };
        let page = Page::map(&map.fd(), BYTES, false);
        page.map(Self).map_err(|source| MapError::Kernel { action: MapAction::Read, name, source })
    }
}

/// Memory of a map.
#[derive(Debug)]
struct Page {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
}

impl Page {
    fn map(of: &impl AsFd, bytes: usize, writable: bool) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(bytes).ok_or(io::ErrorKind::InvalidInput)?;
        let write = if writable { ProtFlags::PROT_WRITE } else { ProtFlags::empty() };
        // SAFETY: a new mapping at an address that the kernel chooses.
        let start = unsafe { mmap(None, bytes, ProtFlags::PROT_READ | write, MapFlags::MAP_SHARED, of, 0) }?;
        Ok(Self { start, bytes })
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.bytes.get() / size_of::<u64>(), "word {at} is outside of the memory");
        // SAFETY: inside the mapping, which is aligned to a page and lives as long as this value. The kernel and this process
        // change whole words.
        unsafe { self.start.cast::<AtomicU64>().add(at).as_ref() }
    }
}

// SAFETY: the mapping belongs to this value, and all access to it is atomic.
unsafe impl Send for Page {}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping of this value, of which no reference is left. A mapping that stays costs nothing but its room.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(lines: u64, marks: &[(u64, u64)], unreported: u64) -> Left {
        let marks = marks.iter().map(|&(line, lost)| Mark { line, lost }).collect();
        Left { standing: Standing { lines, unreported, ..Standing::default() }, marks, has_more: false }
    }

    #[test]
    fn what_a_client_misses_is_events_and_the_losses_of_lines() {
        assert_eq!(left(10, &[], 0).missing(10), Some((0, 0)));
        assert_eq!(left(10, &[], 0).missing(7), Some((3, 3)));
        assert_eq!(left(10, &[(9, 70)], 5).missing(7), Some((2 + 70 + 5, 2)));
        assert_eq!(left(10, &[(7, 70)], 0).missing(7), Some((3, 3)));
        assert_eq!(left(10, &[], 0).missing(11), None);
    }

    #[test]
    fn a_forgotten_line_makes_the_number_unknown() {
        let more = Left { has_more: true, ..left(100, &[(50, 1), (60, 1)], 0) };
        assert_eq!(more.missing(49), None);
        assert_eq!(more.missing(50), Some((50 - 1 + 1, 49)));
    }
}
