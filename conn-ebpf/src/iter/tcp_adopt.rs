//! `iter/tcp`: the sockets of one network namespace, each under its lock (5.15 and later).

use core::ffi::c_void;

use conn_common::counter::STEP_REPAIRED;
use conn_common::life::Life as _;
use conn_common::state::{CLOSE, LISTEN, UNSEEN};

use crate::counter::count;
use crate::iter::context;
use crate::mode;
use crate::socket::Socket;
use crate::storage::socket_state;

/// The hook.
#[inline(always)]
pub fn seen(ctx: *mut c_void) -> i32 {
    let Some(tcp) = context::socket(ctx) else { return 0 };
    let state = tcp.state();
    // Whoever is closed has nothing to remember, and may be about to be freed.
    if state == CLOSE || mode::skips(state) {
        return 0;
    }
    tcp.prefetch();
    socket_state::prefetch_slot(tcp.0);
    let Some(mut socket) = Socket::remembered(tcp.0, state == LISTEN, || socket_state::has_storage(tcp.0))
    else {
        return 0;
    };
    let known = socket.state();
    if known == state {
        return 0;
    }
    if known == UNSEEN || known == CLOSE {
        socket.adopt(state);
    } else {
        count(STEP_REPAIRED);
        socket.go(state);
    }
    0
}
