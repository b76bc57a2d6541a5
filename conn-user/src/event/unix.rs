//! A Unix domain socket that exists now.

use conn_common::owner::Owner;
use conn_common::state::{CLOSE, ESTABLISHED, LISTEN};

/// A socket, as the kernel's diagnosis shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixSocket {
    /// The kernel's id of the socket.
    pub cookie: u64,
    /// Its inode number.
    pub inode: u32,
    /// The inode number of its peer; `None` without one.
    pub peer: Option<u32>,
    /// `SOCK_STREAM` and so on.
    pub kind: u8,
    /// Its state, one of [`STATES`].
    pub state: u8,
    /// Bytes that wait to be read; of a listener, connections that wait to be accepted.
    pub receive_queue: u32,
    /// Bytes that the peer has not read; of a listener, how many connections may wait.
    pub send_queue: u32,
    /// The address, any bytes: a path, or behind a zero byte an abstract name. Empty without one.
    pub name: Vec<u8>,
    /// The user that the socket belongs to, whose processes come before others; `None` if the kernel does not show it.
    pub uid: Option<u32>,
    /// Its network namespace, by inode number.
    pub netns: u32,
    /// The first of its processes that passes the filters; [`Owner::NONE`] without one.
    pub owner: Owner,
}

/// The states of a socket, by the kernel's numbers of TCP states.
pub const STATES: [u8; 3] = [ESTABLISHED, CLOSE, LISTEN];

/// The names of the types, by number.
const TYPES: [(u8, &str); 3] = [(1, "stream"), (2, "dgram"), (5, "seqpacket")];

impl UnixSocket {
    /// `stream`, `dgram` or `seqpacket`; `None` for other types.
    pub fn kind_name(&self) -> Option<&'static str> {
        TYPES.iter().find(|(kind, _)| *kind == self.kind).map(|&(_, name)| name)
    }

    /// True if the socket waits for others: it listens, or has no peer.
    pub const fn is_unconnected(&self) -> bool {
        matches!(self.state, LISTEN | CLOSE)
    }
}
