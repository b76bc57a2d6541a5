//! What the daemon says of itself and of its host, beside the counts.

use std::fs;

use super::family;
use super::samples::{Samples, Value};
use crate::ledger::self_cost;

/// The state of the daemon at the time of a reading.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Own {
    /// Programs and counts are pinned, and nothing harms the pins.
    pub is_pinned: bool,
    /// Commands that run for clients.
    pub commands: usize,
    /// Lines that clients of shared streams lost.
    pub lines_lost: u64,
    /// Processor time of the process, seconds.
    cpu: Option<f64>,
    /// Its memory, bytes.
    memory: Option<u64>,
    /// Entries of the table of connection tracking, and their limit.
    tracked: Option<[u64; 2]>,
}

impl Own {
    /// With what the kernel shows now.
    pub(crate) fn now(is_pinned: bool, commands: usize, lines_lost: u64) -> Self {
        let (cpu, memory) = self_cost::of_process();
        let read = |name: &str| {
            let text = fs::read_to_string(format!("/proc/sys/net/netfilter/nf_conntrack_{name}")).ok()?;
            text.trim().parse().ok()
        };
        // Without connection tracking, neither file is there.
        let tracked = read("count").zip(read("max")).map(|(count, limit)| [count, limit]);
        Self { is_pinned, commands, lines_lost, cpu, memory, tracked }
    }

    /// Adds its samples.
    pub(super) fn add(&self, samples: &mut Samples) {
        let number = |number: u64| Value::Number(number.cast_signed());
        samples.add(&family::PINNED, &[], Value::Number(self.is_pinned.into()));
        samples.add(&family::COMMANDS, &[], number(self.commands as u64));
        samples.add(&family::LINES_LOST, &[], Value::Count(self.lines_lost));
        if let Some(cpu) = self.cpu {
            samples.add(&family::SELF_CPU, &[], Value::Seconds(cpu));
        }
        if let Some(memory) = self.memory {
            samples.add(&family::SELF_MEMORY, &[], number(memory));
        }
        if let Some([count, limit]) = self.tracked {
            samples.add(&family::TRACKED, &[], number(count));
            samples.add(&family::TRACKED_LIMIT, &[], number(limit));
        }
    }
}
