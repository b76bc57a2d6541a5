//! The machine that is measured on: whether it is quiet, and what many readings say together.

use aya::programs::{
    ProgramType::{self, KProbe, PerfEvent, RawTracePoint, SockOps, TracePoint, Tracing},
    loaded_programs,
};
use std::{
    collections::BTreeSet,
    fs,
    panic::{self, AssertUnwindSafe},
    thread,
    time::{Duration, Instant},
};

/// How long the machine is looked at.
const LOOK: Duration = Duration::from_millis(60);
/// The share of its processors that others may use while it counts as quiet.
const QUIET: f64 = 0.06;
/// A machine that is never quiet is measured all the same; the spread shows it.
const IDLE_LIMIT: Duration = Duration::from_secs(4);

/// Waits until the machine has nothing to do: what was started has attached, what was stopped is cleared away.
pub(crate) fn settle() {
    let deadline = Instant::now() + IDLE_LIMIT;
    let mut before = Ticks::read();
    while Instant::now() < deadline {
        thread::sleep(LOOK);
        let now = Ticks::read();
        if now.busy_since(&before) < QUIET {
            return;
        }
        before = now;
    }
    eprintln!("note: something else is running; its share is in the numbers");
}

/// Warns if programs of other tools watch the kernel. Their cost at each event is in all numbers, and in none of those
/// that [`settle`] waits for.
pub(crate) fn warn_of_others() {
    const WATCHING: [ProgramType; 6] = [KProbe, PerfEvent, RawTracePoint, SockOps, TracePoint, Tracing];
    let mut watchers = BTreeSet::new();
    for program in loaded_programs().flatten() {
        if WATCHING.iter().any(|&kind| program.program_type() == kind.into()) {
            watchers.insert(program.name_as_str().unwrap_or("one without a name").to_owned());
        }
    }
    if !watchers.is_empty() {
        let names: Vec<_> = watchers.into_iter().collect();
        eprintln!("note: BPF programs are loaded that may watch the load, too: {}", names.join(", "));
    }
}

/// The switch of the kernel's clock of BPF programs. It is no part of what conntrace costs, so it is off while
/// this lives; a tool that times programs turns it on by a descriptor of its own.
pub(crate) struct Untimed {
    before: Option<String>,
}

const TIMED: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Untimed {
    pub(crate) fn begin() -> Self {
        let before = fs::read_to_string(TIMED).ok().filter(|value| value.trim() != "0");
        if before.is_some() {
            eprintln!("note: kernel.bpf_stats_enabled is on; it is off until the end of this measurement");
            fs::write(TIMED, "0").expect("the switch can be turned by root");
        }
        Self { before }
    }
}

impl Drop for Untimed {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = fs::write(TIMED, before.trim());
        }
    }
}

/// Time of all processors, in ticks.
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn read() -> Self {
        let text = fs::read_to_string("/proc/stat").expect("/proc/stat");
        let line = text.lines().next().expect("the line of all processors");
        let fields: Vec<u64> = line.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; what guests used is in user already.
        Self { idle: fields[3] + fields[4], all: fields.iter().take(8).sum() }
    }

    fn busy_since(&self, before: &Self) -> f64 {
        let all = (self.all - before.all).max(1) as f64;
        1.0 - (self.idle - before.idle) as f64 / all
    }
}

/// Does something that may also fail by panicking, as what is made for tests does.
///
/// # Errors
/// Its own, or what the panic said.
pub(crate) fn attempt<T>(job: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        Err(said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("it failed").to_owned())
    })
}

/// The middle of many values.
///
/// # Panics
/// When there is none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    f64::midpoint(values[(values.len() - 1) / 2], values[values.len() / 2])
}

/// The value that so many of a thousand values do not exceed; 0 for the smallest.
///
/// # Panics
/// When there is none.
pub(crate) fn quantile(values: impl IntoIterator<Item = f64>, per_mille: usize) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = (values.len() * per_mille).div_ceil(1_000);
    values[at.clamp(1, values.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values() {
        assert_eq!(median([3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median([1.0, 3.0, 2.0, 9.0]).to_bits(), 2.5_f64.to_bits());
        assert_eq!(median([4.0]).to_bits(), 4.0_f64.to_bits());
        let hundred = || (1..=100).map(f64::from);
        assert_eq!(quantile(hundred(), 990).to_bits(), 99.0_f64.to_bits());
        assert_eq!(quantile(hundred(), 1_000).to_bits(), 100.0_f64.to_bits());
        assert_eq!(quantile(hundred(), 0).to_bits(), 1.0_f64.to_bits());
    }
}
