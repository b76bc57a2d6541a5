//! The rows that iterators write for user space: one row per socket, one per open file of a socket.

use crate::connection::Connection;
use crate::owner::Owner;
use crate::protocol::TCP;
use crate::traffic::Traffic;

/// A socket that exists now, or the mini-socket that is left of one. Its `connection` has no id, times
/// or owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SocketRow {
    /// The kernel's id of the socket, as `ss -e` shows it behind `sk:`.
    pub cookie: u64,
    /// The inode number of the socket that processes have open; of a subflow, the one of its MPTCP socket. 0 while no
    /// process has the socket, and if the run asks for no holders. See [`HolderRow::inode`].
    pub inode: u64,
    /// Its traffic so far; of UDP, and of a listener in any case, only the queues.
    pub traffic: Traffic,
    /// For how long the connection has been established at the least, in ticks. 0 for mini-sockets, and if the run lists
    /// no traffic.
    pub at_least_jiffies: u32,
    /// The user that the socket belongs to, in the initial user namespace; 0 for mini-sockets.
    pub uid: u32,
    /// The socket's mark, if the run asks for it; 0 for mini-sockets.
    pub mark: u32,
    /// The layer-4 protocol, see [`crate::protocol`].
    pub protocol: u8,
    /// 1 for a listener that the run did not ask for: it only shows which connections in `TIME_WAIT` came in.
    pub is_hint: u8,
    /// What is known of a listener's queues, or of a UDP socket: [`HALF_OPEN`] and [`DROPS`]; 0 for other sockets.
    pub known: u8,
    /// Explicit padding.
    pub reserved: u8,
    /// Tuple, direction, state and network namespace.
    pub connection: Connection,
    /// Half-open requests in the queue of a listener; 0 for other sockets.
    pub half_open: u32,
    /// Packets that a listener or a UDP socket has dropped; 0 for other sockets.
    pub drops: u32,
}

/// In [`SocketRow::known`]: the kernel shows the number of half-open requests.
pub const HALF_OPEN: u8 = 1;
/// In [`SocketRow::known`]: the kernel shows the number of dropped packets.
pub const DROPS: u8 = 1 << 1;

impl SocketRow {
    /// A row of TCP without values.
    pub const EMPTY: Self = Self {
        cookie: 0,
        inode: 0,
        traffic: Traffic::NONE,
        at_least_jiffies: 0,
        uid: 0,
        mark: 0,
        protocol: TCP,
        is_hint: 0,
        known: 0,
        reserved: 0,
        connection: Connection::UNSEEN,
        half_open: 0,
        drops: 0,
    };
}

/// A process that has a socket open, or an `io_uring`, which may hold sockets without a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HolderRow {
    /// The socket, see [`SocketRow::cookie`]; 0 for a socket of MPTCP and for a ring.
    pub cookie: u64,
    /// The inode number of a socket of MPTCP, whose subflows are in no file themselves; else 0.
    pub inode: u64,
    /// The descriptor of a ring, or [`NO_DESCRIPTOR`] for a socket.
    pub ring: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// The process, known by [`crate::owner::FILES`].
    pub owner: Owner,
}

/// An open file that keeps a namespace alive: a file of the namespace, or a socket in another network namespace than
/// its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NamespaceRow {
    /// Inode number of the namespace, of any kind.
    pub inode: u64,
    /// The process (thread group) that has the file open.
    pub pid: u32,
    /// Its descriptor there, or [`NO_DESCRIPTOR`] for a socket, which does not lead to the namespace.
    pub fd: u32,
}

/// See [`NamespaceRow::fd`] and [`HolderRow::ring`].
pub const NO_DESCRIPTOR: u32 = u32::MAX;

const _: () = {
    assert!(size_of::<NamespaceRow>() == 16);
    assert!(size_of::<SocketRow>() == 224);
    assert!(size_of::<HolderRow>() == 88);
};
