//! `iter/task_file`: writes a row for every socket and every `io_uring` that a task has open. The iterator covers the tasks of
//! the pid namespace of its maker.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use conn_common::owner::FILES;
use conn_common::row::{HolderRow, NO_DESCRIPTOR};

use crate::config;
use crate::iter::context::{descriptor, file_system, inode_number, open_file, open_socket, write};
use crate::kernel::{Pointer, Tcp, read_at, read_u16};
use crate::owner::{self, mptcp};
use crate::udp::Udp;
use crate::unix::{self, Unix};

/// `ANON_INODE_FS_MAGIC`, `include/uapi/linux/magic.h`: the file system of rings, among others.
const ANON_INODE_FS_MAGIC: u64 = 0x0904_1934;
/// The name of a ring (`io_uring_get_file()`), but for its last two bytes.
const RING: u64 = u64::from_ne_bytes(*b"[io_urin");

/// One row, if the file is a TCP socket, one of MPTCP, or a ring; with `OTHERS` also one of UDP. A run of Unix domain sockets
/// has rows of those and of rings only.
#[inline(always)]
pub(crate) fn on_row<const OTHERS: bool>(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return on_file(ctx) };
    let (mut cookie, mut inode) = (0, 0);
    if OTHERS && unix::are_wanted() {
        if Unix::of(sk).is_none() {
            return 0;
        }
        inode = inode_number(ctx);
    } else if let Some(tcp) = Tcp::of(sk) {
        // SAFETY: a socket that the verifier knows.
        cookie = unsafe { bpf_get_socket_cookie(tcp.0) };
    } else if read_u16(sk, &config::SK_PROTOCOL) == mptcp::PROTOCOL {
        // An accepted MPTCP socket has the cookie of its listener.
        inode = inode_number(ctx);
    } else if OTHERS && Udp::of(sk).is_some() {
        // SAFETY: as above.
        cookie = unsafe { bpf_get_socket_cookie(sk) };
    } else {
        return 0;
    }
    let owner = owner::of(task, FILES);
    write(ctx, &HolderRow { cookie, inode, ring: NO_DESCRIPTOR, reserved: 0, owner });
    0
}

/// One row, if the file, which is no socket, is a ring.
#[inline(always)]
fn on_file(ctx: *mut c_void) -> i32 {
    let Some((task, file)) = open_file(ctx) else { return 0 };
    if file_system(file) != ANON_INODE_FS_MAGIC || !is_ring(file.cast()) {
        return 0;
    }
    let owner = owner::of(task, FILES);
    write(ctx, &HolderRow { cookie: 0, inode: 0, ring: descriptor(ctx), reserved: 0, owner });
    0
}

/// True if a file without a place in a directory is a ring, by its name.
#[inline(always)]
fn is_ring(file: Pointer) -> bool {
    if config::FILE_DENTRY.load() == 0 || config::DENTRY_NAME.load() == 0 {
        return false;
    }
    let name = read_at(read_at(file, &config::FILE_DENTRY) as Pointer, &config::DENTRY_NAME);
    // SAFETY: the helper fails instead of faulting.
    let name = unsafe { bpf_probe_read_kernel(name as *const u64) };
    name == Ok(RING)
}
