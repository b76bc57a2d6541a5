//! `tcp:tcp_send_reset(sk, skb, reason)`, with a reason since 6.10: this host sends a reset. Before, the kernel did not
//! show resets without a socket, and refuses this program, which reads the reason.

use core::ffi::c_void;

use aya_ebpf::programs::BtfTracePointContext;
use conn_common::attempt::Attempt;

use crate::gate::is_enabled;
use crate::packet::Packet;
use crate::{attempt, mode, remote};

/// `SK_RST_REASON_NO_SOCKET` of `enum sk_rst_reason`, the second one since 6.10.
const NO_SOCKET: i32 = 1;

/// The hook.
#[inline(always)]
pub(crate) fn on_event(ctx: &BtfTracePointContext) -> i32 {
    if ctx.arg::<i32>(2) != NO_SOCKET || !is_enabled() {
        return 0;
    }
    let skb: *mut c_void = ctx.arg(1);
    if !skb.is_null()
        && let Some(packet) = Packet::read(skb)
        && packet.is_syn()
    {
        if attempt::record_refused(packet.dport().into())
            && mode::counts_remotes()
            && let Some(remote) = Packet::sender(skb)
        {
            remote::record_refused(remote, packet.dport());
        }
        if attempt::is_wanted()
            && let Some(mut connection) = packet.connection(skb)
        {
            attempt::emit_wanted(&mut connection, Attempt::Refused);
        }
    }
    0
}
