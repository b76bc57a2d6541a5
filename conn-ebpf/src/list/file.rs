//! `iter/task_file`: every open file of every task that the maker of the iterator can see.

use core::ffi::c_void;

use aya_ebpf::bindings::file;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_sock_from_file};
use conn_common::owner::FILES;
use conn_common::row::HolderRow;

use crate::config;
use crate::kernel::{Pointer, Tcp, follow};
use crate::list::tcp::write;
use crate::owner;

/// `struct bpf_iter__task_file { meta, task, fd, file }`, `kernel/bpf/task_iter.c`.
const TASK: usize = 8;
const FILE: usize = 24;

/// The task and the file that this step of the walk shows; `None` at its end.
#[inline(always)]
pub fn open_file(ctx: *mut c_void) -> Option<(Pointer, *mut file)> {
    // SAFETY: the verifier types these loads; NULL marks the end of the walk.
    let (task, file) = unsafe {
        (
            ctx.byte_add(TASK).cast::<Pointer>().read_volatile(),
            ctx.byte_add(FILE).cast::<*mut file>().read_volatile(),
        )
    };
    if task.is_null() || file.is_null() { None } else { Some((task, file)) }
}

/// The task and the `struct sock`, of whatever protocol, if the file is a socket.
#[inline(always)]
pub fn open_socket(ctx: *mut c_void) -> Option<(Pointer, *mut c_void)> {
    let (task, file) = open_file(ctx)?;
    // SAFETY: a file that the verifier knows.
    let socket: Pointer = unsafe { bpf_sock_from_file(file) }.cast();
    if socket.is_null() { None } else { Some((task, follow(socket, &config::SOCKET_SK).cast_mut())) }
}

/// One row, if the file is a TCP socket.
#[inline(always)]
pub fn row(ctx: *mut c_void) -> i32 {
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
