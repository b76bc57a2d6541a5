//! MPTCP: connections of another protocol, made of TCP connections (subflows). The process connects the first subflow, a
//! kernel thread connects later ones on behalf of the process.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use conn_common::counter::OWNER_FAILED;
use conn_common::listener::MptcpNote;
use conn_common::name::NO_OWNERS;
use conn_common::owner::{CONNECT, Owner};
use conn_common::state::{CLOSE, LISTEN, SYN_SENT};

use crate::counter::count;
use crate::kernel::{Pointer, Tcp, follow, read_16, read_at, read_u16, read_u64};
use crate::maps::MPTCP_OWNERS;
use crate::owner::user;
use crate::{config, owner};

/// `IPPROTO_MPTCP`, `include/uapi/linux/in.h`.
pub(crate) const PROTOCOL: u16 = 262;
/// More subflows than a connection has.
const MOST_SUBFLOWS: u32 = 16;
/// The name of the protocol on top of a subflow (`subflow_ulp_ops`, `net/mptcp/subflow.c`).
const ULP: u64 = u64::from_ne_bytes(*b"mptcp\0\0\0");

/// A hook saw a socket of another protocol than TCP go from one state to another. `current` connects it, as with TCP.
#[inline(always)]
pub(crate) fn on_step(sk: *mut c_void, old: u8, new: u8) {
    if config::SUBFLOW_CONN.load() == 0
        || config::OWNERS.load() == NO_OWNERS
        || read_u16(sk, &config::SK_PROTOCOL) != PROTOCOL
    {
        return;
    }
    if new == CLOSE {
        forget(sk);
    } else if old == CLOSE && new == SYN_SENT {
        forget(sk);
        note(sk, &owner::current(CONNECT));
    }
}

fn forget(sk: *mut c_void) {
    let key = sk as u64;
    if let Some(note) = MPTCP_OWNERS.get_ptr(&key) {
        // SAFETY: a map value, replaced as a whole.
        user::release(unsafe { (*note).user });
        let _ = MPTCP_OWNERS.remove(&key);
    }
}

/// Notes the process of an MPTCP connection, unless one is noted.
#[inline(never)]
fn note(sk: *mut c_void, owner: &Owner) -> u32 {
    let note = MptcpNote { owner: *owner, user: user::of_socket(sk), reserved: 0 };
    if !user::charge(note.user) {
        count(OWNER_FAILED);
        return 0;
    }
    if MPTCP_OWNERS.insert(&(sk as u64), &note, BPF_NOEXIST.into()).is_err() {
        user::release(note.user);
        if MPTCP_OWNERS.get_ptr(&(sk as u64)).is_none() {
            count(OWNER_FAILED);
        }
    }
    0
}

/// Assigns the owner of the MPTCP connection to a subflow that a kernel thread connects. Unknown if none is noted: the
/// thread only works for some process.
#[inline(always)]
pub(crate) fn assign_owner(subflow: Tcp, owner: &mut Owner) {
    if config::SUBFLOW_CONN.load() == 0 {
        return;
    }
    let ulp = follow(subflow.0, &config::ICSK_ULP_OPS);
    if ulp.is_null() || read_16(ulp, &config::ULP_NAME)[0] != ULP {
        return;
    }
    *owner = Owner::NONE;
    let context = read_u64(subflow.0, &config::ICSK_ULP_DATA) + u64::from(config::SUBFLOW_CONN.load());
    // SAFETY: the helper fails instead of faulting.
    let Ok(connection) = (unsafe { bpf_probe_read_kernel(context as *const u64) }) else { return };
    if let Some(note) = MPTCP_OWNERS.get_ptr(&connection) {
        // SAFETY: a map value, replaced as a whole and never changed in place.
        *owner = unsafe { (*note).owner };
    }
}

/// The listener below an MPTCP socket, by its address.
#[inline(always)]
pub(crate) fn listener(sk: *mut c_void) -> Option<u64> {
    let first = read(sk as u64, &config::MPTCP_FIRST);
    if state(first) == Some(LISTEN) { Some(first) } else { None }
}

/// The TCP state of a subflow at an address; `None` if there is none.
#[inline(always)]
pub(crate) fn state(subflow: u64) -> Option<u8> {
    // SAFETY: the helper fails instead of faulting.
    unsafe { bpf_probe_read_kernel((subflow + u64::from(config::SKC_STATE.load())) as *const u8) }.ok()
}

/// Calls `each` with the address of each subflow of an MPTCP connection. The kernel makes eight at most beside the first
/// (`MPTCP_SUBFLOWS_MAX`).
#[inline(always)]
pub(crate) fn each_subflow(sk: *mut c_void, mut each: impl FnMut(u64)) {
    if config::MPTCP_CONN_LIST.load() == 0 || config::SUBFLOW_TCP_SOCK.load() == 0 {
        each(read(sk as u64, &config::MPTCP_FIRST));
        return;
    }
    let list = sk as u64 + u64::from(config::MPTCP_CONN_LIST.load());
    let mut node = read(sk as u64, &config::MPTCP_CONN_LIST);
    let mut number = 0;
    while number < MOST_SUBFLOWS && node != list && node != 0 {
        let context = node - u64::from(config::SUBFLOW_NODE.load());
        each(read(context, &config::SUBFLOW_TCP_SOCK));
        // SAFETY: the helper fails instead of faulting.
        node = unsafe { bpf_probe_read_kernel(node as *const u64) }.unwrap_or(0);
        number += 1;
    }
}

/// Reads a pointer at an offset from an address; 0 if there is none.
#[inline(always)]
fn read(base: u64, global: &aya_ebpf::Global<u32>) -> u64 {
    read_at(base as Pointer, global)
}

/// Notes a process that has an MPTCP connection open.
#[inline(always)]
pub(crate) fn put_holder(sk: *mut c_void, owner: &Owner) {
    if config::SUBFLOW_CONN.load() != 0 {
        note(sk, owner);
    }
}
