//! `iter/task_file`: writes a row for every file that keeps a network namespace: a file of the namespace, or a socket in
//! another namespace than its task.

use core::ffi::c_void;

use conn_common::row::{NO_DESCRIPTOR, NamespaceRow};

use crate::config;
use crate::iter::context::{descriptor, file_system, inode_number, open_file, open_socket, write};
use crate::iter::foreign_list::is_foreign;
use crate::kernel::{Tcp, read_u32};
use crate::udp::Udp;
use crate::unix::{self, Unix};

/// `NSFS_MAGIC`, `include/uapi/linux/magic.h`: the file system of namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// One row, if the file keeps a namespace. A socket is one of TCP; with `OTHERS` also one of UDP. A run of Unix domain sockets
/// has rows of those only.
#[inline(always)]
pub(crate) fn on_row<const OTHERS: bool>(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return on_file(ctx) };
    let sk = match () {
        () if OTHERS && unix::are_wanted() => Unix::of(sk).map(|unix| unix.0),
        () if OTHERS => Tcp::of(sk).or_else(|| Udp::of(sk).map(|udp| udp.0)),
        () => Tcp::of(sk),
    };
    let Some(sk) = sk.filter(|&sk| is_foreign(task, sk)) else { return 0 };
    let row = NamespaceRow {
        inode: u64::from(sk.netns()),
        pid: read_u32(task, &config::TASK_TGID),
        fd: NO_DESCRIPTOR,
    };
    write(ctx, &row);
    0
}

/// One row, if the file, which is no socket, is a namespace.
#[inline(always)]
pub(crate) fn on_file(ctx: *mut c_void) -> i32 {
    let Some((task, file)) = open_file(ctx) else { return 0 };
    if file_system(file) != NSFS_MAGIC {
        return 0;
    }
    let row = NamespaceRow {
        inode: inode_number(ctx),
        pid: read_u32(task, &config::TASK_TGID),
        fd: descriptor(ctx),
    };
    write(ctx, &row);
    0
}
