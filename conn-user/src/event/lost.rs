//! A loss: events that the kernel programs could not hand over.

/// Events that found the ring full, between two moments of `CLOCK_BOOTTIME` in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The number of lost events.
    pub count: u64,
    /// The earliest moment at which one of them can have happened.
    pub since_ns: u64,
    /// The latest moment at which one of them can have happened.
    pub until_ns: u64,
}
