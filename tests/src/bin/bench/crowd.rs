//! Many connections that stay open, held by several processes: one may only have so many files.

use conn_tests::{
    netns::NetNs,
    traffic::{Server, process::Process, socket::connect},
};
use nix::sys::resource::{Resource, getrlimit};
use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
};

/// Files that a holder needs beside its connections.
const SPARE: u64 = 50;
/// A connection has two ends, each a file.
const ENDS: u64 = 2;
/// Source ports of one address: connections of one holder, each of which calls an address of its own.
const PORTS: u64 = 20_000;

/// Connections that are open as long as this lives.
pub(crate) struct Crowd {
    holders: Vec<(Process, UnixStream)>,
}

impl Crowd {
    /// Opens connections to `port` within `ns`, until there are `ends` ends of them.
    pub(crate) fn open(ns: &NetNs, port: u16, ends: u64) -> Self {
        let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of files");
        let each = ((files - SPARE) / ENDS).min(PORTS);
        let mut left = ends / ENDS;
        let mut holders = Vec::new();
        while left > 0 {
            let count = left.min(each);
            let address = Ipv4Addr::from(0x7f20_0000 + holders.len() as u32);
            holders.push(ns.run(|| hold(SocketAddr::from((address, port)), count)));
            left -= count;
        }
        let crowd = Self { holders };
        for (_, line) in &crowd.holders {
            (&mut &*line).read_exact(&mut [0]).expect("all connections are open");
        }
        crowd
    }
}

/// A process with connections to itself, which end with it.
fn hold(address: SocketAddr, count: u64) -> (Process, UnixStream) {
    let (here, there) = UnixStream::pair().expect("a pair of sockets");
    let process = Process::run("bench-holder", &[there.as_raw_fd()], || {
        let server = Server::listen_with(address, 4096, |_| {});
        let pairs: Vec<_> = (0..count).map(|_| (connect(address), server.accept())).collect();
        (&there).write_all(b".").expect("the parent waits");
        // Until the other end is closed.
        let _ = (&there).read(&mut [0]);
        drop(pairs);
    });
    (process, here)
}
