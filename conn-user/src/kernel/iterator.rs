//! Walks of the kernel's iterators: over the sockets of every network namespace, each under its
//! lock, and over the files of all tasks.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Mutex;

use aya::programs::iter::IterLink;

use crate::error::Error;
use crate::host::namespace::Namespace;
use crate::kernel::probe::Probe;
use crate::kernel::thread_pool::{self, locked};

/// Walks the iterator `name` in each of the namespaces and gives what it writes to `rows`. Tells which
/// were walked, by inode number.
///
/// # Errors
/// The kernel refuses to walk. A namespace that cannot be entered is told in the log and left to the
/// events: its sockets are met when something happens to them.
pub fn namespaces(
    probe: &mut Probe,
    name: &str,
    namespaces: &[Namespace],
    rows: impl FnMut(&[u8]) + Send,
) -> Result<BTreeSet<u32>, Error> {
    let probe = Mutex::new(probe);
    let rows = Mutex::new(rows);
    // The sockets of all namespaces are in one table, all of which each walk goes over: several at a time.
    let walked = thread_pool::each(namespaces.iter(), |namespace| {
        let link = locked(&probe).walk(name)?;
        // The namespace of the thread that makes the iterator is the one that is walked
        // (bpf_iter_init_seq_net, net/ipv4/tcp_ipv4.c, since 5.9).
        match namespace.enter(|| read(link, |page| locked(&rows)(page))) {
            Ok(read) => {
                read.map_err(|source| Error::Io { context: context(namespace), source })?;
                Ok::<_, Error>(Some(namespace.inode))
            }
            Err(error) => {
                log::warn!(
                    "network namespace {} cannot be entered ({error}): its connections are shown from their \
                     next event on",
                    namespace.inode
                );
                Ok(None)
            }
        }
    })?;
    Ok(walked.into_iter().flatten().collect())
}

/// Makes the walk `link` of the iterator `name` and gives what it writes to `rows`.
///
/// # Errors
/// The kernel refuses to walk.
pub fn once(link: IterLink, name: &str, rows: impl FnMut(&[u8])) -> Result<(), Error> {
    read(link, rows).map_err(|source| Error::Io { context: format!("walking with {name}"), source })
}

/// The kernel's page for one read of an iterator (`PAGE_SIZE << 3`, `bpf_seq_read()`). A read
/// never ends in the middle of a row when there is room for a page.
const PAGE: usize = 8 * 4096;

fn read(link: IterLink, mut rows: impl FnMut(&[u8])) -> std::io::Result<()> {
    let mut file = link.into_file().map_err(std::io::Error::other)?;
    let mut page = vec![0; PAGE];
    loop {
        match file.read(&mut page) {
            Ok(0) => return Ok(()),
            Ok(length) => rows(&page[..length]),
            // The kernel went over a million objects without one to show (MAX_ITER_OBJECTS, bpf_iter.c).
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

fn context(namespace: &Namespace) -> String {
    format!("walking the sockets of network namespace {}", namespace.inode)
}
