//! Sockets killed from outside, as `ss -K` does. The functions fail where the kernel cannot.

use super::{
    listen::await_children,
    socket::{Server, await_error, begin_connect, bind, connect, end_connect, tcp, transfer, tuple_of},
};
use crate::{
    kernel::destroy,
    truth::{Cause, Truth, Tuple},
};
use std::{io, net::SocketAddr};

/// The client is killed; the server is reset.
///
/// # Errors
/// The kernel cannot kill sockets.
pub fn connected(server: SocketAddr) -> io::Result<Truth> {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.exchange(&mut truth, 2, 1);
    truth.whole(pair.tuple);
    destroy(pair.tuple.client, pair.tuple.server)?;
    assert_eq!(await_error(&pair.client).raw_os_error(), Some(libc::ECONNABORTED));
    assert_eq!(await_error(&pair.server).raw_os_error(), Some(libc::ECONNRESET));
    Ok(truth)
}

/// The client is killed before it has an answer.
///
/// # Errors
/// The kernel cannot kill sockets.
pub fn connecting(server: SocketAddr) -> io::Result<Truth> {
    let mut truth = Truth::default();
    let _listener = Server::deaf(server);
    truth.listened(server.port());
    let client = tcp(server);
    bind(&client, SocketAddr::new(server.ip(), 0));
    let address = client.local_addr()?.as_socket().expect("an address");
    begin_connect(&client, server);
    truth.failed(server.port(), Cause::Aborted);
    truth.tuples.push(Tuple::new(address, server));
    destroy(address, server)?;
    let error = end_connect(&client).expect_err("it was killed");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNABORTED));
    Ok(truth)
}

/// The listener is killed while `count` children wait to be accepted, and one that was accepted lives on.
///
/// # Errors
/// The kernel cannot kill sockets.
pub fn listening(server: SocketAddr, count: usize) -> io::Result<Truth> {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let pair = listener.pair();
    let clients: Vec<_> = (0..count).map(|_| connect(server)).collect();
    for client in &clients {
        truth.whole(tuple_of(client));
    }
    await_children(&listener, count);
    destroy(server, SocketAddr::new(if server.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }, 0))?;
    for client in &clients {
        assert_eq!(await_error(client).raw_os_error(), Some(libc::ECONNRESET));
    }
    transfer(&pair.client, &pair.server, 4);
    truth.payload(server.port(), 4, 0);
    truth.whole(pair.tuple);
    Ok(truth)
}
