//! The losses of one group of messages, from the kernel's count of them.

use crate::event::lost::Lost;

/// What was lost.
#[derive(Debug)]
pub(super) struct Losses {
    /// Messages that found the socket full, by the kernel's count.
    pub lost: u64,
    /// Times when the kernel reported a loss and counted none: it had no memory for a message
    /// (`ctnetlink_conntrack_event()`), so that at least one was lost each time.
    pub uncounted: u64,
    /// The kernel's count at the last look.
    drops: u32,
    /// When the count was last read, nanoseconds of `CLOCK_BOOTTIME`.
    looked_ns: u64,
    /// The kernel has reported a loss since then.
    is_reported: bool,
    /// A loss was counted whose report may still come.
    expects_report: bool,
}

impl Losses {
    /// Nothing was lost before `now_ns`.
    pub(super) const fn new(now_ns: u64) -> Self {
        Self { lost: 0, uncounted: 0, drops: 0, looked_ns: now_ns, is_reported: false, expects_report: false }
    }

    /// The kernel reported a loss.
    pub(super) const fn report(&mut self) {
        self.is_reported = true;
    }

    /// True if something was lost since the last look. `drops` is the kernel's count.
    pub(super) const fn is_due(&self, drops: u32) -> bool {
        self.is_reported || drops != self.drops
    }

    /// Losses since the last look. `drops` is the kernel's count at `now_ns`, modulo 2³².
    pub(super) fn look(&mut self, drops: u32, now_ns: u64) -> Option<Lost> {
        let count = u64::from(drops.wrapping_sub(self.drops));
        let since_ns = self.looked_ns.min(now_ns);
        self.lost += count;
        if count > 0 {
            self.expects_report = true;
        } else if self.is_reported {
            self.uncounted += u64::from(!self.expects_report);
            self.expects_report = false;
        }
        (self.drops, self.looked_ns, self.is_reported) = (drops, now_ns, false);
        (count > 0).then_some(Lost { count, since_ns, until_ns: now_ns, of: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_once_with_their_interval() {
        let mut losses = Losses::new(10);
        assert_eq!((losses.look(0, 20), losses.is_due(0), losses.is_due(1)), (None, false, true));
        losses.report();
        assert!(losses.is_due(0));
        assert_eq!(losses.look(5, 30), Some(Lost { count: 5, since_ns: 20, until_ns: 30, of: None }));
        assert_eq!(losses.look(5, 40), None);
        // The kernel's count begins anew.
        losses.look(u32::MAX, 50);
        assert_eq!(losses.look(1, 60).map(|lost| lost.count), Some(2));
        assert_eq!((losses.lost, losses.uncounted), (u64::from(u32::MAX) + 2, 0));
    }

    #[test]
    fn reports_without_a_count_are_losses_of_unknown_number() {
        let mut losses = Losses::new(0);
        // Counted, and reported at the next read.
        losses.look(3, 1);
        losses.report();
        losses.look(3, 2);
        assert_eq!(losses.uncounted, 0);
        losses.report();
        assert_eq!((losses.look(3, 3), losses.uncounted), (None, 1));
    }
}
