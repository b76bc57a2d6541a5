//! The ways in which established connections end.

#![expect(unsafe_code, reason = "socket options that nix does not have")]

use super::socket::{
    Server, await_end, await_error, await_fin, connect, disconnect, hear_again, hear_nothing, set_option,
    state_of, transfer, tuple_of,
};
use crate::{netns::NetNs, truth::Truth};
use conn_common::state::CLOSING;
use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr},
    os::fd::AsRawFd as _,
    time::Duration,
};

/// Which end closes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// The end that opened.
    Client,
    /// The end that was accepted.
    Server,
}

/// `count` connections one after the other, 3 bytes up and 5 down in each, closed in good order.
pub fn orderly(server: SocketAddr, count: usize, first: First) -> Truth {
    orderly_on(&Server::listen(server), server, count, first)
}

/// The same through a listener that is already there (and is not counted).
fn orderly_on(listener: &Server, dialled: SocketAddr, count: usize, first: First) -> Truth {
    let mut truth = Truth::default();
    for _ in 0..count {
        let pair = listener.pair_from(connect(dialled));
        pair.exchange(&mut truth, 3, 5);
        truth.whole(pair.tuple);
        let (one, other) = match first {
            First::Client => (pair.client, pair.server),
            First::Server => (pair.server, pair.client),
        };
        drop(one);
        await_end(&other);
    }
    truth.listened(listener.address.port());
    truth
}

/// Connections of the address family of `dialled` to a listener that takes both families: an IPv4 client of
/// a dual-stack server, or an IPv6 socket that dials `::ffff:127.0.0.1`.
pub fn dual_stack(port: u16, dialled: SocketAddr) -> Truth {
    let listener = Server::listen(SocketAddr::new([0_u16; 8].into(), port));
    orderly_on(&listener, dialled, 1, First::Client)
}

/// The server closes with unread data, so that its close is a reset.
pub fn unread(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = {
        let listener = Server::listen(server);
        truth.listened(server.port());
        listener.pair()
    };
    (&pair.client).write_all(b"unread").unwrap();
    // Data on its way is not unread yet.
    (&pair.server).read_exact(&mut [0]).unwrap();
    drop(pair.server);
    assert_eq!(await_error(&pair.client).raw_os_error(), Some(libc::ECONNRESET));
    truth.payload(server.port(), 6, 0);
    truth.whole(pair.tuple);
    truth
}

/// The same once the client's FIN has come, too: a reset in `CLOSE_WAIT`.
pub fn unread_half_closed(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    (&pair.client).write_all(b"unread").unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
    await_fin(&pair.server);
    drop(pair.server);
    assert_eq!(await_error(&pair.client).raw_os_error(), Some(libc::ECONNRESET));
    truth.payload(server.port(), 6, 0);
    truth.whole(pair.tuple);
    truth
}

/// `SO_LINGER` 0: the close of `first` is a reset.
pub fn linger0(server: SocketAddr, first: First) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.exchange(&mut truth, 1, 1);
    truth.whole(pair.tuple);
    let (one, other) = match first {
        First::Client => (pair.client, pair.server),
        First::Server => (pair.server, pair.client),
    };
    one.set_linger(Some(Duration::ZERO)).unwrap();
    drop(one);
    assert_eq!(await_error(&other).raw_os_error(), Some(libc::ECONNRESET));
    truth
}

/// The client shuts its sending side down, the server still answers, both close.
pub fn half_close(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.client.shutdown(Shutdown::Write).unwrap();
    await_end(&pair.server);
    transfer(&pair.server, &pair.client, 7);
    truth.payload(server.port(), 0, 7);
    drop(pair.server);
    await_end(&pair.client);
    truth.whole(pair.tuple);
    truth
}

/// The client shuts down and closes while the server is still open: `FIN_WAIT2` goes to a mini-socket.
pub fn half_close_orphan(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.client.shutdown(Shutdown::Write).unwrap();
    await_end(&pair.server);
    drop(pair.client);
    drop(pair.server);
    truth.whole(pair.tuple);
    truth
}

/// The client shuts down, and then resets instead of waiting for the server: a reset in `CLOSE_WAIT`. By
/// `SO_LINGER` 0, or by `TCP_LINGER2` below 0, which forbids the mini-socket.
pub fn half_close_reset(server: SocketAddr, by_linger2: bool) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.client.shutdown(Shutdown::Write).unwrap();
    await_end(&pair.server);
    if by_linger2 {
        set_option(pair.client.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_LINGER2, -1);
    } else {
        pair.client.set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(pair.client);
    assert_eq!(await_reset(&pair.server), libc::EPIPE);
    truth.whole(pair.tuple);
    truth
}

/// The client shuts down, and resets while the server waits in `LAST_ACK` for an answer to its own FIN.
pub fn reset_in_last_ack(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.client.shutdown(Shutdown::Write).unwrap();
    await_end(&pair.server);
    hear_nothing(&pair.client);
    drop(pair.server);
    pair.client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(pair.client);
    truth.whole(pair.tuple);
    truth
}

/// Both shut down, the client hears nothing of that, and resets while the server waits in `CLOSING`.
pub fn reset_in_closing(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    hear_nothing(&pair.client);
    pair.server.shutdown(Shutdown::Write).unwrap();
    pair.client.shutdown(Shutdown::Write).unwrap();
    await_end(&pair.server);
    assert_eq!(state_of(&pair.server), CLOSING);
    pair.client.set_linger(Some(Duration::ZERO)).unwrap();
    drop(pair.client);
    assert_eq!(await_reset(&pair.server), libc::ECONNRESET);
    truth.whole(pair.tuple);
    truth
}

/// The server still has something to say when the client has closed: its mini-socket answers by a reset.
pub fn late_data(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    drop(pair.client);
    await_end(&pair.server);
    (&pair.server).write_all(b"late").unwrap();
    // The data arrive, but no process reads them.
    truth.inn(server.port()).sent += 4;
    assert_eq!(await_reset(&pair.server), libc::EPIPE);
    truth.whole(pair.tuple);
    truth
}

/// The client closes while its FIN waits behind data that the server has no room for; then the server says
/// something, which the client's kernel answers by a reset.
pub fn data_after_close(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    let up = fill(&pair.client);
    drop(pair.client);
    (&pair.server).write_all(b"?").unwrap();
    assert_eq!(await_reset(&pair.server), libc::ECONNRESET);
    truth.out(server.port()).sent += up;
    truth.whole(pair.tuple);
    truth
}

/// Sends as much as the other side has room for, and a little more; how much.
fn fill(mut socket: &socket2::Socket) -> u64 {
    socket.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let piece = vec![0; 65_536];
    while let Ok(len) = socket.write(&piece) {
        sent += len as u64;
    }
    socket.set_nonblocking(false).unwrap();
    sent
}

/// Waits for a reset that no read returns, since the other side had closed before. Gives the error.
fn await_reset(socket: &socket2::Socket) -> i32 {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: one valid pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, super::LIMIT.as_millis() as i32) };
    assert_eq!(ready, 1, "a reset in time");
    let error = socket.take_error().unwrap().expect("an error");
    error.raw_os_error().expect("an errno")
}

/// Both FINs wait behind data that the other side has no room for; then they cross (CLOSING).
pub fn simultaneous(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    let fill = |socket: &socket2::Socket| {
        let sent = fill(socket);
        socket.shutdown(Shutdown::Write).unwrap();
        sent
    };
    let drain = |mut socket: &socket2::Socket| {
        let mut got = 0;
        let mut room = vec![0; 65_536];
        loop {
            match socket.read(&mut room).expect("data in time") {
                0 => return got,
                len => got += len as u64,
            }
        }
    };
    let (up, down) = (fill(&pair.client), fill(&pair.server));
    assert_eq!(drain(&pair.client), down);
    assert_eq!(drain(&pair.server), up);
    truth.payload(server.port(), up, down);
    truth.whole(pair.tuple);
    truth
}

/// `connect(AF_UNSPEC)` and a second connection by the same socket.
pub fn reuse(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let client = connect(server);
    let first = listener.accept();
    truth.whole(tuple_of(&client));
    disconnect(&client);
    assert_eq!(await_error(&first).raw_os_error(), Some(libc::ECONNRESET));

    client.connect(&server.into()).expect("connect again");
    let second = listener.accept();
    truth.whole(tuple_of(&client));
    drop(client);
    await_end(&second);
    truth
}

/// The server's socket goes deaf; the client notices by keepalive probes (about 2 s).
pub fn keepalive(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    let second = Duration::from_secs(1);
    pair.client
        .set_tcp_keepalive(
            &socket2::TcpKeepalive::new().with_time(second).with_interval(second).with_retries(1),
        )
        .unwrap();
    timed_out(&mut truth, &pair);
    truth
}

/// The server's socket goes deaf; the client notices by unanswered data and `TCP_USER_TIMEOUT`.
pub fn user_timeout(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.client.set_tcp_user_timeout(Some(Duration::from_millis(300))).unwrap();
    hear_nothing(&pair.server);
    (&pair.client).write_all(b"lost").unwrap();
    // They were sent and never arrived.
    truth.out(server.port()).sent += 4;
    timed_out(&mut truth, &pair);
    truth
}

/// The network says that the server is not there any more; `TCP_USER_TIMEOUT` ends the connection by what was
/// said. `server` and `leave` are those of another namespace.
pub fn unreachable(there: &NetNs, server: SocketAddr, leave: impl FnOnce()) -> Truth {
    let mut truth = Truth::default();
    let listener = there.run(|| Server::listen(server));
    truth.listened(server.port());
    let pair = listener.pair();
    truth.both(server.port());
    pair.client.set_tcp_user_timeout(Some(Duration::from_millis(300))).unwrap();
    leave();
    (&pair.client).write_all(b"lost").unwrap();
    let errno = await_error(&pair.client).raw_os_error();
    assert!(matches!(errno, Some(libc::ENETUNREACH | libc::EHOSTUNREACH)), "{errno:?}");
    truth.tuples.push(pair.tuple);
    truth
}

/// The client closes towards a server that does not hear it; `TCP_USER_TIMEOUT` ends the orphan.
pub fn orphan_timeout(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    pair.client.set_tcp_user_timeout(Some(Duration::from_millis(300))).unwrap();
    hear_nothing(&pair.server);
    drop(pair.client);
    // Deaf means that the answers of a mini-socket or of none are not heard either: ask until one is gone.
    while is_known(pair.tuple) {
        std::thread::yield_now();
    }
    hear_again(&pair.server);
    (&pair.server).write_all(b"?").unwrap();
    truth.inn(server.port()).sent += 1;
    assert_eq!(await_error(&pair.server).raw_os_error(), Some(libc::ECONNRESET));
    truth.whole(pair.tuple);
    truth
}

/// Whether the client's socket is still there.
fn is_known(tuple: crate::truth::Tuple) -> bool {
    crate::kernel::tally_sockets(&[tuple.server.port()])
        .keys()
        .any(|(key, _)| key.direction == crate::truth::Direction::Out)
}

fn timed_out(truth: &mut Truth, pair: &super::Pair) {
    hear_nothing(&pair.server);
    assert_eq!(await_error(&pair.client).raw_os_error(), Some(libc::ETIMEDOUT));
    // The server finds no client any more and is reset.
    hear_again(&pair.server);
    (&pair.server).write_all(b"?").unwrap();
    truth.inn(pair.tuple.server.port()).sent += 1;
    assert_eq!(await_error(&pair.server).raw_os_error(), Some(libc::ECONNRESET));
    truth.whole(pair.tuple);
}
