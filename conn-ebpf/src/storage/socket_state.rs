//! What each socket remembers, and where.
//!
//! It is kept in a table: socket storage, which the kernel makes and frees for each connection, would cost the
//! traffic more than all else that the hooks do. Who finds his place taken remembers in socket storage, and borrows a
//! place of the CPU while a hook looks.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_sk_storage_get};
use conn_common::assoc_table::{self as table, BUSY, SCRATCH_SLOTS, TableSlot};
use conn_common::connection::{COUNTED, Connection};
use conn_common::counter::STORAGE_FAILED;
use conn_common::state::UNSEEN;

use crate::counter::count;
use crate::kernel::follow;
use crate::maps::{COUNTED_STATES, SOCKET_STATES, STORED_COUNTED, STORED_STATES};
use crate::storage::assoc_table::{self, find, is_of, take, take_free, touch, value};
use crate::verifier::low_half;
use crate::{config, mode};

/// `BPF_SK_STORAGE_GET_F_CREATE`, `include/uapi/linux/bpf.h`.
const CREATE: u64 = 1;

/// Does something at each word of a memory that this run keeps.
macro_rules! each_word {
    (|$at:ident| $do:expr) => {
        each_word!(@ $at $do; 0 1);
        if !mode::only_counts() {
            each_word!(@ $at $do; 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
        }
    };
    (@ $at:ident $do:expr; $($number:literal)*) => {$(
        let $at = $number;
        $do;
    )*};
}
const _: () = assert!(COUNTED == 2 * 8 && size_of::<Connection>() == 17 * 8);
/// In [`leave`].
const _: () = assert!(core::mem::offset_of!(TableSlot<Connection>, value) == size_of::<u64>());

/// The state that a socket of whatever protocol remembers; [`UNSEEN`] if it remembers nothing. The caller has the
/// socket's lock, and a pointer through which the verifier lets it read.
#[inline(always)]
pub fn state(sk: *mut c_void) -> u8 {
    let mut memory = in_place(sk);
    if memory.is_null() {
        memory = in_any_place(sk);
    }
    if memory.is_null() && has_storage(sk) {
        memory = storage(sk, 0);
    }
    // SAFETY: a map value of this socket, which is locked.
    if memory.is_null() { UNSEEN } else { unsafe { (*memory).state } }
}

/// The memory of a socket, which is made if there is none, and is [`UNSEEN`] then. NULL if there is no room. The caller
/// has the socket's lock, and gives the memory back with [`leave`]. `may_be_stored` looks whether the socket
/// [`has_storage`], where it can.
#[inline(always)]
pub fn enter(sk: *mut c_void, may_be_stored: impl FnOnce() -> bool) -> *mut Connection {
    let memory = in_place(sk);
    if memory.is_null() { enter_elsewhere(sk, may_be_stored()) } else { memory }
}

/// Touches the place that the socket most likely has, or gets.
#[inline(always)]
pub fn prefetch(sk: *mut c_void) {
    let Some(first) = first_place(sk) else { return };
    if mode::only_counts() {
        COUNTED_STATES.get_ptr_mut(first).map(touch);
    } else {
        SOCKET_STATES.get_ptr_mut(first).map(touch);
    }
}

/// False if nobody, conntrace or others, has ever stored anything for this socket: a call less.
#[inline(always)]
pub fn has_storage(sk: *mut c_void) -> bool {
    !follow(sk, &config::SK_BPF_STORAGE).is_null()
}

/// The end of what began with [`enter`].
#[inline(always)]
pub fn leave(sk: *mut c_void, memory: *mut Connection) {
    // SAFETY: in a run with a table, memories are in its places, behind their owners.
    if has_table() && unsafe { memory.cast::<u64>().sub(1).read_volatile() } == BUSY {
        give_back(sk, memory);
    }
}

/// The memory in the place where most sockets have theirs; NULL if it is not there.
#[inline(always)]
fn in_place(sk: *mut c_void) -> *mut Connection {
    match first_place(sk).and_then(place_at) {
        Some(place) if is_of(place, sk as u64) => value(place),
        _ => ptr::null_mut(),
    }
}

/// The memory in any of the places that the socket may have; NULL if it is in none.
#[inline(always)]
fn in_any_place(sk: *mut c_void) -> *mut Connection {
    first_place(sk).and_then(|first| find(first, sk as u64, place_at)).map_or(ptr::null_mut(), value)
}

/// For a socket that has none where most do, or not yet.
#[inline(never)]
fn enter_elsewhere(sk: *mut c_void, may_be_stored: bool) -> *mut Connection {
    let memory = in_any_place(sk);
    if !memory.is_null() {
        return memory;
    }
    if !has_table() {
        return storage(sk, CREATE);
    }
    // It may have found its places taken before.
    let mut stored = if may_be_stored { storage(sk, 0) } else { ptr::null_mut() };
    if stored.is_null() {
        if let Some(place) = first_place(sk).and_then(|first| take_free(first, sk as u64, place_at)) {
            let words = value(place).cast::<u64>();
            // All that anybody reads before a life begins; word by word, as in `clear`.
            // SAFETY: the first words of a memory, which is now this socket's.
            unsafe {
                words.write_volatile(0);
                words.add(1).write_volatile(0);
            }
            return value(place);
        }
        stored = storage(sk, CREATE);
    }
    if stored.is_null() { stored } else { lend(stored) }
}

/// Copies what is stored into a place that this CPU lends for a moment: the verifier follows all that comes after once
/// for each map that a memory may be in. NULL if all are lent: there are as many as programs that may interrupt, or take
/// the CPU from, each other.
#[inline(always)]
fn lend(stored: *mut Connection) -> *mut Connection {
    // Numbers of CPUs have no gaps on x86, where tables are.
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let first = (1 << config::TABLE_BITS.load()) + cpu * SCRATCH_SLOTS;
    macro_rules! try_each {
        ($($at:literal)*) => {$(
            const { assert!($at < SCRATCH_SLOTS) };
            if let Some(place) = place_at(first + $at)
                && take(place, 0, BUSY)
            {
                copy(stored, value(place));
                return value(place);
            }
        )*};
    }
    try_each!(0 1 2 3);
    ptr::null_mut()
}

/// Stores what was lent.
#[inline(never)]
fn give_back(sk: *mut c_void, memory: *mut Connection) -> u32 {
    let stored = storage(sk, 0);
    if stored.is_null() {
        count(STORAGE_FAILED);
    } else {
        copy(memory, stored);
    }
    // SAFETY: the owner before the memory, see `leave`. Nobody else looks for what is lent.
    unsafe { memory.cast::<u64>().sub(1).write_volatile(0) };
    0
}

/// The socket is about to be freed, and no hook will see it again. Should this be missed, the place waits for the
/// next socket at the same address.
#[inline(always)]
pub fn free(sk: *mut c_void) {
    if let Some(first) = first_place(sk) {
        assoc_table::leave(first, sk as u64, place_at);
    }
}

/// True if sockets remember in the table. Then a memory may also be that of an earlier socket at the same address,
/// whose end nobody saw.
#[inline(always)]
pub fn has_table() -> bool {
    config::TABLE_BITS.load() != 0
}

/// The number of the first place that this socket may have in a table, if the run has any.
#[inline(always)]
pub fn first_place(sk: *mut c_void) -> Option<u32> {
    // Sockets begin at cache lines.
    if has_table() { Some(table::first_way(low_half(sk) >> 6, config::TABLE_BITS.load())) } else { None }
}

/// A place by its number. In a run that only counts, it has room for no more than [`Counted`].
#[inline(always)]
fn place_at(at: u32) -> Option<*mut TableSlot<Connection>> {
    if mode::only_counts() {
        COUNTED_STATES.get_ptr_mut(at).map(<*mut _>::cast)
    } else {
        SOCKET_STATES.get_ptr_mut(at)
    }
}

#[inline(always)]
fn storage(sk: *mut c_void, flags: u64) -> *mut Connection {
    let map: *const c_void = if mode::only_counts() {
        (&raw const STORED_COUNTED).cast()
    } else {
        (&raw const STORED_STATES).cast()
    };
    // SAFETY: the verifier knows the map's value size; a NULL initial value means zeroes.
    unsafe { bpf_sk_storage_get(map.cast_mut(), sk, ptr::null_mut(), flags).cast() }
}

/// Clears a memory, word by word: as one assignment the compiler makes it a call to a byte-wise loop.
#[inline(always)]
pub fn clear(memory: *mut Connection) {
    let words = memory.cast::<u64>();
    // SAFETY: words of the record, which is aligned to 8 and valid with all bits zero.
    each_word!(|at| unsafe { words.add(at).write_volatile(0) });
}

/// Copies a memory, likewise.
#[inline(always)]
fn copy(from: *const Connection, to: *mut Connection) {
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    // SAFETY: words of both records.
    each_word!(|at| unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) });
}
