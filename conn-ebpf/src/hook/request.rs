//! Half-open requests, as socket operations show them. A request is no full socket, so only the fields of the context that
//! every socket has are read.

use aya_ebpf::programs::SockOpsContext;

use crate::attempt;

/// `TIMEOUT_INIT`: `tcp_conn_request()` asks for the timeout of each request that it queues. A socket that connects
/// asks, too, and is a full one.
#[inline(always)]
pub(crate) fn on_begin(ctx: &SockOpsContext) {
    // SAFETY: a field of the context.
    if unsafe { (*ctx.ops).is_fullsock } == 0 {
        attempt::record_begun(ctx.local_port());
    }
}

/// `PASSIVE_ESTABLISHED`: a child. `tcp_check_req()` has measured the round trip of a request that waited in the queue,
/// unless the SYN-ACK was sent again (`tcp_synack_rtt_meas()`). A cookie and fast open leave no request to measure.
#[inline(always)]
pub(crate) fn on_child(ctx: &SockOpsContext) {
    // SAFETY: fields of the context.
    let (srtt_us, retransmits) = unsafe { ((*ctx.ops).srtt_us, (*ctx.ops).total_retrans) };
    if srtt_us == 0 && retransmits == 0 {
        attempt::record_direct(ctx.local_port());
    }
}
