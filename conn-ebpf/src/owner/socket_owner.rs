//! The owner that a UDP socket remembers, for flows that come in: the task that bound it, or the last one that replied
//! through it. In socket storage, which the kernel frees with the socket.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use conn_common::counter::OWNER_FAILED;
use conn_common::flow::SocketOwner;
use conn_common::owner::Owner;

use crate::counter::{add, count};
use crate::maps::FLOW_OWNERS;
use crate::storage::assoc_table::compare_exchange;

/// The map, as helpers take it.
#[inline(always)]
fn map() -> *mut c_void {
    (&raw const FLOW_OWNERS).cast_mut().cast()
}

/// Notes an owner. `sk` is the context of a hook on a socket.
#[inline(always)]
pub(crate) fn note(sk: *mut c_void, owner: &Owner) {
    // SAFETY: the verifier knows the socket; a NULL initial value means zeroes.
    let noted = unsafe { bpf_sk_storage_get(map(), sk, ptr::null_mut(), BPF_SK_STORAGE_GET_F_CREATE.into()) };
    if noted.is_null() {
        count(OWNER_FAILED);
    } else {
        write(noted.cast(), owner);
    }
}

/// Replaces the owner of a socket that has one. `sk` is the socket of a packet.
#[inline(always)]
pub(crate) fn replace(sk: *mut c_void, owner: &Owner) {
    // SAFETY: as above.
    let noted = unsafe { bpf_sk_storage_get(map(), sk, ptr::null_mut(), 0) };
    if !noted.is_null() {
        write(noted.cast(), owner);
    }
}

/// Writes the owner, unless another CPU writes one now.
#[inline(always)]
fn write(noted: *mut SocketOwner, owner: &Owner) {
    // SAFETY: a map value; only the CPU that made the version odd writes the owner.
    unsafe {
        let version = &raw mut (*noted).version;
        let before = version.read_volatile();
        if before & 1 == 0 && compare_exchange(version, before, before + 1) == before {
            (&raw mut (*noted).owner).write(*owner);
            add(version, 1);
        }
    }
}

/// Reads the owner of the socket of a packet into `to`. False if there is none, or if another CPU writes one now.
#[inline(always)]
pub(crate) fn read(sk: *mut c_void, to: *mut Owner) -> bool {
    // SAFETY: as above; a copy that a writer may have torn is not used.
    unsafe {
        let noted: *mut SocketOwner = bpf_sk_storage_get(map(), sk, ptr::null_mut(), 0).cast();
        if noted.is_null() {
            return false;
        }
        let version = &raw mut (*noted).version;
        let before = version.read_volatile();
        to.write((&raw const (*noted).owner).read());
        before & 1 == 0 && before != 0 && version.read_volatile() == before
    }
}
