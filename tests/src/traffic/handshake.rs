//! The unusual ways into ESTABLISHED.

use super::socket::{
    Pair, Server, await_end, begin_connect, bind, connect, end_connect, hear_nothing, set_option, tcp,
    tuple_of,
};
use crate::{
    netns::NetNs,
    truth::{Cause, Truth, Tuple},
};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::fd::AsRawFd as _,
};

/// Client and server side, without cookies in either: the very first SYN carries data.
const FAST_OPEN: u32 = 0x1 | 0x2 | 0x4 | 0x200;

/// Lets sockets of the namespace use fast open from the first connection on.
pub fn allow_fast_open(ns: &NetNs) -> io::Result<()> {
    ns.sysctl("net.ipv4.tcp_fastopen", &FAST_OPEN.to_string())
}

/// Answers every SYN of the namespace by a cookie.
pub fn force_cookies(ns: &NetNs) -> io::Result<()> {
    ns.sysctl("net.ipv4.tcp_syncookies", "2")
}

/// The SYN carries 4 bytes; the server's child exists before the handshake is complete.
pub fn fast_open(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen_with(server, 128, |socket| {
        set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16);
    });
    truth.listened(server.port());
    let client = tcp(server);
    client.send_to_with_flags(b"fast", &server.into(), libc::MSG_FASTOPEN).expect("connect by sendto");
    let child = listener.accept();
    (&child).read_exact(&mut [0; 4]).expect("data of the SYN");
    truth.payload(server.port(), 4, 0);
    truth.whole(tuple_of(&client));
    drop(client);
    await_end(&child);
    truth
}

/// The client does not hear the answer to its SYN with data; the server resets before there is a handshake.
pub fn fast_open_reset(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen_with(server, 128, |socket| {
        set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN, 16);
    });
    truth.listened(server.port());
    let client = tcp(server);
    hear_nothing(&client);
    client.set_nonblocking(true).unwrap();
    // Whether it says that the connection is in progress or how much it took does not matter.
    let _ = client.send_to_with_flags(b"fast", &server.into(), libc::MSG_FASTOPEN);
    let child = listener.accept();
    (&child).read_exact(&mut [0; 4]).expect("data of the SYN");
    child.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(child);
    drop(client);
    truth.failed(server.port(), Cause::Abandoned);
    let inn = truth.inn(server.port());
    inn.opened += 1;
    inn.died += 1;
    truth
}

/// Two sockets that dial each other, SYNs crossing: two outgoing connections, no incoming one. `one` and
/// `other` are addresses (with ports) of this namespace.
pub fn simultaneous_open(one: SocketAddr, other: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let sharing = |address: SocketAddr| {
        let socket = tcp(address);
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket
    };
    let dialler = |from: SocketAddr| {
        let socket = sharing(from);
        bind(&socket, from);
        socket
    };
    let first = dialler(one);
    // The deaf listener swallows each SYN of `first` until `second` dials. Without it the kernel refuses the SYN, or the
    // SYN that a slow machine sends again.
    let deaf = Server::listen_on(sharing(other), other, 128, hear_nothing);
    truth.listened(other.port());
    begin_connect(&first, other);
    let second = dialler(other);
    second.connect(&one.into()).expect("the crossing SYN is answered");
    end_connect(&first).expect("crossed");
    drop(deaf);

    for (port, tuple) in [(other.port(), Tuple::new(one, other)), (one.port(), Tuple::new(other, one))] {
        let out = truth.out(port);
        out.opened += 1;
        out.established += 1;
        out.closed += 1;
        truth.tuples.push(tuple);
    }
    drop(first);
    await_end(&second);
    truth
}

/// A socket that dials itself: one outgoing connection.
pub fn self_connect(address: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let socket = tcp(address);
    socket.set_reuse_address(true).unwrap();
    bind(&socket, address);
    socket.connect(&address.into()).expect("connect to itself");
    (&socket).write_all(b"me").unwrap();
    (&socket).read_exact(&mut [0; 2]).expect("own data");
    let out = truth.out(address.port());
    out.opened += 1;
    out.established += 1;
    out.closed += 1;
    out.sent += 2;
    out.received += 2;
    truth.tuples.push(tuple_of(&socket));
    truth
}

/// A connection by MPTCP: one TCP connection on each side, plus sockets of another protocol that are none.
/// `None` where the kernel has no MPTCP.
pub fn mptcp(server: SocketAddr) -> Option<Truth> {
    let socket = || Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::MPTCP)).ok();
    let mut truth = Truth::default();
    let listener = Server::listen_on(socket()?, server, 16, |_| {});
    truth.listened(server.port());
    let client = socket()?;
    client.set_read_timeout(Some(*super::LIMIT)).unwrap();
    client.connect(&server.into()).expect("connect by MPTCP");
    let Pair { client, server: child, tuple } = listener.pair_from(client);
    super::socket::transfer(&client, &child, 9);
    truth.payload(server.port(), 9, 0);
    truth.whole(tuple);
    drop(client);
    await_end(&child);
    Some(truth)
}

/// A client that is not in the way of anything: `count` connections that stay open until dropped.
pub fn held(server: SocketAddr, count: usize) -> (Truth, Vec<Pair>) {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let pairs: Vec<Pair> = (0..count).map(|_| listener.pair_from(connect(server))).collect();
    for pair in &pairs {
        truth.both(server.port());
        truth.tuples.push(pair.tuple);
    }
    (truth, pairs)
}
