//! Sockets that starve, fill or flood what the kernel programs and the reader of events have.

use crate::traffic::{
    Server,
    crew::Line,
    socket::{begin_connect, connect, hear_nothing, tcp},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    thread,
    time::Duration,
};

/// Connections to one address: fewer than there are source ports.
const BLOCK: usize = 20_000;
/// Connections after which a flood is under way.
const UNDER_WAY: usize = 20_000;

/// The address of a block of connections.
fn block(number: usize, port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(127, 0, 1, number as u8 + 1), port))
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Opens and resets this many connections to a port, one after the other. Both ends belong to the attacker.
pub fn connect_and_reset(count: usize, port: u16) {
    let server = Server::listen(local(port));
    for _ in 0..count {
        let pair = server.pair();
        pair.client.set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// Holds so many connections to a port, each with both ends.
pub fn hold(line: &Line, count: usize, port: u16) {
    let server = Server::listen_with(any(port), 4096, |_| {});
    let _open: Vec<_> = (0..count).map(|at| server.pair_from(connect(block(at / BLOCK, port)))).collect();
    line.ready();
    line.wait();
}

/// Makes short connections without memory for socket storage: the owner of a namespace sets the limit of that memory
/// (`net.core.optmem_max`).
pub fn connect_without_storage(count: usize, port: u16) {
    fs::write("/proc/sys/net/core/optmem_max", "1").expect("a limit of the namespace");
    connect_and_reset(count, port);
}

/// The same for ever, a few each second: each of them may be one that no hook can remember.
pub fn keep_without_storage(line: &Line, port: u16) {
    connect_without_storage(1, port);
    line.ready();
    loop {
        connect_and_reset(1, port);
        thread::sleep(Duration::from_millis(50));
    }
}

/// Opens and resets connections to a port, as fast as possible, for ever.
pub fn flood(line: &Line, port: u16) {
    let server = Server::listen_with(any(port), 4096, |_| {});
    for made in 0_usize.. {
        if made == UNDER_WAY {
            line.ready();
        }
        let address = block(made / BLOCK % 200, port);
        let pair = server.pair_from(connect(address));
        pair.client.set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

/// Tries a port that no process listens on, as fast as possible, for ever: each attempt makes two events in a few
/// microseconds.
pub fn flood_refused(line: &Line, port: u16) {
    for made in 0_usize.. {
        if made == UNDER_WAY {
            line.ready();
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        let _ = socket.connect(&local(port).into());
    }
}

/// Tries every one of these ports once. No process listens.
pub fn try_ports(ports: RangeInclusive<u16>) {
    for port in ports {
        // The kernel may choose the same port for this end, which then answers itself.
        let _ = tcp(local(port)).connect(&local(port).into());
    }
}

/// Listens on every one of these ports.
pub fn listen_everywhere(line: &Line, ports: RangeInclusive<u16>) {
    let listen = |port: u16| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        socket.bind(&local(port).into()).expect("an address");
        socket.listen(1).expect("listen");
        socket
    };
    let _all: Vec<Socket> = ports.map(listen).collect();
    line.ready();
    line.wait();
}

/// Begins so many connections by MPTCP that no process answers.
pub fn attempt_by_mptcp(line: &Line, count: usize, port: u16) {
    let _deaf = Server::listen_with(any(port), 1, hear_nothing);
    let attempt = |at: usize| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).expect("a socket");
        begin_connect(&socket, block(at / BLOCK, port));
        socket
    };
    let _all: Vec<Socket> = (0..count).map(attempt).collect();
    line.ready();
    line.wait();
}
