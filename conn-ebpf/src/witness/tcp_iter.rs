//! `iter/tcp`: the sockets of one network namespace, each under its lock (5.15 and later).

use core::ffi::c_void;

use conn_common::counter::{CLOSED_LATE, STEP_REPAIRED};
use conn_common::life::Life as _;
use conn_common::state::{CLOSE, UNSEEN};

use crate::counter::count;
use crate::kernel::Tcp;
use crate::transition::Socket;

/// `struct bpf_iter__tcp { meta, sk_common, uid }`, net/ipv4/tcp_ipv4.c: each member takes 8 bytes.
const SK_COMMON: usize = 8;

/// The hook.
#[inline(always)]
pub fn seen(ctx: *mut c_void) -> i32 {
    // SAFETY: the verifier types this load; NULL marks the end of the walk.
    let sk = unsafe { ctx.byte_add(SK_COMMON).cast::<*mut c_void>().read_volatile() };
    if sk.is_null() {
        return 0;
    }
    let Some(tcp) = Tcp::of(sk) else { return 0 };
    let state = tcp.state();
    let Some(mut socket) = Socket::remembered(tcp) else { return 0 };
    let known = socket.state();
    if known == state || state == CLOSE {
        return 0;
    }
    if known == UNSEEN {
        socket.adopt(state);
    } else {
        count(if known == CLOSE { CLOSED_LATE } else { STEP_REPAIRED });
        socket.goes(known, state);
    }
    0
}
