//! `skb:kfree_skb(skb, location, reason)`, with a reason since 5.17: the kernel drops a packet of any protocol. Only runs
//! that want events of attempts attach it.

use core::ffi::c_void;

use aya_ebpf::programs::BtfTracePointContext;
use conn_common::attempt::Attempt;

use crate::gate::is_enabled;
use crate::packet::Packet;
use crate::{attempt, config};

/// The hook.
#[inline(always)]
pub(crate) fn on_event(ctx: &BtfTracePointContext) -> i32 {
    let reason = ctx.arg::<i32>(2).cast_unsigned();
    let (refused, queue_full) = (config::DROP_NO_SOCKET.load(), config::DROP_QUEUE_FULL.load());
    let is_refused = refused != 0 && reason == refused;
    if !is_refused && (queue_full == 0 || reason != queue_full) || !is_enabled() {
        return 0;
    }
    let skb: *mut c_void = ctx.arg(0);
    if skb.is_null() {
        return 0;
    }
    let Some(packet) = Packet::read(skb) else { return 0 };
    // Datagrams without a socket have the same reason.
    let Some(mut connection) = packet.connection(skb) else { return 0 };
    if !is_refused {
        attempt::emit_wanted(&mut connection, Attempt::Dropped);
    } else if packet.is_syn() {
        attempt::emit_wanted(&mut connection, Attempt::Refused);
    }
    0
}
