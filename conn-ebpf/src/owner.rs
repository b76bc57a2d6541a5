//! The task that runs now, where a hook knows it to be the owner of the socket.

use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use conn_common::name::NO_OWNERS;
use conn_common::owner::{COMM, KERNEL, Owner};

use crate::config;
use crate::kernel::{Pointer, follow, read_16, read_u32, read_u64};

/// `PF_KTHREAD`, `include/linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Notes the current task as owner, known by `source`. Only for hooks that run in the caller's context:
/// CLOSE to SYN_SENT, CLOSE to LISTEN (kernel: `tcp_v4_connect`, `inet_csk_listen_start`), and the return of an accept.
#[inline(always)]
pub fn is_current(owner: &mut Owner, source: u8) {
    if config::OWNERS.load() == NO_OWNERS {
        return;
    }
    // SAFETY: no preconditions; the task that runs exists.
    let task: Pointer = unsafe { bpf_get_current_task_btf() }.cast();
    is_task(owner, task, source);
}

/// Notes `task` as owner.
#[inline(always)]
pub fn is_task(owner: &mut Owner, task: Pointer, source: u8) {
    let leader = follow(task, &config::TASK_GROUP_LEADER);
    let cgroup = follow(follow(task, &config::TASK_CGROUPS), &config::CSS_SET_DFL_CGRP);
    owner.cgroup = read_u64(follow(cgroup, &config::CGROUP_KN), &config::KERNFS_NODE_ID);
    owner.start_ns = read_u64(leader, &config::TASK_START_BOOTTIME);
    owner.pid = read_u32(task, &config::TASK_TGID);
    owner.tid = read_u32(task, &config::TASK_PID);
    owner.uid = read_u32(follow(task, &config::TASK_CRED), &config::CRED_UID);
    owner.comm = comm(leader);
    owner.thread = comm(task);
    owner.flags = if read_u32(task, &config::TASK_FLAGS) & PF_KTHREAD != 0 { KERNEL } else { 0 };
    owner.source = source;
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
