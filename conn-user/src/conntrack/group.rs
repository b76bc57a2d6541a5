//! One group of messages in one network namespace: what was received, and what was lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::socket::SockProtocol;

use super::losses::Losses;
use super::socket::{Read, Socket};
use crate::event::decode::netlink::Cut;
use crate::event::decode::netlink::conntrack::messages;
use crate::event::entry::{Change, Entry};
use crate::event::lost::Lost;

/// The socket of a group.
#[derive(Debug)]
pub(super) struct Group {
    socket: Socket,
    /// Messages that were read.
    pub received: u64,
    /// Messages that are none: a bug in conntrace.
    pub undecoded: u64,
    /// What was lost.
    pub losses: Losses,
}

/// What a read of a group found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Drained {
    /// The socket was empty at the end.
    pub empty: bool,
}

impl Group {
    /// Joins the group of a change, in the network namespace of the calling thread, at `now_ns` of `CLOCK_BOOTTIME`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn join(change: Change, buffer: usize, now_ns: u64) -> io::Result<Self> {
        // NFNLGRP_CONNTRACK_NEW is 1, UPDATE 2, DESTROY 3; each is a bit.
        let mask = match change {
            Change::New => 1,
            Change::Update => 1 << 1,
            Change::Destroy => 1 << 2,
        };
        Ok(Self {
            socket: Socket::open(SockProtocol::NetlinkNetFilter, mask, Some(buffer))?,
            received: 0,
            undecoded: 0,
            losses: Losses::new(now_ns),
        })
    }

    /// Leaves the group. What came before stays to be read.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.socket.leave()
    }

    /// Reads at most `most` messages into `found`.
    ///
    /// # Errors
    /// The socket cannot be read any more.
    pub(super) fn drain(
        &mut self,
        most: usize,
        page: &mut [u8],
        found: &mut Vec<(Change, Entry)>,
    ) -> io::Result<Drained> {
        for _ in 0..most {
            match self.socket.read(page)? {
                Read::Empty => return Ok(Drained { empty: true }),
                Read::Overrun => self.losses.report(),
                Read::Bytes(length) => {
                    let each = |message: Result<_, Cut>| {
                        self.received += 1;
                        match message {
                            Ok(change) => found.push(change),
                            Err(cut) => {
                                self.undecoded += 1;
                                log::error!("a message of connection tracking could not be decoded: {cut}");
                            }
                        }
                    };
                    messages(&page[..length], each);
                }
            }
        }
        Ok(Drained { empty: false })
    }

    /// True if messages were lost since the last look. Those that were read last may have come after the loss.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn is_lossy(&self) -> io::Result<bool> {
        Ok(self.losses.is_due(self.socket.drops()?))
    }

    /// Losses since the last look, at `now_ns` of `CLOCK_BOOTTIME`. From its first loss on, the kernel delivers nothing until
    /// the socket is empty, so the place of a loss is where the socket was found empty.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn look(&mut self, now_ns: u64) -> io::Result<Option<Lost>> {
        Ok(self.losses.look(self.socket.drops()?, now_ns))
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
