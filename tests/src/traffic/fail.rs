//! Outgoing connections that never are established.

use super::socket::{Server, await_end, begin_connect, connect, give_up_soon, set_option, tcp, tuple_of};
use crate::truth::{Cause, Truth, Tuple};
use socket2::Socket;
use std::{net::SocketAddr, os::fd::AsRawFd as _};

/// Binds an own source port, so that the tuple of the attempt is known even if it fails.
fn bound(server: SocketAddr) -> (Socket, Tuple) {
    let socket = tcp(server);
    let any = SocketAddr::new(server.ip(), 0);
    socket.bind(&any.into()).unwrap();
    let client = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, Tuple::new(client, server))
}

fn fails(socket: &Socket, server: SocketAddr, errno: i32) {
    let error = socket.connect(&server.into()).expect_err("connect must fail");
    assert_eq!(error.raw_os_error(), Some(errno), "connect to {server}: {error}");
}

/// `count` attempts at a port without a listener. The kernel chooses each source port at the last moment, and no call
/// returns it afterwards, so `tuples` stays empty.
pub fn refused(server: SocketAddr, count: usize) -> Truth {
    let mut truth = Truth::default();
    for _ in 0..count {
        fails(&tcp(server), server, libc::ECONNREFUSED);
        truth.failed(server.port(), Cause::Refused);
    }
    truth
}

/// An attempt at a port without a listener. The source port was bound before, so the tuple is known.
pub fn refused_bound(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let (socket, tuple) = bound(server);
    fails(&socket, server, libc::ECONNREFUSED);
    truth.failed(server.port(), Cause::Refused);
    truth.tuples.push(tuple);
    truth
}

/// Refused, then connected, by the same socket.
pub fn refused_then_connected(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let client = tcp(server);
    fails(&client, server, libc::ECONNREFUSED);
    truth.failed(server.port(), Cause::Refused);
    let listener = Server::listen(server);
    truth.listened(server.port());
    client.connect(&server.into()).expect("connect again");
    truth.whole(tuple_of(&client));
    let child = listener.accept();
    drop(client);
    await_end(&child);
    truth
}

/// No answer to any SYN (about a second).
pub fn timed_out(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::deaf(server);
    let (socket, tuple) = bound(server);
    give_up_soon(&socket);
    fails(&socket, server, libc::ETIMEDOUT);
    drop(listener);
    truth.failed(server.port(), Cause::TimedOut);
    truth.tuples.push(tuple);
    truth.listened(server.port());
    truth
}

/// The next hop does not answer. `server` must be an unused address of a directly connected network, see
/// [`crate::netns::Veth::unused`].
pub fn unreachable(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    fails(&tcp(server), server, libc::EHOSTUNREACH);
    truth.failed(server.port(), Cause::Unreachable);
    truth
}

/// No route: the kernel says so before there is an attempt, so nothing is counted.
pub fn no_route(server: SocketAddr) -> Truth {
    fails(&tcp(server), server, libc::ENETUNREACH);
    Truth::default()
}

/// A non-blocking connect without an answer, given up by `close()`.
pub fn abandoned(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::deaf(server);
    let (socket, tuple) = bound(server);
    begin_connect(&socket, server);
    drop(socket);
    drop(listener);
    truth.failed(server.port(), Cause::Abandoned);
    truth.tuples.push(tuple);
    truth.listened(server.port());
    truth
}

/// `count` of these, as fast as possible, with unknown source ports.
pub fn abandoned_many(server: SocketAddr, count: usize) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::deaf(server);
    for _ in 0..count {
        let socket = tcp(server);
        begin_connect(&socket, server);
        drop(socket);
        truth.failed(server.port(), Cause::Abandoned);
    }
    drop(listener);
    truth.listened(server.port());
    truth
}

/// The same, given up by `shutdown()`.
pub fn abandoned_by_shutdown(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::deaf(server);
    let (socket, tuple) = bound(server);
    begin_connect(&socket, server);
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    drop(socket);
    drop(listener);
    truth.failed(server.port(), Cause::Abandoned);
    truth.tuples.push(tuple);
    truth.listened(server.port());
    truth
}

/// All source ports are taken. Call it in a namespace whose `net.ipv4.ip_local_port_range` is one port.
pub fn no_source_port(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let holder = connect(server);
    truth.whole(tuple_of(&holder));
    fails(&tcp(server), server, libc::EADDRNOTAVAIL);
    truth.failed(server.port(), Cause::Local);
    let child = listener.accept();
    drop(holder);
    await_end(&child);
    truth
}

/// `TCP_FASTOPEN_CONNECT` puts the SYN off until the first write, which never comes. Call it in a namespace
/// with [`super::handshake::allow_fast_open`].
pub fn fast_open_abandoned(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let socket = tcp(server);
    set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, 1);
    socket.connect(&server.into()).expect("connect without a SYN");
    drop(socket);
    truth.failed(server.port(), Cause::Local);
    truth
}
