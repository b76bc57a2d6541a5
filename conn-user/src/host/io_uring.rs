//! The sockets that an `io_uring` holds without a descriptor: registered files and direct descriptors.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::host::process::Process;

/// How many bytes of the description of a ring are read. A slot takes about 30.
const LONGEST: u64 = 1 << 20;
/// How often a ring is read while it is in use: the kernel then shows nothing of it (`io_uring_show_fdinfo()`).
const TRIES: u32 = 4;
/// For how long rings are read in all. A process may have a great many.
const LIMIT: Duration = Duration::from_secs(1);

/// A ring of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring<P> {
    /// The process, its id and its start in nanoseconds of `CLOCK_BOOTTIME`.
    pub process: P,
    /// The descriptor of the ring there.
    pub fd: u32,
}

/// Calls `each` with the process of each ring and the inode number of each socket that the ring holds. The processes take
/// turns, so that one with many rings delays only its own. Returns how many rings were left out after [`LIMIT`].
pub(crate) fn each_socket<P: Copy>(
    rings: Vec<Ring<P>>,
    id: impl Fn(&P) -> (u32, u64),
    mut each: impl FnMut(P, u64),
) -> usize {
    let mut turns: BTreeMap<(usize, (u32, u64)), Ring<P>> = BTreeMap::new();
    let mut seen: BTreeMap<(u32, u64), usize> = BTreeMap::new();
    for ring in rings {
        let turn = seen.entry(id(&ring.process)).or_default();
        turns.insert((*turn, id(&ring.process)), ring);
        *turn += 1;
    }
    let begin = Instant::now();
    let mut left = turns.len();
    for ((_, (pid, start_ns)), ring) in turns {
        if begin.elapsed() > LIMIT {
            break;
        }
        left -= 1;
        for inode in of_ring(pid, start_ns, ring.fd) {
            each(ring.process, inode);
        }
    }
    left
}

/// The inode numbers of the sockets of a ring. Empty if the process has ended, and for a kernel that shows none.
fn of_ring(pid: u32, start_ns: u64, fd: u32) -> Vec<u64> {
    let Ok(Some(process)) = Process::open(pid, start_ns) else { return Vec::new() };
    for _ in 0..TRIES {
        let Ok(text) = process.read(&format!("fdinfo/{fd}"), LONGEST) else { break };
        if let Some(sockets) = sockets(&text) {
            return sockets;
        }
        std::thread::yield_now();
    }
    Vec::new()
}

/// The inode numbers of the sockets in the description of a ring (`__io_uring_show_fdinfo()`). `None` if the files are
/// not shown.
fn sockets(text: &[u8]) -> Option<Vec<u64>> {
    let text = String::from_utf8_lossy(text);
    let (_, files) = text.split_once("\nUserFiles:\t")?;
    let mut lines = files.split_inclusive('\n');
    let number: u64 = lines.next()?.trim_end().parse().ok()?;
    // The slots in use follow, as `    0: socket:[4711]`. The text may end in the middle of one.
    let slots = lines.take_while(|line| line.starts_with(' ') || line.as_bytes()[0].is_ascii_digit());
    let of_slot =
        |line: &str| -> Option<u64> { line.split_once(": socket:[")?.1.strip_suffix("]\n")?.parse().ok() };
    let (mut slots, mut found) = (slots.peekable(), Vec::new());
    if number > 0 && slots.peek().is_none() {
        return None;
    }
    found.extend(slots.filter_map(of_slot));
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &str) -> Option<Vec<u64>> {
        sockets(format!("pos:\t0\nflags:\t02000002\nSqMask:\t0x7\n{files}").as_bytes())
    }

    #[test]
    fn only_sockets_of_registered_files_are_found() {
        let files = "UserFiles:\t5\n    0: socket:[41]\n    3: /tmp/socket:[7]\n    4: socket:[42]\n";
        assert_eq!(of(&format!("{files}UserBufs:\t1\n    0: socket:[9]\n")), Some(vec![41, 42]));
        assert_eq!(of("UserFiles:\t0\nUserBufs:\t0\n"), Some(vec![]));
        assert_eq!(of("UserFiles:\t100000\n99999: socket:[5]\nUserBufs:\t0\n"), Some(vec![5]));
        // An older kernel shows a name without a number.
        assert_eq!(of("UserFiles:\t1\n    0: TCP\nUserBufs:\t0\n"), Some(vec![]));
    }

    #[test]
    fn a_busy_ring_is_read_again() {
        assert_eq!(of(""), None);
        assert_eq!(of("UserFiles:\t2\nUserBufs:\t0\n"), None);
    }

    #[test]
    fn a_cut_number_is_no_inode() {
        assert_eq!(of("UserFiles:\t2\n    0: socket:[41]\n    1: socket:[4"), Some(vec![41]));
        assert_eq!(of("UserFiles:\t2\n    0: socket:[41]\n    1: socket:[42]"), Some(vec![41]));
        assert_eq!(of("UserFiles:\t"), None);
        assert_eq!(sockets(b"\xff\nUserFiles:\t1\n    0: socket:[\xff]\n"), Some(vec![]));
    }

    #[test]
    fn no_ring_yields_no_socket() {
        let ring = |pid| Ring { process: (pid, 0), fd: 1 };
        let mut found = Vec::new();
        let left =
            each_socket(vec![ring(1), ring(1), ring(u32::MAX)], |id| *id, |_, inode| found.push(inode));
        assert_eq!((left, found), (0, vec![]));
    }
}
