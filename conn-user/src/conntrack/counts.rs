//! Counts of messages: what was received, and what was lost.

use crate::event::entry::Change;

/// Counts of the messages of one network namespace, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Messages received of each change.
    pub received: [u64; 3],
    /// Messages lost of each change, by the kernel's count.
    pub lost: [u64; 3],
    /// Losses that the kernel reported and did not count.
    pub uncounted: u64,
    /// Messages that are none.
    pub undecoded: u64,
    /// Events that no message reported: ends that a dump found.
    pub found: u64,
    /// Events of flows out of scope, or of kinds that are not wanted.
    pub unwanted: u64,
}

impl Counts {
    /// Messages and other events that came into being.
    pub(crate) fn produced(&self) -> u64 {
        self.received.iter().chain(&self.lost).sum::<u64>() + self.found
    }

    /// Messages of a change that the kernel sent.
    pub(crate) const fn sent(&self, change: Change) -> u64 {
        self.received[change as usize] + self.lost[change as usize]
    }

    /// Messages that were lost.
    pub(crate) fn all_lost(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Adds other counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for at in 0..Change::ALL.len() {
            self.received[at] += other.received[at];
            self.lost[at] += other.lost[at];
        }
        self.uncounted += other.uncounted;
        self.undecoded += other.undecoded;
        self.found += other.found;
        self.unwanted += other.unwanted;
    }
}
