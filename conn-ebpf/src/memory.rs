//! What each socket remembers, and where.
//!
//! It is kept in a table: socket storage, which the kernel makes and frees for each connection, would cost the
//! traffic more than all else that the hooks do. Who finds his place taken remembers in socket storage.

use core::arch::asm;
use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use conn_common::connection::{COUNTED, Connection};
use conn_common::place::{self as places, Place};

use crate::maps::{COUNTED_PLACES, COUNTED_SOCKETS, PLACES, SOCKETS};
use crate::place::{is_of, take, value};
use crate::{config, keep};

/// `BPF_SK_STORAGE_GET_F_CREATE`, `include/uapi/linux/bpf.h`.
const CREATE: u64 = 1;

/// What a socket remembers in a run that only counts: the first bytes of a [`Connection`].
pub type Counted = [u64; COUNTED / 8];

/// The memory of a socket of whatever protocol; NULL if it has none. The caller has the socket's lock.
#[inline(always)]
pub fn find(sk: *mut c_void) -> *mut Connection {
    let memory = in_place(sk);
    if memory.is_null() { storage(sk, 0) } else { memory }
}

/// The same, but if it has none it gets one that is [`conn_common::state::UNSEEN`]. NULL if the kernel has no room.
#[inline(always)]
pub fn find_or_make(sk: *mut c_void) -> *mut Connection {
    let memory = in_place(sk);
    if memory.is_null() { make(sk) } else { memory }
}

/// The memory in the table; NULL if the socket has none there.
#[inline(always)]
fn in_place(sk: *mut c_void) -> *mut Connection {
    match place(sk) {
        Some(place) if is_of(place, sk as u64) => value(place),
        _ => ptr::null_mut(),
    }
}

/// For a socket that has none in the table: the one that it has in storage, or a new one. In its own function: the
/// verifier follows what comes after a call once for each kind of pointer that it may return, and not once for each way
/// to it.
#[inline(never)]
fn make(sk: *mut c_void) -> *mut Connection {
    let Some(place) = place(sk) else { return storage(sk, CREATE) };
    // It may have found its place taken before.
    let stored = storage(sk, 0);
    if !stored.is_null() {
        return stored;
    }
    if take(place, 0, sk as u64) {
        // All that anybody reads before a life begins.
        // SAFETY: the first bytes of a memory, which is now this socket's.
        unsafe { value(place).cast::<Counted>().write_volatile([0; COUNTED / 8]) };
        return value(place);
    }
    storage(sk, CREATE)
}

/// The socket is about to be freed, and no hook will see it again. Should this be missed, the place waits for the
/// next socket at the same address.
#[inline(always)]
pub fn free(sk: *mut c_void) {
    if let Some(place) = place(sk) {
        take(place, sk as u64, 0);
    }
}

/// True if a memory may be that of an earlier socket at the same address, whose end nobody saw.
#[inline(always)]
pub fn outlives() -> bool {
    config::PLACE_BITS.load() != 0
}

/// The place that this socket would have, in a run with a table. In a run that only counts, it has no more than
/// [`Counted`].
#[inline(always)]
fn place(sk: *mut c_void) -> Option<*mut Place<Connection>> {
    let bits = config::PLACE_BITS.load();
    if bits == 0 {
        return None;
    }
    // Sockets begin at cache lines.
    let at = places::of(low_half(sk) >> 6, bits);
    if keep::only_counts() {
        COUNTED_PLACES.get_ptr_mut(at).map(<*mut _>::cast)
    } else {
        PLACES.get_ptr_mut(at)
    }
}

/// The lower 32 bits of the address. The verifier allows no calculation with a pointer, but what is moved as half a
/// register is a number (`check_alu_op()`).
#[inline(always)]
fn low_half(sk: *mut c_void) -> u32 {
    let half: u64;
    // SAFETY: moves one register to another.
    unsafe { asm!("w0 = w1", in("r1") sk, lateout("r0") half, options(pure, nomem, nostack)) };
    half as u32
}

#[inline(always)]
fn storage(sk: *mut c_void, flags: u64) -> *mut Connection {
    let map: *const c_void =
        if keep::only_counts() { (&raw const COUNTED_SOCKETS).cast() } else { (&raw const SOCKETS).cast() };
    // SAFETY: the verifier knows the map's value size; a NULL initial value means zeroes.
    unsafe { bpf_sk_storage_get(map.cast_mut(), sk, ptr::null_mut(), flags).cast() }
}
