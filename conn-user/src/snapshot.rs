//! The sockets that existed before conntrace: walked once per network namespace, in the kernel, each
//! under its lock. The walk writes nothing to user space; the program adopts what it has not seen.

use std::io::Read as _;

use crate::error::Error;
use crate::namespace::{self, Namespace};
use crate::probe::Probe;

/// Walks all sockets of all namespaces.
///
/// # Errors
/// The kernel refuses to walk. A namespace that cannot be entered is told in the log and left to the
/// events: its sockets are met when something happens to them.
pub fn walk_all(probe: &mut Probe) -> Result<(), Error> {
    for namespace in namespace::all() {
        walk(probe, &namespace)?;
    }
    Ok(())
}

fn walk(probe: &mut Probe, namespace: &Namespace) -> Result<(), Error> {
    let link = probe.socket_walk()?;
    // The namespace of the thread that makes the iterator is the one that is walked
    // (bpf_iter_init_seq_net, net/core/filter.c's users since 5.9).
    let walked = namespace.enter(|| -> std::io::Result<()> {
        let mut file = link.into_file().map_err(std::io::Error::other)?;
        let mut nothing = [0; 64];
        while file.read(&mut nothing)? > 0 {}
        Ok(())
    });
    match walked {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => {
            Err(Error::Io { context: format!("walking the sockets of namespace {}", namespace.inode), source })
        }
        Err(error) => {
            log::warn!(
                "network namespace {} cannot be entered ({error}): its connections are shown from their next \
                 event on",
                namespace.inode
            );
            Ok(())
        }
    }
}
