//! The hosts of the documents' samples: two network namespaces with addresses of RFC 5737, and processes in them that are
//! called `ssh`, `sshd` and `telnet`.

use crate::{
    harness::Skip,
    netns::{NetNs, Resident, Veth},
    traffic::{
        LIMIT, Server,
        process::Process,
        socket::{await_end, connect, tcp},
    },
};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, poll},
    unistd::pipe2,
};
use socket2::Socket;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    time::Instant,
};

/// The address of the client's host.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
/// The address of the server's host.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 22);

/// Bytes that a client sends.
const REQUEST: u64 = 64;
/// Bytes that the server sends.
const ANSWER: u64 = 56;

/// The two hosts, with `sshd` on port 22 of the server.
#[derive(Debug)]
pub struct Stage {
    client: NetNs,
    server: NetNs,
    _residents: [Resident; 2],
    _link: Veth,
    sshd: Process,
}

/// A process `ssh` with an open connection. Dropped, it closes the connection and ends.
#[derive(Debug)]
pub struct Session {
    process: Option<Process>,
    end: Option<OwnedFd>,
}

impl Stage {
    /// Makes the hosts and waits until `sshd` listens.
    ///
    /// # Errors
    /// The machine has no namespaces or no virtual links.
    pub fn new() -> Result<Self, Skip> {
        let fail = |what| move |error| Skip(format!("cannot make {what}: {error}"));
        let [client, server] = [NetNs::new(), NetNs::new()].map(|made| made.map_err(fail("a namespace")));
        let (client, server) = (client?, server?);
        let link = client.join(&server).map_err(fail("a veth pair"))?;
        for (host, address) in [(&client, CLIENT), (&server, SERVER)] {
            host.address(&link.name, IpAddr::V4(address), 24).map_err(fail("an address"))?;
        }
        let sshd = server.run(sshd);
        let residents = [client.settle(), server.settle()];
        Ok(Self { client, server, _residents: residents, _link: link, sshd })
    }

    /// The process id of `sshd`.
    pub fn sshd(&self) -> u32 {
        self.sshd.pid()
    }

    /// Starts a process `ssh` that connects, sends and receives, and then keeps the connection open.
    pub fn open(&self) -> Session {
        let (hear, end) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let (ready, signal) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
        let kept = [hear.as_raw_fd(), signal.as_raw_fd()];
        let process = self.client.run(|| {
            Process::run("ssh", &kept, || {
                let socket = connect(SocketAddr::from((SERVER, 22)));
                (&socket).write_all(&[0; REQUEST as usize]).expect("send");
                (&socket).read_exact(&mut [0; ANSWER as usize]).expect("receive");
                nix::unistd::write(&signal, b"!").expect("write");
                nix::unistd::read(&hear, &mut [0]).expect("read");
                drop(socket);
            })
        });
        drop(signal);
        await_byte(ready);
        Session { process: Some(process), end: Some(end) }
    }

    /// A process `telnet` that is refused, since no process listens on port 23.
    pub fn refused(&self) {
        let process = self.client.run(|| {
            Process::run("telnet", &[], || {
                let server = SocketAddr::from((SERVER, 23));
                tcp(server).connect(&server.into()).expect_err("no process listens there");
            })
        });
        process.join();
    }

    /// Processes `dig` that ask a server on this port over UDP, one after the other.
    pub fn queries(&self, port: u16, count: usize) {
        let server = self.server.run(|| UdpSocket::bind((SERVER, port)).expect("bind"));
        let query = || {
            let client = udp_client(port);
            client.send(&[0; 40]).expect("send");
            client.recv(&mut [0; 512]).expect("receive");
        };
        for _ in 0..count {
            let dig = self.client.run(|| Process::run("dig", &[], query));
            let (_, from) = server.recv_from(&mut [0; 512]).expect("receive");
            server.send_to(&[0; 100], from).expect("send");
            dig.join();
        }
    }

    /// A query over UDP to a port without a socket.
    pub fn query_refused(&self, port: u16) {
        self.client.run(|| {
            let client = udp_client(port);
            client.send(&[0; 48]).expect("send");
            client.recv(&mut [0; 8]).expect_err("no process answers");
        });
    }

    /// A process `telnetd` that listens on port 23 for a moment.
    pub fn listens(&self) {
        let address = SocketAddr::from((SERVER, 23));
        let process = self.server.run(|| Process::run("telnetd", &[], || drop(Server::listen(address))));
        process.join();
    }
}

/// A socket of the client's host that is connected to the server's.
fn udp_client(port: u16) -> UdpSocket {
    let client = UdpSocket::bind((CLIENT, 0)).expect("bind");
    client.connect((SERVER, port)).expect("connect");
    client
}

impl Session {
    /// Closes the connection and waits for the end of the process.
    pub fn close(mut self) {
        self.end = None;
        if let Some(process) = self.process.take() {
            process.join();
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end = None;
    }
}

/// Starts `sshd`, which answers every connection and closes it after its client.
fn sshd() -> Process {
    let (ready, signal) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let process = Process::run("sshd", &[signal.as_raw_fd()], || {
        let server = Server::listen(SocketAddr::from((SERVER, 22)));
        nix::unistd::write(&signal, b"!").expect("write");
        serve(&server);
    });
    drop(signal);
    await_byte(ready);
    process
}

/// Serves until it is killed, or until no client comes any more: a killed test leaves no process behind.
fn serve(server: &Server) {
    let mut open: Vec<Socket> = Vec::new();
    loop {
        let listener = PollFd::new(server.socket.as_fd(), PollFlags::POLLIN);
        let ended = open.iter().map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        let mut waits: Vec<PollFd<'_>> = [listener].into_iter().chain(ended).collect();
        if poll(&mut waits, 60_000_u16).expect("poll") == 0 {
            return;
        }
        let fired: Vec<bool> = waits.iter().map(|wait| wait.any().unwrap_or(false)).collect();
        for index in (0..open.len()).rev().filter(|index| fired[index + 1]) {
            let socket = open.swap_remove(index);
            await_end(&socket);
        }
        if fired[0] {
            let socket = server.accept();
            (&socket).read_exact(&mut [0; REQUEST as usize]).expect("receive");
            (&socket).write_all(&[0; ANSWER as usize]).expect("send");
            open.push(socket);
        }
    }
}

/// Waits until a process has written a byte.
fn await_byte(ready: OwnedFd) {
    let deadline = Instant::now() + *LIMIT;
    let read = File::from(ready).read(&mut [0]).expect("read");
    assert!(read == 1 && Instant::now() < deadline, "the process ended before it was ready");
}
