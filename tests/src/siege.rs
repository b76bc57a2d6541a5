//! A host under attack for the documents' samples: `nginx` and `postgres`, which accept no connection, and an attacker.

use crate::{
    range::Range,
    traffic::{
        Server,
        process::Process,
        socket::connect,
        syn::{SynSender, sources_v4},
    },
};
use nix::{fcntl::OFlag, unistd::pipe2};
use socket2::Socket;
use std::{
    fs::File,
    io::Read as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    os::fd::{AsRawFd as _, OwnedFd},
};

/// The port of `nginx`.
pub const WEB: u16 = 80;
/// The port of `postgres`.
pub const DATABASE: u16 = 5_432;

/// Connections that may wait for `nginx`.
const WEB_BACKLOG: i32 = 64;
/// The source of a scan.
const SCANNER: Ipv4Addr = Ipv4Addr::new(10, 200, 0, 1);

/// The host. Its processes end with it.
#[derive(Debug)]
pub struct Siege {
    range: Range,
    /// The ends of pipes that keep the processes.
    _processes: [(Process, OwnedFd); 2],
}

impl Siege {
    /// Starts the processes and waits until they listen.
    ///
    /// # Panics
    /// The machine has no namespaces.
    pub fn begin() -> Self {
        let range = Range::new("1");
        // A request is abandoned after a second.
        range.victim.sysctl("net.ipv4.tcp_synack_retries", "0").expect("a setting of the namespace");
        let start = |name, port, backlog| {
            let address = SocketAddr::new(range.end.v4.into(), port);
            range.victim.run(|| listen(name, address, backlog))
        };
        let processes = [start("nginx", WEB, WEB_BACKLOG), start("postgres", DATABASE, 0)];
        Self { range, _processes: processes }
    }

    /// A SYN to `nginx` from each of so many addresses, after the first ones.
    pub fn flood(&self, first: usize, count: usize) {
        self.range.send(sources_v4().skip(first).take(count), self.at(WEB));
    }

    /// SYNs to these ports, but that of `postgres`, from one address.
    pub fn scan(&self, ports: RangeInclusive<u16>) {
        let from = SocketAddr::new(IpAddr::V4(SCANNER), 40_000);
        let syns = ports.filter(|&port| port != DATABASE).map(|port| (from, self.at(port)));
        self.range.attacker.run(|| SynSender::new().expect("raw sockets").send(syns));
    }

    /// A client fills the accept queue of `postgres`, and so many SYNs follow.
    pub fn fill(&self, more: usize) -> Socket {
        let client = self.range.attacker.run(|| connect(self.at(DATABASE)));
        self.range.send(sources_v4().take(more), self.at(DATABASE));
        client
    }

    fn at(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.range.end.v4.into(), port)
    }
}

/// Starts a process that listens, and accepts nothing until the pipe is closed.
fn listen(name: &str, address: SocketAddr, backlog: i32) -> (Process, OwnedFd) {
    let (hear, end) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let (ready, signal) = pipe2(OFlag::O_CLOEXEC).expect("a pipe");
    let process = Process::run(name, &[hear.as_raw_fd(), signal.as_raw_fd()], || {
        let _server = Server::listen_with(address, backlog, |_| {});
        nix::unistd::write(&signal, b"!").expect("write");
        nix::unistd::read(&hear, &mut [0]).expect("read");
    });
    drop(signal);
    assert_eq!(File::from(ready).read(&mut [0]).expect("read"), 1, "{name} ended before it was ready");
    (process, end)
}
