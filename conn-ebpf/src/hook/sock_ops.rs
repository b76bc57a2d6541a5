//! Socket operations on the cgroup v2 root. Not a tracing program, so the kernel never skips it.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
    BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
    BPF_SOCK_OPS_TIMEOUT_INIT,
};
use aya_ebpf::programs::SockOpsContext;
use aya_log_ebpf::trace;
use conn_common::counter::{FLAGS_FAILED, NO_SOCKET};
use conn_common::state::{CLOSE, ESTABLISHED, LISTEN, SYN_RECV, SYN_SENT, UNSEEN};

use crate::counter::count;
use crate::gate::{OpsSk, Role, Step, enter};
use crate::hook::request;
use crate::{mode, transition};

/// "Go on": the only answer that leaves the connection alone (`tcp_call_bpf()`).
pub(crate) const GO_ON: u32 = 1;

/// The hook.
#[inline(always)]
pub(crate) fn on_event(ctx: &SockOpsContext) -> u32 {
    let op = ctx.op();
    if op == BPF_SOCK_OPS_TIMEOUT_INIT {
        if mode::counts_remotes() {
            request::on_begin_from(ctx);
        } else {
            request::on_begin(ctx);
        }
        return GO_ON;
    }
    // ACTIVE_ESTABLISHED comes after the step, which STATE has shown if the socket was asked for it.
    if !matters(op) || (op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB && is_watched(ctx)) {
        return GO_ON;
    }
    // SAFETY: a field of the context that the verifier knows; it may be NULL.
    let sk: *mut c_void = unsafe { (*ctx.ops).__bindgen_anon_2.sk }.cast();
    if sk.is_null() {
        count(NO_SOCKET);
        return GO_ON;
    }
    // Of the other operations, the gate needs to know only that of a listener.
    let step = || match op {
        BPF_SOCK_OPS_STATE_CB => Step { old: ctx.arg(0) as u8, new: ctx.arg(1) as u8 },
        BPF_SOCK_OPS_TCP_LISTEN_CB => Step { old: CLOSE, new: LISTEN },
        _ => Step { old: CLOSE, new: SYN_SENT },
    };
    let Some(mut entry) = enter(OpsSk(sk), Role::Other, step, || {}) else { return GO_ON };
    trace!(ctx, "sock_ops {}", op);
    let mut socket = entry.socket();
    if op == BPF_SOCK_OPS_STATE_CB && socket.count_step(ctx.arg(0) as u8, ctx.arg(1) as u8) {
        return GO_ON;
    }
    let known = socket.state();
    // One call for all of them: the verifier follows each call by itself.
    let (old, new) = match op {
        BPF_SOCK_OPS_STATE_CB => (ctx.arg(0) as u8, ctx.arg(1) as u8),
        BPF_SOCK_OPS_TCP_CONNECT_CB => (CLOSE, SYN_SENT),
        BPF_SOCK_OPS_TCP_LISTEN_CB => (CLOSE, LISTEN),
        // Called in SYN_RECV, before the step to ESTABLISHED (`tcp_rcv_state_process()`); for two SYNs that crossed
        // also on the side that connected.
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB if known == SYN_SENT => (SYN_SENT, SYN_RECV),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB if known == UNSEEN || known == CLOSE => (LISTEN, SYN_RECV),
        // Called after the step (`tcp_finish_connect()`).
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB if known == UNSEEN || known == SYN_SENT => (SYN_SENT, ESTABLISHED),
        _ => (known, known),
    };
    // Children inherit the request of their listener.
    let is_listener = op == BPF_SOCK_OPS_TCP_LISTEN_CB;
    if op != BPF_SOCK_OPS_STATE_CB && !(is_listener && socket.passes_over_children()) {
        watch_state(ctx);
    }
    socket.on_step(old, new);
    // A second read: of a register, the verifier would know the value and follow each operation by itself.
    // SAFETY: as above.
    match unsafe { (&raw const (*ctx.ops).op).read_volatile() } {
        BPF_SOCK_OPS_TCP_CONNECT_CB => transition::on_connect(socket),
        BPF_SOCK_OPS_TCP_LISTEN_CB => transition::on_listen(socket),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => request::on_child(ctx),
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

/// True if the socket was asked for its state changes.
#[inline(always)]
fn is_watched(ctx: &SockOpsContext) -> bool {
    ctx.cb_flags() & BPF_SOCK_OPS_STATE_CB_FLAG != 0
}

/// Asks the socket for its state changes, beside what other programs asked for.
#[inline(always)]
fn watch_state(ctx: &SockOpsContext) {
    if !is_watched(ctx)
        && ctx.set_cb_flags((ctx.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG).cast_signed()).is_err()
    {
        count(FLAGS_FAILED);
    }
}
