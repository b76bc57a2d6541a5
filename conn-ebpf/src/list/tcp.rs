//! `iter/tcp`: the sockets of the network namespace of whoever made the iterator.

use core::ffi::c_void;

use aya_ebpf::bindings::seq_file;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write};
use conn_common::connection::{Connection, IN, OUT, UNDIRECTED};
use conn_common::name::{LIST_HALF_OPEN, LIST_TIME_WAIT, LIST_TRAFFIC};
use conn_common::row::SocketRow;
use conn_common::state::{LISTEN, NEW_SYN_RECV, TIME_WAIT, is_open, is_opening};
use conn_common::traffic::Traffic;

use crate::emit::{now_jiffies, traffic};
use crate::kernel::Tcp;
use crate::{config, keep, tuple};

/// `struct bpf_iter__tcp { meta, sk_common, uid }` (`net/ipv4/tcp_ipv4.c`) and `struct bpf_iter_meta
/// { seq, … }` (include/linux/bpf.h) are the programs' ABI: each member takes 8 bytes.
const SK_COMMON: usize = 8;

/// What this step of the walk shows: a full socket, or the mini-socket of a half-open or closed connection.
/// `None` at the end of the walk.
#[inline(always)]
fn shown(ctx: *mut c_void) -> Option<*mut c_void> {
    // SAFETY: the verifier types this load; NULL marks the end of the walk.
    let sk = unsafe { ctx.byte_add(SK_COMMON).cast::<*mut c_void>().read_volatile() };
    if sk.is_null() { None } else { Some(sk) }
}

/// The full socket that this step of the walk shows, if it is one.
#[inline(always)]
pub fn socket(ctx: *mut c_void) -> Option<Tcp> {
    Tcp::of(shown(ctx)?)
}

/// Writes a row of an iterator. What does not fit into the reader's page is asked for again.
#[inline(always)]
pub fn write<T>(ctx: *mut c_void, row: &T) {
    // SAFETY: the first member of the context is the walk's meta data, and of that the output file.
    let seq = unsafe { ctx.cast::<*mut *mut seq_file>().read_volatile().read_volatile() };
    // SAFETY: the row lies on the stack for as long as the call lasts.
    let _ = unsafe { bpf_seq_write(seq, (&raw const *row).cast_mut().cast(), size_of::<T>() as u32) };
}

/// One row, if the run wants the socket.
#[inline(always)]
pub fn row(ctx: *mut c_void) -> i32 {
    let Some(sk) = shown(ctx) else { return 0 };
    let mut row = SocketRow {
        cookie: 0,
        traffic: Traffic::NONE,
        at_least_jiffies: 0,
        reserved: 0,
        connection: Connection::UNSEEN,
    };
    let connection = &mut row.connection;
    if let Some(tcp) = Tcp::of(sk) {
        connection.state = tcp.state();
        connection.netns = tcp.netns();
        tuple::of_existing(tcp, connection, connection.state);
        tuple::addresses(tcp, connection);
        if !keep::lists(connection.state) || !keep::wants(connection) {
            return 0;
        }
        if config::LISTED.load() & LIST_TRAFFIC != 0 {
            let jiffies = now_jiffies();
            row.traffic = traffic(tcp, connection.state == LISTEN, jiffies);
            if is_open(connection.state) && !is_opening(connection.state) {
                row.at_least_jiffies = tcp.established_for(jiffies);
            }
        }
        // SAFETY: a socket that the verifier knows.
        row.cookie = unsafe { bpf_get_socket_cookie(tcp.0) };
        write(ctx, &row);
    } else if mini(Tcp(sk), connection) {
        write(ctx, &row);
    }
    0
}

/// Notes what a mini-socket shows, if the run wants it. Its first part is that of every socket (`struct
/// sock_common`), and no more than that is read of it.
#[inline(always)]
fn mini(sk: Tcp, connection: &mut Connection) -> bool {
    let wanted = config::LISTED.load();
    match sk.state() {
        TIME_WAIT if wanted & LIST_TIME_WAIT != 0 => {
            let Some(state) = sk.time_wait_state() else { return false };
            connection.state = state;
            // Filled as if we had opened it, which it does not tell.
            connection.direction = OUT;
        }
        NEW_SYN_RECV if wanted & LIST_HALF_OPEN != 0 => {
            connection.state = NEW_SYN_RECV;
            connection.direction = IN;
        }
        _ => return false,
    }
    tuple::addresses(sk, connection);
    tuple::ports(sk, connection, sk.num());
    connection.netns = sk.netns();
    if connection.direction == OUT {
        connection.direction = UNDIRECTED;
    }
    true
}
