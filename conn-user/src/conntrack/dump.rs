//! A dump of the table of one network namespace, page by page. The kernel evicts each expired entry that it meets
//! (`ctnetlink_dump_table()`, `net/netfilter/nf_conntrack_netlink.c`).

use std::io;

use nix::sys::socket::SockProtocol;

use super::socket::{DUMP, Read, Socket, request};
use crate::event::decode::netlink::End;
use crate::event::decode::netlink::conntrack::messages;
use crate::event::decode::netlink::conntrack_stats;
use crate::event::entry::{Entry, Failures};

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;

/// `IPCTNL_MSG_CT_GET_STATS_CPU` and `IPCTNL_MSG_CT_GET_STATS` of the same subsystem.
const GET_FAILURES: u16 = 1 << 8 | 4;
const GET_ENTRIES: u16 = 1 << 8 | 5;

/// Asks for dumps.
#[derive(Debug)]
pub(super) struct Dumper {
    socket: Socket,
    /// Messages that are none: a bug in conntrace.
    pub undecoded: u64,
}

/// The state of a dump after a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More pages follow.
    More,
    /// All entries were shown; not if the table changed its shape meanwhile.
    Done {
        /// Entries may be missing.
        interrupted: bool,
    },
}

impl Dumper {
    /// A dumper of the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn open() -> io::Result<Self> {
        let socket = Socket::open(SockProtocol::NetlinkNetFilter, 0, None)?;
        Ok(Self { socket, undecoded: 0 })
    }

    /// Asks for the whole table.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn begin(&self) -> io::Result<()> {
        // `struct nfgenmsg` of any family, version 0.
        self.socket.send(&request(GET, DUMP, &[0; 4]))
    }

    /// How many entries the table has now, and how many it may have: what `conntrack -C` prints.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn entries(&self, page: &mut [u8]) -> io::Result<[u64; 2]> {
        self.socket.send(&request(GET_ENTRIES, 0, &[0; 4]))?;
        let Read::Bytes(length) = self.socket.read(page)? else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let entries = conntrack_stats::entries(&page[..length]).map_err(io::Error::other)?;
        entries.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The kernel's counters of failures: what `conntrack -S` prints, of all CPUs.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn failures(&self, page: &mut [u8]) -> io::Result<Failures> {
        self.socket.send(&request(GET_FAILURES, DUMP, &[0; 4]))?;
        let mut sum = Failures::default();
        while let Read::Bytes(length) = self.socket.read(page)? {
            match conntrack_stats::failures(&page[..length], &mut sum).map_err(io::Error::other)? {
                None => {}
                Some(End::Done) => break,
                Some(End::Refused(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            }
        }
        Ok(sum)
    }

    /// Reads the next page. `interrupted` is the dump's own so far.
    ///
    /// # Errors
    /// The kernel refuses: it has no `nf_conntrack_netlink`, or the thread lacks `CAP_NET_ADMIN`.
    pub(super) fn page(
        &mut self,
        page: &mut [u8],
        interrupted: &mut bool,
        mut each: impl FnMut(&Entry),
    ) -> io::Result<Progress> {
        let length = match self.socket.read(page)? {
            Read::Bytes(length) => length,
            // The kernel writes a page when the one before is read, so there is always one before the end.
            Read::Empty | Read::Overrun => {
                *interrupted = true;
                return Ok(Progress::Done { interrupted: true });
            }
        };
        let mut undecoded = 0;
        let found = messages(&page[..length], |entry| match entry {
            Ok((_, entry)) => each(&entry),
            Err(_) => undecoded += 1,
        });
        self.undecoded += undecoded;
        *interrupted |= found.interrupted;
        match found.end {
            None => Ok(Progress::More),
            Some(End::Done) => Ok(Progress::Done { interrupted: *interrupted }),
            Some(End::Refused(errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}
