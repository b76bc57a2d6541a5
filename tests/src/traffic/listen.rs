//! Listeners, and connections that no process has accepted.

use super::socket::{
    Server, await_end, await_error, begin_connect, bind, connect, set_option, tcp, tcp_info, tuple_of,
};
use crate::{
    kernel::tally_sockets,
    truth::{Cause, Direction, Key, Truth},
};
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

/// A second socket may bind but not listen: that attempt is nothing.
pub fn in_use(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let sockets = [tcp(server), tcp(server)];
    for socket in &sockets {
        socket.set_reuse_address(true).unwrap();
        bind(socket, server);
    }
    sockets[0].listen(1).expect("the first may listen");
    let error = sockets[1].listen(1).expect_err("the second may not");
    assert_eq!(error.raw_os_error(), Some(libc::EADDRINUSE));
    truth.listened(server.port());
    truth
}

/// `count` listeners opened and closed, one after the other.
pub fn listeners(server: SocketAddr, count: usize) -> Truth {
    let mut truth = Truth::default();
    for _ in 0..count {
        drop(Server::listen(server));
        truth.listened(server.port());
    }
    truth
}

/// The listener closes while `count` children wait to be accepted: they are reset.
pub fn unaccepted(server: SocketAddr, count: usize) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let clients: Vec<_> = (0..count).map(|_| connect(server)).collect();
    for client in &clients {
        truth.whole(tuple_of(client));
    }
    await_children(&listener, count);
    drop(listener);
    for client in &clients {
        assert_eq!(await_error(client).raw_os_error(), Some(libc::ECONNRESET));
    }
    truth
}

/// The same after the clients have sent their FIN: the children are in `CLOSE_WAIT`.
pub fn unaccepted_closed(server: SocketAddr, count: usize) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let clients: Vec<_> = (0..count).map(|_| connect(server)).collect();
    for client in &clients {
        truth.whole(tuple_of(client));
    }
    await_children(&listener, count);
    for client in &clients {
        client.shutdown(Shutdown::Write).unwrap();
    }
    await_state(server.port(), "close_wait", count);
    drop(listener);
    for client in &clients {
        assert_eq!(await_error(client).raw_os_error(), Some(libc::ECONNRESET));
    }
    truth
}

/// Waits until `count` connections of this port, on the side that accepts, are in this state.
fn await_state(port: u16, state: &'static str, count: usize) {
    let deadline = Instant::now() + *super::LIMIT;
    let key = Key { direction: Direction::In, port };
    while tally_sockets(&[port]).get(&(key, state)) != Some(&(count as u64)) {
        assert!(Instant::now() < deadline, "{count} in {state} in time");
        thread::yield_now();
    }
}

/// A client resets before its child is accepted: `accept()` returns a dead socket.
pub fn reset_in_the_queue(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let client = connect(server);
    truth.whole(tuple_of(&client));
    await_children(&listener, 1);
    client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let child = listener.accept();
    assert_eq!(await_error(&child).raw_os_error(), Some(libc::ECONNRESET));
    truth
}

/// A client is established a moment before its child is: waits until all of them are in the queue.
pub fn await_children(listener: &Server, count: usize) {
    let deadline = Instant::now() + *super::LIMIT;
    while queued(listener) < count {
        assert!(Instant::now() < deadline, "{count} children in time");
        thread::yield_now();
    }
}

/// How many children wait to be accepted.
fn queued(listener: &Server) -> usize {
    // Of a listener this is the length of its accept queue (tcp_get_info).
    tcp_info(&listener.socket).tcpi_unacked as usize
}

/// An accept queue for `room` connections is full; the SYNs of `more` clients are dropped until they give up.
pub fn overflow(server: SocketAddr, room: u8, more: usize) -> Truth {
    let mut truth = Truth::default();
    // The kernel takes one more than the backlog says.
    let listener = Server::listen_with(server, i32::from(room) - 1, |_| {});
    truth.listened(server.port());
    let clients: Vec<_> = (0..room).map(|_| connect(server)).collect();
    let late: Vec<_> = (0..more)
        .map(|_| {
            let socket = tcp(server);
            begin_connect(&socket, server);
            socket
        })
        .collect();
    drop(late);
    for _ in 0..more {
        truth.failed(server.port(), Cause::Abandoned);
    }
    let children: Vec<_> = clients.iter().map(|_| listener.accept()).collect();
    for client in &clients {
        truth.whole(tuple_of(client));
    }
    drop(clients);
    children.iter().for_each(await_end);
    truth
}

/// `TCP_DEFER_ACCEPT`: the client is established long before the child is made by its first data.
pub fn deferred(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen_with(server, 16, |socket| {
        set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 10);
    });
    truth.listened(server.port());
    let client = connect(server);
    (&client).write_all(b"now").unwrap();
    let child = listener.accept();
    (&child).read_exact(&mut [0; 3]).expect("the data that woke the server");
    truth.payload(server.port(), 3, 0);
    truth.whole(tuple_of(&client));
    drop(client);
    await_end(&child);
    truth
}
