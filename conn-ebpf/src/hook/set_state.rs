//! `sock:inet_sock_set_state(sk, oldstate, newstate)`: every transition of every TCP socket, fired by
//! `inet_sk_set_state()` and `inet_sk_state_store()` just before the state is stored.

use core::ffi::c_void;

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::trace;
use conn_common::lifecycle::opens;

use crate::gate::{Role, Step, TracedSk, enter, is_enabled};
use crate::kernel::{TCP, read_u16};
use crate::owner::mptcp;
use crate::storage::socket_state;
use crate::{config, filter, mode, stateless};

/// The hook.
#[inline(always)]
pub(crate) fn on_event(ctx: &BtfTracePointContext, role: Role) -> i32 {
    let old = ctx.arg::<i32>(1).cast_unsigned() as u8;
    let new = ctx.arg::<i32>(2).cast_unsigned() as u8;
    if old == new {
        return 0;
    }
    let sk: *mut c_void = ctx.arg(0);
    // sock_ops saw most steps but the first a moment ago, so most calls end here, except where most sockets have no state.
    let may_be_known = !filter::may_pass_over() && !mode::skips(old) && !opens(old, new);
    if may_be_known && socket_state::peek(sk) == new {
        return 0;
    }
    if read_u16(sk, &config::SK_PROTOCOL) != TCP {
        if is_enabled() {
            mptcp::on_step(sk, old, new);
        }
        return 0;
    }
    trace!(ctx, "set_state {} -> {}", old, new);
    let no_memory = || {
        if role == Role::First {
            stateless::on_step(sk, old, new);
        }
    };
    if let Some(mut entry) = enter(TracedSk(sk), role, || Step { old, new }, no_memory) {
        entry.socket().on_step(old, new);
    }
    0
}
