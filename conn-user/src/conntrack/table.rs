//! The table of one network namespace: its size, its settings, its counters of failures.

use std::fs;

/// What files say of the table of the calling thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TableFacts {
    /// Entries now.
    pub count: u64,
    /// The most entries.
    pub max: u64,
    /// Entries have counters of packets and bytes.
    pub accounting: bool,
    /// The kernel stamps the beginning and the end of entries.
    pub timestamps: bool,
}

impl TableFacts {
    /// The facts; `None` if the kernel has no connection tracking loaded.
    pub(crate) fn probe() -> Option<Self> {
        let read = |name: &str| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_{name}");
            fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
        };
        Some(Self {
            count: read("count")?,
            max: read("max")?,
            accounting: read("acct") == Some(1),
            timestamps: read("timestamp") == Some(1),
        })
    }
}
