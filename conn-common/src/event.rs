//! The record that travels through the ring.

use crate::connection::Connection;

/// A connection is attempted.
pub const NEW: u8 = 0;
/// A connection changed its state.
pub const UPDATE: u8 = 1;
/// A connection ended.
pub const DESTROY: u8 = 2;

/// One event. All integers are in the byte order of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventRecord {
    /// When it happened, nanoseconds of `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// Payload bytes sent, retransmissions not counted twice. Known at DESTROY, else 0.
    pub bytes_sent: u64,
    /// Payload bytes received in order. Known at DESTROY, else 0.
    pub bytes_received: u64,
    /// Segments retransmitted. Known at DESTROY, else 0.
    pub retransmits: u32,
    /// The socket's error at DESTROY, an errno number; 0 for none.
    pub error: u16,
    /// [`NEW`], [`UPDATE`] or [`DESTROY`].
    pub kind: u8,
    /// The state before; [`crate::state::UNSEEN`] for NEW.
    pub old_state: u8,
    /// At DESTROY of a connection that was never established: a number of
    /// [`crate::ledger::Cause`], the one that was counted. [`NO_CAUSE`] else.
    pub cause: u8,
    /// Explicit padding.
    pub reserved: [u8; 7],
    /// The connection as it is after the event.
    pub connection: Connection,
}

/// No failure.
pub const NO_CAUSE: u8 = 0xff;

const _: () = {
    assert!(size_of::<EventRecord>() == 160);
    assert!(align_of::<EventRecord>() == 8);
    assert!(core::mem::offset_of!(EventRecord, kind) == 30);
    assert!(core::mem::offset_of!(EventRecord, connection) == 40);
};
