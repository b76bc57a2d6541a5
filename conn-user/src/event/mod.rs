//! One event of a connection's life, decoded.

pub mod decode;
pub mod direction;
pub mod kind;
pub mod sort_key;
pub mod state_name;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use conn_common::cause::Cause;
use conn_common::connection::{Connection, OUT, UNDIRECTED};
use conn_common::owner::{KERNEL, SOURCES};
use conn_common::reset::Reset;
use conn_common::state;
use conn_common::traffic::Traffic;
use nix::libc;

use crate::enrich::cgroup::{Container, Place};
use crate::enrich::command_line::Process;
use crate::enrich::container_names::Names;
use crate::event::kind::Kind;

/// An event. Times are nanoseconds of `CLOCK_BOOTTIME`, see [`crate::host::clock`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub time_ns: u64,
    /// What it tells.
    pub kind: Kind,
    /// The TCP state before, see [`conn_common::state`]; `UNSEEN` for a new connection.
    pub old_state: u8,
    /// What was sent and received. Known at the end, and of a connection that is open; else zero.
    pub traffic: Traffic,
    /// The socket's error at the end, an errno number; 0 for none.
    pub error: u16,
    /// Why the connection ended, if it did.
    pub end: Option<Cause>,
    /// What made us reset it, if we did and that is certain.
    pub reset: Option<Reset>,
    /// For how long no payload was sent or received until the end, or until now, if that is known.
    pub idle_ns: Option<u64>,
    /// How long the connection has existed at least, in nanoseconds, if its attempt was not seen and anything
    /// is known of that.
    pub at_least_ns: Option<u64>,
    /// Where the owner runs, if that was asked for and is known.
    pub place: Option<Arc<Place>>,
    /// The owner's process with its command line, if that was asked for.
    pub process: Option<Arc<Process>>,
    /// The name of the initiator's address, if that was asked for and is known.
    pub src_name: Option<Arc<str>>,
    /// The name of the responder's address, if that was asked for and is known.
    pub dst_name: Option<Arc<str>>,
    /// The connection as it is after the event.
    pub connection: Connection,
}

/// The task that opened, accepted or holds a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Process id, in the initial pid namespace.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// User id, in the initial user namespace.
    pub uid: u32,
    /// Name of the process. Any bytes but zero.
    pub comm: &'a [u8],
    /// Name of the thread. Any bytes but zero.
    pub thread: &'a [u8],
    /// The cgroup v2 id, 0 if none.
    pub cgroup: u64,
    /// When its process began, nanoseconds of `CLOCK_BOOTTIME`.
    pub start_ns: u64,
    /// A kernel thread.
    pub is_kernel: bool,
}

impl Event {
    /// The initiator's address.
    pub fn src(&self) -> IpAddr {
        address(self.connection.family, &self.connection.src)
    }

    /// The responder's address.
    pub fn dst(&self) -> IpAddr {
        address(self.connection.family, &self.connection.dst)
    }

    /// True if the connection ended without ever being established.
    pub fn is_failed(&self) -> bool {
        self.failure().is_some()
    }

    /// Why it was never established, if it ended like that.
    pub fn failure(&self) -> Option<Cause> {
        self.end.filter(|_| state::is_opening(self.old_state))
    }

    /// From the attempt to the end, in nanoseconds. `None` before the end, and for a connection whose
    /// attempt nobody saw.
    pub fn lifetime_ns(&self) -> Option<u64> {
        let attempt = self.attempt_ns().filter(|_| self.kind == Kind::Destroy)?;
        Some(self.time_ns.saturating_sub(attempt))
    }

    /// How long an open connection has existed, in nanoseconds. `None` if its attempt was not seen, and for
    /// other kinds.
    pub fn age_ns(&self) -> Option<u64> {
        let attempt = self.attempt_ns().filter(|_| self.kind == Kind::Open)?;
        Some(self.time_ns.saturating_sub(attempt))
    }

    /// True if [`Event::traffic`] is known.
    pub fn has_traffic(&self) -> bool {
        matches!(self.kind, Kind::Destroy | Kind::Open)
    }

    /// The id of the owner's container, if it is in one.
    pub fn container(&self) -> Option<&str> {
        self.in_container().map(|container| container.id.as_str())
    }

    /// What the owner's container is called, if it is in one and that is known.
    pub fn container_names(&self) -> Option<&Names> {
        self.in_container()?.names()
    }

    fn in_container(&self) -> Option<&Container> {
        self.place.as_ref()?.container.as_ref()
    }

    /// The command line of the owner's process, if that was asked for and is known.
    pub fn command_line(&self) -> Option<&[u8]> {
        self.process.as_ref()?.text()
    }

    /// The owner's systemd unit, if it is in one.
    pub fn unit(&self) -> Option<&str> {
        self.place.as_ref()?.unit.as_deref()
    }

    /// True if this host opened the connection.
    pub fn is_out(&self) -> bool {
        self.connection.direction == OUT
    }

    /// The name of its direction, see [`direction::name`].
    pub fn direction(&self) -> Option<&'static str> {
        direction::name(self.connection.direction)
    }

    /// The end of the connection that is here.
    pub fn local(&self) -> SocketAddr {
        if self.is_src_ours() { self.initiator() } else { self.responder() }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        if self.is_src_ours() { self.responder() } else { self.initiator() }
    }

    /// True if the initiator (or what stands in its place) is this end.
    pub fn is_src_ours(&self) -> bool {
        matches!(self.connection.direction, OUT | UNDIRECTED)
    }

    /// The end that opened it.
    pub fn initiator(&self) -> SocketAddr {
        SocketAddr::new(self.src(), self.connection.sport)
    }

    /// The end that was called.
    pub fn responder(&self) -> SocketAddr {
        SocketAddr::new(self.dst(), self.connection.dport)
    }

    /// True if it is known who called whom, and so which port is the service's.
    pub fn is_directed(&self) -> bool {
        self.connection.direction != UNDIRECTED
    }

    /// From the attempt to the end of the handshake, in nanoseconds.
    pub fn handshake_ns(&self) -> Option<u64> {
        Some(self.established_ns()?.saturating_sub(self.attempt_ns()?))
    }

    /// When the connection was attempted, if somebody saw it.
    pub fn attempt_ns(&self) -> Option<u64> {
        known(self.connection.attempt_ns)
    }

    /// When its handshake was complete, if it was and somebody saw it.
    pub fn established_ns(&self) -> Option<u64> {
        known(self.connection.established_ns)
    }

    /// Who it belongs to, if that is known.
    pub fn owner(&self) -> Option<Owner<'_>> {
        let owner = &self.connection.owner;
        owner.is_known().then(|| Owner {
            pid: owner.pid,
            tid: owner.tid,
            uid: owner.uid,
            comm: until_zero(&owner.comm),
            thread: until_zero(&owner.thread),
            cgroup: owner.cgroup,
            start_ns: owner.start_ns,
            is_kernel: owner.flags & KERNEL != 0,
        })
    }

    /// How the owner is known: `connect`, `accept`, `listener`, `files`, or `-`.
    pub fn owner_source(&self) -> &'static str {
        SOURCES.get(usize::from(self.connection.owner.source)).unwrap_or(&SOURCES[0])
    }
}

fn known(ns: u64) -> Option<u64> {
    (ns != 0).then_some(ns)
}

/// The bytes before the first zero; all if there is none.
pub fn until_zero(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn address(family: u8, bytes: &[u8; 16]) -> IpAddr {
    if family == 6 {
        IpAddr::V6(Ipv6Addr::from(*bytes))
    } else {
        let [a, b, c, d, ..] = *bytes;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    }
}

/// Pairs numbers of errors with their names.
macro_rules! errno_names {
    ($($name:ident)*) => {
        /// The name of an errno number (`ECONNREFUSED`), for those a TCP socket can end with.
        pub fn errno_name(errno: u16) -> Option<&'static str> {
            match i32::from(errno) {
                $(libc::$name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

errno_names! {
    EPERM EINTR EIO EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY ENODEV EINVAL EPIPE
    EMSGSIZE EPROTO ENOPROTOOPT EPROTONOSUPPORT EOPNOTSUPP EAFNOSUPPORT
    EADDRINUSE EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET
    ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ESHUTDOWN ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ENONET
    ECANCELED EKEYREJECTED EKEYEXPIRED EBADMSG
}

#[cfg(test)]
pub(crate) mod tests;
