//! `iter/udp`: writes a row for every UDP socket with a port, in the network namespace of the iterator's maker.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use conn_common::connection::{LISTENER, OUT, UNDIRECTED};
use conn_common::name::{LIST_CONNECTED, LIST_INODES, LIST_UNCONNECTED};
use conn_common::protocol::UDP;
use conn_common::row::{DROPS, SocketRow};
use conn_common::state::{CLOSE, ESTABLISHED, LISTEN};

use crate::config;
use crate::iter::context::{open_socket, shown, write};
use crate::iter::foreign_list::is_foreign;
use crate::tuple;
use crate::udp::Udp;

/// A row without values.
const ROW: SocketRow = SocketRow { protocol: UDP, ..SocketRow::EMPTY };

/// One row, if the run wants the socket.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some(udp) = shown(ctx).and_then(Udp::of) else { return 0 };
    put(ctx, udp)
}

/// `iter/task_file`: one row, if the file is a UDP socket in another network namespace than its task. The sockets are not
/// locked.
#[inline(always)]
pub(crate) fn on_file(ctx: *mut c_void) -> i32 {
    let Some((task, sk)) = open_socket(ctx) else { return 0 };
    match Udp::of(sk) {
        Some(udp) if is_foreign(task, udp.0) => put(ctx, udp),
        _ => 0,
    }
}

#[inline(always)]
fn put(ctx: *mut c_void, udp: Udp) -> i32 {
    let mut row = ROW;
    if fill(udp, &mut row) {
        write(ctx, &row);
    }
    0
}

/// Fills in the row. False if the run does not want the socket. User space applies the filter, since the kernel's sets are
/// of connections with a direction.
#[inline(always)]
fn fill(udp: Udp, row: &mut SocketRow) -> bool {
    let (sk, wanted) = (udp.0, config::LISTED.load());
    let local = sk.num();
    // A socket without a port is in none of the kernel's tables.
    if local == 0 {
        return false;
    }
    let connection = &mut row.connection;
    // UDP has no other states (`__ip4_datagram_connect()`, `__udp_disconnect()`).
    if sk.state() == ESTABLISHED {
        if wanted & LIST_CONNECTED == 0 {
            return false;
        }
        connection.state = ESTABLISHED;
        // Filled as if this host had begun. The socket does not show which end sent first.
        connection.direction = OUT;
        tuple::set_addresses(sk, connection, ESTABLISHED);
        tuple::set_ports(sk, connection, local);
        connection.direction = UNDIRECTED;
    } else {
        if wanted & LIST_UNCONNECTED == 0 {
            return false;
        }
        connection.state = CLOSE;
        connection.direction = UNDIRECTED;
        connection.set(LISTENER);
        tuple::set_addresses(sk, connection, LISTEN);
        connection.dport = local;
    }
    connection.netns = sk.netns();
    connection.set_interface(sk.interface());
    (row.traffic.receive_queue, row.traffic.send_queue) = udp.queues();
    if let Some(drops) = udp.drops() {
        (row.drops, row.known) = (drops, DROPS);
    }
    if wanted & LIST_INODES != 0 {
        row.inode = sk.inode();
    }
    row.uid = sk.uid();
    row.mark = sk.mark();
    // SAFETY: a socket that the verifier knows.
    row.cookie = unsafe { bpf_get_socket_cookie(sk.0) };
    true
}
