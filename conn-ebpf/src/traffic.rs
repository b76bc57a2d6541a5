//! The traffic of a socket, read from the kernel.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use conn_common::traffic::Traffic;

use crate::kernel::Tcp;

/// The kernel's tick count: the lower 32 bits, which sockets keep.
#[inline(always)]
pub(crate) fn now_jiffies() -> u32 {
    // SAFETY: no preconditions.
    unsafe { bpf_jiffies64() as u32 }
}

/// The traffic of a socket so far, with its idle time as of `jiffies`.
#[inline(always)]
pub(crate) fn traffic(tcp: Tcp, is_listener: bool, jiffies: u32) -> Traffic {
    let (segments_sent, segments_received) = tcp.segments();
    let (srtt_us, min_rtt_us) = tcp.round_trip();
    let (receive_queue, send_queue) = tcp.queues(is_listener);
    Traffic {
        bytes_sent: tcp.bytes_sent(),
        bytes_received: tcp.bytes_received(),
        segments_sent,
        segments_received,
        retransmits: tcp.retransmits(),
        srtt_us,
        min_rtt_us,
        receive_queue,
        send_queue,
        idle_jiffies: tcp.idle_for(jiffies),
    }
}
