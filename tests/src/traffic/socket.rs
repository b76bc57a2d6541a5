//! The sockets that all traffic is made of.

#![expect(unsafe_code, reason = "some socket options and calls have no safe form")]

use super::LIMIT;
use crate::truth::{Truth, Tuple};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};
use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    thread,
    time::{Duration, Instant},
};

/// A TCP socket for addresses of this kind, with every wait bounded.
pub fn tcp(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).unwrap();
    bounded(&socket);
    socket
}

fn bounded(socket: &Socket) {
    socket.set_read_timeout(Some(*LIMIT)).unwrap();
    // Bounds connect() as well.
    socket.set_write_timeout(Some(*LIMIT)).unwrap();
}

/// A listening socket.
#[derive(Debug)]
pub struct Server {
    /// The socket.
    pub socket: Socket,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Server {
    /// Listens; on an IPv6 wildcard address for both families.
    pub fn listen(address: SocketAddr) -> Self {
        Self::listen_with(address, 128, |_| {})
    }

    /// Listens with this backlog after `prepare` has set options.
    pub fn listen_with(address: SocketAddr, backlog: i32, prepare: impl FnOnce(&Socket)) -> Self {
        let socket = tcp(address);
        Self::listen_on(socket, address, backlog, prepare)
    }

    /// The same, with a socket of another protocol (MPTCP).
    pub fn listen_on(
        socket: Socket,
        address: SocketAddr,
        backlog: i32,
        prepare: impl FnOnce(&Socket),
    ) -> Self {
        socket.set_reuse_address(true).unwrap();
        if address.is_ipv6() {
            socket.set_only_v6(!address.ip().is_unspecified()).unwrap();
        }
        bind(&socket, address);
        prepare(&socket);
        socket.listen(backlog).unwrap_or_else(|error| panic!("listen on {address}: {error}"));
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket, address }
    }

    /// A listener whose socket drops every packet: its clients stay in `SYN_SENT`, whatever they do.
    pub fn deaf(address: SocketAddr) -> Self {
        Self::listen_with(address, 128, hear_nothing)
    }

    /// The next child.
    pub fn accept(&self) -> Socket {
        let (socket, _) = self.socket.accept().expect("accept in time");
        bounded(&socket);
        socket
    }

    /// Connects to this listener and accepts.
    pub fn pair(&self) -> Pair {
        self.pair_from(connect(self.address))
    }

    /// Accepts what `client` has just connected.
    pub fn pair_from(&self, client: Socket) -> Pair {
        let tuple = tuple_of(&client);
        Pair { client, server: self.accept(), tuple }
    }
}

/// Binds. A process that another test has just forked holds copies of this process's sockets until it has
/// closed them or executed its program, so an address may be in use for a moment after its last close.
pub fn bind(socket: &Socket, address: SocketAddr) {
    let deadline = Instant::now() + *LIMIT;
    while let Err(error) = socket.bind(&address.into()) {
        let in_use = error.raw_os_error() == Some(libc::EADDRINUSE);
        assert!(in_use && Instant::now() < deadline, "bind {address}: {error}");
        thread::yield_now();
    }
}

/// A new socket connected to `server`.
pub fn connect(server: SocketAddr) -> Socket {
    let socket = tcp(server);
    socket.connect(&server.into()).unwrap_or_else(|error| panic!("connect to {server}: {error}"));
    socket
}

/// The tuple of a connected client socket.
pub fn tuple_of(client: &Socket) -> Tuple {
    let address = |address: io::Result<SockAddr>| address.unwrap().as_socket().unwrap();
    Tuple::new(address(client.local_addr()), address(client.peer_addr()))
}

/// Both ends of an established connection.
#[derive(Debug)]
pub struct Pair {
    /// The end that opened it.
    pub client: Socket,
    /// The end that was accepted.
    pub server: Socket,
    /// The addresses.
    pub tuple: Tuple,
}

impl Pair {
    /// Sends `up` bytes to the server and `down` bytes back, both read to the last.
    pub fn exchange(&self, truth: &mut Truth, up: u64, down: u64) {
        transfer(&self.client, &self.server, up);
        transfer(&self.server, &self.client, down);
        truth.payload(self.tuple.server.port(), up, down);
    }
}

/// Moves `count` bytes, a piece at a time, so that one thread can hold both ends.
pub fn transfer(mut from: &Socket, mut to: &Socket, count: u64) {
    let piece = [0x5a; 4096];
    let mut room = [0; 4096];
    let mut left = count as usize;
    while left > 0 {
        let len = left.min(piece.len());
        from.write_all(&piece[..len]).expect("send in time");
        to.read_exact(&mut room[..len]).expect("receive in time");
        left -= len;
    }
}

/// Waits for the other side's FIN.
pub fn await_end(mut socket: &Socket) {
    let mut byte = [0];
    assert_eq!(socket.read(&mut byte).expect("the end in time"), 0, "the end, not data");
}

/// Waits for the error that ends the connection.
pub fn await_error(mut socket: &Socket) -> io::Error {
    loop {
        match socket.read(&mut [0; 64]) {
            Ok(0) => panic!("an orderly end instead of an error"),
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "no error in time");
                return error;
            }
        }
    }
}

/// Starts to connect without waiting for the answer.
pub fn begin_connect(socket: &Socket, server: SocketAddr) {
    socket.set_nonblocking(true).unwrap();
    let error = socket.connect(&server.into()).expect_err("the answer is not there yet");
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS), "{error}");
}

/// Waits until a connect that was begun is through, and says how it went.
pub fn end_connect(socket: &Socket) -> io::Result<()> {
    await_poll(socket, libc::POLLOUT);
    socket.set_nonblocking(false)?;
    socket.take_error()?.map_or(Ok(()), Err)
}

/// Waits for the other side's FIN and reads nothing.
pub fn await_fin(socket: &Socket) {
    await_poll(socket, libc::POLLRDHUP);
}

fn await_poll(socket: &Socket, events: i16) {
    let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events, revents: 0 };
    // SAFETY: one valid pollfd.
    let ready = unsafe { libc::poll(&raw mut poll, 1, LIMIT.as_millis() as i32) };
    assert_eq!(ready, 1, "what is polled for comes in time");
}

/// `connect(AF_UNSPEC)`: ends the connection, keeps the socket.
pub fn disconnect(socket: &Socket) {
    // All zeros is AF_UNSPEC.
    let storage = SockAddrStorage::zeroed();
    // SAFETY: the storage is longer than that, and AF_UNSPEC means only the family is read.
    let address = unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_in>() as libc::socklen_t) };
    socket.connect(&address).expect("disconnect");
}

/// From now on the socket drops every packet it gets.
pub fn hear_nothing(socket: &Socket) {
    let keep_0_bytes = SockFilter::new((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0);
    socket.attach_filter(&[keep_0_bytes]).expect("attach a filter");
}

/// The socket hears again.
pub fn hear_again(socket: &Socket) {
    socket.detach_filter().expect("detach the filter");
}

/// Sets an integer option that socket2 has no name for.
pub fn set_option(fd: RawFd, level: i32, name: i32, value: i32) {
    // SAFETY: the value is a valid int for the duration of the call.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), 4) };
    assert_eq!(result, 0, "setsockopt {level}/{name}: {}", io::Error::last_os_error());
}

/// The same for an option of another size.
pub fn set_option_bytes(fd: RawFd, level: i32, name: i32, value: &[u8]) {
    // SAFETY: the value is valid for the duration of the call.
    let result = unsafe { libc::setsockopt(fd, level, name, value.as_ptr().cast(), value.len() as u32) };
    assert_eq!(result, 0, "setsockopt {level}/{name}: {}", io::Error::last_os_error());
}

/// The first retransmission is also the last; with a listener that hears nothing, `connect()` fails soon.
pub fn give_up_soon(socket: &Socket) {
    set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_SYNCNT, 1);
    socket.set_tcp_user_timeout(Some(Duration::from_millis(200))).unwrap();
}

/// The TCP state of a socket, by its number in the kernel.
pub fn state_of(socket: &Socket) -> u8 {
    let mut state = 0_u8;
    let mut len: libc::socklen_t = 1;
    // The state is the first byte of struct tcp_info.
    // SAFETY: one byte that is ours, and its length.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut len,
        )
    };
    assert_eq!(result, 0, "getsockopt TCP_INFO: {}", io::Error::last_os_error());
    state
}

/// What the kernel says of a socket of TCP.
pub fn tcp_info(socket: &impl AsRawFd) -> libc::tcp_info {
    // SAFETY: integers, for which zeros are valid.
    let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    // SAFETY: a valid buffer of the given length.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut len)
    };
    assert_eq!(result, 0, "TCP_INFO: {}", io::Error::last_os_error());
    info
}
