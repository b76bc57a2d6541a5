//! The owner of a connection: the task that opened, accepted or holds its socket.

/// Length of a task's name in the kernel, with its closing zero.
pub const COMM: usize = 16;

/// No owner is known.
pub const UNKNOWN: u8 = 0;
/// The task that called `connect()`, or sent with fast open; for a listener the one that called `listen()`.
pub const CONNECT: u8 = 1;
/// The task that accepted the connection.
pub const ACCEPT: u8 = 2;
/// The task that called `listen()` on the port: no accept was seen yet.
pub const LISTENER: u8 = 3;
/// A process that had the socket open when conntrace walked all open files.
pub const FILES: u8 = 4;

/// The task that sent the first packet of the flow, or the first reply.
pub const SEND: u8 = 5;
/// The task that bound the socket: it has not replied yet.
pub const BIND: u8 = 6;
/// Of a flow that passes through: the owner of the socket of this host that has the flow's original tuple.
pub const SOCKET: u8 = 7;

/// The words for the sources, by number.
pub const SOURCES: [&str; 8] = ["-", "connect", "accept", "listener", "files", "send", "bind", "socket"];

/// The owner is a kernel thread: a file system, a tunnel.
pub const KERNEL: u8 = 1;
/// Several processes qualify, so none is named: they listen at one port, or share the listener.
pub const SHARED: u8 = 1 << 1;

/// An owner. All zero: unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Owner {
    /// The cgroup v2 id.
    pub cgroup: u64,
    /// When the process began, nanoseconds of `CLOCK_BOOTTIME`. A later process with the same id has another value.
    pub start_ns: u64,
    /// Process id (thread group), in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// How it is known: [`CONNECT`] and the others.
    pub source: u8,
    /// [`KERNEL`], [`SHARED`].
    pub flags: u8,
    /// How many processes had the socket open when the open files were walked; 0 if it is not known. With
    /// [`u16::MAX`], there were more.
    pub holders: u16,
    /// Name of the process (its group leader).
    pub comm: [u8; COMM],
    /// Name of the thread.
    pub thread: [u8; COMM],
}

impl Owner {
    /// No owner is known.
    pub const NONE: Self = Self {
        cgroup: 0,
        start_ns: 0,
        pid: 0,
        tid: 0,
        uid: 0,
        source: UNKNOWN,
        flags: 0,
        holders: 0,
        comm: [0; COMM],
        thread: [0; COMM],
    };

    /// True if both are the same process.
    #[inline(always)]
    pub const fn is_process_of(&self, other: &Self) -> bool {
        self.pid == other.pid && self.start_ns == other.start_ns
    }

    /// Adds a process that has the same socket open. The owner stays, or becomes the `other` process if only that one has
    /// the user `uid` of the socket: a process of another user may have got the socket.
    #[inline(always)]
    pub const fn merge_holder(&mut self, other: &Self, uid: u32) {
        if self.is_process_of(other) {
            return;
        }
        let holders = self.holders.saturating_add(1);
        if self.uid != uid && other.uid == uid {
            *self = *other;
        }
        self.holders = holders;
    }

    /// True if a process is named.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.source != UNKNOWN && self.flags & SHARED == 0
    }
}

/// An owner that a hook noted for a socket without its lock, in the table of pending owners.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PendingOwner {
    /// The owner.
    pub owner: Owner,
    /// Not 0 once a pending owner with this first way went into the overflow map.
    pub overflowed: u64,
}

const _: () = {
    assert!(size_of::<PendingOwner>() == 72);
    assert!(size_of::<Owner>() == 64);
    assert!(core::mem::offset_of!(Owner, comm) == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_with_the_user_of_the_socket_is_preferred() {
        let holder = |pid, uid| Owner { pid, uid, source: FILES, holders: 1, ..Owner::NONE };
        for (holders, pid) in [
            (&[(1, 0), (700, 1000), (800, 1000)][..], 700),
            (&[(700, 1000), (900, 0)], 700),
            (&[(1, 0), (900, 0)], 1),
        ] {
            let mut owner = holder(holders[0].0, holders[0].1);
            for &(pid, uid) in holders {
                owner.merge_holder(&holder(pid, uid), 1000);
            }
            assert_eq!((owner.pid, usize::from(owner.holders)), (pid, holders.len()), "{holders:?}");
        }
    }
}
