//! `tcp:tcp_destroy_sock(sk)`: once per full socket, after its CLOSE.

use core::ffi::c_void;

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use conn_common::counter::CLOSED_LATE;
use conn_common::life::Life as _;
use conn_common::state::{CLOSE, UNSEEN};

use crate::counter::count;
use crate::mode;
use crate::socket::Socket;
use crate::storage::socket_state;
use crate::transition::is_enabled;

/// The hook.
#[inline(always)]
pub fn seen(ctx: &BtfTracePointContext) -> i32 {
    if !is_enabled() {
        return 0;
    }
    let sk: *mut c_void = ctx.arg(0);
    let state = socket_state::peek(sk);
    if state != UNSEEN && state != CLOSE && !mode::skips(state) {
        debug!(ctx, "close of a socket in state {} was missed", state);
        let Some(mut socket) = Socket::remembered(sk, true, || socket_state::has_storage(sk)) else {
            return 0;
        };
        count(CLOSED_LATE);
        socket.go(CLOSE);
    }
    socket_state::release(sk);
    0
}
