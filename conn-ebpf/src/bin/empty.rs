//! Programs on conntrace's hooks that do nothing, or only make a storage for each socket: the cost of the hooks and of the
//! storage. For `cargo xtask bench` only.

#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the license is a named section of the object")]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]

use aya_ebpf::bindings::BPF_SOCK_OPS_STATE_CB_FLAG;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, btf_tracepoint, cgroup_skb, cgroup_sock, sock_ops};
use aya_ebpf::programs::{BtfTracePointContext, SkBuffContext, SockContext, SockOpsContext};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn empty_state(_: BtfTracePointContext) -> i32 {
    0
}

/// As large as the state of a run that only counts.
#[btf_map]
static MEMORY: SkStorage<[u64; 2]> = SkStorage::new();

/// `BPF_SK_STORAGE_GET_F_CREATE`, `include/uapi/linux/bpf.h`.
const CREATE: u64 = 1;

/// In place of `empty_state`: makes the storage at the first step, as conntrace does, and finds it at all others.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn remember_state(ctx: BtfTracePointContext) -> i32 {
    let map = (&raw const MEMORY).cast_mut().cast();
    // SAFETY: the verifier knows both; a NULL initial value means zeroes.
    let memory = unsafe { bpf_sk_storage_get(map, ctx.arg(0), core::ptr::null_mut(), CREATE) };
    i32::from(memory.is_null())
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn empty_destroy(_: BtfTracePointContext) -> i32 {
    0
}

/// Asks each socket for its steps, as conntrace does: without that, the kernel calls it for a third of them.
#[sock_ops]
pub(crate) fn empty_ops(ctx: SockOpsContext) -> u32 {
    let flags = ctx.cb_flags();
    if flags & BPF_SOCK_OPS_STATE_CB_FLAG == 0 {
        // The tracepoint sees the steps of a socket that refuses.
        let _ = ctx.set_cb_flags((flags | BPF_SOCK_OPS_STATE_CB_FLAG).cast_signed());
    }
    1
}

#[cgroup_skb(egress)]
pub(crate) fn empty_egress(_: SkBuffContext) -> i32 {
    1
}

#[cgroup_skb(ingress)]
pub(crate) fn empty_ingress(_: SkBuffContext) -> i32 {
    1
}

#[cgroup_sock(sock_release)]
pub(crate) fn empty_release(_: SockContext) -> i32 {
    1
}

#[cgroup_sock(post_bind4)]
pub(crate) fn empty_bind4(_: SockContext) -> i32 {
    1
}

#[cgroup_sock(post_bind6)]
pub(crate) fn empty_bind6(_: SockContext) -> i32 {
    1
}

#[btf_tracepoint(function = "inet_sk_error_report")]
pub(crate) fn empty_error(_: BtfTracePointContext) -> i32 {
    0
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
