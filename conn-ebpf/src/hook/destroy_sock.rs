//! `tcp:tcp_destroy_sock(sk)`: once per full socket, after its CLOSE.

use core::ffi::c_void;

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use conn_common::counter::CLOSED_LATE;
use conn_common::lifecycle::is_alive;
use conn_common::state::CLOSE;

use crate::counter::count;
use crate::gate::{Role, TracedSk, enter_checked, is_enabled};
use crate::storage::socket_state;
use crate::verifier::opaque;
use crate::{mode, transition};

/// The hook.
#[inline(always)]
pub(crate) fn on_event(ctx: &BtfTracePointContext) -> i32 {
    if !is_enabled() {
        return 0;
    }
    let sk: *mut c_void = ctx.arg(0);
    let state = socket_state::peek(sk);
    if is_alive(state) && !mode::skips(state) {
        debug!(ctx, "close of a socket in state {} was missed", state);
        let Some(mut entry) = enter_checked(TracedSk(sk), Role::Other, || true, || {}) else { return 0 };
        let mut socket = entry.socket();
        let close = opaque(socket.connection(), CLOSE.into()) as u8;
        count(CLOSED_LATE);
        transition::apply(socket, close);
    }
    socket_state::release(sk);
    0
}
