//! What the export of events counts of itself. Events that were read are exported, dropped, rejected, or wait.

/// One of the counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Events that the stream had.
    Read,
    /// Events that the collector took.
    Exported,
    /// Events in requests that never arrived.
    Dropped,
    /// Events that the collector did not want.
    Rejected,
    /// Events that the stream lost.
    Lost,
    /// Times without a stream.
    Gaps,
}

/// The counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts([u64; 6]);

impl Counts {
    /// One of them.
    pub(crate) const fn of(&self, which: Count) -> u64 {
        self.0[which as usize]
    }

    /// Adds to one of them.
    pub(crate) const fn add(&mut self, which: Count, number: u64) {
        self.0[which as usize] = self.0[which as usize].saturating_add(number);
    }
}
