//! Network links by rtnetlink, so that the tests need no `ip` command (guests in a VM have none).

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
};

const NLM_F_REQUEST: u16 = 0x001;
const NLM_F_ACK: u16 = 0x004;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const VETH_INFO_PEER: u16 = 1;
const IFINFOMSG_LEN: usize = 16;

/// An rtnetlink socket in the network namespace of the thread that made it.
#[derive(Debug)]
pub(crate) struct Links {
    socket: OwnedFd,
}

impl Links {
    pub(crate) fn here() -> io::Result<Self> {
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    /// Sets a link up.
    pub(crate) fn up(&self, name: &str) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.link(0, libc::IFF_UP as u32);
        message.attribute(libc::IFLA_IFNAME, &text(name));
        self.ask(message)
    }

    /// Makes a veth pair: `name` here, `peer` in the namespace behind `there`.
    pub(crate) fn veth(&self, name: &str, peer: &str, there: BorrowedFd<'_>) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        message.link(0, 0);
        message.attribute(libc::IFLA_IFNAME, &text(name));
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"veth");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |other| {
                    other.link(0, 0);
                    other.attribute(libc::IFLA_IFNAME, &text(peer));
                    other.attribute(libc::IFLA_NET_NS_FD, &there.as_raw_fd().to_ne_bytes());
                });
            });
        });
        self.ask(message)
    }

    /// Makes a bridge.
    pub(crate) fn bridge(&self, name: &str) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
        message.link(0, 0);
        message.attribute(libc::IFLA_IFNAME, &text(name));
        message.nested(libc::IFLA_LINKINFO, |info| info.attribute(libc::IFLA_INFO_KIND, b"bridge"));
        self.ask(message)
    }

    /// Makes a link a port of a bridge.
    pub(crate) fn enslave(&self, name: &str, bridge: &str) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.link(0, 0);
        message.attribute(libc::IFLA_IFNAME, &text(name));
        message.attribute(libc::IFLA_MASTER, &nix::net::if_::if_nametoindex(bridge)?.to_ne_bytes());
        self.ask(message)
    }

    /// Gives a link an address. IPv6 addresses are usable at once, without duplicate detection.
    pub(crate) fn address(&self, name: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
        let (family, bytes) = match address {
            IpAddr::V4(v4) => (AddressFamily::Inet, v4.octets().to_vec()),
            IpAddr::V6(v6) => (AddressFamily::Inet6, v6.octets().to_vec()),
        };
        let mut message = Message::new(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
        message.bytes.extend([family as u8, prefix, libc::IFA_F_NODAD as u8, 0]);
        message.bytes.extend(nix::net::if_::if_nametoindex(name)?.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &bytes);
        message.attribute(libc::IFA_ADDRESS, &bytes);
        self.ask(message)
    }

    /// Routes addresses by a neighbour on a link.
    pub(crate) fn route(&self, to: IpAddr, prefix: u8, by: IpAddr) -> io::Result<()> {
        let bytes = |address| match address {
            IpAddr::V4(v4) => Ipv4Addr::octets(&v4).to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let mut message = Message::new(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
        // struct rtmsg.
        message.bytes.extend([family as u8, prefix, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC]);
        message.bytes.extend([libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST, 0, 0, 0, 0]);
        message.attribute(libc::RTA_DST, &bytes(to));
        message.attribute(libc::RTA_GATEWAY, &bytes(by));
        self.ask(message)
    }

    /// Sends a request and waits for the kernel's answer to it.
    fn ask(&self, message: Message) -> io::Result<()> {
        send(self.socket.as_raw_fd(), &message.finish(), MsgFlags::empty())?;
        let mut answer = [0_u8; 4096];
        let len = recv(self.socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // nlmsghdr, then the negated errno, 0 for success.
        let code = answer[..len].get(16..20).ok_or(io::ErrorKind::UnexpectedEof)?;
        match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        }
    }
}

fn text(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// A netlink message while it is being written.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        Self { bytes }
    }

    /// `struct ifinfomsg`.
    fn link(&mut self, index: i32, flags: u32) {
        let at = self.bytes.len();
        self.bytes.resize(at + IFINFOMSG_LEN, 0);
        self.bytes[at + 4..at + 8].copy_from_slice(&index.to_ne_bytes());
        self.bytes[at + 8..at + 12].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[at + 12..at + 16].copy_from_slice(&flags.to_ne_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |inner| inner.bytes.extend(value));
    }

    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.bytes.extend([0; 4]);
        fill(self);
        let len = (self.bytes.len() - at) as u16;
        self.bytes[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes
    }
}
