//! `iter/task_file`, for files that keep a namespace.

use core::ffi::c_void;

use conn_common::row::NamespaceRow;

use crate::config;
use crate::kernel::{follow, read_u32, read_u64};
use crate::list::file::open_file;
use crate::list::tcp::write;

/// `NSFS_MAGIC`, `include/uapi/linux/magic.h`: the file system of namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// The descriptor in `struct bpf_iter__task_file`.
const FD: usize = 16;

/// One row, if the file is a namespace.
#[inline(always)]
pub fn row(ctx: *mut c_void) -> i32 {
    let Some((task, file)) = open_file(ctx) else { return 0 };
    let inode = follow(file.cast(), &config::FILE_INODE);
    if read_u64(follow(inode, &config::INODE_SB), &config::SB_MAGIC) != NSFS_MAGIC {
        return 0;
    }
    let row = NamespaceRow {
        inode: read_u64(inode, &config::INODE_INO),
        pid: read_u32(task, &config::TASK_TGID),
        // SAFETY: a scalar of the context, which the verifier knows.
        fd: unsafe { ctx.byte_add(FD).cast::<u32>().read_volatile() },
    };
    write(ctx, &row);
    0
}
