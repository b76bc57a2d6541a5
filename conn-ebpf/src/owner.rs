//! The task that runs now, where a hook knows it to be the owner of the socket.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use conn_common::connection::{COMM, Connection, KERNEL_OWNED, OWNER_KNOWN};

use crate::config;
use crate::kernel::{Pointer, follow, read_16, read_u32, read_u64};

/// `PF_KTHREAD`, `include/linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Notes the current task as owner. Only for hooks that run in the caller's context: CLOSE to SYN_SENT,
/// CLOSE to LISTEN and TCP_CONNECT (kernel: `tcp_v4_connect`, `inet_csk_listen_start`, `tcp_connect`).
#[inline(always)]
pub fn is_current(connection: &mut Connection) {
    // SAFETY: no preconditions; the task that runs exists.
    let task: Pointer = unsafe { bpf_get_current_task_btf() }.cast();
    connection.pid = read_u32(task, &config::TASK_TGID);
    connection.tid = read_u32(task, &config::TASK_PID);
    connection.uid = read_u32(follow(task, &config::TASK_CRED), &config::CRED_UID);
    connection.thread = comm(task);
    connection.comm = comm(follow(task, &config::TASK_GROUP_LEADER));
    let cgroup = follow(follow(task, &config::TASK_CGROUPS), &config::CSS_SET_DFL_CGRP);
    connection.cgroup = read_u64(follow(cgroup, &config::CGROUP_KN), &config::KERNFS_NODE_ID);
    connection.set(OWNER_KNOWN);
    if read_u32(task, &config::TASK_FLAGS) & PF_KTHREAD != 0 {
        connection.set(KERNEL_OWNED);
    }
}

/// The name of a task.
#[inline(always)]
pub fn comm(task: Pointer) -> [u8; COMM] {
    let [low, high] = read_16(task, &config::TASK_COMM);
    let mut comm = [0; COMM];
    comm[..8].copy_from_slice(&low.to_ne_bytes());
    comm[8..].copy_from_slice(&high.to_ne_bytes());
    comm
}
