//! The addresses on which metrics are to be had: the back binds them, and the front takes their connections.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getpeername,
    getsockname, getsockopt, listen, setsockopt, socket, sockopt,
};

use crate::error::Error;

/// How many clients may wait to be taken.
const WAITING: i32 = 128;
/// How long the front of a daemon that was killed may keep the address.
const LEFT_OVER: Duration = Duration::from_secs(2);
/// Time between two tries meanwhile.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// A socket that listens on an address.
#[derive(Debug)]
pub(crate) struct Address {
    /// The socket, on which the kernel takes connections.
    pub(crate) socket: OwnedFd,
    address: SocketAddr,
}

impl Address {
    /// Listens there.
    ///
    /// # Errors
    /// Another program has the address, or this host does not have it.
    pub(crate) fn open(address: SocketAddr) -> Result<Self, Error> {
        let begun = Instant::now();
        loop {
            match bound(address).and_then(|socket| {
                listen(&socket, Backlog::new(WAITING)?)?;
                Ok(socket)
            }) {
                Ok(socket) => return Ok(Self { socket, address }),
                Err(Errno::EADDRINUSE) if begun.elapsed() < LEFT_OVER => sleep(TRY_AGAIN),
                Err(errno) => return Err(failure(address, errno)),
            }
        }
    }

    /// Checks that this host has the address. The port may be in use, for instance by the daemon that runs.
    ///
    /// # Errors
    /// This host does not have it.
    pub(crate) fn check(address: SocketAddr) -> Result<(), Error> {
        match bound(SocketAddr::new(address.ip(), 0)) {
            Ok(_) => Ok(()),
            Err(errno) => Err(failure(address, errno)),
        }
    }

    /// True of a connection that came to this address.
    pub(crate) fn is_of(&self, connection: &OwnedFd) -> bool {
        let has_peer = getpeername::<SockaddrStorage>(connection.as_raw_fd()).is_ok();
        let is_stream = getsockopt(connection, sockopt::SockType) == Ok(SockType::Stream);
        let local = getsockname::<SockaddrStorage>(connection.as_raw_fd()).ok().as_ref().and_then(inet);
        let is_here = local.is_some_and(|local| {
            let is_same = local.ip().to_canonical() == self.address.ip().to_canonical();
            local.port() == self.address.port() && (is_same || self.address.ip().is_unspecified())
        });
        has_peer && is_stream && is_here
    }
}

/// The warning that an address needs, if it needs one.
pub(crate) fn warning(address: SocketAddr) -> Option<String> {
    let is_own = address.ip().to_canonical().is_loopback();
    (!is_own).then(|| {
        format!(
            "anyone who reaches {address} sees the ports of this host and their counts: listen on 127.0.0.1, or let a firewall \
             choose who reaches it"
        )
    })
}

/// A socket with this address. One of IPv6 is for IPv6 alone.
fn bound(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp)?;
    setsockopt(&socket.as_fd(), sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket.as_fd(), sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// The address of IP.
fn inet(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

/// Why the daemon does not listen there.
fn failure(address: SocketAddr, errno: Errno) -> Error {
    let port = address.port();
    let remedy = match errno {
        Errno::EADDRINUSE => {
            format!(
                "choose another port in listen, or see who has it: conntrace list --listening --dport {port}"
            )
        }
        Errno::EADDRNOTAVAIL => "this host has no such address: correct listen, or leave it out".into(),
        Errno::EACCES => "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher port in listen".into(),
        _ => "correct listen, or leave it out".into(),
    };
    Error::Listen { address, source: errno.into(), remedy }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A listener on a free port.
    fn listening(ip: &str) -> Address {
        let mut address = Address::open(format!("{ip}:0").parse().unwrap()).unwrap();
        let name = getsockname::<SockaddrStorage>(address.socket.as_raw_fd()).unwrap();
        address.address = inet(&name).unwrap();
        address
    }

    #[test]
    fn only_connections_to_the_address_are_its_own() {
        for ip in ["127.0.0.1", "0.0.0.0"] {
            let own = listening(ip);
            let client = TcpStream::connect(("127.0.0.1", own.address.port())).unwrap();
            let listener = TcpListener::from(own.socket.try_clone().unwrap());
            let accepted: OwnedFd = listener.accept().unwrap().0.into();
            assert!(own.is_of(&accepted), "{ip}");
            let other = listening(ip);
            assert!(!other.is_of(&accepted), "{ip}");
            // The other end, the listener itself, a datagram, a Unix socket.
            assert!(!own.is_of(&client.into()) && !own.is_of(&listener.into()));
            let datagram = UdpSocket::bind(("127.0.0.1", own.address.port())).unwrap();
            datagram.connect("127.0.0.1:9").unwrap();
            assert!(!own.is_of(&datagram.into()));
            assert!(!own.is_of(&UnixStream::pair().unwrap().0.into()));
        }
    }

    #[test]
    fn an_address_in_use_has_a_remedy() {
        let own = listening("127.0.0.1");
        let error = Address::open(own.address).unwrap_err().report();
        assert!(error.contains("Address already in use") && error.contains("conntrace list"), "{error}");
        assert!(Address::check(own.address).is_ok());
        let elsewhere = Address::check("192.0.2.1:9436".parse().unwrap()).unwrap_err().report();
        assert!(elsewhere.contains("no such address"), "{elsewhere}");
    }

    #[test]
    fn addresses_of_others_have_a_warning() {
        let warns = |address: &str| warning(address.parse().unwrap()).is_some();
        assert!(!warns("127.0.0.1:1") && !warns("[::1]:1") && !warns("[::ffff:127.0.0.1]:1"));
        assert!(warns("0.0.0.0:1") && warns("[::]:1") && warns("192.0.2.1:1"));
    }
}
