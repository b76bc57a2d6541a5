//! The sockets that existed before conntrace, and those that exist now.

use std::collections::{BTreeSet, HashMap};
use std::thread;

use conn_common::name;
use conn_common::owner::Owner;
use conn_common::row::{HolderRow, SocketRow};

use crate::host::namespace::{self, Found, Namespace};
use crate::kernel::iterator::{AdoptIterator, HolderIterator, NamespaceIterator, SocketIterator, WalkError};
use crate::kernel::probe::Probe;

/// Finds all namespaces and adopts their sockets. Another thread looks meanwhile for namespaces that only files
/// keep: a walk over the files of all tasks takes a fifth of the time that adopting the sockets behind them does.
/// With `owners`, the same walk notes the owner of each open socket (only in this process's pid namespace).
/// Returns the inode numbers of the namespaces that were walked.
///
/// # Errors
/// The kernel refuses to walk its sockets or tasks.
pub(crate) fn adopt_all(probe: &Probe, owners: bool) -> Result<BTreeSet<u32>, WalkError> {
    let found = namespace::all().namespaces;
    let files = if owners { NamespaceIterator::with_owners(probe) } else { NamespaceIterator::new(probe) }?;
    thread::scope(|scope| {
        let searched = scope.spawn(|| held_namespaces(&files, &found));
        let mut walked = adopt(probe, &found)?;
        let held = searched.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        walked.extend(adopt(probe, &held)?);
        Ok(walked)
    })
}

/// The programs that [`adopt_all`] walks with.
pub(crate) fn adopting_programs(owners: bool) -> [&'static str; 2] {
    [name::TCP_ADOPT, if owners { name::FILE_CLAIM } else { name::NAMESPACE_LIST }]
}

/// Makes the programs remember every socket of the namespaces. A hook that runs meanwhile finds a socket either
/// remembered or not, never half. Returns the inode numbers of the namespaces that were walked.
///
/// # Errors
/// The kernel refuses to walk its sockets.
pub(crate) fn adopt(probe: &Probe, namespaces: &[Namespace]) -> Result<BTreeSet<u32>, WalkError> {
    let walked = AdoptIterator::new(probe)?.each_in(namespaces, |()| {})?;
    probe.note_walked(&walked)?;
    Ok(walked)
}

/// Visits every TCP socket of the namespaces that the probe's filters let through. Returns the inode numbers of
/// the namespaces that were walked.
///
/// # Errors
/// The kernel refuses to walk its sockets, or writes what is no row.
pub(crate) fn list(
    probe: &Probe,
    namespaces: &[Namespace],
    each: impl FnMut(SocketRow) + Send,
) -> Result<BTreeSet<u32>, WalkError> {
    SocketIterator::new(probe)?.each_in(namespaces, each)
}

/// All network namespaces that can be found: by their threads, their mounts and the files that keep them.
///
/// # Errors
/// The kernel refuses to walk its tasks, or writes what is no row.
pub(crate) fn all_namespaces(probe: &Probe) -> Result<Found, WalkError> {
    let files = NamespaceIterator::new(probe)?;
    let mut found = namespace::all();
    found.namespaces.extend(held_namespaces(&files, &found.namespaces)?);
    Ok(found)
}

/// The network namespaces that open files keep, without the `known` ones.
fn held_namespaces(files: &NamespaceIterator, known: &[Namespace]) -> Result<Vec<Namespace>, WalkError> {
    let mut held: Vec<Namespace> = Vec::new();
    files.each(|row| {
        let inode = row.inode as u32;
        if known.iter().chain(&held).all(|known| known.inode != inode) {
            held.extend(Namespace::held(row.pid, row.fd));
        }
    })?;
    Ok(held)
}

/// The processes that have each socket open: each process once.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    by_cookie: HashMap<u64, Vec<Owner>>,
    /// Of MPTCP sockets, whose subflows are in no file themselves.
    by_inode: HashMap<u64, Vec<Owner>>,
}

impl Holders {
    fn add(&mut self, row: &HolderRow) {
        let holders =
            if row.inode == 0 { self.by_cookie.entry(row.cookie) } else { self.by_inode.entry(row.inode) };
        // Most sockets have one holder; a vector that grows by itself begins with room for four.
        let known = holders.or_insert_with(|| Vec::with_capacity(1));
        if known.iter().all(|owner| owner.pid != row.owner.pid) {
            known.push(row.owner);
        }
    }

    /// The processes that have a socket open; `None` if there are none.
    pub(crate) fn of(&self, row: &SocketRow) -> Option<&[Owner]> {
        let holders = if row.mptcp_inode == 0 {
            self.by_cookie.get(&row.cookie)
        } else {
            self.by_inode.get(&row.mptcp_inode)
        };
        holders.map(Vec::as_slice)
    }
}

/// [`all_namespaces`], and meanwhile on another thread the holders of all sockets.
///
/// # Errors
/// The kernel refuses to walk its tasks, or writes what is no row.
pub(crate) fn namespaces_and_holders(probe: &Probe) -> Result<(Found, Holders), WalkError> {
    let files = HolderIterator::new(probe)?;
    thread::scope(|scope| {
        let holders = scope.spawn(|| holders(&files));
        let found = all_namespaces(probe)?;
        let holders = holders.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((found, holders))
    })
}

fn holders(files: &HolderIterator) -> Result<Holders, WalkError> {
    let mut holders = Holders::default();
    files.each(|row| holders.add(&row))?;
    Ok(holders)
}
