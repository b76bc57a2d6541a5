//! `iter/tcp`: begins to keep the sockets of one network namespace, each under its lock (5.15 and later).

use core::ffi::c_void;

use conn_common::counter::STEP_REPAIRED;
use conn_common::lifecycle::is_alive;
use conn_common::state::{CLOSE, LISTEN};

use crate::counter::count;
use crate::gate::{Role, TracedSk, enter_checked};
use crate::iter::context;
use crate::storage::socket_state;
use crate::verifier::opaque;
use crate::{mode, stateless, transition};

/// The iterator.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some(tcp) = context::socket(ctx) else { return 0 };
    let state = tcp.state();
    // A closed socket has nothing to keep, and may be about to be freed.
    if state == CLOSE || mode::skips(state) {
        return 0;
    }
    tcp.prefetch();
    socket_state::prefetch_slot(tcp.0);
    let no_memory = || {
        stateless::on_found(tcp.0, state);
    };
    let entry = enter_checked(TracedSk(tcp.0), Role::First, || state == LISTEN, no_memory);
    let Some(mut entry) = entry else { return 0 };
    let mut socket = entry.socket();
    let known = socket.state();
    if known == state {
        return 0;
    }
    if is_alive(known) {
        count(STEP_REPAIRED);
        let state = opaque(socket.connection(), state.into()) as u8;
        transition::apply(socket, state);
    } else {
        let state = opaque(socket.connection(), state.into()) as u8;
        transition::adopt(socket, state);
    }
    0
}
