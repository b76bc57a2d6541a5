//! A netlink socket in one network namespace. It stays there, whichever thread reads it.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, connect, getsockname,
    recvfrom, send, setsockopt, socket,
};

use super::drops;

/// More than the kernel writes at once (`netlink_dump()` takes 32 KiB).
pub(super) const PAGE: usize = 1 << 16;

/// The port of the kernel.
const KERNEL: u32 = 0;

/// A netlink socket.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

/// The result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// So many bytes, of one message or of a page of a dump. None, if another process sent a message.
    Bytes(usize),
    /// There is nothing now.
    Empty,
    /// Messages were lost. There may be more to read.
    Overrun,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread that joins `groups`, a mask. `buffer` is the room for
    /// messages in bytes, if not the usual one.
    ///
    /// # Errors
    /// The kernel refuses, or has no such protocol.
    pub(super) fn open(protocol: SockProtocol, groups: u32, buffer: Option<usize>) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        if let Some(buffer) = buffer {
            // The kernel doubles the number, since it counts its own overhead, too.
            setsockopt(&fd, RcvBufForce, &buffer).or_else(|_| setsockopt(&fd, RcvBuf, &buffer))?;
        }
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // From now on, only the kernel may send to this port (`netlink_getsockbyportid()`).
        connect(fd.as_raw_fd(), &NetlinkAddr::new(KERNEL, 0))?;
        Ok(Self(fd))
    }

    /// Leaves all groups. What came before stays to be read, and nothing comes after.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn leave(&self) -> io::Result<()> {
        // An address with the socket's own port changes its groups only (`netlink_bind()`).
        let own: NetlinkAddr = getsockname(self.0.as_raw_fd())?;
        Ok(bind(self.0.as_raw_fd(), &NetlinkAddr::new(own.pid(), 0))?)
    }

    /// Sends a request to the kernel.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn send(&self, request: &[u8]) -> io::Result<()> {
        send(self.0.as_raw_fd(), request, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads what the kernel sent next, without waiting: the socket does not block.
    ///
    /// # Errors
    /// The socket cannot be read any more.
    pub(super) fn read(&self, page: &mut [u8]) -> io::Result<Read> {
        loop {
            return match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), page) {
                Ok((length, Some(sender))) if sender.pid() == KERNEL => Ok(Read::Bytes(length)),
                // The owner of a network namespace may send to the groups there (`netlink_sendmsg()`).
                Ok(_) => Ok(Read::Bytes(0)),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Ok(Read::Empty),
                Err(Errno::ENOBUFS) => Ok(Read::Overrun),
                Err(errno) => Err(errno.into()),
            };
        }
    }

    /// See [`drops::of`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn drops(&self) -> io::Result<u32> {
        drops::of(self.0.as_fd())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A request: `struct nlmsghdr` with a type and flags, and what follows the header.
pub(super) fn request(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    /// `NLM_F_REQUEST`.
    const REQUEST: u16 = 1;
    /// The length of the header.
    const HEADER: usize = 16;
    let length = (HEADER + body.len()) as u32;
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend((flags | REQUEST).to_ne_bytes());
    // No sequence number, and no port.
    request.extend([0; 8]);
    request.extend(body);
    request
}

/// `NLM_F_DUMP`: the request is for the whole table.
pub(super) const DUMP: u16 = 0x300;
