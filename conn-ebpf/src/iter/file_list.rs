//! `iter/task_file`: writes a row for every TCP socket that a task has open. The iterator covers the tasks of the pid
//! namespace of its maker.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use conn_common::owner::FILES;
use conn_common::row::HolderRow;

use crate::iter::context::{open_socket, write};
use crate::kernel::Tcp;
use crate::owner;

/// One row, if the file is a TCP socket.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return 0 };
    let Some(tcp) = Tcp::of(sk) else { return 0 };
    let row = HolderRow {
        // SAFETY: a socket that the verifier knows.
        cookie: unsafe { bpf_get_socket_cookie(tcp.0) },
        owner: owner::of(task, FILES),
    };
    write(ctx, &row);
    0
}
