//! The sockets that existed before conntrace, and those that exist now.

use std::collections::{BTreeSet, HashMap};

use conn_common::connection::COMM;
use conn_common::name;
use conn_common::row::{HolderRow, SocketRow};

use crate::decode;
use crate::error::Error;
use crate::namespace::Namespace;
use crate::probe::Probe;
use crate::walk;

/// Makes the programs remember every socket of the namespaces. Whatever happens meanwhile to a socket
/// finds it either remembered or not, never half. Tells which namespaces were walked, by inode number.
///
/// # Errors
/// The kernel refuses to walk its sockets.
pub fn adopt(probe: &mut Probe, namespaces: &[Namespace]) -> Result<BTreeSet<u32>, Error> {
    let walked = walk::namespaces(probe, name::TCP_ADOPT, namespaces, |_| {})?;
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
    let walked = walk::namespaces(probe, name::TCP_LIST, namespaces, |page| {
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

/// A process that has a socket open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Process (thread group).
    pub pid: u32,
    /// Its name.
    pub comm: [u8; COMM],
    /// More than one process has the socket open; this is the first of them.
    pub shared: bool,
}

/// Who has which socket open, by the socket's cookie.
///
/// # Errors
/// The kernel refuses to walk its tasks, or writes what is no row.
pub fn holders(probe: &mut Probe) -> Result<HashMap<u64, Holder>, Error> {
    let mut holders: HashMap<u64, Holder> = HashMap::new();
    let mut broken = None;
    walk::once(probe, name::FILE_LIST, |page| {
        for row in page.chunks(size_of::<HolderRow>()) {
            match decode::holder_row(row) {
                Ok(row) => {
                    let holder = Holder { pid: row.pid, comm: row.comm, shared: false };
                    let known = holders.entry(row.cookie).or_insert(holder);
                    known.shared |= known.pid != row.pid;
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
