//! Owners of sockets: the task that runs now, where a hook knows that it is the owner, and the sources beside it.

pub(crate) mod listener;
pub(crate) mod mptcp;
pub(crate) mod socket_owner;
pub(crate) mod user;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use conn_common::connection::{Connection, IN};
use conn_common::name::{HOLDERS, NO_OWNERS};
use conn_common::owner::{ACCEPT, COMM, CONNECT, KERNEL, Owner, UNKNOWN};

use crate::config;
use crate::kernel::{Pointer, Tcp, follow, read_16, read_u32, read_u64};
use crate::storage::pending_owner;

/// `PF_KTHREAD`, `include/linux/sched.h`.
const PF_KTHREAD: u32 = 0x0020_0000;

/// The current task as an owner that is known by `source`. Only for hooks in the caller's context: CLOSE to SYN_SENT and
/// CLOSE to LISTEN (`tcp_v4_connect()`, `inet_csk_listen_start()`), and the return of an accept.
#[inline(always)]
pub(crate) fn current(source: u8) -> Owner {
    // SAFETY: no preconditions; the task that runs exists.
    of(unsafe { bpf_get_current_task_btf() }.cast(), source)
}

/// The address of the process (its group leader) that runs now.
#[inline(always)]
pub(crate) fn current_process() -> u64 {
    // SAFETY: no preconditions; the task that runs exists.
    process_of(unsafe { bpf_get_current_task_btf() }.cast())
}

/// The address of the process of a task.
#[inline(always)]
pub(crate) fn process_of(task: Pointer) -> u64 {
    follow(task, &config::TASK_GROUP_LEADER) as u64
}

/// True if the process at this address is still the one that began at `start_ns`, and lives. A later process in the same
/// memory began at another time.
#[inline(always)]
pub(crate) fn is_alive(process: u64, start_ns: u64) -> bool {
    // SAFETY: the helper fails instead of faulting.
    unsafe {
        let start =
            bpf_probe_read_kernel((process + u64::from(config::TASK_START_BOOTTIME.load())) as *const u64);
        let exit = bpf_probe_read_kernel((process + u64::from(config::TASK_EXIT_STATE.load())) as *const u32);
        start == Ok(start_ns) && exit == Ok(0)
    }
}

/// A task as an owner.
#[inline(always)]
pub(crate) fn of(task: Pointer, source: u8) -> Owner {
    let leader = follow(task, &config::TASK_GROUP_LEADER);
    let cgroup = follow(follow(task, &config::TASK_CGROUPS), &config::CSS_SET_DFL_CGRP);
    Owner {
        cgroup: read_u64(follow(cgroup, &config::CGROUP_KN), &config::KERNFS_NODE_ID),
        start_ns: read_u64(leader, &config::TASK_START_BOOTTIME),
        pid: read_u32(task, &config::TASK_TGID),
        tid: read_u32(task, &config::TASK_PID),
        uid: read_u32(follow(task, &config::TASK_CRED), &config::CRED_UID),
        comm: comm(leader),
        thread: comm(task),
        flags: if read_u32(task, &config::TASK_FLAGS) & PF_KTHREAD != 0 { KERNEL } else { 0 },
        source,
        holders: 0,
    }
}

/// The name of a task.
#[inline(always)]
pub(crate) fn comm(task: Pointer) -> [u8; COMM] {
    let [low, high] = read_16(task, &config::TASK_COMM);
    let mut comm = [0; COMM];
    comm[..8].copy_from_slice(&low.to_ne_bytes());
    comm[8..].copy_from_slice(&high.to_ne_bytes());
    comm
}

/// Assigns the best owner that is known by now. The caller has the socket's lock.
#[inline(always)]
pub(crate) fn assign(tcp: Tcp, connection: &mut Connection, was_held: bool) {
    if config::OWNERS.load() == NO_OWNERS {
        return;
    }
    let source = connection.owner.source;
    if source == CONNECT || source == ACCEPT {
        return;
    }
    if config::OWNERS.load() == HOLDERS && pending_owner::take(tcp.0, &mut connection.owner) {
        return;
    }
    // A connection that was accepted before the start need not belong to the task that listens now.
    if connection.direction == IN && source == UNKNOWN && !was_held {
        listener::assign_owner(tcp, connection);
    }
}
