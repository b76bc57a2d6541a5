//! The record of one connection: in the kernel beside its socket, and in every event.

use crate::owner::Owner;

/// This host accepted the connection: `dport` is this host's port.
pub const IN: u8 = 0;
/// This host opened the connection: `dport` is the peer's port.
pub const OUT: u8 = 1;
/// Neither end is here: the host forwards the connection. No run makes this yet.
pub const FORWARD: u8 = 2;
/// No direction. A listener has none. The direction of a connection in `TIME_WAIT` may not be known any more: `src` is
/// this host's address, `dst` the peer's.
pub const UNDIRECTED: u8 = 3;
/// No direction, with the ends the other way round: `dst` is this host's address, since its port is probably the
/// service's. For connections in `TIME_WAIT`, in user space only.
pub const PERHAPS_IN: u8 = 4;

/// The addresses and ports are the connection's own. Without the flag they are not known yet.
pub const TUPLE_KNOWN: u8 = 1;
/// A process has had the socket: it connected or accepted.
pub const HELD: u8 = 1 << 1;
/// The connection existed before the programs ran; `attempt_ns` is not known.
pub const PREEXISTING: u8 = 1 << 2;
/// The connection left [`crate::state::SYN_SENT`] or [`crate::state::SYN_RECV`] for a state that only a finished
/// handshake leads to.
pub const WAS_ESTABLISHED: u8 = 1 << 3;
/// The filters of the run let this connection's events through.
pub const WANTED: u8 = 1 << 4;
/// The NEW event has been written.
pub const ANNOUNCED: u8 = 1 << 5;
/// `listen()` succeeded. It may also fail after the state has become LISTEN.
pub const LISTENING: u8 = 1 << 6;
/// Of a flow of UDP, which is never [`LISTENING`]: its first packet began a connection of QUIC.
pub const QUIC: u8 = LISTENING;
/// The role of the socket: it is a listener, not a connection.
pub const LISTENER: u8 = 1 << 7;

/// The two fields that hold the index of an interface in events and rows: `last_sport` and `scratch`.
#[inline(always)]
pub const fn interface_halves(index: u32) -> [u16; 2] {
    [index as u16, (index >> 16) as u16]
}

/// Bytes of a [`Connection`] that a run which only counts keeps: all that its ledger needs.
pub const COUNTED: usize = 16;

/// The state of a socket in a run that only counts: the first bytes of a [`Connection`].
pub type Counted = [u64; COUNTED / 8];

/// How many states the programs keep elsewhere than in the table, or not at all. While both are 0, no hook looks for a
/// state in other places.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Displaced {
    /// States in the overflow map.
    pub overflowed: u64,
    /// Connections that were counted and have no kept state.
    pub stateless: u64,
}

/// One connection (or listener), kept beside its socket and copied into each event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Connection {
    /// Inode number of the socket's network namespace.
    pub netns: u32,
    /// The initiator's port, host order. 0 if no port was ever chosen.
    pub sport: u16,
    /// The responder's port, host order: the service port.
    pub dport: u16,
    /// 4 or 6. IPv4-mapped addresses are 4.
    pub family: u8,
    /// [`IN`], [`OUT`], [`FORWARD`], [`UNDIRECTED`] or [`PERHAPS_IN`].
    pub direction: u8,
    /// TCP state, see [`crate::state`].
    pub state: u8,
    /// [`TUPLE_KNOWN`] and the other flags.
    pub flags: u8,
    /// In socket state, the source port of the connection before this one on the same socket: after a retry the kernel
    /// still shows it. In events and rows, one half of [`Self::interface`].
    pub last_sport: u16,
    /// In socket state, scratch space of the kernel programs without a meaning. Of two bytes: of a number that it loads as
    /// one byte, the verifier follows more paths. In events and rows, one half of [`Self::interface`].
    pub scratch: u16,
    /// Unique while conntrace runs; a socket that connects again gets a new one. See
    /// [`Self::first_seen_ns`]. A run that only counts keeps no field from here on, see [`COUNTED`].
    pub id: u64,
    /// When the connection was attempted: SYN sent, or child socket created. Nanoseconds of
    /// `CLOCK_BOOTTIME`; 0 if it was before the programs ran.
    pub attempt_ns: u64,
    /// When the handshake was complete, same clock; 0 if never or not known.
    pub established_ns: u64,
    /// The initiator's address: 16 bytes in network order, or the first 4 for IPv4.
    pub src: [u8; 16],
    /// The responder's address, like `src`.
    pub dst: [u8; 16],
    /// The owner of the connection.
    pub owner: Owner,
}

const _: () = {
    assert!(size_of::<Connection>() == 136);
    assert!(align_of::<Connection>() == 8);
    assert!(core::mem::offset_of!(Connection, netns) == 0);
    assert!(core::mem::offset_of!(Connection, id) == COUNTED);
    assert!(core::mem::offset_of!(Connection, src) == 40);
    assert!(core::mem::offset_of!(Connection, owner) == 72);
};

impl Connection {
    /// A record of no connection.
    pub const UNSEEN: Self = Self {
        netns: 0,
        sport: 0,
        dport: 0,
        family: 0,
        direction: IN,
        state: crate::state::UNSEEN,
        flags: 0,
        last_sport: 0,
        scratch: 0,
        id: 0,
        attempt_ns: 0,
        established_ns: 0,
        src: [0; 16],
        dst: [0; 16],
        owner: Owner::NONE,
    };

    /// The id of a connection first seen at `now`, nanoseconds of `CLOCK_BOOTTIME`, on `cpu`. Unique: one
    /// CPU begins no two connections in one nanosecond, and ten bits hold the CPU.
    #[inline(always)]
    pub const fn id_at(now: u64, cpu: u32) -> u64 {
        now << 10 | (cpu & 0x3ff) as u64
    }

    /// When a program first saw the connection, nanoseconds of `CLOCK_BOOTTIME`. The time is part of the id.
    pub const fn first_seen_ns(&self) -> u64 {
        self.id >> 10
    }

    /// True if `flag` is set.
    #[inline(always)]
    pub const fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// True if the socket is a listener.
    #[inline(always)]
    pub const fn is_listener(&self) -> bool {
        self.is(LISTENER)
    }

    /// True of a listener, and if it is known which end opened the connection: then `dport` is the service port.
    pub const fn is_directed(&self) -> bool {
        !matches!(self.direction, UNDIRECTED | PERHAPS_IN) || self.is_listener()
    }

    /// True if the initiator, or what stands in its place, is this host.
    pub const fn is_src_ours(&self) -> bool {
        matches!(self.direction, OUT | UNDIRECTED) && !self.is_listener()
    }

    /// In events and rows, the index of the interface that the socket is bound to, in its network namespace; 0 for none.
    /// A socket with a link-local peer is bound to the interface of that link.
    pub const fn interface(&self) -> u32 {
        (self.scratch as u32) << 16 | self.last_sport as u32
    }

    /// Sets [`Self::interface`].
    #[inline(always)]
    pub const fn set_interface(&mut self, index: u32) {
        [self.last_sport, self.scratch] = interface_halves(index);
    }

    /// Sets `flag`.
    #[inline(always)]
    pub const fn set(&mut self, flag: u8) {
        self.flags |= flag;
    }
}
