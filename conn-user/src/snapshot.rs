//! The sockets that existed before conntrace, and those that exist now.

use std::collections::HashMap;

use conn_common::connection::COMM;
use conn_common::name;
use conn_common::row::{HolderRow, SocketRow};

use crate::decode;
use crate::error::Error;
use crate::probe::Probe;
use crate::walk;

/// Makes the programs remember every socket that exists. To be called once, when the programs are
/// on: whatever happens meanwhile to a socket finds it either remembered or not, never half.
///
/// # Errors
/// The kernel refuses to walk its sockets.
pub fn adopt_all(probe: &mut Probe) -> Result<(), Error> {
    probe.load_iter(name::TCP_ADOPT, "tcp")?;
    walk::every_namespace(probe, name::TCP_ADOPT, |_| {})
}

/// Visits every TCP socket that exists and that the probe's filters let through.
///
/// # Errors
/// The kernel refuses to walk its sockets, or writes what is no row.
pub fn list(probe: &mut Probe, mut each: impl FnMut(SocketRow) + Send) -> Result<(), Error> {
    let mut broken = None;
    walk::every_namespace(probe, name::TCP_LIST, |page| {
        for row in page.chunks(size_of::<SocketRow>()) {
            match decode::socket_row(row) {
                Ok(row) => each(row),
                Err(error) => broken = Some(error),
            }
        }
    })?;
    broken.map_or(Ok(()), |error| Err(Error::Internal(format!("listing the sockets: {error}"))))
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
