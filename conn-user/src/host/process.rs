//! Files below `/proc/PID` of one process, and never of a later process with the same id.

use std::fs::File;
use std::io::{self, Read as _};

use nix::fcntl::{self, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

use crate::host::clock;

/// How many bytes of `stat` are read.
const LONGEST: u64 = 4_096;
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// An open `/proc/PID`.
#[derive(Debug)]
pub(crate) struct Process(File);

impl Process {
    /// The process with this id and start (nanoseconds of `CLOCK_BOOTTIME`). `None` for another process with the id.
    ///
    /// # Errors
    /// There is no such process, or the system refuses.
    pub(crate) fn open(pid: u32, start_ns: u64) -> io::Result<Option<Self>> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let process = Self(File::from(fcntl::open(&*format!("/proc/{pid}"), flags, Mode::empty())?));
        let stat = process.read("stat", LONGEST)?;
        let is_same = started(&stat).is_some_and(|ticks| Some(ticks) == ticks_of(start_ns));
        Ok(Some(process).filter(|_| is_same))
    }

    /// The first bytes of a file of the process, `most` of them.
    ///
    /// # Errors
    /// The process has ended, or the system refuses.
    pub(crate) fn read(&self, name: &str, most: u64) -> io::Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = File::from(fcntl::openat(&self.0, name, flags, Mode::empty())?);
        let mut text = Vec::new();
        file.take(most).read_to_end(&mut text)?;
        Ok(text)
    }
}

/// When a process began, in clock ticks: the 22nd field of its `stat`, `proc_pid_stat(5)`. The second
/// field, the name, may hold blanks and brackets.
fn started(stat: &[u8]) -> Option<u64> {
    let after = stat.rsplit(|&byte| byte == b')').next()?;
    std::str::from_utf8(after).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// A moment of the kernel's boot time in clock ticks, as `/proc` shows it in this time namespace.
fn ticks_of(boot_ns: u64) -> Option<u64> {
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    clock::own_boot_ns(boot_ns).checked_div(SECOND.checked_div(per_second)?)
}

/// When this process began, in nanoseconds of `CLOCK_BOOTTIME`, to the tick. For tests outside of time namespaces.
#[cfg(test)]
pub(crate) fn own_start_ns() -> u64 {
    let ticks = started(&std::fs::read("/proc/self/stat").unwrap()).unwrap();
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).unwrap().unwrap()).unwrap();
    let ns = ticks * (SECOND / per_second);
    assert_eq!(ticks_of(ns), Some(ticks));
    ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycled_pid_yields_no_process() {
        let (id, start) = (std::process::id(), own_start_ns());
        let own = Process::open(id, start).unwrap().expect("this process");
        let shown = |most| own.read("comm", most).unwrap();
        assert_eq!(shown(4_096), std::fs::read("/proc/self/comm").unwrap());
        assert_eq!(shown(2).len(), 2);
        assert!(own.read("exe", 1).is_err(), "a link");
        // An earlier process had the same id.
        assert!(Process::open(id, start - SECOND).unwrap().is_none());
        assert!(Process::open(u32::MAX, start).is_err());
    }

    #[test]
    fn brackets_in_a_process_name_are_skipped() {
        let stat = b"7 (a) b) 1 (c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1";
        assert_eq!(started(stat), Some(4_711));
        assert_eq!(started(b"7 (x) S 1"), None);
    }
}
