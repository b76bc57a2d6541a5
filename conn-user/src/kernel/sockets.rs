//! The sockets that existed before conntrace, and those that exist now.

use std::collections::{BTreeSet, HashMap};
use std::thread;

use aya::programs::iter::IterLink;
use conn_common::name;
use conn_common::owner::Owner;
use conn_common::row::{HolderRow, NamespaceRow, SocketRow};

use crate::error::Error;
use crate::event::decode;
use crate::host::namespace::{self, Found, Namespace};
use crate::kernel::iterator;
use crate::kernel::probe::Probe;

/// Finds all namespaces and adopts their sockets. Those that only files keep are looked for meanwhile: going
/// over the files of all tasks takes a fifth of the time that adopting the sockets behind them does. With
/// `claims`, the same walk notes who has which socket open (only what this process sees in its pid namespace).
///
/// # Errors
/// The kernel refuses to walk its sockets or tasks.
pub fn adopt_all(probe: &mut Probe, claims: bool) -> Result<BTreeSet<u32>, Error> {
    let found = namespace::all().namespaces;
    let files = probe.walk(file_walk(claims))?;
    thread::scope(|scope| {
        let searched = scope.spawn(|| held_namespaces(files, &found));
        let mut walked = adopt(probe, &found)?;
        let held = searched.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        walked.extend(adopt(probe, &held)?);
        Ok(walked)
    })
}

/// The walk over files that finds namespaces, and notes who has which socket open if that is asked for.
pub fn file_walk(claims: bool) -> &'static str {
    if claims { name::FILE_CLAIM } else { name::NAMESPACE_LIST }
}

/// Makes the programs remember every socket of the namespaces. Whatever happens meanwhile to a socket
/// finds it either remembered or not, never half. Tells which namespaces were walked, by inode number.
///
/// # Errors
/// The kernel refuses to walk its sockets.
pub fn adopt(probe: &mut Probe, namespaces: &[Namespace]) -> Result<BTreeSet<u32>, Error> {
    probe.load_programs(&[name::TCP_ADOPT])?;
    let walked = iterator::namespaces(probe, name::TCP_ADOPT, namespaces, |_| {})?;
    for &netns in &walked {
        probe.walked(netns)?;
    }
    Ok(walked)
}

/// Visits every TCP socket of the namespaces that the probe's filters let through. Tells which
/// namespaces were walked, by inode number.
///
/// # Errors
/// The kernel refuses to walk its sockets, or writes what is no row.
pub fn list(
    probe: &mut Probe,
    namespaces: &[Namespace],
    mut each: impl FnMut(SocketRow) + Send,
) -> Result<BTreeSet<u32>, Error> {
    let mut broken = None;
    probe.load_programs(&[name::TCP_LIST])?;
    let walked = iterator::namespaces(probe, name::TCP_LIST, namespaces, |page| {
        for row in page.chunks(size_of::<SocketRow>()) {
            match decode::socket_row(row) {
                Ok(row) => each(row),
                Err(error) => broken = Some(error),
            }
        }
    })?;
    match broken {
        Some(error) => Err(Error::Internal(format!("listing the sockets: {error}"))),
        None => Ok(walked),
    }
}

/// All network namespaces that can be found: by their threads, their mounts and the files that keep them.
///
/// # Errors
/// The kernel refuses to walk its tasks, or writes what is no row.
pub fn all_namespaces(probe: &mut Probe) -> Result<Found, Error> {
    probe.load_programs(&[name::NAMESPACE_LIST])?;
    let mut found = namespace::all();
    found.namespaces.extend(held_namespaces(probe.walk(name::NAMESPACE_LIST)?, &found.namespaces)?);
    Ok(found)
}

/// The network namespaces that open files keep, but for those that are known.
fn held_namespaces(files: IterLink, known: &[Namespace]) -> Result<Vec<Namespace>, Error> {
    let mut held: Vec<Namespace> = Vec::new();
    let mut broken = None;
    iterator::once(files, "files", |page| {
        for row in page.chunks(size_of::<NamespaceRow>()) {
            match decode::namespace_row(row) {
                Ok(row) => {
                    let inode = row.inode as u32;
                    if known.iter().chain(&held).all(|known| known.inode != inode) {
                        held.extend(Namespace::held(row.pid, row.fd));
                    }
                }
                Err(error) => broken = Some(error),
            }
        }
    })?;
    match broken {
        Some(error) => Err(Error::Internal(format!("listing the namespaces: {error}"))),
        None => Ok(held),
    }
}

/// Who has which socket open, by the socket's cookie: each process once.
pub type Holders = HashMap<u64, Vec<Owner>>;

/// The same as [`all_namespaces`], and who has which socket open, which another thread finds out meanwhile.
///
/// # Errors
/// The kernel refuses to walk its tasks, or writes what is no row.
pub fn namespaces_and_holders(probe: &mut Probe) -> Result<(Found, Holders), Error> {
    probe.load_programs(&[name::FILE_LIST])?;
    let files = probe.walk(name::FILE_LIST)?;
    thread::scope(|scope| {
        let holders = scope.spawn(|| holders(files));
        let found = all_namespaces(probe)?;
        let holders = holders.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((found, holders))
    })
}

fn holders(files: IterLink) -> Result<Holders, Error> {
    let mut holders = Holders::new();
    let mut broken = None;
    iterator::once(files, name::FILE_LIST, |page| {
        for row in page.chunks(size_of::<HolderRow>()) {
            match decode::holder_row(row) {
                Ok(row) => {
                    // Most sockets have one; a vector that grows by itself begins with room for four.
                    let known = holders.entry(row.cookie).or_insert_with(|| Vec::with_capacity(1));
                    if known.iter().all(|owner| owner.pid != row.owner.pid) {
                        known.push(row.owner);
                    }
                }
                Err(error) => broken = Some(error),
            }
        }
    })?;
    match broken {
        Some(error) => Err(Error::Internal(format!("listing the files: {error}"))),
        None => Ok(holders),
    }
}
