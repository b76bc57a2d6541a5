//! The record that travels through the ring.

use crate::connection::Connection;
use crate::traffic::Traffic;

/// A connection is attempted.
pub const NEW: u8 = 0;
/// A connection changed its state.
pub const UPDATE: u8 = 1;
/// A connection ended.
pub const DESTROY: u8 = 2;

/// A socket listens from now on.
pub const LISTEN: u8 = 3;
/// A listener ended.
pub const CLOSED: u8 = 4;
/// A SYN arrived that has made no connection yet.
pub const ATTEMPT: u8 = 6;

/// One event. All integers are in the byte order of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct EventRecord {
    /// When it happened, nanoseconds of `CLOCK_BOOTTIME`.
    pub time_ns: u64,
    /// The socket's error at DESTROY, an errno number; 0 for none.
    pub error: u16,
    /// [`NEW`], [`UPDATE`], [`DESTROY`], [`LISTEN`], [`CLOSED`] or [`ATTEMPT`].
    pub kind: u8,
    /// The state before; [`crate::state::UNSEEN`] for NEW and LISTEN.
    pub old_state: u8,
    /// At DESTROY a number of [`crate::cause::Cause`], the one that was counted. At ATTEMPT a number of
    /// [`crate::attempt::Attempt`]. [`NO_CAUSE`] else.
    pub cause: u8,
    /// Where we reset the connection: what the socket shows of why, see [`crate::reset`].
    pub reset: u8,
    /// The layout of this record: [`VERSION`].
    pub version: u8,
    /// The layer-4 protocol, see [`crate::protocol`].
    pub protocol: u8,
    /// Known at DESTROY, else zero.
    pub traffic: Traffic,
    /// The connection as it is after the event.
    pub connection: Connection,
}

/// The version of [`EventRecord`]. It changes whenever the layout or the meaning of a field changes.
pub const VERSION: u8 = 3;
/// No end yet.
pub const NO_CAUSE: u8 = 0xff;

const _: () = {
    assert!(size_of::<EventRecord>() == 200);
    assert!(align_of::<EventRecord>() == 8);
    assert!(core::mem::offset_of!(EventRecord, kind) == 10);
    assert!(core::mem::offset_of!(EventRecord, connection) == 64);
};
