//! `sock:inet_sock_set_state(sk, oldstate, newstate)`: every transition of every TCP socket, fired by
//! `inet_sk_set_state()` and `inet_sk_state_store()` just before the state is stored.

use core::ffi::c_void;

use aya_ebpf::programs::BtfTracePointContext;
use aya_log_ebpf::trace;
use conn_common::life::{is_of_listener, opens};

use crate::kernel::{TCP, read_u16};
use crate::owner::mptcp;
use crate::socket::Socket;
use crate::storage::socket_state;
use crate::transition::is_enabled;
use crate::{config, filter, mode};

/// The hook.
#[inline(always)]
pub fn seen(ctx: &BtfTracePointContext) -> i32 {
    let old = ctx.arg::<i32>(1).cast_unsigned() as u8;
    let new = ctx.arg::<i32>(2).cast_unsigned() as u8;
    if old == new {
        return 0;
    }
    let sk: *mut c_void = ctx.arg(0);
    // Not of other protocols: the end of an MPTCP connection ends what is noted of it.
    if mode::skips(old) && read_u16(sk, &config::SK_PROTOCOL) == TCP {
        return 0;
    }
    // Most steps but the first were told by sock_ops a moment ago. Then this is all, except where most sockets have no
    // memory.
    let may_be_told = !filter::may_pass_over() && !opens(old, new);
    if may_be_told && socket_state::peek(sk) == new || !is_enabled() {
        return 0;
    }
    if read_u16(sk, &config::SK_PROTOCOL) != TCP {
        mptcp::goes(sk, old, new);
        return 0;
    }
    trace!(ctx, "set_state {} -> {}", old, new);
    if let Some(mut socket) =
        Socket::remembered(sk, is_of_listener(old, new), || socket_state::has_storage(sk))
    {
        socket.goes(old, new);
    }
    0
}
