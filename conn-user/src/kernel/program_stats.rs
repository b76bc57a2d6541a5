//! The kernel's counts of each attached program: runs, nanoseconds, skipped runs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::sys::{Stats, enable_stats};

/// The switch of an administrator that times the programs of the whole host.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's counts of a program, in its fdinfo (`bpf_prog_show_fdinfo()`, since 5.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    /// How often the program ran, while `kernel.bpf_stats_enabled` was on.
    pub runs: u64,
    /// How long the program ran during that time, nanoseconds.
    pub run_ns: u64,
    /// How often the kernel skipped the program because it would have nested.
    pub missed: u64,
}

impl Cost {
    /// The counts of the program behind a descriptor.
    pub(super) fn read(program: BorrowedFd<'_>) -> Option<Self> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
        Self::from_fdinfo(&info)
    }

    fn from_fdinfo(info: &str) -> Option<Self> {
        let field =
            |name: &str| info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse::<u64>().ok();
        Some(Self {
            runs: field("run_cnt:")?,
            run_ns: field("run_time_ns:")?,
            missed: field("recursion_misses:")?,
        })
    }
}

/// A hook in the time before this process.
#[derive(Debug)]
pub(super) struct EarlierProgram {
    /// The program that an earlier process loaded and that still runs; none if this process has replaced it.
    pub fd: Option<OwnedFd>,
    /// How often the kernel skipped the programs that are gone.
    pub missed: u64,
}

/// An attached program whose counts are read.
#[derive(Debug)]
pub(super) struct Watched {
    fd: OwnedFd,
    missed_before: u64,
}

impl Watched {
    /// `missed_before` is how often the kernel skipped earlier programs of the hook.
    pub(super) const fn new(fd: OwnedFd, missed_before: u64) -> Self {
        Self { fd, missed_before }
    }

    fn cost(&self) -> Option<Cost> {
        let cost = Cost::read(self.fd.as_fd())?;
        Some(Cost { missed: cost.missed + self.missed_before, ..cost })
    }
}

/// Descriptors of attached programs. Usable on any thread.
#[derive(Debug)]
pub struct ProgramStats(BTreeMap<&'static str, Watched>);

impl ProgramStats {
    /// By the program's name.
    pub(super) fn new(programs: impl Iterator<Item = (&'static str, Watched)>) -> Self {
        Self(programs.collect())
    }

    /// The kernel's counts so far, by the program's name. A program that cannot be read is left out.
    pub fn read(&self) -> BTreeMap<&'static str, Cost> {
        self.0.iter().filter_map(|(&name, watched)| Some((name, watched.cost()?))).collect()
    }
}

/// The kernel's clock of programs, on as long as this lives. Timing costs each run of a program some 25 ns.
#[derive(Debug)]
pub(crate) struct ProgramClock {
    /// None if an administrator's switch keeps the clock on anyway.
    _switch: Option<OwnedFd>,
}

impl ProgramClock {
    /// Switches the clock on (`BPF_ENABLE_STATS`, since 5.8).
    ///
    /// # Errors
    /// The kernel refuses and the switch is off.
    pub(crate) fn start() -> io::Result<Self> {
        let is_on = || fs::read_to_string(SWITCH).is_ok_and(|value| value.trim() == "1");
        match enable_stats(Stats::RunTime) {
            Ok(fd) => Ok(Self { _switch: Some(fd) }),
            Err(_) if is_on() => Ok(Self { _switch: None }),
            Err(error) => Err(error.io_error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_read_from_fdinfo() {
        let info = "prog_type:\t26\nrun_time_ns:\t450\nrun_cnt:\t3\nrecursion_misses:\t1\n";
        assert_eq!(Cost::from_fdinfo(info), Some(Cost { runs: 3, run_ns: 450, missed: 1 }));
        assert_eq!(Cost::from_fdinfo("prog_type:\t26\n"), None);
    }
}
