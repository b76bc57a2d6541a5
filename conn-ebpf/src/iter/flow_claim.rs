//! `iter/task_file`: notes the owners of UDP sockets that existed before the start.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use conn_common::owner::{FILES, Owner};

use crate::config;
use crate::iter::context::open_socket;
use crate::kernel::read_u32;
use crate::maps::FLOW_HOLDERS;
use crate::owner;
use crate::udp::Udp;

/// The iterator. The owner of a socket that several processes have open has their number, as for TCP.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return 0 };
    if Udp::of(sk).is_none() {
        return 0;
    }
    // SAFETY: a socket that the verifier knows.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    let mut owner = Owner { holders: 1, ..owner::of(task, FILES) };
    if let Some(noted) = FLOW_HOLDERS.get_ptr(&cookie) {
        // SAFETY: a map value, replaced as a whole and never changed in place.
        let mut merged = unsafe { *noted };
        merged.merge_holder(&owner, read_u32(sk, &config::SK_UID));
        owner = merged;
    }
    // A map that is full leaves the owner unknown until the socket sends.
    let _ = FLOW_HOLDERS.insert(&cookie, &owner, BPF_ANY.into());
    0
}
