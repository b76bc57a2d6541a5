//! Names of network interfaces, by namespace and index. A look-up asks the kernel's memory only, never a disk or a daemon.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use conn_common::connection::Connection;
use lru::LruCache;
use nix::net::if_::if_indextoname;

use crate::host::namespace::Namespace;

/// How many interfaces are remembered, those that were seen last.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();
/// After this time an interface without a name is looked up again.
const RETRY: Duration = Duration::from_secs(1);

/// Names of interfaces.
#[derive(Debug)]
pub(crate) struct Interfaces {
    /// By inode number of the namespace and index there; a missing name with the time of its look-up.
    known: LruCache<(u32, u32), Result<Arc<str>, Instant>>,
}

impl Default for Interfaces {
    fn default() -> Self {
        Self { known: LruCache::new(REMEMBERED) }
    }
}

impl Interfaces {
    /// The name of the interface that the socket of a connection is bound to. `None` if it is not bound, if the interface is
    /// gone, or if the namespace cannot be entered.
    pub(crate) fn get(&mut self, connection: &Connection) -> Option<Arc<str>> {
        let key = (connection.netns, connection.interface());
        if key.1 == 0 {
            return None;
        }
        match self.known.get(&key) {
            Some(Ok(name)) => return Some(name.clone()),
            Some(Err(asked)) if asked.elapsed() < RETRY => return None,
            _ => {}
        }
        let found = name(key, connection.owner.pid);
        self.known.put(key, found.clone().ok_or_else(Instant::now));
        found
    }
}

/// The name of an interface of a namespace that is bound to a file, or that process `pid` is in.
fn name((netns, index): (u32, u32), pid: u32) -> Option<Arc<str>> {
    let namespace = Namespace::find(netns, pid)?;
    // A thread of its own, which stays inside.
    let look_up = move || {
        namespace.enter().ok()?;
        if_indextoname(index).ok()
    };
    let name = thread::Builder::new().spawn(look_up).ok()?.join().ok()??;
    // nix gives an empty name for an index that is not there.
    Some(name.to_bytes()).filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(name).into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn interfaces_of_this_namespace_have_names() {
        let netns = fs::metadata("/proc/thread-self/ns/net").unwrap().ino() as u32;
        let mut connection = Connection { netns, ..Connection::UNSEEN };
        let mut interfaces = Interfaces::default();
        assert_eq!(interfaces.get(&connection), None);
        connection.set_interface(1);
        assert_eq!(interfaces.get(&connection).as_deref(), Some("lo"));
        connection.set_interface(u32::MAX >> 1);
        assert_eq!((interfaces.get(&connection), interfaces.get(&connection)), (None, None));
        connection.netns = 1;
        assert_eq!(interfaces.get(&connection), None);
    }
}
