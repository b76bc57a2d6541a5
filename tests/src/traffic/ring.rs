//! Connections that no system call makes: connected, accepted and closed by `io_uring`.

#![expect(unsafe_code, reason = "io_uring has no safe form in the standard library or in nix")]

use super::{
    crew::Owner,
    socket::{Server, await_end, tcp, transfer, tuple_of},
};
use crate::truth::Truth;
use io_uring::{
    IoUring, opcode, squeue,
    types::{DestinationSlot, Fd, Fixed},
};
use socket2::{SockAddr, Socket};
use std::{
    fs, io,
    net::{SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd},
    panic, ptr, thread,
};

/// `count` connections one after the other, 3 bytes up and 5 down in each; the client closes first.
///
/// # Errors
/// This machine does not allow `io_uring`.
pub fn orderly(server: SocketAddr, count: usize) -> io::Result<Truth> {
    let mut ring = IoUring::new(8)?;
    let mut truth = Truth::default();
    let listener = Server::listen(server);
    truth.listened(server.port());
    let address = SockAddr::from(server);
    for _ in 0..count {
        let client = tcp(server);
        let connect = opcode::Connect::new(Fd(client.as_raw_fd()), address.as_ptr().cast(), address.len());
        let accept = opcode::Accept::new(Fd(listener.socket.as_raw_fd()), ptr::null_mut(), ptr::null_mut());
        // SAFETY: sockets and address outlive the operations, which are waited for.
        let results = unsafe { perform(&mut ring, [connect.build(), accept.build()]) };
        assert_eq!(results[0], 0, "connect by io_uring");
        assert!(results[1] >= 0, "accept by io_uring: {}", results[1]);
        // SAFETY: the kernel has just made this descriptor for us alone.
        let child = Socket::from(unsafe { OwnedFd::from_raw_fd(results[1]) });
        child.set_read_timeout(Some(*super::LIMIT))?;
        transfer(&client, &child, 3);
        transfer(&child, &client, 5);
        truth.payload(server.port(), 3, 5);
        truth.whole(tuple_of(&client));
        let close = opcode::Close::new(Fd(client.into_raw_fd()));
        // SAFETY: no other value owns the descriptor any more.
        let [closed] = unsafe { perform(&mut ring, [close.build()]) };
        assert_eq!(closed, 0, "close by io_uring");
        await_end(&child);
    }
    Ok(truth)
}

/// Whether this machine allows `io_uring`.
///
/// # Errors
/// It does not.
pub fn is_allowed() -> io::Result<()> {
    apart(|| IoUring::new(1).map(drop))
}

/// On a thread of its own, which ends with its ring: what a ring leaves behind is worked off by the thread that had
/// it, and ends the next system call there that waits (`EINTR`).
fn apart<T: Send>(job: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(job).join().unwrap_or_else(|panic| panic::resume_unwind(panic)))
}

/// The next child, accepted by a ring.
pub fn accept(server: &Server) -> Socket {
    let fd = apart(|| {
        let mut ring = IoUring::new(1).expect("a ring");
        let accept = opcode::Accept::new(Fd(server.socket.as_raw_fd()), ptr::null_mut(), ptr::null_mut());
        // SAFETY: the socket outlives the operation, which is waited for.
        let [fd] = unsafe { perform(&mut ring, [accept.build()]) };
        fd
    });
    assert!(fd >= 0, "accept by io_uring: {fd}");
    // SAFETY: the kernel has just made this descriptor for us alone.
    let child = Socket::from(unsafe { OwnedFd::from_raw_fd(fd) });
    child.set_read_timeout(Some(*super::LIMIT)).expect("a timeout");
    child
}

/// A new socket, connected by a ring.
pub fn connect(server: SocketAddr) -> Socket {
    apart(|| {
        let mut ring = IoUring::new(1).expect("a ring");
        let (client, address) = (tcp(server), SockAddr::from(server));
        let connect = opcode::Connect::new(Fd(client.as_raw_fd()), address.as_ptr().cast(), address.len());
        // SAFETY: socket and address outlive the operation, which is waited for.
        let [result] = unsafe { perform(&mut ring, [connect.build()]) };
        assert_eq!(result, 0, "connect by io_uring");
        client
    })
}

/// The thread of the kernel that works an operation of a ring off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkedOffBy {
    /// The thread that submits it.
    Submitter,
    /// A worker of the process (`iou-wrk-…`).
    Worker,
    /// The thread that polls the ring (`iou-sqp-…`).
    Poller,
}

/// Sends a datagram through a connected socket. Returns the thread that submitted it.
pub fn send(socket: &UdpSocket, data: &[u8], by: WorkedOffBy) -> Owner {
    apart(|| {
        let mut builder = IoUring::builder();
        if by == WorkedOffBy::Poller {
            builder.setup_sqpoll(1_000);
        }
        let mut ring = builder.build(1).expect("a ring");
        let flags = if by == WorkedOffBy::Worker { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
        let operation = opcode::Send::new(Fd(socket.as_raw_fd()), data.as_ptr(), data.len() as u32);
        // SAFETY: socket and data outlive the operation, which is waited for.
        let [result] = unsafe { perform(&mut ring, [operation.build().flags(flags)]) };
        assert_eq!(usize::try_from(result), Ok(data.len()), "send by io_uring: {result}");
        Owner::current()
    })
}

/// A ring that holds a listener and both ends of a connection to it. None of these has a descriptor.
///
/// # Panics
/// This machine does not allow `io_uring`.
pub fn with_sockets(address: SocketAddr) -> OwnedFd {
    let mut ring = IoUring::new(8).expect("a ring");
    let (listener, client) = (Server::listen(address), super::socket::connect(address));
    let files = [listener.socket.as_raw_fd(), client.as_raw_fd(), -1];
    ring.submitter().register_files(&files).expect("files in a ring");
    drop((listener, client));
    let slot = DestinationSlot::try_from_slot_target(2).expect("a slot");
    let accept = opcode::Accept::new(Fixed(0), ptr::null_mut(), ptr::null_mut()).file_index(Some(slot));
    // SAFETY: the ring holds the listener.
    let results = unsafe { perform(&mut ring, [accept.build()]) };
    assert_eq!(results, [0], "accept without a descriptor");
    // SAFETY: the ring is open.
    unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) }.try_clone_to_owned().expect("a descriptor")
}

/// True if the kernel shows sockets of a ring of this process.
pub fn shows_sockets(pid: u32) -> bool {
    let shown = fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("the process lives");
    let has_socket = |path| fs::read_to_string(path).is_ok_and(|text| text.contains(": socket:["));
    shown.flatten().any(|file| has_socket(file.path()))
}

/// Submits the operations together, waits for all, and returns their results in the same order.
///
/// # Safety
/// What the operations point to must live until this returns.
unsafe fn perform<const N: usize>(ring: &mut IoUring, operations: [squeue::Entry; N]) -> [i32; N] {
    for (number, operation) in operations.into_iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { ring.submission().push(&operation.user_data(number as u64)) }.expect("room in the ring");
    }
    ring.submit_and_wait(N).expect("submit");
    let mut results = [i32::MIN; N];
    for completion in ring.completion() {
        results[completion.user_data() as usize] = completion.result();
    }
    results
}
