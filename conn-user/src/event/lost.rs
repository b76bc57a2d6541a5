//! A loss: events that could not be handed over.

use crate::event::kind::Kind;

/// Events that found no room, between two moments of `CLOCK_BOOTTIME` in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The number of lost events.
    pub count: u64,
    /// The earliest moment at which one of them can have happened.
    pub since_ns: u64,
    /// The latest moment at which one of them can have happened.
    pub until_ns: u64,
    /// What all of them were, if it is known.
    pub of: Option<LostGroup>,
}

/// What lost events were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostGroup {
    /// Their kind.
    pub kind: Kind,
    /// Their network namespace, by inode number.
    pub netns: u32,
}
