//! Losses, and where in the stream they happened.
//!
//! The kernel only counts events that find the ring full. A lost event comes after all events that the full ring
//! holds. So the watch looks each time one ringful has been taken, and when the ring is empty. A higher count means a
//! loss at that position of the stream.

use crate::event::lost::Lost;

/// Bytes of the kernel's header before each record.
const HEADER: usize = 8;

/// Finds losses and the intervals of the stream that hold them.
#[derive(Debug)]
pub(crate) struct LossWatch {
    /// How many losses have been reported.
    known: u64,
    /// When the counter was last read, nanoseconds of `CLOCK_BOOTTIME`.
    looked_ns: u64,
    /// When the first event that was taken since the last look happened.
    first_ns: Option<u64>,
    /// Bytes taken out of the ring since the last look.
    bytes: usize,
    /// Bytes after which the watch looks: seven eighths of the ring.
    ringful: usize,
}

impl LossWatch {
    /// For a ring of `ring_bytes`, from which nothing was lost before `now_ns`.
    pub(crate) fn new(ring_bytes: u32, now_ns: u64) -> Self {
        let ringful = ring_bytes as usize * 7 / 8;
        Self { known: 0, looked_ns: now_ns, first_ns: None, bytes: 0, ringful }
    }

    /// The same, where `known` losses have been reported before.
    pub(crate) fn behind(self, known: u64) -> Self {
        Self { known, ..self }
    }

    /// Notes that a record of `len` bytes was taken, of an event at `time_ns`. True if [`Self::look`] is due.
    pub(crate) fn taken(&mut self, len: usize, time_ns: u64) -> bool {
        self.first_ns.get_or_insert(time_ns);
        self.bytes += len + HEADER;
        self.bytes >= self.ringful
    }

    /// Compares `total`, the kernel's count of losses at `now_ns`, with the last one. Returns the new losses.
    pub(crate) fn look(&mut self, total: u64, now_ns: u64) -> Option<Lost> {
        // The ring held the first event that was taken since the last look before it was full.
        let since_ns = self.first_ns.map_or(self.looked_ns, |first| first.max(self.looked_ns)).min(now_ns);
        let count = total.saturating_sub(self.known);
        *self = Self { known: total, looked_ns: now_ns, first_ns: None, bytes: 0, ringful: self.ringful };
        (count > 0).then_some(Lost { count, since_ns, until_ns: now_ns, of: None })
    }

    /// How many losses have been reported.
    #[cfg(test)]
    pub(crate) const fn known(&self) -> u64 {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_is_reported_once_with_its_interval() {
        let mut watch = LossWatch::new(4096, 100);
        assert_eq!(watch.look(0, 200), None);
        assert!(!watch.taken(200, 250));
        assert!(!watch.taken(200, 260));
        assert_eq!(watch.look(5, 300), Some(Lost { count: 5, since_ns: 250, until_ns: 300, of: None }));
        assert_eq!(watch.look(5, 400), None);
        assert_eq!(watch.look(7, 500), Some(Lost { count: 2, since_ns: 400, until_ns: 500, of: None }));
        // The event was in the ring before the last look, so the loss begins at the look.
        watch.taken(200, 450);
        assert_eq!(watch.look(8, 600), Some(Lost { count: 1, since_ns: 500, until_ns: 600, of: None }));
        assert_eq!(watch.known(), 8);
    }

    #[test]
    fn look_is_due_before_a_second_ringful() {
        let mut watch = LossWatch::new(4096, 0);
        let taken = (1..100).find(|_| watch.taken(200, 1)).unwrap();
        // A ring of 4096 bytes holds 19 such records.
        assert_eq!(taken, 18);
        watch.look(0, 2);
        assert!(!watch.taken(200, 3));
    }
}
