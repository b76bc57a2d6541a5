//! The contexts of iterators, and the rows that iterators write. No other file reads a context.

use core::ffi::c_void;

use aya_ebpf::bindings::{file, seq_file};
use aya_ebpf::helpers::generated::{bpf_seq_write, bpf_sock_from_file};

use crate::config;
use crate::kernel::{Pointer, Tcp, follow, read_u64};

/// `struct bpf_iter__tcp { meta, sk_common, uid }` (`net/ipv4/tcp_ipv4.c`), `struct bpf_iter__udp { meta, udp_sk, uid, bucket }`
/// (`net/ipv4/udp.c`) and `struct bpf_iter_meta { seq, … }`
/// (`include/linux/bpf.h`) are ABI: each member takes 8 bytes.
const SK_COMMON: usize = 8;

/// The socket of this row: a full socket, or the mini-socket of a half-open or closed connection. `None` at the end.
#[inline(always)]
pub(crate) fn shown(ctx: *mut c_void) -> Option<*mut c_void> {
    // SAFETY: the verifier types this load; NULL marks the end.
    let sk = unsafe { ctx.byte_add(SK_COMMON).cast::<*mut c_void>().read_volatile() };
    if sk.is_null() { None } else { Some(sk) }
}

/// The full socket of this row, if it is one.
#[inline(always)]
pub(crate) fn socket(ctx: *mut c_void) -> Option<Tcp> {
    Tcp::of(shown(ctx)?)
}

/// Writes a row. The kernel repeats a call whose row does not fit into the reader's page (`bpf_seq_read()`).
#[inline(always)]
pub(crate) fn write<T>(ctx: *mut c_void, row: &T) {
    // SAFETY: the first member of the context is the meta data, and its first member the output file.
    let seq = unsafe { ctx.cast::<*mut *mut seq_file>().read_volatile().read_volatile() };
    // SAFETY: the row lies on the stack for as long as the call lasts.
    let _ = unsafe { bpf_seq_write(seq, (&raw const *row).cast_mut().cast(), size_of::<T>() as u32) };
}

/// `struct bpf_iter__task_file { meta, task, fd, file }`, `kernel/bpf/task_iter.c`.
const TASK: usize = 8;
const FILE: usize = 24;
const FD: usize = 16;

/// The task and the file of this row; `None` at the end.
#[inline(always)]
pub(crate) fn open_file(ctx: *mut c_void) -> Option<(Pointer, *mut file)> {
    // SAFETY: the verifier types these loads; NULL marks the end.
    let (task, file) = unsafe {
        (
            ctx.byte_add(TASK).cast::<Pointer>().read_volatile(),
            ctx.byte_add(FILE).cast::<*mut file>().read_volatile(),
        )
    };
    if task.is_null() || file.is_null() { None } else { Some((task, file)) }
}

/// The task and the `struct sock` of any protocol, if the file is a socket.
#[inline(always)]
pub(crate) fn open_socket(ctx: *mut c_void) -> Option<(Pointer, *mut c_void)> {
    let (task, file) = open_file(ctx)?;
    // SAFETY: a file that the verifier knows.
    let socket: Pointer = unsafe { bpf_sock_from_file(file) }.cast();
    if socket.is_null() { None } else { Some((task, follow(socket, &config::SOCKET_SK).cast_mut())) }
}

/// The inode number of the file of this row; 0 at the end.
#[inline(always)]
pub(crate) fn inode_number(ctx: *mut c_void) -> u64 {
    let Some((_, file)) = open_file(ctx) else { return 0 };
    read_u64(follow(file.cast(), &config::FILE_INODE), &config::INODE_INO)
}

/// The number of the file system that a file is in.
#[inline(always)]
pub(crate) fn file_system(file: *mut file) -> u64 {
    read_u64(follow(follow(file.cast(), &config::FILE_INODE), &config::INODE_SB), &config::SB_MAGIC)
}

/// The descriptor under which the task has the file open.
#[inline(always)]
pub(crate) fn descriptor(ctx: *mut c_void) -> u32 {
    // SAFETY: a scalar of the context, which the verifier knows.
    unsafe { ctx.byte_add(FD).cast::<u32>().read_volatile() }
}
