//! Command lines of owners, read while their process is known to be the same.

use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, OnceLock};

use conn_common::owner::{COMM, Owner};
use lru::LruCache;
use nix::unistd::{SysconfVar, sysconf};

use crate::enrich::background::Aside;
use crate::host::{clock, facts};

/// The columns that tell of them.
pub const COLUMNS: [&str; 1] = ["cmdline"];

/// How much of one is read.
const LONGEST: u64 = 4_096;
/// How many are remembered, those that were seen last: of processes that have ended, too.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// A process, and its command line once that has been looked up.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    pid: u32,
    start_ns: u64,
    text: OnceLock<Option<Box<[u8]>>>,
}

impl Process {
    /// Its command line, if that is known: the arguments with blanks between.
    pub fn text(&self) -> Option<&[u8]> {
        self.text.get()?.as_deref()
    }

    #[cfg(test)]
    pub(crate) fn called(text: &[u8]) -> Self {
        Self { pid: 0, start_ns: 0, text: OnceLock::from(Some(text.into())) }
    }
}

/// Command lines by process.
#[derive(Debug)]
pub struct CommandLines {
    /// By id, start and name: a program that a process executes has another.
    known: LruCache<(u32, u64, [u8; COMM]), Arc<Process>>,
    aside: Option<Aside<Arc<Process>>>,
}

impl CommandLines {
    /// Those of this host. They are looked up in `/proc`, where a process whose memory is locked can hang its
    /// readers: so aside. In another pid namespace, ids there are not those of owners.
    pub fn of_host() -> Self {
        let look = |process: Arc<Process>| {
            // Nobody else sets it.
            let _ = process.text.set(read(process.pid, process.start_ns).ok().flatten());
        };
        let aside = facts::sees_all_processes().then(|| Aside::new(look)).flatten();
        Self { known: LruCache::new(REMEMBERED), aside }
    }

    /// The process of an owner, with its command line if that could be read in a moment, or earlier.
    pub fn get(&mut self, owner: &Owner) -> Option<Arc<Process>> {
        if !owner.is_known() {
            return None;
        }
        let key = (owner.pid, owner.start_ns, owner.comm);
        if let Some(known) = self.known.get(&key) {
            return Some(Arc::clone(known));
        }
        let process = Arc::new(Process { pid: owner.pid, start_ns: owner.start_ns, text: OnceLock::new() });
        if !self.aside.as_mut()?.ask(Arc::clone(&process)) {
            return None;
        }
        self.known.put(key, Arc::clone(&process));
        Some(process)
    }
}

/// The command line of the process that has this id and began then. `None` for another, and if it has none, as
/// kernel threads and what has ended.
fn read(pid: u32, start_ns: u64) -> io::Result<Option<Box<[u8]>>> {
    // What is opened below stays with this process, whoever has its id later.
    let directory = File::open(format!("/proc/{pid}"))?;
    let open = |name: &str| File::open(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
    let mut stat = Vec::new();
    open("stat")?.take(LONGEST).read_to_end(&mut stat)?;
    if started(&stat).is_none_or(|ticks| Some(ticks) != ticks_of(start_ns)) {
        return Ok(None);
    }
    let mut text = Vec::new();
    open("cmdline")?.take(LONGEST).read_to_end(&mut text)?;
    Ok(spaced(text))
}

/// Arguments end with zeros; a process may have written something else over them.
fn spaced(mut text: Vec<u8>) -> Option<Box<[u8]>> {
    while text.last() == Some(&0) {
        text.pop();
    }
    text.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    (!text.is_empty()).then(|| text.into())
}

/// When a process began, in clock ticks: the 22nd field of its `stat`, `proc_pid_stat(5)`. The second, its name, may
/// hold blanks and brackets.
fn started(stat: &[u8]) -> Option<u64> {
    let after = stat.rsplit(|&byte| byte == b')').next()?;
    std::str::from_utf8(after).ok()?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The kernel's boot time in clock ticks, as `/proc` tells it in this time namespace.
fn ticks_of(boot_ns: u64) -> Option<u64> {
    let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).ok()??).ok()?;
    clock::own_boot_ns(boot_ns).checked_div(SECOND.checked_div(per_second)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::id;

    use super::*;

    /// This process's own start, to the tick.
    fn own_start_ns() -> u64 {
        let ticks = started(&fs::read("/proc/self/stat").unwrap()).unwrap();
        let per_second = u64::try_from(sysconf(SysconfVar::CLK_TCK).unwrap().unwrap()).unwrap();
        let ns = ticks * (SECOND / per_second);
        // Outside of time namespaces.
        assert_eq!(ticks_of(ns), Some(ticks));
        ns
    }

    fn own(pid: u32, start_ns: u64) -> Owner {
        Owner { pid, start_ns, source: conn_common::owner::CONNECT, ..Owner::NONE }
    }

    #[test]
    fn only_of_the_same_process() {
        let args: Vec<String> = std::env::args().collect();
        let start = own_start_ns();
        let told = |owner: &Owner| {
            let process = CommandLines::of_host().get(owner)?;
            process.text.wait();
            process.text().map(|text| String::from_utf8_lossy(text).into_owned())
        };
        let expected = facts::sees_all_processes().then(|| args.join(" "));
        assert_eq!(told(&own(id(), start)), expected);
        // Somebody had the same id before.
        assert_eq!(told(&own(id(), start - SECOND)), None);
        // Nobody has it, or nobody is known.
        assert_eq!(told(&own(u32::MAX, start)), None);
        assert_eq!(told(&Owner { source: conn_common::owner::UNKNOWN, ..own(id(), start) }), None);
    }

    #[test]
    fn each_process_is_looked_up_once() {
        let mut lines = CommandLines { aside: Aside::new(drop), ..CommandLines::of_host() };
        let owner = own(id(), own_start_ns());
        let first = lines.get(&owner).unwrap();
        assert!(Arc::ptr_eq(&first, &lines.get(&owner).unwrap()));
        let executed = Owner { comm: [b'x'; COMM], ..owner };
        assert!(!Arc::ptr_eq(&first, &lines.get(&executed).unwrap()));
        for pid in 0..REMEMBERED.get() as u32 {
            lines.get(&own(pid, 1));
        }
        assert!(lines.known.len() <= REMEMBERED.get());
    }

    #[test]
    fn names_of_processes_do_not_confuse() {
        let stat = b"7 (a) b) 1 (c) S 1 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1 1";
        assert_eq!(started(stat), Some(4_711));
        assert_eq!(started(b"7 (x) S 1"), None);
        assert_eq!(spaced(b"a\0b c\0\0".to_vec()).as_deref(), Some(&b"a b c"[..]));
        assert_eq!(spaced(b"\0".to_vec()), None);
    }
}
