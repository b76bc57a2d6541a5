//! Service ports that no other test of this host is using.
//!
//! Every live test sees the traffic of the whole host, so each filters by a port of its own. A port is
//! held by an abstract Unix socket named after it: the kernel lets only one process bind the name and
//! frees it when the process ends, however it ends.

use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as UnixAddr, UnixDatagram},
    },
    process,
    sync::atomic::{AtomicU32, Ordering},
};

/// Below every usual ephemeral range, so that no client port of this host is ever one of these.
const FIRST: u32 = 20_000;
const COUNT: u32 = 10_000;

/// Ports of a [`Field`], of which there are several below [`FIRST`].
const FIELD: u16 = 2_048;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that no other test has while this value lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UnixDatagram,
}

impl Port {
    /// Claims the next free port.
    ///
    /// # Panics
    /// When none is free, or when called inside another network namespace than the process started in
    /// (the names that keep test processes apart are per namespace).
    pub fn claim() -> Self {
        Self::block(1).swap_remove(0)
    }

    /// Claims `count` neighbouring ports, for tests of ranges.
    ///
    /// # Panics
    /// As [`Port::claim`].
    pub fn block(count: u16) -> Vec<Self> {
        let own = fs::read_link("/proc/thread-self/ns/net").expect("this thread's network namespace");
        let first = fs::read_link("/proc/self/ns/net").expect("this process's network namespace");
        assert_eq!(own, first, "claim ports outside NetNs::run");

        let count = u32::from(count);
        // Processes start far apart, so that they rarely have to try twice.
        let offset = process::id().wrapping_mul(389);
        for _ in 0..COUNT {
            let at = NEXT.fetch_add(count, Ordering::Relaxed).wrapping_add(offset) % (COUNT - count + 1);
            let claims: Option<Vec<Self>> =
                (0..count).map(|n| Self::try_claim((FIRST + at + n) as u16)).collect();
            if let Some(claims) = claims {
                return claims;
            }
        }
        panic!("no free block of {count} service ports from {FIRST} on");
    }

    /// Claims a great many neighbouring ports by a single name: `count` of them, 2,048 at most.
    ///
    /// # Panics
    /// As [`Port::claim`].
    pub fn field(count: u16) -> Field {
        assert!(count <= FIELD);
        let fields = (1..FIRST as u16 / FIELD).map(|number| number * FIELD);
        let claim = |first| {
            let name = UnixAddr::from_abstract_name(format!("conn-tests field {first}")).ok()?;
            Some(Field { first, count, _claim: UnixDatagram::bind_addr(&name).ok()? })
        };
        fields.rev().find_map(claim).expect("a free field of ports")
    }

    fn try_claim(number: u16) -> Option<Self> {
        let name = UnixAddr::from_abstract_name(format!("conn-tests port {number}")).ok()?;
        let claim = UnixDatagram::bind_addr(&name).ok()?;
        // Bound only for a moment and never listening: this fails where a service of the host lives.
        let probe = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
        probe.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, number)).into()).ok()?;
        Some(Self { number, _claim: claim })
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// This port on 127.0.0.1.
    pub fn v4(&self) -> SocketAddr {
        self.at(Ipv4Addr::LOCALHOST)
    }

    /// This port on `::1`.
    pub fn v6(&self) -> SocketAddr {
        self.at(Ipv6Addr::LOCALHOST)
    }

    /// This port on any address.
    pub fn at(&self, ip: impl Into<IpAddr>) -> SocketAddr {
        SocketAddr::new(ip.into(), self.number)
    }
}

/// Many ports that no other test has, for as long as this value lives. Services of the host may be among
/// them: use them in a namespace of their own.
#[derive(Debug)]
pub struct Field {
    first: u16,
    count: u16,
    _claim: UnixDatagram,
}

impl Field {
    /// The ports.
    pub fn numbers(&self) -> impl Iterator<Item = u16> + use<> {
        self.first..self.first + self.count
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, thread};

    #[test]
    fn ports_are_distinct_across_threads() {
        let ports: Vec<Port> = thread::scope(|scope| {
            let takers: Vec<_> = (0..8).map(|_| scope.spawn(|| Port::block(7))).collect();
            takers.into_iter().flat_map(|taker| taker.join().unwrap()).collect()
        });
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 56);
        assert!(numbers.iter().all(|n| (20_000..30_000).contains(n)));
    }

    #[test]
    fn a_held_port_cannot_be_claimed_again() {
        let port = Port::claim();
        assert!(Port::try_claim(port.number()).is_none());
    }

    #[test]
    fn a_block_is_contiguous() {
        let ports = Port::block(5);
        assert!(ports.windows(2).all(|pair| pair[0].number() + 1 == pair[1].number()));
    }
}
