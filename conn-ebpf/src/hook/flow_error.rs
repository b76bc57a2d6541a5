//! `sock:inet_sk_error_report(sk)`, since 5.15: a socket got an error. A connected UDP socket gets `ECONNREFUSED` from an ICMP
//! message that its peer's host sent (`__udp4_lib_err()`).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::programs::BtfTracePointContext;
use conn_common::protocol::UDP;

use crate::datagram::Datagram;
use crate::gate::is_enabled;
use crate::kernel::{read_16, read_u16, read_u32};
use crate::{config, flow, tuple};

/// `ECONNREFUSED`.
const REFUSED: u32 = 111;
/// `AF_INET6`.
const AF_INET6: u16 = 10;

/// The hook.
#[inline(always)]
pub(crate) fn on_event(ctx: &BtfTracePointContext) -> i32 {
    let sk: *mut c_void = ctx.arg(0);
    if read_u16(sk, &config::SK_PROTOCOL) != u16::from(UDP)
        || read_u32(sk, &config::SK_ERR) != REFUSED
        || !is_enabled()
    {
        return 0;
    }
    let (mut family, mut local, mut peer) = (
        4,
        [u64::from(read_u32(sk, &config::SKC_RCV_SADDR)), 0],
        [u64::from(read_u32(sk, &config::SKC_DADDR)), 0],
    );
    if read_u16(sk, &config::SKC_FAMILY) == AF_INET6 {
        let peer6 = read_16(sk, &config::SKC_V6_DADDR);
        if !tuple::is_mapped(peer6) {
            (family, local, peer) = (6, read_16(sk, &config::SKC_V6_RCV_SADDR), peer6);
        }
    }
    let datagram = Datagram {
        hashes: [0; 2],
        // SAFETY: a socket that the verifier knows.
        cookie: unsafe { bpf_get_socket_cookie(sk) },
        local,
        peer,
        payload: 0,
        segments: 0,
        local_port: read_u16(sk, &config::SKC_NUM),
        peer_port: u16::from_be(read_u16(sk, &config::SKC_DPORT)),
        family,
        way: 0,
    };
    flow::on_refusal(&datagram.hashed());
    0
}
