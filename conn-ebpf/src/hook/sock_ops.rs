//! Socket operations on the cgroup v2 root. Not a tracing program: nothing makes the kernel skip it.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
};
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::trace;
use conn_common::counter::{FLAGS_FAILED, NO_SOCKET};
use conn_common::life::{self, Life as _};
use conn_common::state::{CLOSE, ESTABLISHED, LISTEN, SYN_RECV, SYN_SENT, UNSEEN};

use crate::counter::count;
use crate::mode;
use crate::socket::Socket;
use crate::transition::is_enabled;

/// "Go on": the only answer that leaves the connection alone (`tcp_call_bpf()`).
const GO_ON: u32 = 1;

/// The hook.
#[inline(always)]
pub fn seen(ctx: &SockOpsContext) -> u32 {
    let op = ctx.op();
    if !matters(op) || !is_enabled() {
        return GO_ON;
    }
    if op == BPF_SOCK_OPS_STATE_CB && mode::skips(ctx.arg(0) as u8) {
        return GO_ON;
    }
    // Called after the step, which STATE has told if it was asked to.
    if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && tells_state(ctx) {
        return GO_ON;
    }
    // SAFETY: a field of the context that the verifier knows; it may be NULL.
    let sk: *mut c_void = unsafe { (*ctx.ops).__bindgen_anon_2.sk }.cast();
    if sk.is_null() {
        count(NO_SOCKET);
        return GO_ON;
    }
    let is_listener = op == BPF_SOCK_OPS_TCP_LISTEN_CB
        || (op == BPF_SOCK_OPS_STATE_CB && life::is_of_listener(ctx.arg(0) as u8, ctx.arg(1) as u8));
    let Some(mut socket) = Socket::remembered(sk, is_listener, || true) else { return GO_ON };
    trace!(ctx, "sock_ops {}", op);
    if op == BPF_SOCK_OPS_STATE_CB && socket.passes(ctx.arg(0) as u8, ctx.arg(1) as u8) {
        return GO_ON;
    }
    let known = socket.state();
    // One call for all of them: the verifier follows each call by itself.
    let (old, new) = match op {
        BPF_SOCK_OPS_STATE_CB => (ctx.arg(0) as u8, ctx.arg(1) as u8),
        BPF_SOCK_OPS_TCP_CONNECT_CB => (CLOSE, SYN_SENT),
        BPF_SOCK_OPS_TCP_LISTEN_CB => (CLOSE, LISTEN),
        // Called in SYN_RECV, before the step to ESTABLISHED (tcp_rcv_state_process); for two SYNs
        // that crossed also on the side that connected.
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB if known == SYN_SENT => (SYN_SENT, SYN_RECV),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB if known == UNSEEN || known == CLOSE => (LISTEN, SYN_RECV),
        // Called after the step (tcp_finish_connect).
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB if known == UNSEEN || known == SYN_SENT => (SYN_SENT, ESTABLISHED),
        _ => (known, known),
    };
    // Children ask for what their listener has asked for.
    if op != BPF_SOCK_OPS_STATE_CB && !(is_listener && socket.passes_over_children()) {
        watch_state(ctx);
    }
    socket.goes(old, new);
    // Read once more: what the verifier knows of the first reading would have it follow each kind by itself.
    // SAFETY: as above.
    match unsafe { (&raw const (*ctx.ops).op).read_volatile() } {
        BPF_SOCK_OPS_TCP_CONNECT_CB => socket.connects(),
        BPF_SOCK_OPS_TCP_LISTEN_CB => socket.listens(),
        _ => {}
    }
    GO_ON
}

#[inline(always)]
fn matters(op: u32) -> bool {
    op == BPF_SOCK_OPS_STATE_CB
        || op == BPF_SOCK_OPS_TCP_CONNECT_CB
        || op == BPF_SOCK_OPS_TCP_LISTEN_CB
        || op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
        || op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB
}

/// True if this socket's state changes were asked for.
#[inline(always)]
fn tells_state(ctx: &SockOpsContext) -> bool {
    ctx.cb_flags() & BPF_SOCK_OPS_STATE_CB_FLAG != 0
}

/// Asks for this socket's state changes, beside whatever other programs asked for.
#[inline(always)]
fn watch_state(ctx: &SockOpsContext) {
    if !tells_state(ctx)
        && ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG).cast_signed()).is_err()
    {
        count(FLAGS_FAILED);
    }
}
