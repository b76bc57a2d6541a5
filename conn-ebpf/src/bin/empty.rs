//! Programs on conntrace's hooks that do nothing: what the hooks themselves cost. For `cargo xtask bench` only.

#![no_std]
#![no_main]
#![expect(missing_docs, reason = "aya's macros put a function without docs beside each hook")]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]

use aya_ebpf::bindings::BPF_SOCK_OPS_STATE_CB_FLAG;
use aya_ebpf::macros::{btf_tracepoint, sock_ops};
use aya_ebpf::programs::{BtfTracePointContext, SockOpsContext};

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn empty_state(_: BtfTracePointContext) -> i32 {
    0
}

#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn empty_destroy(_: BtfTracePointContext) -> i32 {
    0
}

/// Asks each socket for its steps, as conntrace does: else it would be called for a third of them.
#[sock_ops]
pub fn empty_ops(ctx: SockOpsContext) -> u32 {
    let flags = ctx.cb_flags();
    if flags & BPF_SOCK_OPS_STATE_CB_FLAG == 0 {
        // Whoever refuses has its steps seen by the tracepoint.
        let _ = ctx.set_cb_flags((flags | BPF_SOCK_OPS_STATE_CB_FLAG).cast_signed());
    }
    1
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
