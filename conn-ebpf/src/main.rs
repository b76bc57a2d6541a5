//! conntrace's kernel programs: one line per hook and iterator. What each sees is in `hook` and `iter`, what follows from a
//! step is in `step` and `transition`.

#![no_std]
#![no_main]
// Atomic additions are written as instructions, see `counter`.
#![feature(asm_experimental_arch)]
#![expect(unsafe_code, reason = "map values and kernel structures are reached through pointers")]
#![expect(clippy::needless_pass_by_value, reason = "aya's macros hand the context over by value")]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "aya's maps take values, too, but a ledger slot does not fit on the programs' stack"
)]

mod attempt;
mod config;
mod counter;
mod datagram;
mod emit;
mod filter;
mod flow;
mod gate;
mod hook;
mod iter;
mod kernel;
mod ledger;
mod maps;
mod mode;
mod owner;
mod packet;
mod remote;
mod skb;
mod socket;
mod stateless;
mod step;
mod storage;
mod traffic;
mod transition;
mod tuple;
mod udp;
mod unix;
mod verifier;

use conn_common::flow::{RECEIVED, SENT};

use crate::gate::Role;

use aya_ebpf::macros::{btf_tracepoint, cgroup_skb, cgroup_sock, fentry, fexit, sock_ops, tracepoint};
use aya_ebpf::programs::{
    BtfTracePointContext, FEntryContext, FExitContext, SkBuffContext, SockContext, SockOpsContext,
    TracePointContext,
};

/// First program on `sock:inet_sock_set_state`.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn set_state(ctx: BtfTracePointContext) -> i32 {
    hook::set_state::on_event(&ctx, Role::First)
}

/// The same once more: where the kernel skips the first because it would nest, it runs this one.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub(crate) fn set_state_again(ctx: BtfTracePointContext) -> i32 {
    hook::set_state::on_event(&ctx, Role::Other)
}

/// The end of the socket itself: second chance for a missed CLOSE.
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub(crate) fn destroy_sock(ctx: BtfTracePointContext) -> i32 {
    hook::destroy_sock::on_event(&ctx)
}

/// Socket operations of every cgroup.
#[sock_ops]
pub(crate) fn sock_ops(ctx: SockOpsContext) -> u32 {
    hook::sock_ops::on_event(&ctx)
}

/// This host sends a reset.
#[btf_tracepoint(function = "tcp_send_reset")]
pub(crate) fn refused(ctx: BtfTracePointContext) -> i32 {
    hook::refused::on_event(&ctx)
}

/// A half-open request begins.
#[sock_ops]
pub(crate) fn requested(ctx: SockOpsContext) -> u32 {
    hook::request::on_operation(&ctx)
}

/// The kernel drops a packet.
#[btf_tracepoint(function = "kfree_skb")]
pub(crate) fn discarded(ctx: BtfTracePointContext) -> i32 {
    hook::discarded::on_event(&ctx)
}

/// A socket sends a packet.
#[cgroup_skb(egress)]
pub(crate) fn flow_egress(ctx: SkBuffContext) -> i32 {
    hook::datagram::on_packet(&ctx, SENT)
}

/// A socket receives a packet.
#[cgroup_skb(ingress)]
pub(crate) fn flow_ingress(ctx: SkBuffContext) -> i32 {
    hook::datagram::on_packet(&ctx, RECEIVED)
}

/// A socket closes.
#[cgroup_sock(sock_release)]
pub(crate) fn flow_release(ctx: SockContext) -> i32 {
    hook::flow_socket::on_release(&ctx)
}

/// A process binds an IPv4 socket.
#[cgroup_sock(post_bind4)]
pub(crate) fn flow_bind4(ctx: SockContext) -> i32 {
    hook::flow_socket::on_bind(&ctx)
}

/// A process binds an IPv6 socket.
#[cgroup_sock(post_bind6)]
pub(crate) fn flow_bind6(ctx: SockContext) -> i32 {
    hook::flow_socket::on_bind(&ctx)
}

/// A packet finds the receive buffer of a UDP socket full.
#[btf_tracepoint(function = "udp_fail_queue_rcv_skb")]
pub(crate) fn flow_drop(ctx: BtfTracePointContext) -> i32 {
    hook::flow_drop::on_drop(&ctx)
}

/// A socket gets an error.
#[btf_tracepoint(function = "inet_sk_error_report")]
pub(crate) fn flow_error(ctx: BtfTracePointContext) -> i32 {
    hook::flow_error::on_event(&ctx)
}

/// A process accepts a connection.
#[fentry(function = "security_sock_graft")]
pub(crate) fn grafted(ctx: FEntryContext) -> i32 {
    hook::accept::on_socket(ctx.arg(0))
}

/// The same, where no security module sees sockets. The result of a function follows its parameters. For two numbers of
/// parameters there are two programs: in one, LLVM merges both reads into one at a computed offset, which 6.1 and 6.12
/// refuse.
#[fexit(function = "inet_csk_accept")]
pub(crate) fn accepted_four(ctx: FExitContext) -> i32 {
    hook::accept::on_socket(ctx.arg(4))
}

/// The same, since 6.10.
#[fexit(function = "inet_csk_accept")]
pub(crate) fn accepted_two(ctx: FExitContext) -> i32 {
    hook::accept::on_socket(ctx.arg(2))
}

/// The same, where the kernel allows no program on a function.
#[tracepoint]
pub(crate) fn accept_exit(ctx: TracePointContext) -> u32 {
    hook::accept::on_syscall_exit(&ctx)
}

/// The files of all tasks, to note the owners of sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn file_claim(ctx: *mut core::ffi::c_void) -> i32 {
    iter::file_claim::on_row(ctx)
}

/// The sockets that exist, to keep their states. aya-ebpf has no macro for iterators.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn tcp_adopt(ctx: *mut core::ffi::c_void) -> i32 {
    iter::tcp_adopt::on_row(ctx)
}

/// The sockets that exist, to list them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn tcp_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::tcp_list::on_row(ctx)
}

/// The files of all tasks, to list the owners of sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn file_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::file_list::on_row::<false>(ctx)
}

/// The files of all tasks, to note the owners of UDP sockets.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn flow_claim(ctx: *mut core::ffi::c_void) -> i32 {
    iter::flow_claim::on_row(ctx)
}

/// The files of all tasks, to find namespaces that nothing else shows.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn namespace_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::namespace_list::on_row::<false>(ctx)
}

/// The files of all tasks, to list sockets of namespaces that nothing else shows.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn foreign_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::foreign_list::on_row(ctx)
}

/// The UDP sockets that exist, to list them.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/udp")]
pub extern "C" fn udp_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::udp_list::on_row(ctx)
}

/// The files of all tasks, to list the owners of UDP sockets, too.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn socket_file_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::file_list::on_row::<true>(ctx)
}

/// The files of all tasks, to find namespaces that only UDP sockets show, too.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn socket_namespace_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::namespace_list::on_row::<true>(ctx)
}

/// The files of all tasks, to list UDP sockets of namespaces that nothing else shows.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub extern "C" fn udp_foreign_list(ctx: *mut core::ffi::c_void) -> i32 {
    iter::udp_list::on_file(ctx)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
