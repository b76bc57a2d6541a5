//! Pending owners: tasks that accepted a socket or have it open. A hook without the socket's lock notes one, and the
//! next hook with the lock takes it over.
//!
//! Pending owners are in a table, and in a hash map if all ways are taken. Another CPU may replace, take or drop one at
//! any moment.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_ANY, BPF_EXIST, BPF_NOEXIST};
use conn_common::assoc_table::{AssocTable, TableSlot};
use conn_common::counter::OWNER_FAILED;
use conn_common::name::HOLDERS;
use conn_common::owner::{FILES, Owner, PendingOwner};

use crate::config;
use crate::counter::count;
use crate::kernel::Tcp;
use crate::maps::{PENDING_OVERFLOW, PENDING_OWNERS};
use crate::storage::assoc_table::{ArrayWords, SlotArray, prefetch, value};
use crate::storage::socket_state::first_way_of;

/// The table of pending owners, by the address of the socket. No lock protects it.
const TABLE: AssocTable<ArrayWords<Pending>> = AssocTable(ArrayWords(Pending));

struct Pending;

impl SlotArray for Pending {
    type Value = PendingOwner;

    #[inline(always)]
    fn slot_at(&self, index: u32) -> Option<*mut TableSlot<PendingOwner>> {
        PENDING_OWNERS.get_ptr_mut(index)
    }
}

/// Fetches the slot that a pending owner of this socket most likely has, or gets.
#[inline(always)]
pub(crate) fn prefetch_slot(sk: *mut c_void) {
    if let Some(slot) = first_way_of(sk).and_then(|first| PENDING_OWNERS.get_ptr_mut(first)) {
        prefetch(slot);
    }
}

/// Notes the task that accepted the socket at this address, in place of an owner noted before.
#[inline(always)]
pub(crate) fn put(sk: *mut c_void, owner: &Owner) {
    if let Some(first) = first_way_of(sk) {
        if TABLE.update(first, sk as u64, |slot| write(slot, owner)) {
            return;
        }
        if has_overflowed(first) {
            let _ = PENDING_OVERFLOW.remove(&(sk as u64));
        }
    }
    if !insert(sk, owner, BPF_ANY.into()) {
        count(OWNER_FAILED);
    }
}

/// Notes a task that has the socket open, beside those noted before. `uid` is the user of the socket. An owner that a hook
/// noted is better, and stays.
#[inline(always)]
pub(crate) fn put_holder(sk: *mut c_void, holder: &Owner, uid: u32) {
    let add = |owner: &mut Owner| {
        if owner.source == FILES {
            owner.merge_holder(holder, uid);
        }
    };
    if let Some(first) = first_way_of(sk) {
        // SAFETY: a map value that no other program uses while it is BUSY.
        if TABLE.update(first, sk as u64, |slot| add(unsafe { &mut (*value(slot)).owner })) {
            return;
        }
    }
    if first_way_of(sk).is_none_or(has_overflowed)
        && let Some(noted) = PENDING_OVERFLOW.get_ptr(&(sk as u64))
    {
        // SAFETY: a map value, replaced as a whole and never changed in place.
        let mut owner = unsafe { *noted };
        add(&mut owner);
        let _ = PENDING_OVERFLOW.insert(&(sk as u64), &owner, BPF_EXIST.into());
        return;
    }
    let owner = Owner { holders: 1, ..*holder };
    if !insert(sk, &owner, BPF_NOEXIST.into()) && PENDING_OVERFLOW.get_ptr(&(sk as u64)).is_none() {
        count(OWNER_FAILED);
    }
}

/// Notes an owner where there is room.
#[inline(always)]
fn insert(sk: *mut c_void, owner: &Owner, flags: u64) -> bool {
    if let Some(first) = first_way_of(sk) {
        if let Some(slot) = TABLE.acquire_busy(first) {
            write(slot, owner);
            TABLE.publish(slot, sk as u64);
            return true;
        }
        if let Some(slot) = PENDING_OWNERS.get_ptr_mut(first) {
            // SAFETY: a word of a map value.
            unsafe { (&raw mut (*value(slot)).overflowed).write_volatile(1) };
        }
    }
    PENDING_OVERFLOW.insert(&(sk as u64), owner, flags).is_ok()
}

/// Writes the owner of a slot that is BUSY.
#[inline(always)]
fn write(slot: *mut TableSlot<PendingOwner>, owner: &Owner) {
    // SAFETY: a map value that no other program uses while it is BUSY.
    unsafe { (*value(slot)).owner = *owner };
}

/// True if pending owners with this first way may be in the hash map.
#[inline(always)]
fn has_overflowed(first: u32) -> bool {
    PENDING_OWNERS
        .get_ptr_mut(first)
        // SAFETY: a word of a map value.
        .is_none_or(|slot| unsafe { (&raw mut (*value(slot)).overflowed).read_volatile() != 0 })
}

/// Drops what is noted at an address where a new life begins.
#[inline(always)]
pub(crate) fn forget(tcp: Tcp) {
    if config::OWNERS.load() == HOLDERS {
        remove(tcp.0);
    }
}

/// In its own function, like [`take`]: the verifier then follows what comes after once, not once for each way.
#[inline(never)]
fn remove(sk: *mut c_void) -> u32 {
    if let Some(first) = first_way_of(sk) {
        TABLE.release(first, sk as u64);
        if !has_overflowed(first) {
            return 0;
        }
    }
    let _ = PENDING_OVERFLOW.remove(&(sk as u64));
    0
}

/// Moves the pending owner of a socket to `owner`. False if there is none.
#[inline(never)]
pub(crate) fn take(sk: *mut c_void, owner: &mut Owner) -> bool {
    if let Some(first) = first_way_of(sk) {
        // SAFETY: a map value that no other program uses while it is BUSY.
        if TABLE.take(first, sk as u64, |slot| *owner = unsafe { (*value(slot)).owner }) {
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
