//! The addresses and ports of a connection, from the side that opened it.

use conn_common::connection::{Connection, IN, LISTENER, OUT, UNDIRECTED};
use conn_common::state::{LISTEN, SYN_SENT};

use crate::kernel::Tcp;

/// The upper half of `::ffff:0:0/96`, as the second word reads in memory.
const MAPPED: u32 = 0xffff_0000_u32.to_be().swap_bytes();

/// Sets direction and ports of a socket in the middle of its life, in `state`.
#[inline(always)]
pub(crate) fn set_of_existing(tcp: Tcp, connection: &mut Connection, state: u8) {
    connection.direction = match state {
        LISTEN => {
            connection.set(LISTENER);
            UNDIRECTED
        }
        SYN_SENT => OUT,
        _ if tcp.is_child() => IN,
        _ => OUT,
    };
    let num = tcp.num();
    set_ports(tcp, connection, if num == 0 { tcp.sport() } else { num });
}

/// Sets family and addresses of a socket in `state`. IPv4-mapped addresses become IPv4.
#[inline(always)]
pub(crate) fn set_addresses(tcp: Tcp, connection: &mut Connection, state: u8) {
    let (local, remote);
    if tcp.is_v6() {
        let (local6, remote6) = tcp.v6();
        if is_mapped(local6) && (is_mapped(remote6) || state == LISTEN) {
            connection.family = 4;
            (local, remote) = ([local6[1] >> 32, 0], [remote6[1] >> 32, 0]);
        } else {
            connection.family = 6;
            (local, remote) = (local6, remote6);
        }
    } else {
        connection.family = 4;
        let (local4, remote4) = tcp.v4();
        (local, remote) = ([u64::from(local4), 0], [u64::from(remote4), 0]);
    }
    let (src, dst) = if connection.direction == OUT { (local, remote) } else { (remote, local) };
    put(&mut connection.src, src);
    put(&mut connection.dst, dst);
}

/// True if the first 12 bytes are those of an IPv4-mapped address. For little-endian hosts, like the target of the
/// programs.
#[inline(always)]
pub(crate) fn is_mapped(address: [u64; 2]) -> bool {
    address[0] == 0 && address[1] as u32 == MAPPED
}

#[inline(always)]
pub(crate) fn put(to: &mut [u8; 16], words: [u64; 2]) {
    to[..8].copy_from_slice(&words[0].to_ne_bytes());
    to[8..].copy_from_slice(&words[1].to_ne_bytes());
}

/// Sets the ports. The local port is `local`.
#[inline(always)]
pub(crate) fn set_ports(tcp: Tcp, connection: &mut Connection, local: u16) {
    if connection.direction == OUT {
        connection.sport = local;
        connection.dport = tcp.dport();
    } else {
        connection.sport = tcp.dport();
        connection.dport = local;
    }
}
