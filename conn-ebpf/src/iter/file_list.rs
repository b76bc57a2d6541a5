//! `iter/task_file`: writes a row for every TCP or UDP socket that a task has open. The iterator covers the tasks of the pid
//! namespace of its maker.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use conn_common::owner::FILES;
use conn_common::row::HolderRow;

use crate::config;
use crate::iter::context::{inode_number, open_socket, write};
use crate::kernel::{Tcp, read_u16};
use crate::owner::{self, mptcp};
use crate::udp::Udp;

/// One row, if the file is a TCP socket, or one of MPTCP; with `UDP` also one of UDP.
#[inline(always)]
pub(crate) fn on_row<const UDP: bool>(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return 0 };
    let (mut cookie, mut inode) = (0, 0);
    if let Some(tcp) = Tcp::of(sk) {
        // SAFETY: a socket that the verifier knows.
        cookie = unsafe { bpf_get_socket_cookie(tcp.0) };
    } else if read_u16(sk, &config::SK_PROTOCOL) == mptcp::PROTOCOL {
        // An accepted MPTCP socket has the cookie of its listener.
        inode = inode_number(ctx);
    } else if UDP && Udp::of(sk).is_some() {
        // SAFETY: as above.
        cookie = unsafe { bpf_get_socket_cookie(sk) };
    } else {
        return 0;
    }
    write(ctx, &HolderRow { cookie, inode, owner: owner::of(task, FILES) });
    0
}
