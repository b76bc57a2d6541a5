//! Command lines of owners, read while their process is known to be the same.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use conn_common::owner::{COMM, Owner};
use lru::LruCache;

use crate::enrich::background::{Background, MAX_WAIT};
use crate::host::facts;
use crate::host::process::Process;

/// The columns that a command line fills.
pub(crate) const COLUMNS: [&str; 1] = ["cmdline"];

/// How many bytes of a file are read.
const LONGEST: u64 = 4_096;
/// How many processes the cache holds, the last seen ones, ended ones included.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// A process at one time of its life: its id, its start, and its name, since a program that it executes has another.
type Key = (u32, u64, [u8; COMM]);

/// The answer of a look-up in the background.
#[derive(Debug)]
struct Found {
    key: Key,
    text: Option<Arc<[u8]>>,
}

/// Command lines by process.
#[derive(Debug)]
pub(crate) struct CommandLines {
    /// `None` while a command line is looked up, and for a process without one.
    known: LruCache<Key, Option<Arc<[u8]>>>,
    background: Option<Background<Key, Found>>,
}

impl CommandLines {
    /// Command lines of this host's processes. `/proc` can hang a reader while the memory of a process is locked, so
    /// the look-up is a background one. In another pid namespace, its ids are not those of owners.
    pub(crate) fn of_host() -> Self {
        let look_up = |key: Key| Found { key, text: read(key.0, key.1).ok().flatten() };
        let background = facts::sees_all_processes().then(|| Background::new(MAX_WAIT, look_up)).flatten();
        Self { known: LruCache::new(REMEMBERED), background }
    }

    /// The command line of an owner's process: its arguments with blanks between. `None` if it is not known by now.
    pub(crate) fn get(&mut self, owner: &Owner) -> Option<Arc<[u8]>> {
        if !owner.is_known() {
            return None;
        }
        self.learn();
        let key = (owner.pid, owner.start_ns, owner.comm);
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        if self.background.as_mut()?.ask(key) {
            self.known.put(key, None);
            self.learn();
        }
        self.known.peek(&key).cloned().flatten()
    }

    /// Adds the command lines that have been found.
    fn learn(&mut self) {
        for Found { key, text } in self.background.iter_mut().flat_map(Background::take_answers) {
            if let Some(known) = self.known.peek_mut(&key) {
                *known = text;
            }
        }
    }
}

/// The command line of the process with this id and start. `None` for another process with the id, a kernel thread and
/// a zombie.
fn read(pid: u32, start_ns: u64) -> io::Result<Option<Arc<[u8]>>> {
    let Some(process) = Process::open(pid, start_ns)? else { return Ok(None) };
    Ok(spaced(process.read("cmdline", LONGEST)?))
}

/// Replaces the zeros between arguments by blanks. A process may have overwritten its arguments.
fn spaced(mut text: Vec<u8>) -> Option<Arc<[u8]>> {
    while text.last() == Some(&0) {
        text.pop();
    }
    text.iter_mut().filter(|byte| **byte == 0).for_each(|byte| *byte = b' ');
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use std::process::id;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::host::process::own_start_ns;

    fn own(pid: u32, start_ns: u64) -> Owner {
        Owner { pid, start_ns, source: conn_common::owner::CONNECT, ..Owner::NONE }
    }

    #[test]
    fn recycled_pid_yields_no_command_line() {
        let args: Vec<String> = std::env::args().collect();
        let start = own_start_ns();
        let text = |owner: &Owner| {
            let mut lines = CommandLines::of_host();
            lines.get(owner);
            // A busy machine answers later.
            while lines.background.as_ref().is_some_and(Background::is_busy) {
                lines.learn();
                std::thread::yield_now();
            }
            lines.get(owner).map(|text| String::from_utf8_lossy(&text).into_owned())
        };
        let expected = facts::sees_all_processes().then(|| args.join(" "));
        assert_eq!(text(&own(id(), start)), expected);
        // An earlier process had the same id.
        assert_eq!(text(&own(id(), start - 1_000_000_000)), None);
        // No process has the id, or the owner is unknown.
        assert_eq!(text(&own(u32::MAX, start)), None);
        assert_eq!(text(&Owner { source: conn_common::owner::UNKNOWN, ..own(id(), start) }), None);
    }

    #[test]
    fn each_process_is_looked_up_once() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let background = Background::new(MAX_WAIT, move |key| {
            counter.fetch_add(1, Ordering::Relaxed);
            Found { key, text: None }
        });
        let mut lines = CommandLines { background, known: LruCache::new(REMEMBERED) };
        let mut ask = |owner: &Owner| {
            lines.get(owner);
            while lines.background.as_ref().is_some_and(Background::is_busy) {
                lines.learn();
            }
            asked.load(Ordering::Relaxed)
        };
        let owner = own(id(), own_start_ns());
        assert_eq!((ask(&owner), ask(&owner)), (1, 1));
        assert_eq!(ask(&Owner { comm: [b'x'; COMM], ..owner }), 2);
        for pid in 0..REMEMBERED.get() as u32 {
            ask(&own(pid, 1));
        }
        assert!(lines.known.len() <= REMEMBERED.get());
    }

    #[test]
    fn zeros_between_arguments_become_blanks() {
        assert_eq!(spaced(b"a\0b c\0\0".to_vec()).as_deref(), Some(&b"a b c"[..]));
        assert_eq!(spaced(b"\0".to_vec()), None);
    }
}
