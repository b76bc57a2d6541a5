//! States of sockets that found no way in the table.
//!
//! The overflow map is a hash map, whose memory is conntrace's. Socket storage would depend on a limit that the owner of
//! the socket's network namespace sets. Entries are made when they are needed, so the map may be full, or the kernel may
//! have no memory for an entry at this moment; then the caller has another place.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::BPF_NOEXIST;
use conn_common::connection::{Connection, Counted, Displaced};

use crate::counter::add;
use crate::maps::{DISPLACED, OVERFLOW_COUNTED, OVERFLOW_STATES};
use crate::mode;

/// A state of no socket; too large for the programs' stack.
#[unsafe(no_mangle)]
static NO_STATE: Connection = Connection::UNSEEN;
/// The same in a run that only counts.
#[unsafe(no_mangle)]
static NO_COUNTED: Counted = [0; size_of::<Counted>() / 8];

/// The state of a socket; NULL if it is not here. Costs nothing while the map is empty.
#[inline(always)]
pub(crate) fn get(sk: *mut c_void) -> *mut Connection {
    if is_empty() { ptr::null_mut() } else { look_up(sk) }
}

/// Makes a state, [`conn_common::state::UNSEEN`], of a socket that has none. NULL if there is no room.
#[inline(always)]
pub(crate) fn insert(sk: *mut c_void) -> *mut Connection {
    let (key, flags) = (sk as u64, BPF_NOEXIST.into());
    let made = if mode::only_counts() {
        OVERFLOW_COUNTED.insert(&key, &NO_COUNTED, flags)
    } else {
        OVERFLOW_STATES.insert(&key, &NO_STATE, flags)
    };
    if made.is_err() {
        return ptr::null_mut();
    }
    // The next hook of this socket has the lock that this hook has, so it sees the number.
    add_overflowed(1);
    look_up(sk)
}

/// Frees the state of a socket, if it is here.
#[inline(always)]
pub(crate) fn remove(sk: *mut c_void) {
    if is_empty() {
        return;
    }
    let key = sk as u64;
    let removed =
        if mode::only_counts() { OVERFLOW_COUNTED.remove(&key) } else { OVERFLOW_STATES.remove(&key) };
    if removed.is_ok() {
        add_overflowed(u64::MAX);
    }
}

#[inline(always)]
fn look_up(sk: *mut c_void) -> *mut Connection {
    let key = sk as u64;
    if mode::only_counts() {
        OVERFLOW_COUNTED.get_ptr_mut(&key).map_or(ptr::null_mut(), <*mut _>::cast)
    } else {
        OVERFLOW_STATES.get_ptr_mut(&key).unwrap_or(ptr::null_mut())
    }
}

#[inline(always)]
fn is_empty() -> bool {
    // SAFETY: a word of a map value.
    displaced().is_none_or(|displaced| unsafe { (&raw mut (*displaced).overflowed).read_volatile() == 0 })
}

#[inline(always)]
fn add_overflowed(amount: u64) {
    if let Some(displaced) = displaced() {
        // SAFETY: a word of a map value.
        add(unsafe { &raw mut (*displaced).overflowed }, amount);
    }
}

/// How many states are elsewhere than in the table.
#[inline(always)]
pub(crate) fn displaced() -> Option<*mut Displaced> {
    DISPLACED.get_ptr_mut(0)
}
