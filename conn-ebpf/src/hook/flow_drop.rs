//! `udp:udp_fail_queue_rcv_skb(rc, sk)`: a packet found no room in the receive buffer of a UDP socket
//! (`__udp_queue_rcv_skb()`, `__udpv6_queue_rcv_skb()`). Since 6.10 the packet is a third argument.

use core::ffi::c_void;

use aya_ebpf::programs::BtfTracePointContext;

use crate::gate::is_enabled;
use crate::kernel::read_u16;
use crate::{config, flow};

/// The hook.
#[inline(always)]
pub(crate) fn on_drop(ctx: &BtfTracePointContext) -> i32 {
    if is_enabled() {
        let sk: *mut c_void = ctx.arg(1);
        flow::dropped(read_u16(sk, &config::SKC_NUM));
    }
    0
}
