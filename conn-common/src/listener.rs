//! The owners of listeners, as the kernel programs note them.
//!
//! Each listening socket has a [`ListenerNote`]. Another note sums up the listeners of a port, and a third one those of an
//! address and port: a child finds the owner of its listener there.

use crate::owner::Owner;

/// The capacity of each map of notes and groups.
pub const CAPACITY: u32 = 65_536;
/// The notes that one user may take. Root has no limit of its own.
pub const PER_USER: u64 = 16_384;
const _: () = assert!(PER_USER * 4 <= CAPACITY as u64);

/// The address where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerKey {
    /// Inode number of the network namespace.
    pub netns: u32,
    /// The port, host order.
    pub port: u16,
    /// 1 if the socket is one of IPv6; its children are, too.
    pub is_v6: u16,
    /// The interface that the socket is bound to; 0 for none.
    pub interface: u32,
    /// Explicit padding.
    pub reserved: u32,
    /// The address: network order, IPv4 in the lower half of the first word; zeros for any address.
    pub address: [u64; 2],
}

impl ListenerKey {
    /// No listener.
    pub const NONE: Self = Self { netns: 0, port: 0, is_v6: 0, interface: 0, reserved: 0, address: [0; 2] };

    /// The key of the group of the port.
    #[inline(always)]
    pub const fn of_port(&self) -> u64 {
        (self.netns as u64) << 16 | self.port as u64
    }

    /// True if a child with this address of its own may be one of the listener. The port is the same.
    #[inline(always)]
    pub const fn takes(&self, child: &Self) -> bool {
        self.is_v6 == child.is_v6
            // With `tcp_l3mdev_accept`, a child is bound to an interface where its listener is bound to none.
            && (self.interface == 0 || self.interface == child.interface)
            && (self.is_any()
                || self.address[0] == child.address[0] && self.address[1] == child.address[1])
    }

    /// True if the socket listens at all addresses.
    #[inline(always)]
    pub const fn is_any(&self) -> bool {
        self.address[0] | self.address[1] == 0
    }
}

/// The listener is part of the group of its port.
pub const IN_PORT_GROUP: u32 = 1;
/// The listener is part of the group of its address.
pub const IN_ADDRESS_GROUP: u32 = 1 << 1;
/// `listen()` of a task was seen: no other source is better.
pub const SEEN: u32 = 1 << 2;

/// The owner of one listening socket, or of several: a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ListenerNote {
    /// How many listeners there are; 1 in the note of a socket.
    pub listeners: u64,
    /// Of how many of them the owner is known.
    pub known: u64,
    /// The sum of the addresses of their sockets: once one is left, its address.
    pub sum: u64,
    /// Not 0 once they listen at different addresses.
    pub is_mixed: u64,
    /// The owner of one of them. Shared if not all have the same, and if several processes have the socket open.
    pub owner: Owner,
    /// Address of the owner's `task_struct` (its group leader), to find out whether the process is alive; 0 for none.
    pub task: u64,
    /// Where one of them listens.
    pub key: ListenerKey,
    /// The user that the note of a socket is charged to.
    pub user: u32,
    /// [`IN_PORT_GROUP`] and the others, of the note of a socket.
    pub flags: u32,
}

/// The owner of an MPTCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MptcpNote {
    /// The process.
    pub owner: Owner,
    /// The user that the note is charged to.
    pub user: u32,
    /// Explicit padding.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<ListenerKey>() == 32);
    assert!(size_of::<ListenerNote>() == 144);
    assert!(size_of::<MptcpNote>() == 72);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_takes_children_of_its_address_only() {
        let any = ListenerKey { netns: 1, port: 80, ..ListenerKey::NONE };
        let loopback = ListenerKey { address: [0x0100_007f, 0], ..any };
        let other = ListenerKey { address: [0x0200_007f, 0], ..any };
        let bound = ListenerKey { interface: 2, ..any };
        let v6 = ListenerKey { is_v6: 1, ..any };
        for (listener, child, takes) in [
            (any, loopback, true),
            (loopback, loopback, true),
            (loopback, other, false),
            (v6, loopback, false),
            (any, ListenerKey { is_v6: 1, ..loopback }, false),
            (bound, loopback, false),
            (bound, ListenerKey { interface: 2, ..loopback }, true),
            (any, ListenerKey { interface: 2, ..loopback }, true),
        ] {
            assert_eq!(listener.takes(&child), takes, "{listener:?} {child:?}");
        }
    }
}
