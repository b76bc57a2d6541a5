//! `iter/task_file`: writes a row for every TCP socket that is in another network namespace than its task. A namespace
//! without threads and files, which no walk can enter, shows itself so. The sockets are not locked.

use core::ffi::c_void;

use conn_common::row::SocketRow;

use crate::config;
use crate::iter::context::{open_socket, write};
use crate::iter::tcp_list;
use crate::kernel::{Pointer, Tcp, follow, read_u32};

/// One row, if the file is such a socket and the run wants it.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return 0 };
    let Some(tcp) = foreign(task, sk) else { return 0 };
    let mut row = SocketRow::EMPTY;
    if tcp_list::fill(tcp, &mut row) {
        write(ctx, &row);
    }
    0
}

/// The TCP socket `sk`, if it is in another network namespace than `task`.
#[inline(always)]
pub(crate) fn foreign(task: Pointer, sk: *mut c_void) -> Option<Tcp> {
    let tcp = Tcp::of(sk)?;
    if is_foreign(task, tcp) { Some(tcp) } else { None }
}

/// True if a socket of any protocol is in another network namespace than `task`.
#[inline(always)]
pub(crate) fn is_foreign(task: Pointer, sk: Tcp) -> bool {
    // A task that ends has no namespaces: its number reads as 0.
    let net = follow(follow(task, &config::TASK_NSPROXY), &config::NSPROXY_NET);
    read_u32(net, &config::NET_INUM) != sk.netns()
}
