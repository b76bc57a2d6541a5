//! Half-open requests, as socket operations show them. A request is no full socket, so only the fields of the context that
//! every socket has are read.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::BPF_SOCK_OPS_TIMEOUT_INIT;
use aya_ebpf::helpers::bpf_probe_read_kernel;
use aya_ebpf::programs::SockOpsContext;
use conn_common::attempt::Attempt;
use conn_common::connection::Connection;

use crate::gate::is_enabled;
use crate::hook::sock_ops::GO_ON;
use crate::remote::{self, Remote};
use crate::{attempt, config};

/// `AF_INET6`, `include/linux/socket.h`.
const AF_INET6: u32 = 10;

/// The third word of `::ffff:0:0/96`.
const MAPPED: u32 = 0xffff_u32.to_be();

/// A word of the context. Volatile: LLVM merges two reads of the context into one at a computed offset, which the verifier
/// refuses.
macro_rules! word {
    ($ctx:ident, $($field:tt)+) => {
        // SAFETY: a field of the context.
        unsafe { (&raw const (*$ctx.ops).$($field)+).read_volatile() }
    };
}

/// The hook of the program that writes an event for each request.
#[inline(always)]
pub(crate) fn on_operation(ctx: &SockOpsContext) -> u32 {
    // SAFETY: a field of the context.
    let is_full = unsafe { (*ctx.ops).is_fullsock } != 0;
    if ctx.op() == BPF_SOCK_OPS_TIMEOUT_INIT && !is_full && is_enabled() {
        let mut connection = connection(ctx);
        attempt::emit_wanted(&mut connection, Attempt::HalfOpen);
    }
    GO_ON
}

/// The same in a run that counts remote addresses.
#[inline(never)]
pub(crate) fn on_begin_from(ctx: &SockOpsContext) -> u32 {
    // SAFETY: as above.
    if unsafe { (*ctx.ops).is_fullsock } == 0 && attempt::record_begun(ctx.local_port()) {
        remote::record_attempt(sender(ctx), ctx.local_port() as u16);
    }
    0
}

/// The sender of the request. IPv4-mapped addresses become IPv4.
#[inline(always)]
fn sender(ctx: &SockOpsContext) -> Remote {
    if ctx.family() != AF_INET6 {
        return Remote { family: 4, words: [word!(ctx, remote_ip4).into(), 0] };
    }
    let [first, second, third, last] = [
        word!(ctx, remote_ip6[0]),
        word!(ctx, remote_ip6[1]),
        word!(ctx, remote_ip6[2]),
        word!(ctx, remote_ip6[3]),
    ];
    if first | second == 0 && third == MAPPED {
        return Remote { family: 4, words: [last.into(), 0] };
    }
    let both = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Remote { family: 6, words: [both(first, second), both(third, last)] }
}

/// The connection that the request asks for: tuple and namespace.
#[inline(always)]
fn connection(ctx: &SockOpsContext) -> Connection {
    let mut connection = Connection { netns: netns(ctx).unwrap_or(0), ..Connection::UNSEEN };
    // The upper half of the word, in network order (`include/uapi/linux/bpf.h`).
    connection.sport = u16::from_be((ctx.remote_port() >> 16) as u16);
    connection.dport = ctx.local_port() as u16;
    let mut addresses = [[word!(ctx, remote_ip4), 0, 0, 0], [word!(ctx, local_ip4), 0, 0, 0]];
    connection.family = 4;
    if ctx.family() == AF_INET6 {
        let v6 = [
            [
                word!(ctx, remote_ip6[0]),
                word!(ctx, remote_ip6[1]),
                word!(ctx, remote_ip6[2]),
                word!(ctx, remote_ip6[3]),
            ],
            [
                word!(ctx, local_ip6[0]),
                word!(ctx, local_ip6[1]),
                word!(ctx, local_ip6[2]),
                word!(ctx, local_ip6[3]),
            ],
        ];
        // A listener of both families has requests of IPv6 only. IPv4-mapped addresses become IPv4.
        let [[first, second, third, last], [_, _, _, local]] = v6;
        if first | second == 0 && third == MAPPED {
            addresses = [[last, 0, 0, 0], [local, 0, 0, 0]];
        } else {
            connection.family = 6;
            addresses = v6;
        }
    }
    put(&mut connection.src, addresses[0]);
    put(&mut connection.dst, addresses[1]);
    connection
}

/// Puts the words of an address, which are in network order.
#[inline(always)]
fn put(to: &mut [u8; 16], words: [u32; 4]) {
    for (part, word) in to.chunks_exact_mut(4).zip(words) {
        part.copy_from_slice(&word.to_ne_bytes());
    }
}

/// Inode number of the request's network namespace. The context hides the socket of a request, but not its own address.
#[inline(always)]
fn netns(ctx: &SockOpsContext) -> Option<u32> {
    // SAFETY: the helper fails instead of faulting.
    unsafe {
        let read = |base: u64, global: &aya_ebpf::Global<u32>| {
            bpf_probe_read_kernel((base + u64::from(global.load())) as *const u64).ok()
        };
        let context = ctx.as_ptr().byte_add(config::SOCK_OPS_SK.load() as usize);
        let sk: u64 = bpf_probe_read_kernel(context.cast_const().cast()).ok()?;
        let net = read(sk, &config::SKC_NET)?;
        bpf_probe_read_kernel((net + u64::from(config::NET_INUM.load())) as *const u32).ok()
    }
}

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
