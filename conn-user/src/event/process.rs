//! The process that a connection belongs to.

use conn_common::connection::Connection;

/// The task that opened, accepted or holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process<'a> {
    /// Process id, in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// Name of the process: any bytes but zero.
    pub comm: &'a [u8],
    /// Name of the thread: any bytes but zero.
    pub thread: &'a [u8],
    /// The cgroup v2 id; 0 for none.
    pub cgroup: u64,
    /// When the process began, nanoseconds of `CLOCK_BOOTTIME`; 0 if that is unknown.
    pub start_ns: u64,
}

impl<'a> Process<'a> {
    /// The owner of a connection; `None` if it is unknown, or if several processes qualify.
    pub fn from_connection(connection: &'a Connection) -> Option<Self> {
        let owner = &connection.owner;
        owner.is_known().then(|| Self {
            pid: owner.pid,
            tid: owner.tid,
            uid: owner.uid,
            comm: until_zero(&owner.comm),
            thread: until_zero(&owner.thread),
            cgroup: owner.cgroup,
            start_ns: owner.start_ns,
        })
    }
}

/// The bytes of a name before its first zero.
pub(crate) fn until_zero(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == 0).next().unwrap_or_default()
}
