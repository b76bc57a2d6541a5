//! Claims on a socket by tasks that accepted it or have it open: noted without the socket's lock, taken
//! over by the next hook that has it.
//!
//! They are in a table, like what sockets remember, and in a hash map if all places that a claim may have are taken.
//! A place is lent to whoever fills or empties it, so nobody reads half a claim.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use conn_common::assoc_table::{BUSY, TableSlot};
use conn_common::counter::OWNER_FAILED;
use conn_common::name::HOLDERS;
use conn_common::owner::{Owner, PendingOwner};

use crate::config;
use crate::counter::count;
use crate::kernel::Tcp;
use crate::maps::{PENDING_OVERFLOW, PENDING_OWNERS};
use crate::storage::assoc_table::{self, find, take, take_free, touch, value};
use crate::storage::socket_state::first_place;

/// Touches the place that a claim on this socket most likely has, or gets.
#[inline(always)]
pub fn prefetch(sk: *mut c_void) {
    first_place(sk).and_then(place_at).map(touch);
}

/// Notes who accepted the socket at this address, in place of whoever was noted before.
#[inline(always)]
pub fn accepted(sk: *mut c_void, owner: &Owner) {
    if let Some(first) = first_place(sk) {
        if let Some(place) = find(first, sk as u64, place_at)
            && take(place, sk as u64, BUSY)
        {
            put(place, sk, owner);
            return;
        }
        if has_overflowed(first) {
            let _ = PENDING_OVERFLOW.remove(&(sk as u64));
        }
    }
    if !note(sk, owner, BPF_ANY.into()) {
        count(OWNER_FAILED);
    }
}

/// Notes who has the socket open, unless somebody is noted already.
#[inline(always)]
pub fn held(sk: *mut c_void, owner: &Owner) {
    if let Some(first) = first_place(sk) {
        let is_noted = find(first, sk as u64, place_at).is_some()
            || has_overflowed(first) && PENDING_OVERFLOW.get_ptr(&(sk as u64)).is_some();
        if is_noted {
            return;
        }
    }
    if !note(sk, owner, BPF_NOEXIST.into()) && PENDING_OVERFLOW.get_ptr(&(sk as u64)).is_none() {
        count(OWNER_FAILED);
    }
}

/// Notes an owner where there is room.
#[inline(always)]
fn note(sk: *mut c_void, owner: &Owner, flags: u64) -> bool {
    if let Some(first) = first_place(sk) {
        if let Some(place) = take_free(first, BUSY, place_at) {
            put(place, sk, owner);
            return true;
        }
        if let Some(place) = place_at(first) {
            // SAFETY: a word of a map value.
            unsafe { (&raw mut (*value(place)).overflowed).write_volatile(1) };
        }
    }
    PENDING_OVERFLOW.insert(&(sk as u64), owner, flags).is_ok()
}

#[inline(always)]
fn place_at(at: u32) -> Option<*mut TableSlot<PendingOwner>> {
    PENDING_OWNERS.get_ptr_mut(at)
}

/// Fills a place that was lent.
#[inline(always)]
fn put(place: *mut TableSlot<PendingOwner>, sk: *mut c_void, owner: &Owner) {
    // SAFETY: a map value that nobody else has while it is lent.
    unsafe { (*value(place)).owner = *owner };
    take(place, BUSY, sk as u64);
}

/// True if claims on sockets with this first place may be in the hash map.
#[inline(always)]
fn has_overflowed(first: u32) -> bool {
    // SAFETY: a word of a map value.
    place_at(first).is_none_or(|place| unsafe { (&raw mut (*value(place)).overflowed).read_volatile() != 0 })
}

/// A new life begins at this address: what was noted of an earlier one does not hold any more.
#[inline(always)]
pub fn forget(tcp: Tcp) {
    if config::OWNERS.load() == HOLDERS {
        drop_noted(tcp.0);
    }
}

/// In its own function, like [`take_over`]: the verifier then need not follow what comes after once for each way
/// through it.
#[inline(never)]
fn drop_noted(sk: *mut c_void) -> u32 {
    if let Some(first) = first_place(sk) {
        assoc_table::leave(first, sk as u64, place_at);
        if !has_overflowed(first) {
            return 0;
        }
    }
    let _ = PENDING_OVERFLOW.remove(&(sk as u64));
    0
}

/// Moves what is noted to `owner`. False if nothing is.
#[inline(never)]
pub fn take_over(sk: *mut c_void, owner: &mut Owner) -> bool {
    if let Some(first) = first_place(sk) {
        if let Some(place) = find(first, sk as u64, place_at)
            && take(place, sk as u64, BUSY)
        {
            // SAFETY: a map value that nobody else has while it is lent.
            *owner = unsafe { (*value(place)).owner };
            take(place, BUSY, 0);
            return true;
        }
        if !has_overflowed(first) {
            return false;
        }
    }
    let Some(noted) = PENDING_OVERFLOW.get_ptr(&(sk as u64)) else { return false };
    // SAFETY: a map value, replaced as a whole and never changed in place.
    *owner = unsafe { *noted };
    let _ = PENDING_OVERFLOW.remove(&(sk as u64));
    true
}
