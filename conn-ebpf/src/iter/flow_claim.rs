//! `iter/task_file`: notes the owners of UDP sockets that existed before the start.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use conn_common::owner::FILES;

use crate::iter::context::open_socket;
use crate::maps::FLOW_HOLDERS;
use crate::owner;
use crate::udp::Udp;

/// The iterator. Of several processes with one socket, the first one is noted.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return 0 };
    if Udp::of(sk).is_none() {
        return 0;
    }
    // SAFETY: a socket that the verifier knows.
    let cookie = unsafe { bpf_get_socket_cookie(sk) };
    // A map that is full leaves the owner unknown until the socket sends.
    let _ = FLOW_HOLDERS.insert(&cookie, &owner::of(task, FILES), BPF_NOEXIST.into());
    0
}
