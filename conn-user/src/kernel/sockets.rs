//! The sockets that existed before conntrace, and those that exist now.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::thread;

use conn_common::name;
use conn_common::owner::Owner;
use conn_common::row::{HolderRow, NO_DESCRIPTOR, SocketRow};

use crate::event::unix::UnixSocket;
use crate::filter::protocols::Protocols;
use crate::host::facts;
use crate::host::io_uring::{self, Ring};
use crate::host::namespace::{self, Found, Namespace};
use crate::kernel::iterator::{
    self, AdoptIterator, HolderIterator, NamespaceIterator, SocketIterator, WalkError, Walked,
};
use crate::kernel::probe::{Probe, ProbeError};
use crate::kernel::thread_pool::locked;
use crate::kernel::unix_diag;

/// Finds all namespaces and adopts their sockets. Another thread looks meanwhile for namespaces that only files
/// keep: a walk over the files of all tasks takes a fifth of the time that adopting the sockets behind them does.
/// With `owners`, the same walk notes the owner of each open socket (only in this process's pid namespace).
/// Returns the inode numbers of the namespaces that were walked.
///
/// # Errors
/// The kernel refuses to walk its sockets or tasks.
pub(crate) fn adopt_all(probe: &Probe, owners: bool) -> Result<BTreeSet<u32>, WalkError> {
    let found = namespace::all();
    let files = if owners { NamespaceIterator::with_owners(probe) } else { NamespaceIterator::new(probe) }?;
    thread::scope(|scope| {
        let searched = scope.spawn(|| {
            let mut kept = Found::default();
            add_kept(&files, &mut kept, |inode| found.has(inode)).map(|()| kept)
        });
        let mut walked = adopt(probe, &found.namespaces)?;
        let kept = searched.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        walked.add(adopt(probe, &kept.namespaces)?);
        walked.warn("connections there are shown from their next event on");
        Ok(walked.done)
    })
}

/// The programs that [`adopt_all`] walks with.
pub(crate) fn adopting_programs(owners: bool) -> [&'static str; 2] {
    [name::TCP_ADOPT, if owners { name::FILE_CLAIM } else { name::NAMESPACE_LIST }]
}

/// Makes the programs remember every socket of the namespaces. A hook that runs meanwhile finds a socket either
/// remembered or not, never half.
///
/// # Errors
/// The kernel refuses to walk its sockets.
pub(crate) fn adopt(probe: &Probe, namespaces: &[Namespace]) -> Result<Walked, WalkError> {
    let adopting = AdoptIterator::new(probe)?;
    let (walked, _) =
        each_way(probe, namespaces, |namespaces| adopting.each_in(namespaces, |_| true, |()| {}))?;
    probe.note_walked(&walked.done)?;
    Ok(walked)
}

/// The programs that list the sockets of these protocols, find their namespaces, and with `holders` their processes. The
/// slowest comes first.
pub(crate) fn listing_programs(protocols: Protocols, holders: bool) -> Vec<&'static str> {
    let files = holders.then(|| iterator::holder_program(protocols));
    let tcp = protocols.contains(Protocols::TCP).then_some(name::TCP_LIST);
    let udp = protocols.contains(Protocols::UDP).then_some(name::UDP_LIST);
    files.into_iter().chain([iterator::namespace_program(protocols)]).chain(tcp).chain(udp).collect()
}

/// Visits every socket of the namespaces that is of the probe's protocols, and that its filters let through. Of a hidden
/// namespace, only sockets are visited that a process has open, without their lock. A namespace that `may_skip` by its
/// inode number is not walked if the kernel counts no socket there: a half-open connection whose listener is gone is not
/// counted.
///
/// # Errors
/// The kernel refuses to walk its sockets, or writes what is no row.
pub(crate) fn list(
    probe: &Probe,
    found: &Found,
    may_skip: impl Fn(u32) -> bool + Sync,
    mut each: impl FnMut(SocketRow) + Send,
) -> Result<Walked, WalkError> {
    let mut walked = Walked::default();
    if probe.protocols().contains(Protocols::TCP) {
        let (sockets, foreign) = (SocketIterator::new(probe)?, SocketIterator::foreign);
        walked.add(list_with(&sockets, foreign, probe, found, &may_skip, &mut each)?);
    }
    if probe.protocols().contains(Protocols::UDP) {
        let (sockets, foreign) = (SocketIterator::udp(probe)?, SocketIterator::foreign_udp);
        // A bucket of the kernel's table may change between two reads of it, and a socket then comes twice.
        let mut seen = HashSet::new();
        let each = |row: SocketRow| {
            if seen.insert(row.cookie) {
                each(row);
            }
        };
        walked.add(list_with(&sockets, foreign, probe, found, &|_| true, each)?);
        // Both walks may meet the same refusal.
        walked.refused.sort_by_key(|&(inode, _)| inode);
        walked.refused.dedup_by_key(|&mut (inode, _)| inode);
    }
    Ok(walked)
}

/// How often the kernel's diagnosis is read if it leaves out sockets that a process has open.
const READINGS: usize = 3;

/// The Unix domain sockets of the namespaces, in no order, each once. A hidden namespace counts as refused.
///
/// # Errors
/// The kernel refuses to show its sockets.
pub(crate) fn unix(
    probe: &Probe,
    found: &Found,
    holders: &Holders,
) -> Result<(Vec<UnixSocket>, Walked), WalkError> {
    let sockets = Mutex::new(HashMap::new());
    let read = |inode| {
        let what = || format!("the Unix domain sockets of network namespace {inode}");
        let found = unix_diag::sockets(inode).map_err(|source| WalkError::Read { what: what(), source })?;
        locked(&sockets).extend(found.into_iter().map(|socket| (socket.cookie, socket)));
        Ok(())
    };
    let (mut walked, hidden) =
        each_way(probe, &found.namespaces, |namespaces| iterator::visit(namespaces, read))?;
    let no_way = || io::Error::other("no process and no file leads there");
    walked.refused.extend(hidden.union(&found.hidden).map(|&inode| (inode, no_way())));
    // A bucket of the kernel's table may change between two pages of a reading (unix_diag_dump(), net/unix/diag.c): a socket
    // then comes twice, or not at all. One that is open and comes in no reading has most likely been closed.
    for _ in 1..READINGS {
        let seen: HashSet<u64> = locked(&sockets).values().map(|socket| socket.inode.into()).collect();
        if holders.by_inode.keys().all(|inode| seen.contains(inode)) {
            break;
        }
        iterator::visit(&found.namespaces, read)?;
    }
    let sockets = sockets.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok((sockets.into_values().collect(), walked))
}

/// Whether the kernel has a diagnosis of Unix domain sockets.
///
/// # Errors
/// The kernel's answer.
pub(crate) fn may_show_unix() -> io::Result<()> {
    unix_diag::sockets(0).map(|_| ())
}

/// [`list`] with one iterator, and that over sockets of hidden namespaces.
fn list_with(
    sockets: &SocketIterator,
    foreign: fn(&Probe) -> Result<SocketIterator, ProbeError>,
    probe: &Probe,
    found: &Found,
    may_skip: &(impl Fn(u32) -> bool + Sync),
    mut each: impl FnMut(SocketRow) + Send,
) -> Result<Walked, WalkError> {
    let (walked, mut hidden) =
        each_way(probe, &found.namespaces, |namespaces| sockets.each_in(namespaces, may_skip, &mut each))?;
    hidden.extend(&found.hidden);
    if !hidden.is_empty() {
        let mut seen = HashSet::new();
        foreign(probe)?.each(|row| {
            // Several descriptors and processes may have the same socket.
            if hidden.contains(&row.connection.netns) && seen.insert(row.cookie) {
                each(row);
            }
        })?;
    }
    Ok(walked)
}

/// How often a walk searches for other ways into a namespace whose ways have gone.
const SEARCHES: usize = 3;

/// Walks. A namespace was often found by a thread that has ended since, and a file may still keep it: then the walk goes
/// on by the ways of another search. Also returns those of the namespaces that only their sockets show by now.
fn each_way(
    probe: &Probe,
    namespaces: &[Namespace],
    mut walk: impl FnMut(&[Namespace]) -> Result<Walked, WalkError>,
) -> Result<(Walked, BTreeSet<u32>), WalkError> {
    let (mut walked, mut hidden) = (walk(namespaces)?, BTreeSet::new());
    for _ in 0..SEARCHES {
        if walked.gone.is_empty() {
            break;
        }
        let mut again = all_namespaces(probe)?;
        let gone = std::mem::take(&mut walked.gone);
        again.namespaces.retain(|namespace| gone.contains(&namespace.inode));
        hidden.extend(again.hidden.into_iter().filter(|inode| gone.contains(inode)));
        walked.add(walk(&again.namespaces)?);
    }
    // A way into each of them was found, and had gone, again and again.
    let gone = std::mem::take(&mut walked.gone);
    walked.refused.extend(gone.into_iter().map(|inode| (inode, io::ErrorKind::NotFound.into())));
    Ok((walked, hidden))
}

/// All network namespaces that can be found: by their threads, their mounts, the files that keep them and the sockets
/// that processes have open.
///
/// # Errors
/// The kernel refuses to walk its tasks, or writes what is no row.
pub(crate) fn all_namespaces(probe: &Probe) -> Result<Found, WalkError> {
    let files = NamespaceIterator::new(probe)?;
    let mut found = namespace::all();
    add_kept(&files, &mut found, |_| false)?;
    Ok(found)
}

/// Adds the network namespaces that open files keep, and those that only sockets show, without the known ones. A
/// namespace that threads lead to gets its files as further ways.
fn add_kept(
    files: &NamespaceIterator,
    found: &mut Found,
    is_known: impl Fn(u32) -> bool,
) -> Result<(), WalkError> {
    let mut hidden = BTreeSet::new();
    files.each(|row| {
        let inode = row.inode as u32;
        if is_known(inode) {
        } else if row.fd == NO_DESCRIPTOR {
            hidden.insert(inode);
        } else {
            found.add_held(inode, row.pid, row.fd);
        }
    })?;
    hidden.retain(|&inode| !found.has(inode));
    found.hidden = hidden;
    Ok(())
}

/// The processes that have each socket open: each process once. Most sockets of a host have the same few holders, so each
/// set of holders is kept once.
#[derive(Debug)]
pub(crate) struct Holders {
    by_cookie: HashMap<u64, SetNumber>,
    /// Of MPTCP sockets, whose subflows are in no file themselves, of Unix domain sockets, and of sockets in rings.
    by_inode: HashMap<u64, SetNumber>,
    sets: Vec<Vec<Owner>>,
    /// The set that a set becomes with one more holder, by process id, thread id and start.
    grown: HashMap<(SetNumber, u32, u32, u64), SetNumber>,
}

/// The place of a set in [`Holders::sets`]. The first set is empty.
type SetNumber = usize;

impl Default for Holders {
    fn default() -> Self {
        Self {
            by_cookie: HashMap::new(),
            by_inode: HashMap::new(),
            sets: vec![Vec::new()],
            grown: HashMap::new(),
        }
    }
}

impl Holders {
    fn add(&mut self, cookie: u64, inode: u64, owner: &Owner) {
        let Self { by_cookie, by_inode, sets, grown } = self;
        let number = if inode == 0 { by_cookie.entry(cookie) } else { by_inode.entry(inode) }.or_default();
        if sets[*number].iter().any(|known| known.pid == owner.pid) {
            return;
        }
        let key = (*number, owner.pid, owner.tid, owner.start_ns);
        *number = *grown.entry(key).or_insert_with(|| {
            let set = sets[*number].iter().chain([owner]).copied().collect();
            sets.push(set);
            sets.len() - 1
        });
    }

    /// The processes that have a Unix domain socket open; `None` if there are none. `inode` is 0 if it is not known.
    pub(crate) fn of_inode(&self, inode: u64) -> Option<&[Owner]> {
        self.by_inode.get(&inode).filter(|_| inode != 0).map(|&number| self.sets[number].as_slice())
    }

    /// The processes that have a socket open; `None` if there are none.
    pub(crate) fn of(&self, row: &SocketRow) -> Option<Cow<'_, [Owner]>> {
        let of_file = self.by_cookie.get(&row.cookie).map(|&number| self.sets[number].as_slice());
        let of_ring = self.of_inode(row.inode);
        let (Some(of_file), Some(of_ring)) = (of_file, of_ring) else {
            return of_file.or(of_ring).map(Cow::from);
        };
        let is_new = |owner: &&Owner| of_file.iter().all(|known| known.pid != owner.pid);
        Some(of_file.iter().chain(of_ring.iter().filter(is_new)).copied().collect())
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
    let (mut holders, mut rings) = (Holders::default(), Vec::new());
    files.each(|HolderRow { cookie, inode, ring, owner, .. }| match ring {
        NO_DESCRIPTOR => holders.add(cookie, inode, &owner),
        fd => rings.push(Ring { process: owner, fd }),
    })?;
    // In another pid namespace, the ids below `/proc` are not those of owners.
    if !facts::sees_all_processes() {
        rings.clear();
    }
    let id = |owner: &Owner| (owner.pid, owner.start_ns);
    let left_out = io_uring::each_socket(rings, id, |owner, inode| holders.add(0, inode, &owner));
    if left_out > 0 {
        log::warn!(
            "conntrace has not looked into {left_out} io_urings, since there are too many: sockets there have no owner"
        );
    }
    Ok(holders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_with_the_same_holders_share_a_set() {
        let mut holders = Holders::default();
        let owner = |pid| Owner { pid, tid: pid, ..Owner::NONE };
        for (cookie, inode, pid) in
            [(1, 0, 7), (1, 0, 7), (2, 0, 7), (1, 0, 8), (2, 0, 8), (3, 0, 8), (9, 4, 8), (3, 0, 7)]
        {
            holders.add(cookie, inode, &owner(pid));
        }
        let of = |cookie, inode| {
            let row = SocketRow { cookie, inode, ..SocketRow::EMPTY };
            holders.of(&row).map(|set| set.iter().map(|owner| owner.pid).collect::<Vec<_>>())
        };
        assert_eq!((of(1, 0), of(2, 0), of(3, 0)), (Some(vec![7, 8]), Some(vec![7, 8]), Some(vec![8, 7])));
        assert_eq!((of(0, 4), of(4, 0)), (Some(vec![8]), None));
        // None, {7}, {7, 8}, {8}, {8, 7}.
        assert_eq!(holders.sets.len(), 5);
        // A ring of another process has a socket, too.
        assert_eq!((of(1, 4), of(2, 9)), (Some(vec![7, 8]), Some(vec![7, 8])));
        holders.add(0, 4, &owner(9));
        let row = SocketRow { cookie: 1, inode: 4, ..SocketRow::EMPTY };
        let pids: Vec<_> = holders.of(&row).unwrap().iter().map(|owner| owner.pid).collect();
        assert_eq!(pids, [7, 8, 9]);
    }
}
