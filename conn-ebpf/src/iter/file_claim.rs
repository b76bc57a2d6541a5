//! `iter/task_file`: notes the owners of sockets that existed before the start. A file that is no socket may keep a
//! namespace: one walk finds both.

use core::ffi::c_void;

use conn_common::name::HOLDERS;
use conn_common::owner::{FILES, LISTENER};
use conn_common::state::{CLOSE, LISTEN};

use crate::iter::context::open_socket;
use crate::iter::namespace_list;
use crate::kernel::Tcp;
use crate::owner::{self, listener};
use crate::storage::pending_owner;
use crate::{config, filter};

/// The iterator.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return namespace_list::on_row(ctx) };
    pending_owner::prefetch_slot(sk);
    let Some(tcp) = Tcp::of(sk) else { return 0 };
    let state = tcp.state();
    let is_listener = state == LISTEN;
    let may_have_owner =
        config::OWNERS.load() == HOLDERS && !filter::passes_over(|| [tcp.sport(), tcp.dport()]);
    if state == CLOSE || !(is_listener || may_have_owner) {
        return 0;
    }
    let owner = owner::of(task, if is_listener { LISTENER } else { FILES });
    if is_listener {
        listener::put_new(tcp.netns(), tcp.num(), &owner);
        return 0;
    }
    // The first task that has the socket open stays: the iterator goes by process id.
    pending_owner::put_new(tcp.0, &owner);
    0
}
