//! Namespaces, and descriptors of them: more than an observer can hold, hidden ones, and descriptors that change while
//! they are looked at.

#![expect(unsafe_code, reason = "a copied descriptor arrives as a number")]

use crate::{
    netns::loopback_up,
    traffic::{
        Server,
        crew::Line,
        socket::{begin_connect, hear_nothing, tcp},
    },
};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl, open},
    sched::{CloneFlags, unshare},
    sys::stat::Mode,
    unistd::dup3,
};
use std::{
    fs::File,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsFd, FromRawFd as _, OwnedFd},
    path::Path,
    sync::mpsc::channel,
    thread,
};

/// Descriptors that [`flip`] changes all the time.
const FLIPPED: usize = 40;
/// The first number of a changing descriptor.
const FLIPPED_FROM: i32 = 400;
/// The first number of a descriptor that stays a namespace.
const KEPT_FROM: i32 = 600;

fn leave() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a namespace");
}

fn own() -> File {
    File::open("/proc/self/ns/net").expect("this namespace")
}

/// Keeps so many namespaces, each by a descriptor.
pub fn keep_many(line: &Line, count: usize) {
    let keep = |_| {
        leave();
        own()
    };
    let _all: Vec<File> = (0..count).map(keep).collect();
    line.ready();
    line.wait();
}

/// Keeps so many namespaces, each with a thread inside.
pub fn inhabit_many(line: &Line, count: usize) {
    let (inside, entered) = channel();
    for _ in 0..count {
        let inside = inside.clone();
        thread::spawn(move || {
            leave();
            inside.send(()).expect("the process waits");
            loop {
                thread::park();
            }
        });
        entered.recv().expect("a thread in a namespace");
    }
    line.ready();
    line.wait();
}

/// Leaves a namespace in which one connection stays: its sockets keep the namespace, and no file leads to it.
pub fn hide(line: &Line, port: u16) {
    let pair = Server::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).pair();
    leave();
    line.ready();
    line.wait();
    drop(pair);
}

/// Leaves a namespace in which connections stay that no process holds: their last bytes are never acknowledged.
pub fn orphan(line: &Line, port: u16) {
    let pair = Server::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).pair();
    for mut end in [&pair.client, &pair.server] {
        hear_nothing(end);
        end.write_all(b"never acknowledged").expect("a byte");
    }
    drop(pair);
    leave();
    line.ready();
    line.wait();
}

/// Begins attempts that stay, each in a namespace that only its socket keeps.
pub fn hide_attempts(line: &Line, count: usize, port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let hide = |_| {
        loopback_up().expect("a link");
        let deaf = Server::deaf(address);
        let socket = tcp(address);
        begin_connect(&socket, address);
        leave();
        (deaf, socket)
    };
    let _all: Vec<_> = (0..count).map(hide).collect();
    line.ready();
    line.wait();
}

/// Descriptors that are now a network namespace and now this file, which the user need not be able to read.
pub fn flip(line: &Line, file: &Path) {
    let path_only = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let other = open(file, path_only, Mode::empty()).expect("a path");
    let mut flipped: Vec<OwnedFd> = (0..FLIPPED).map(|_| from(&other, FLIPPED_FROM)).collect();
    // Each namespace is found by its changing descriptor, which has a smaller number than the lasting one.
    let keep = |_| {
        let namespace = from(own(), KEPT_FROM);
        leave();
        namespace
    };
    let namespaces: Vec<OwnedFd> = (0..FLIPPED).map(keep).collect();
    thread::spawn(move || {
        loop {
            for (at, namespace) in flipped.iter_mut().zip(&namespaces) {
                dup3(namespace, at, OFlag::O_CLOEXEC).expect("a descriptor");
            }
            for at in &mut flipped {
                dup3(&other, at, OFlag::O_CLOEXEC).expect("a descriptor");
            }
        }
    });
    line.ready();
    line.wait();
}

/// A copy of a descriptor with a number from this one on.
fn from(fd: impl AsFd, first: i32) -> OwnedFd {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(first)).expect("a copy");
    // SAFETY: the kernel has just made this descriptor for us alone.
    unsafe { OwnedFd::from_raw_fd(number) }
}
