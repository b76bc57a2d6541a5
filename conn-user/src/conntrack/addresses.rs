//! The addresses of a network namespace: which ends of a flow are here.

use std::collections::HashSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use conn_common::connection::{FORWARD, IN, OUT};
use nix::sys::socket::SockProtocol;

use super::socket::{DUMP, PAGE, Read, Socket, request};
use crate::event::decode::netlink::End;
use crate::event::decode::netlink::addresses::addresses;
use crate::event::entry::Entry;

/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR`, `include/uapi/linux/rtnetlink.h`.
const GROUPS: u32 = 0x10 | 0x100;
/// `RTM_GETADDR`.
const GET: u16 = 22;
/// How long the kernel may take for the addresses, in reads: it answers at once.
const MAX_READS: usize = 1 << 16;

/// The addresses of one namespace, as they are now.
#[derive(Debug)]
pub(super) struct Addresses {
    /// Hears of changes.
    changes: Socket,
    /// Asks for all.
    all: Socket,
    own: HashSet<IpAddr>,
}

impl Addresses {
    /// The addresses of the namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open() -> io::Result<Self> {
        let changes = Socket::open(SockProtocol::NetlinkRoute, GROUPS, None)?;
        let all = Socket::open(SockProtocol::NetlinkRoute, 0, None)?;
        let mut addresses = Self { changes, all, own: HashSet::new() };
        addresses.read_all(&mut vec![0; PAGE])?;
        Ok(addresses)
    }

    /// Reads the addresses again if they have changed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn refresh(&mut self, page: &mut [u8]) -> io::Result<()> {
        let mut changed = false;
        // Addresses that change without end are read as often as messages are.
        for _ in 0..MAX_READS {
            if self.changes.read(page)? == Read::Empty {
                break;
            }
            changed = true;
        }
        if changed { self.read_all(page) } else { Ok(()) }
    }

    fn read_all(&mut self, page: &mut [u8]) -> io::Result<()> {
        // `struct ifaddrmsg` of any family.
        self.all.send(&request(GET, DUMP, &[0; 8]))?;
        let mut own = HashSet::new();
        for _ in 0..MAX_READS {
            // A dump is written as it is read, so it never waits.
            let Read::Bytes(length) = self.all.read(page)? else { break };
            match addresses(&page[..length], &mut own).map_err(io::Error::other)? {
                None => {}
                Some(End::Done) => break,
                Some(End::Refused(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        self.own = own;
        Ok(())
    }

    /// The direction of a flow: `FORWARD` if neither its source nor the source of its replies is here. Packets to a broadcast
    /// or multicast address end here, too.
    pub(super) fn direction(&self, entry: &Entry) -> u8 {
        if self.has(entry.original.source.ip()) {
            OUT
        } else if self.has(entry.reply.source.ip()) {
            IN
        } else {
            FORWARD
        }
    }

    fn has(&self, address: IpAddr) -> bool {
        let is_wide = |address: IpAddr| match address {
            IpAddr::V4(address) => address.is_broadcast(),
            IpAddr::V6(_) => false,
        };
        address.is_loopback() || address.is_multicast() || is_wide(address) || self.own.contains(&address)
    }
}

impl AsFd for Addresses {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.changes.as_fd()
    }
}
