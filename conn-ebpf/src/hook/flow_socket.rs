//! UDP sockets on the cgroup v2 root, in the context of the process: `bind()` (`__inet_bind()`, `__inet6_bind()`), and the
//! last close (`inet_release()`). The kernel's own sockets have neither.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::SockContext;
use conn_common::name::NO_OWNERS;
use conn_common::owner::BIND;
use conn_common::protocol::UDP;

use crate::gate::is_enabled;
use crate::owner::{self, socket_owner};
use crate::{config, flow};

/// Lets the call pass.
const PASS: i32 = 1;

/// True if the socket is of UDP, and the programs are enabled.
#[inline(always)]
fn is_wanted(ctx: &SockContext) -> bool {
    // SAFETY: a field of the context.
    unsafe { (*ctx.sock).protocol == u32::from(UDP) && is_enabled() }
}

/// A process has bound a socket.
#[inline(always)]
pub(crate) fn on_bind(ctx: &SockContext) -> i32 {
    if config::OWNERS.load() != NO_OWNERS && is_wanted(ctx) {
        socket_owner::note(ctx.as_ptr(), &owner::current(BIND));
    }
    PASS
}

/// The last descriptor of a socket is closed.
#[inline(always)]
pub(crate) fn on_release(ctx: &SockContext) -> i32 {
    if is_wanted(ctx) {
        // SAFETY: the context is the socket.
        flow::on_close(unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
    }
    PASS
}
