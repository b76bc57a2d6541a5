//! `iter/task_file`: notes the owners of sockets that existed before the start. A file that is no socket may keep a
//! namespace: one walk finds both.

use core::ffi::c_void;

use conn_common::name::HOLDERS;
use conn_common::owner::{FILES, Owner};
use conn_common::state::{CLOSE, LISTEN};

use crate::iter::context::open_socket;
use crate::iter::namespace_list;
use crate::kernel::{Pointer, Tcp, read_u16, read_u32};
use crate::owner::{self, listener, mptcp, user};
use crate::storage::pending_owner;
use crate::{config, filter};

/// The iterator.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return namespace_list::on_file(ctx) };
    pending_owner::prefetch_slot(sk);
    let Some(tcp) = Tcp::of(sk) else {
        if config::MPTCP_FIRST.load() != 0 && read_u16(sk, &config::SK_PROTOCOL) == mptcp::PROTOCOL {
            match mptcp::listener(sk) {
                Some(listener) => put_listener(task, sk, listener),
                None => put_connection(task, sk),
            };
        }
        return 0;
    };
    let state = tcp.state();
    if state == LISTEN {
        if !filter::passes_over(|| [tcp.num(); 2]) {
            put_listener(task, sk, sk as u64);
        }
    } else if state != CLOSE
        && config::OWNERS.load() == HOLDERS
        && !filter::passes_over(|| [tcp.sport(), tcp.dport()])
    {
        put_pending(task, tcp);
    }
    0
}

/// Notes the task for a connection. A function of its own: its stack would count for the other calls, too, and 6.1 allows
/// 512 bytes for a chain of calls (`check_max_stack_depth()`).
#[inline(never)]
fn put_pending(task: Pointer, tcp: Tcp) -> u32 {
    pending_owner::put_holder(tcp.0, &owner::of(task, FILES), tcp.uid());
    0
}

/// Notes the task for an MPTCP connection and each of its subflows. The filter does not see their ports here.
#[inline(never)]
fn put_connection(task: Pointer, sk: *mut c_void) -> u32 {
    let owner = Owner { holders: 1, ..owner::of(task, FILES) };
    mptcp::put_holder(sk, &owner);
    if config::OWNERS.load() == HOLDERS {
        mptcp::each_subflow(sk, |subflow| {
            if mptcp::state(subflow).is_some_and(|state| state != CLOSE) {
                pending_owner::put_holder(subflow as *mut c_void, &owner, read_u32(sk, &config::SK_UID));
            }
        });
    }
    0
}

/// Notes the task for a listener, which is the socket of the file or one below.
#[inline(never)]
fn put_listener(task: Pointer, sk: *mut c_void, listener: u64) -> u32 {
    let owner = owner::of(task, FILES);
    let (uid, user) = (read_u32(sk, &config::SK_UID), user::of_socket(sk));
    listener::put_holder(listener, &owner, owner::process_of(task), uid, user)
}
