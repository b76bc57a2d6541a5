//! `iter/tcp`: writes a row for every socket of the network namespace of the iterator's maker.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use conn_common::connection::{Connection, IN, OUT, UNDIRECTED};
use conn_common::name::{LIST_HALF_OPEN, LIST_INODES, LIST_TIME_WAIT, LIST_TRAFFIC};
use conn_common::row::{DROPS, HALF_OPEN, SocketRow};
use conn_common::state::{LISTEN, NEW_SYN_RECV, TIME_WAIT, is_open, is_opening};

use crate::iter::context::{shown, write};
use crate::kernel::Tcp;
use crate::traffic::{now_jiffies, traffic};
use crate::{config, filter, tuple};

/// One row, if the run wants the socket.
#[inline(always)]
pub(crate) fn on_row(ctx: *mut c_void) -> i32 {
    let Some(sk) = shown(ctx) else { return 0 };
    let mut row = SocketRow::EMPTY;
    if let Some(tcp) = Tcp::of(sk) {
        if fill(tcp, &mut row) {
            write(ctx, &row);
        } else if row.connection.state == LISTEN && config::LISTED.load() & LIST_TIME_WAIT != 0 {
            // A listener is the responder of the connections in TIME_WAIT on its port. A walk meets it before them.
            row.is_hint = 1;
            write(ctx, &row);
        }
    } else if mini(Tcp(sk), &mut row.connection) {
        write(ctx, &row);
    }
    0
}

/// Fills in the row of a full socket. False if the run does not want it.
#[inline(always)]
pub(crate) fn fill(tcp: Tcp, row: &mut SocketRow) -> bool {
    let connection = &mut row.connection;
    connection.state = tcp.state();
    connection.netns = tcp.netns();
    tuple::set_of_existing(tcp, connection, connection.state);
    tuple::set_addresses(tcp, connection, connection.state);
    if !filter::lists(connection.state) || !filter::wants(connection) || !filter::wants_mark_of(tcp) {
        return false;
    }
    if connection.state == LISTEN {
        if let Some(half_open) = tcp.half_open() {
            (row.half_open, row.known) = (half_open, row.known | HALF_OPEN);
        }
        if let Some(drops) = tcp.drops() {
            (row.drops, row.known) = (drops, row.known | DROPS);
        }
        (row.traffic.receive_queue, row.traffic.send_queue) = tcp.queues(true);
    }
    if config::LISTED.load() & LIST_TRAFFIC != 0 {
        let jiffies = now_jiffies();
        row.traffic = traffic(tcp, connection.state == LISTEN, jiffies);
        if is_open(connection.state) && !is_opening(connection.state) {
            row.at_least_jiffies = tcp.established_for(jiffies);
        }
    }
    if config::LISTED.load() & LIST_INODES != 0 {
        row.inode = tcp.inode();
    }
    row.uid = tcp.uid();
    connection.set_interface(tcp.interface());
    if filter::shows_mark() {
        row.mark = tcp.mark();
    }
    // SAFETY: a socket that the verifier knows.
    row.cookie = unsafe { bpf_get_socket_cookie(tcp.0) };
    true
}

/// Fills in the fields of a mini-socket. False if the run does not want it. Only the part is read that every socket has
/// (`struct sock_common`).
#[inline(always)]
fn mini(sk: Tcp, connection: &mut Connection) -> bool {
    let wanted = config::LISTED.load();
    let mut is_directed = true;
    match sk.state() {
        TIME_WAIT if wanted & LIST_TIME_WAIT != 0 => {
            let Some(mini) = sk.time_wait() else { return false };
            connection.state = mini.state();
            // Filled as if this host had opened the connection.
            connection.direction = OUT;
            is_directed = mini.has_port_of_connect();
        }
        NEW_SYN_RECV if wanted & LIST_HALF_OPEN != 0 => {
            connection.state = NEW_SYN_RECV;
            connection.direction = IN;
        }
        _ => return false,
    }
    tuple::set_addresses(sk, connection, connection.state);
    tuple::set_ports(sk, connection, sk.num());
    connection.netns = sk.netns();
    connection.set_interface(sk.interface());
    if !is_directed {
        connection.direction = UNDIRECTED;
    }
    true
}
