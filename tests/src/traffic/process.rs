//! Connections that belong to other processes: owners with a known pid and name, killed owners, and
//! descriptors that travel.

#![expect(unsafe_code, reason = "fork, and what a child may do before it ends, have no safe form")]

use super::socket::{Server, await_end, await_error, connect, tuple_of};
use crate::truth::{Truth, Tuple};
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
        wait::{WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use socket2::Socket;
use std::{
    ffi::CString,
    io::{self, IoSlice, IoSliceMut, Read as _, Write as _},
    mem,
    net::SocketAddr,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
    panic,
    time::Duration,
};

/// A forked process; killed and reaped at the latest when dropped.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    reaped: bool,
}

impl Process {
    /// Forks. The child runs `job` under the name `name` with no descriptors but stdio and `kept`, and exits:
    /// 0, or 1 when the job panicked.
    pub fn run(name: &str, kept: &[RawFd], job: impl FnOnce()) -> Self {
        let name = CString::new(name).expect("a name without NUL");
        // SAFETY: the C library makes its allocator usable after fork; the job takes no other lock that
        // another thread of the parent could hold.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Parent { child } => Self { pid: child, reaped: false },
            ForkResult::Child => {
                close_all_but(kept);
                // SAFETY: the name is a C string.
                unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
                let outcome = panic::catch_unwind(panic::AssertUnwindSafe(job));
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(i32::from(outcome.is_err())) }
            }
        }
    }

    /// A process that does nothing, with the id of one that has ended.
    ///
    /// # Errors
    /// The kernel does not allow it, or another process has that id.
    pub fn with_id(pid: u32) -> io::Result<Self> {
        let ids = [pid.cast_signed()];
        // SAFETY: all zeros is a valid value of this plain structure.
        let mut wanted: libc::clone_args = unsafe { mem::zeroed() };
        wanted.exit_signal = libc::SIGCHLD as u64;
        wanted.set_tid = ids.as_ptr() as u64;
        wanted.set_tid_size = ids.len() as u64;
        // SAFETY: as fork(); the child makes system calls only, and uses none of the descriptors.
        match unsafe { libc::syscall(libc::SYS_clone3, &raw mut wanted, size_of_val(&wanted)) } {
            0 => {
                // SAFETY: as above; then it waits for SIGKILL.
                unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
                loop {
                    // SAFETY: no preconditions.
                    unsafe { libc::pause() };
                }
            }
            1.. => Ok(Self { pid: Pid::from_raw(ids[0]), reaped: false }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// kill -9, and waits for the end.
    pub fn kill(mut self) {
        kill(self.pid, Signal::SIGKILL).expect("kill");
        self.reaped = true;
        let status = waitpid(self.pid, None).expect("wait");
        assert_eq!(status, WaitStatus::Signaled(self.pid, Signal::SIGKILL, false));
    }

    /// Waits for a good end.
    pub fn join(mut self) {
        self.reaped = true;
        let status = waitpid(self.pid, None).expect("wait");
        assert_eq!(status, WaitStatus::Exited(self.pid, 0), "the forked process");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

/// The child has a copy of every socket of every test that runs in this process; a close is none while
/// there are copies.
fn close_all_but(kept: &[RawFd]) {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.cast_unsigned()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for last in kept.iter().map(|fd| fd - 1).chain([u32::MAX]) {
        if first <= last {
            // SAFETY: the child uses none of these descriptors.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        first = last.saturating_add(2);
    }
}

/// `count` connections opened and closed by a process of its own, called `name`; returns its pid as well.
pub fn client(server: SocketAddr, count: usize, name: &str) -> (Truth, u32) {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let process = Process::run(name, &[], || {
        for _ in 0..count {
            let socket = connect(server);
            // The server closes first, so that connections of this client do not overlap.
            await_end(&socket);
        }
    });
    let pid = process.pid();
    for _ in 0..count {
        let child = listener.accept();
        let peer = child.peer_addr().unwrap().as_socket().unwrap();
        truth.whole(Tuple::new(peer, server));
        drop(child);
    }
    process.join();
    (truth, pid)
}

/// A client process that is killed while it is connected.
pub fn killed(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let process = Process::run("conn-killed", &[], || {
        let socket = connect(server);
        // Nothing comes: the kill ends the wait.
        await_end(&socket);
    });
    let child = listener.accept();
    let peer = child.peer_addr().unwrap().as_socket().unwrap();
    truth.whole(Tuple::new(peer, server));
    process.kill();
    await_end(&child);
    truth
}

/// The accepted socket is inherited by a child process, which closes it last.
pub fn forked(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let pair = Server::listen(server).pair();
    truth.listened(server.port());
    let (client, child) = (pair.client, pair.server);
    let worker = Process::run("conn-worker", &[child.as_raw_fd()], || {
        (&child).read_exact(&mut [0; 2]).expect("data");
    });
    drop(child);
    (&client).write_all(b"go").unwrap();
    worker.join();
    await_end(&client);
    truth.payload(server.port(), 2, 0);
    truth.whole(pair.tuple);
    truth
}

/// The accepted socket is sent to another process (`SCM_RIGHTS`), which closes it.
pub fn passed(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    // Forked before there is a connection: the worker gets nothing but what it is sent.
    let worker = Process::run("conn-worker", &[theirs.as_raw_fd()], || {
        (&receive(&theirs)).write_all(b"hello").expect("send");
    });
    let listener = Server::listen(server);
    truth.listened(server.port());
    let client = connect(server);
    let child = listener.accept();
    send(&ours, &child);
    drop(child);
    (&client).read_exact(&mut [0; 5]).expect("the worker's data");
    await_end(&client);
    worker.join();
    truth.payload(server.port(), 0, 5);
    truth.whole(tuple_of(&client));
    truth
}

/// Sends a copy of a socket to another process (`SCM_RIGHTS`).
pub fn send(channel: &UnixStream, socket: &Socket) {
    let fds = [socket.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(b"fd")], &message, MsgFlags::empty(), None)
        .expect("send a descriptor");
}

/// Receives a socket that [`send`] sends.
pub fn receive(channel: &UnixStream) -> Socket {
    let mut space = nix::cmsg_space!([i32; 1]);
    let mut data = [0; 2];
    let mut room = [IoSliceMut::new(&mut data)];
    let message = recvmsg::<()>(channel.as_raw_fd(), &mut room, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)
        .expect("receive a descriptor");
    let fds = message.cmsgs().expect("control data").find_map(|control| match control {
        ControlMessageOwned::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fd = fds.and_then(|fds| fds.first().copied()).expect("a descriptor");
    // SAFETY: the kernel has just made this descriptor for us alone.
    Socket::from(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A client process whose socket has `SO_LINGER` 0 is killed: the exit resets.
pub fn killed_by_reset(server: SocketAddr) -> Truth {
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let process = Process::run("conn-killed", &[], || {
        let socket = connect(server);
        socket.set_linger(Some(Duration::ZERO)).expect("linger");
        (&socket).write_all(b"r").expect("send");
        await_end(&socket);
    });
    let child = listener.accept();
    (&child).read_exact(&mut [0]).expect("the client is ready");
    let peer = child.peer_addr().unwrap().as_socket().unwrap();
    truth.whole(Tuple::new(peer, server));
    truth.payload(server.port(), 1, 0);
    process.kill();
    assert_eq!(await_error(&child).raw_os_error(), Some(libc::ECONNRESET));
    truth
}
