//! `iter/tcp`: the sockets of the network namespace of whoever made the iterator.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write};
use conn_common::connection::Connection;
use conn_common::row::SocketRow;
use conn_common::traffic::Traffic;

use crate::kernel::Tcp;
use crate::{keep, tuple};

/// `struct bpf_iter__tcp { meta, sk_common, uid }` (`net/ipv4/tcp_ipv4.c`) and `struct bpf_iter_meta
/// { seq, … }` (include/linux/bpf.h) are the programs' ABI: each member takes 8 bytes.
const SK_COMMON: usize = 8;

/// The full socket that this step of the walk shows; `None` at the end of the walk and for the
/// mini-sockets of half-open and of closed connections.
#[inline(always)]
pub fn socket(ctx: *mut c_void) -> Option<Tcp> {
    // SAFETY: the verifier types this load; NULL marks the end of the walk.
    let sk = unsafe { ctx.byte_add(SK_COMMON).cast::<*mut c_void>().read_volatile() };
    if sk.is_null() { None } else { Tcp::of(sk) }
}

/// Writes a row of an iterator. What does not fit into the reader's page is asked for again.
#[inline(always)]
pub fn write<T>(ctx: *mut c_void, row: &T) {
    // SAFETY: the first member of the context is the walk's meta data, and of that the output file.
    let seq = unsafe { ctx.cast::<*mut *mut seq_file>().read_volatile().read_volatile() };
    // SAFETY: the row lies on the stack for as long as the call lasts.
    let _ = unsafe { bpf_seq_write(seq, (&raw const *row).cast_mut().cast(), size_of::<T>() as u32) };
}

/// One row, if the run wants the socket.
#[inline(always)]
pub fn row(ctx: *mut c_void) -> i32 {
    let Some(tcp) = socket(ctx) else { return 0 };
    let state = tcp.state();
    let mut row = SocketRow { cookie: 0, traffic: Traffic::NONE, connection: Connection::UNSEEN };
    row.connection.state = state;
    tuple::of_existing(tcp, &mut row.connection, state);
    row.connection.netns = tcp.netns();
    if keep::wants(&row.connection) {
        // SAFETY: a socket that the verifier knows.
        row.cookie = unsafe { bpf_get_socket_cookie(tcp.0) };
        write(ctx, &row);
    }
    0
}
