//! Losses, and where in the stream they happened.
//!
//! The kernel only counts events that find the ring full. But a full ring says when: what is lost comes
//! after all that the ring holds. So the counter is read whenever as much has been taken out of the ring
//! as fits into it, and when it is empty; a difference is told there.

use crate::event::lost::Lost;

/// What the kernel puts before each record.
const HEADER: usize = 8;

/// Looks for losses.
#[derive(Debug)]
pub(crate) struct LossWatch {
    /// How many are known.
    known: u64,
    /// When somebody looked, nanoseconds of `CLOCK_BOOTTIME`.
    looked_ns: u64,
    /// When the first event since then happened.
    first_ns: Option<u64>,
    /// Bytes taken out of the ring since then.
    bytes: usize,
    /// Bytes that are about all the ring can hold.
    ringful: usize,
}

impl LossWatch {
    /// For a ring of `ring_bytes`, from which nothing was lost before `now_ns`.
    pub(crate) fn new(ring_bytes: u32, now_ns: u64) -> Self {
        let ringful = ring_bytes as usize * 7 / 8;
        Self { known: 0, looked_ns: now_ns, first_ns: None, bytes: 0, ringful }
    }

    /// Notes that a record of `len` bytes was taken, of an event at `time_ns`. True if it is time to look.
    pub(crate) fn taken(&mut self, len: usize, time_ns: u64) -> bool {
        self.first_ns.get_or_insert(time_ns);
        self.bytes += len + HEADER;
        self.bytes >= self.ringful
    }

    /// Looks: the kernel has counted `total` losses by now. Tells those that are new.
    pub(crate) fn look(&mut self, total: u64, now_ns: u64) -> Option<Lost> {
        // The ring held the first event that was taken since the last look before it was full.
        let since_ns = self.first_ns.map_or(self.looked_ns, |first| first.max(self.looked_ns)).min(now_ns);
        let count = total.saturating_sub(self.known);
        *self = Self { known: total, looked_ns: now_ns, first_ns: None, bytes: 0, ringful: self.ringful };
        (count > 0).then_some(Lost { count, since_ns, until_ns: now_ns })
    }

    /// How many are known.
    #[cfg(test)]
    pub(crate) const fn known(&self) -> u64 {
        self.known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_each_loss_once_and_when() {
        let mut watch = LossWatch::new(4096, 100);
        assert_eq!(watch.look(0, 200), None);
        assert!(!watch.taken(200, 250));
        assert!(!watch.taken(200, 260));
        assert_eq!(watch.look(5, 300), Some(Lost { count: 5, since_ns: 250, until_ns: 300 }));
        assert_eq!(watch.look(5, 400), None);
        assert_eq!(watch.look(7, 500), Some(Lost { count: 2, since_ns: 400, until_ns: 500 }));
        // An event that waited in the ring while somebody looked.
        watch.taken(200, 450);
        assert_eq!(watch.look(8, 600), Some(Lost { count: 1, since_ns: 500, until_ns: 600 }));
        assert_eq!(watch.known(), 8);
    }

    #[test]
    fn looks_before_a_second_ringful_is_taken() {
        let mut watch = LossWatch::new(4096, 0);
        let taken = (1..100).find(|_| watch.taken(200, 1)).unwrap();
        // A ring of 4096 bytes holds 19 such records.
        assert_eq!(taken, 18);
        watch.look(0, 2);
        assert!(!watch.taken(200, 3));
    }
}
