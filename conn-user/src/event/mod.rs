//! One event of a connection's life, decoded: plain values only.

pub mod decode;
pub(crate) mod direction;
pub mod enriched;
pub mod entry;
pub(crate) mod errno;
pub mod kind;
pub(crate) mod lost;
pub(crate) mod process;
pub(crate) mod sort_key;
pub(crate) mod state_name;
pub mod tracked;
pub mod unix;
pub(crate) mod workload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use conn_common::attempt::Attempt;
use conn_common::cause::Cause;
use conn_common::connection::{Connection, FORWARD, OUT, QUIC};
use conn_common::owner::SOURCES;
use conn_common::protocol::{TCP, UDP};
use conn_common::quic;
use conn_common::reset::Reset;
use conn_common::state;
use conn_common::traffic::Traffic;

use crate::event::kind::Kind;
use crate::event::process::Process;
use crate::event::tracked::{Nat, Tracked};

/// An event. Times are nanoseconds of `CLOCK_BOOTTIME`, see [`crate::host::clock`].
///
/// An event holds what happened, and nothing that only the kernel programs need: [`decode`] clears the rest of the
/// record, so two events are equal if they say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened.
    pub time_ns: u64,
    /// The kind of the event.
    pub kind: Kind,
    /// The layer-4 protocol, see [`conn_common::protocol`].
    pub protocol: u8,
    /// The TCP state before, see [`conn_common::state`]; `UNSEEN` for a new connection, the state itself for an
    /// open one.
    pub old_state: u8,
    /// The traffic of the connection. Known at the end, and of an open connection; else zero.
    pub traffic: Traffic,
    /// The socket's error at the end, an errno number; 0 for none.
    pub error: u16,
    /// Why the connection ended; `None` before the end, and if the kernel programs give no cause.
    pub end: Option<Cause>,
    /// Why this host reset the connection; `None` if it did not, or if that is not certain.
    pub reset: Option<Reset>,
    /// The outcome of an attempt so far; `None` for other kinds.
    pub attempt: Option<Attempt>,
    /// Time without payload in either direction until the end, or until now; `None` if it is unknown.
    pub idle_ns: Option<u64>,
    /// The time for which the connection existed at least; `None` unless it is older than conntrace, and before its
    /// end.
    pub at_least_ns: Option<u64>,
    /// Half-open requests in the queue of a listener that exists now; `None` if it is none, or if the kernel does not
    /// show it.
    pub half_open: Option<u32>,
    /// Packets that a listener or a UDP socket which exists now has dropped since it was made; `None` as above.
    pub dropped: Option<u32>,
    /// Facts that sockets of TCP do not have.
    pub tracked: Tracked,
    /// The connection as it is after the event.
    pub connection: Connection,
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
        self.end.filter(|&cause| match self.protocol {
            UDP => cause == Cause::Refused,
            _ => state::is_opening(self.old_state),
        })
    }

    /// From the attempt to the end, in nanoseconds. `None` before the end, and for a connection whose
    /// attempt was not seen.
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

    /// The name of its state; `None` for a connection that has just begun.
    pub fn state(&self) -> Option<&'static str> {
        let state = self.connection.state;
        // Of the sockets that exist, only those of UDP are in this state.
        let is_unconnected = self.kind == Kind::Open && state == state::CLOSE && !self.is_entry();
        if is_unconnected { Some(state_name::UNCONNECTED) } else { state_name::name(state) }
    }

    /// The protocol above UDP, as far as the first packet of the flow shows one.
    pub fn app(&self) -> Option<&'static str> {
        (self.protocol == UDP && self.connection.is(QUIC)).then_some(quic::NAME)
    }

    /// True if the counters of [`Event::traffic`] are known.
    pub fn has_traffic(&self) -> bool {
        matches!(self.kind, Kind::Destroy | Kind::Open) && self.has_counters()
    }

    /// False of what counts nothing: a mini-socket, a socket of UDP that exists now, and an entry of connection tracking
    /// without accounting.
    fn has_counters(&self) -> bool {
        if self.is_entry() {
            return self.tracked.packets.is_some();
        }
        self.kind != Kind::Open || (!self.is_mini() && self.protocol == TCP)
    }

    /// True of an event that connection tracking reported.
    pub const fn is_entry(&self) -> bool {
        self.tracked.entry.is_some()
    }

    /// The tuple of the replies: source and destination.
    pub fn reply(&self) -> [SocketAddr; 2] {
        self.tracked.reply.unwrap_or_else(|| [self.responder(), self.initiator()])
    }

    /// What address translation changes; `None` if it changes nothing.
    pub fn nat(&self) -> Option<Nat> {
        let [source, destination] = self.reply();
        let ids = self.tracked.entry.and_then(|entry| entry.icmp).map(|icmp| icmp.map(|one| one.id));
        let is_id_changed = ids.is_some_and(|[original, reply]| original != reply);
        Nat::of(destination != self.initiator() || is_id_changed, source != self.responder())
    }

    /// True if the kernel keeps only a mini-socket of the connection: in TIME_WAIT, or before the end of the handshake. A
    /// mini-socket has neither an id nor counters.
    fn is_mini(&self) -> bool {
        self.kind == Kind::Open && self.connection.id == 0 && !self.is_entry()
    }

    /// The connection's id; `None` for a mini-socket.
    pub fn id(&self) -> Option<u64> {
        Some(self.connection.id).filter(|_| !self.is_mini())
    }

    /// A counter of [`Event::traffic`]; `None` for a socket that counts nothing.
    pub fn traffic_of<T>(&self, part: fn(&Traffic) -> T) -> Option<T> {
        Some(part(&self.traffic)).filter(|_| self.has_counters())
    }

    /// A queue of [`Event::traffic`]; `None` for a mini-socket, and for what is no socket.
    pub fn queue_of(&self, part: fn(&Traffic) -> u32) -> Option<u32> {
        Some(part(&self.traffic)).filter(|_| !self.is_mini() && !self.is_entry())
    }

    /// True if this host opened the connection.
    pub fn is_out(&self) -> bool {
        self.connection.direction == OUT
    }

    /// The name of its direction, `in`, `out`, `forward` or `listen`.
    pub fn direction(&self) -> Option<&'static str> {
        direction::of(&self.connection)
    }

    /// The end of the connection that is here.
    pub fn local(&self) -> SocketAddr {
        if self.is_src_ours() { self.initiator() } else { self.responder() }
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        if self.is_src_ours() { self.responder() } else { self.initiator() }
    }

    /// True if the initiator (or what stands in its place) is this end. Of a flow that passes through, the initiator's end
    /// stands in place of ours.
    pub fn is_src_ours(&self) -> bool {
        self.connection.is_src_ours() || self.connection.direction == FORWARD
    }

    /// The end that opened it.
    pub fn initiator(&self) -> SocketAddr {
        SocketAddr::new(self.src(), self.connection.sport)
    }

    /// The end that was asked for the connection.
    pub fn responder(&self) -> SocketAddr {
        SocketAddr::new(self.dst(), self.connection.dport)
    }

    /// The index of the interface that the socket is bound to, in its network namespace; `None` if it is not bound.
    pub fn interface_index(&self) -> Option<u32> {
        Some(self.connection.interface()).filter(|&index| index != 0)
    }

    /// A counter of [`Event::traffic`] that only TCP has; `None` for a mini-socket, and for other protocols.
    pub fn tcp_traffic_of<T>(&self, part: fn(&Traffic) -> T) -> Option<T> {
        self.traffic_of(part).filter(|_| self.protocol == TCP && !self.is_entry())
    }

    /// Segments sent; packets of UDP.
    pub fn packets_sent(&self) -> Option<u64> {
        self.packets(0, |traffic| traffic.segments_sent)
    }

    /// Segments received; packets of UDP.
    pub fn packets_received(&self) -> Option<u64> {
        self.packets(1, |traffic| traffic.segments_received)
    }

    fn packets(&self, way: usize, part: fn(&Traffic) -> u32) -> Option<u64> {
        let of_flow = self.tracked.packets.map(|packets| packets[way]);
        of_flow.or_else(|| self.tcp_traffic_of(part).map(u64::from))
    }

    /// The word for the cause of the end.
    pub fn end_name(&self) -> Option<&'static str> {
        self.end.map(|cause| cause.name_in(self.protocol))
    }

    /// True if it is known which end opened it, and so which port is the service's.
    pub fn is_directed(&self) -> bool {
        self.connection.is_directed()
    }

    /// From the attempt to the end of the handshake, in nanoseconds.
    pub fn handshake_ns(&self) -> Option<u64> {
        Some(self.established_ns()?.saturating_sub(self.attempt_ns()?))
    }

    /// When the connection was attempted; `None` if that was not seen.
    pub fn attempt_ns(&self) -> Option<u64> {
        known(self.connection.attempt_ns)
    }

    /// When its handshake was complete; `None` if it was not, or if that was not seen.
    pub fn established_ns(&self) -> Option<u64> {
        known(self.connection.established_ns)
    }

    /// The process that the connection belongs to; `None` if it is unknown, or if several processes qualify.
    pub fn owner(&self) -> Option<Process<'_>> {
        Process::from_connection(&self.connection)
    }

    /// How many processes had the socket open when the open files were walked; `None` if that is unknown.
    pub fn holders(&self) -> Option<u16> {
        Some(self.connection.owner.holders).filter(|&holders| holders != 0)
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

#[cfg(test)]
pub(crate) mod tests;
