//! `tcp:tcp_destroy_sock(sk)`: once per full socket, after its CLOSE.

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::debug;
use conn_common::counter::{CLOSED_LATE, NO_SOCKET};
use conn_common::life::Life as _;
use conn_common::state::{CLOSE, UNSEEN};

use crate::counter::count;
use crate::kernel::Tcp;
use crate::transition::{Socket, is_enabled};
use crate::{keep, memory};

/// The hook.
#[inline(always)]
pub fn seen(ctx: &BtfTracePointContext) -> i32 {
    if !is_enabled() {
        return 0;
    }
    let Some(tcp) = Tcp::of(ctx.arg(0)) else {
        count(NO_SOCKET);
        return 0;
    };
    let Some(mut socket) = Socket::known(tcp) else { return 0 };
    let state = socket.state();
    if state != UNSEEN && state != CLOSE && !keep::skips(state) {
        debug!(ctx, "close of a socket in state {} was missed", state);
        count(CLOSED_LATE);
        socket.go(CLOSE);
    }
    memory::free(tcp.0);
    0
}
