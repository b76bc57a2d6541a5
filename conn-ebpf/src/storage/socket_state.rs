//! The state that the programs keep of each socket, and where.
//!
//! Most states are in a table. Socket storage, which the kernel makes and frees for each connection, would cost the
//! traffic more than all else that the hooks do. If all ways of a socket are taken, the state is in the overflow map,
//! and if that has no room, in socket storage. A hook then works on a copy in a scratch slot.
//!
//! A run without a table has its states in socket storage, which goes with the socket: a missed end is not taken for a
//! state of the next socket at the address. If the kernel refuses storage, the state is in the overflow map.
//!
//! A state stays where it was made, so a socket has one. With no memory at all, see `stateless`.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_sk_storage_get};
use conn_common::assoc_table::{AssocTable, BUSY, SCRATCH_SLOTS, TableSlot, Words as _, first_way};
use conn_common::connection::{COUNTED, Connection};
use conn_common::state::UNSEEN;

use crate::counter::count;
use crate::kernel::follow;
use crate::maps::{COUNTED_STATES, SOCKET_STATES, STORED_COUNTED, STORED_STATES};
use crate::storage::assoc_table::{ArrayWords, SlotArray, prefetch, slot_of, value};
use crate::storage::overflow;
use crate::verifier::low_half;
use crate::{config, mode};
use conn_common::counter::{STATE_OVERFLOWED, STORAGE_FAILED};

/// `BPF_SK_STORAGE_GET_F_CREATE`, `include/uapi/linux/bpf.h`.
const CREATE: u64 = 1;

/// The table of socket states, by the address of the socket. The lock of the socket keeps other hooks away.
const TABLE: AssocTable<ArrayWords<States>> = AssocTable(ArrayWords(States));

/// The array of the run. In a run that only counts, a slot has room for [`COUNTED`] bytes.
struct States;

impl SlotArray for States {
    type Value = Connection;

    #[inline(always)]
    fn slot_at(&self, index: u32) -> Option<*mut TableSlot<Connection>> {
        if mode::only_counts() {
            COUNTED_STATES.get_ptr_mut(index).map(<*mut _>::cast)
        } else {
            SOCKET_STATES.get_ptr_mut(index)
        }
    }
}

/// Runs an expression for the number of each word of a state that this run keeps.
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
/// In [`slot_of`].
const _: () = assert!(core::mem::offset_of!(TableSlot<Connection>, value) == size_of::<u64>());

/// The TCP state kept of a socket of any protocol; [`UNSEEN`] if none is kept. The caller has the socket's lock, and a
/// pointer whose fields the verifier allows to read.
#[inline(always)]
pub(crate) fn peek(sk: *mut c_void) -> u8 {
    let mut state = in_first_way(sk);
    if state.is_null() {
        state = in_any_way(sk);
    }
    if state.is_null() {
        state = overflow::get(sk);
    }
    if state.is_null() && has_storage(sk) {
        state = storage(sk, 0);
    }
    // SAFETY: a map value of this socket, which is locked.
    if state.is_null() { UNSEEN } else { unsafe { (*state).state } }
}

/// A state that a hook works on.
pub(crate) struct Kept {
    /// NULL if there is no memory.
    pub state: *mut Connection,
    /// In a run without a table: true if the state is a copy in a scratch slot.
    is_copy: bool,
}

/// The state of a socket. A new one is [`UNSEEN`], and only made if the hook `creates` states. The caller has the
/// socket's lock, and gives the state back with [`leave`]. `may_be_stored` returns whether the socket [`has_storage`],
/// where the hook can read that.
#[inline(always)]
pub(crate) fn enter(
    sk: *mut c_void,
    may_be_stored: impl FnOnce() -> bool,
    creates: impl FnOnce() -> bool,
) -> Kept {
    let state = in_first_way(sk);
    if !state.is_null() {
        return Kept { state, is_copy: false };
    }
    if has_table() {
        return Kept { state: enter_elsewhere(sk, may_be_stored(), creates()), is_copy: false };
    }
    let creates = creates();
    let state = storage(sk, if creates && overflow::get(sk).is_null() { CREATE } else { 0 });
    if !state.is_null() {
        return Kept { state, is_copy: false };
    }
    Kept { state: enter_overflow(sk, creates), is_copy: has_scratch() }
}

/// Fetches the slot that the socket most likely has, or gets.
#[inline(always)]
pub(crate) fn prefetch_slot(sk: *mut c_void) {
    let Some(first) = first_way_of(sk) else { return };
    // The size of a slot follows from the array, so each array has a call of its own.
    if mode::only_counts() {
        if let Some(slot) = COUNTED_STATES.get_ptr_mut(first) {
            prefetch(slot);
        }
    } else if let Some(slot) = SOCKET_STATES.get_ptr_mut(first) {
        prefetch(slot);
    }
}

/// False if no program, of conntrace or another, has ever stored anything for this socket: saves a call.
#[inline(always)]
pub(crate) fn has_storage(sk: *mut c_void) -> bool {
    !follow(sk, &config::SK_BPF_STORAGE).is_null()
}

/// Ends what [`enter`] began.
#[inline(always)]
pub(crate) fn leave(sk: *mut c_void, kept: &Kept) {
    // In a run with a table, every state is in a slot: its own, or a scratch slot, which is BUSY.
    if kept.is_copy || has_table() && TABLE.0.load(slot_of(kept.state)) == BUSY {
        give_back(sk, kept.state);
    }
}

/// The state in the first way, where most sockets have it; NULL if it is not there.
#[inline(always)]
fn in_first_way(sk: *mut c_void) -> *mut Connection {
    let slot = first_way_of(sk).and_then(|first| TABLE.find_first(first, sk as u64));
    slot.map_or(ptr::null_mut(), value)
}

/// The state in any way; NULL if it is in none.
#[inline(always)]
fn in_any_way(sk: *mut c_void) -> *mut Connection {
    first_way_of(sk).and_then(|first| TABLE.find(first, sk as u64)).map_or(ptr::null_mut(), value)
}

/// For a socket without a state in the first way.
#[inline(never)]
fn enter_elsewhere(sk: *mut c_void, may_be_stored: bool, creates: bool) -> *mut Connection {
    let state = in_any_way(sk);
    if !state.is_null() {
        return state;
    }
    // All ways may have been taken when the state was made.
    let mut kept = overflow::get(sk);
    if kept.is_null() && may_be_stored {
        kept = storage(sk, 0);
    }
    if kept.is_null() {
        if !creates {
            return kept;
        }
        if let Some(slot) = first_way_of(sk).and_then(|first| TABLE.acquire(first, sk as u64)) {
            let words = value(slot).cast::<u64>();
            // All that hooks read before a life begins; word by word, as in `clear`.
            // SAFETY: the first words of a state, which is now this socket's.
            unsafe {
                words.write_volatile(0);
                words.add(1).write_volatile(0);
            }
            return value(slot);
        }
        count(STATE_OVERFLOWED);
        kept = overflow::insert(sk);
        if kept.is_null() {
            kept = storage(sk, CREATE);
        }
    }
    if kept.is_null() { kept } else { borrow_copy(kept) }
}

/// For a socket without storage, in a run without a table.
#[inline(never)]
fn enter_overflow(sk: *mut c_void, creates: bool) -> *mut Connection {
    let mut kept = overflow::get(sk);
    if kept.is_null() && creates {
        count(STATE_OVERFLOWED);
        kept = overflow::insert(sk);
    }
    if kept.is_null() || !has_scratch() { kept } else { borrow_copy(kept) }
}

/// Copies a state into a scratch slot of this CPU. So each hook works on one kind of memory, and the verifier follows
/// what comes after once, not once for each map. NULL if all scratch slots are BUSY.
#[inline(always)]
fn borrow_copy(kept: *mut Connection) -> *mut Connection {
    let state = borrow();
    if !state.is_null() {
        copy(kept, state);
    }
    state
}

/// Borrows a scratch slot of this CPU. NULL if all are BUSY: there is one for each program that may interrupt, or
/// preempt, another.
#[inline(always)]
pub(crate) fn borrow() -> *mut Connection {
    if !has_scratch() {
        return ptr::null_mut();
    }
    // CPU numbers have no gaps on x86, where scratch slots are.
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let first = (1 << config::TABLE_BITS.load()) + cpu * SCRATCH_SLOTS;
    macro_rules! try_each {
        ($($at:literal)*) => {$(
            const { assert!($at < SCRATCH_SLOTS) };
            if let Some(slot) = TABLE.borrow(first + $at) {
                return value(slot);
            }
        )*};
    }
    try_each!(0 1 2 3);
    ptr::null_mut()
}

/// Copies a scratch slot back to the place of the state.
#[inline(never)]
fn give_back(sk: *mut c_void, state: *mut Connection) -> u32 {
    let mut kept = overflow::get(sk);
    if kept.is_null() && has_table() {
        kept = storage(sk, 0);
    }
    if kept.is_null() {
        count(STORAGE_FAILED);
    } else {
        copy(state, kept);
    }
    give_up(state);
    0
}

/// Frees a scratch slot without keeping its state.
#[inline(always)]
pub(crate) fn give_up(state: *mut Connection) {
    TABLE.give_back(slot_of(state));
}

/// Frees the slot, or the overflow entry, of a socket that the kernel is about to free. If the kernel skips this call,
/// the state waits for the next socket at the same address.
#[inline(always)]
pub(crate) fn release(sk: *mut c_void) {
    if !first_way_of(sk).is_some_and(|first| TABLE.release(first, sk as u64)) {
        overflow::remove(sk);
    }
}

/// True if states are in the table. A state may then be that of an earlier socket at the same address, whose end no
/// hook saw.
#[inline(always)]
pub(crate) fn has_table() -> bool {
    config::TABLE_BITS.load() != 0
}

/// True if the programs may use scratch slots.
#[inline(always)]
fn has_scratch() -> bool {
    config::HAS_EXCHANGE.load() != 0
}

/// The index of the first way of this socket, if the run has tables.
#[inline(always)]
pub(crate) fn first_way_of(sk: *mut c_void) -> Option<u32> {
    // Sockets begin at cache lines.
    if has_table() { Some(first_way(low_half(sk) >> 6, config::TABLE_BITS.load())) } else { None }
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

/// Clears a state, word by word: the compiler turns one assignment into a call of a byte-wise loop.
#[inline(always)]
pub(crate) fn clear(state: *mut Connection) {
    let words = state.cast::<u64>();
    // SAFETY: words of the record, which is aligned to 8 and valid with all bits zero.
    each_word!(|at| unsafe { words.add(at).write_volatile(0) });
}

/// Copies a state, likewise.
#[inline(always)]
fn copy(from: *const Connection, to: *mut Connection) {
    let (from, to) = (from.cast::<u64>(), to.cast::<u64>());
    // SAFETY: words of both records.
    each_word!(|at| unsafe { to.add(at).write_volatile(from.add(at).read_volatile()) });
}
