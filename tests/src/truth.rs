//! What a piece of traffic really did: the side of the comparison that conntrace has no part in.

use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    ops::{AddAssign, Sub},
};

/// Which side of a connection a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Accepted here: the service port is the local one.
    In,
    /// Opened here: the service port is the remote one.
    Out,
}

/// Where the ledger counts: a direction and a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Which side.
    pub direction: Direction,
    /// The service port.
    pub port: u16,
}

/// Why an outgoing connection never was established.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// ECONNREFUSED.
    Refused,
    /// ETIMEDOUT.
    TimedOut,
    /// ENETUNREACH or EHOSTUNREACH after the SYN was on its way.
    Unreachable,
    /// Another reset.
    Reset,
    /// The opener gave up.
    Abandoned,
    /// No SYN left the host: no free source port, or fast open and nothing written.
    Local,
    /// Killed from outside (ECONNABORTED).
    Aborted,
}

/// Exact numbers for one [`Key`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts for outgoing, children for incoming.
    pub opened: u64,
    /// Handshakes that were completed.
    pub established: u64,
    /// Never established: refused.
    pub refused: u64,
    /// Never established: timed out.
    pub timed_out: u64,
    /// Never established: unreachable.
    pub unreachable: u64,
    /// Never established: reset.
    pub reset: u64,
    /// Never established: given up by the opener.
    pub abandoned: u64,
    /// Never established: nothing was sent.
    pub local: u64,
    /// Never established: killed from outside.
    pub aborted: u64,
    /// Incoming children that died before they were established.
    pub died: u64,
    /// Established and gone.
    pub closed: u64,
    /// Payload bytes this side put on the wire, each once, whether they arrived or not.
    pub sent: u64,
    /// Payload bytes this side's kernel has received.
    pub received: u64,
}

impl Counts {
    /// Outgoing connections that never were established.
    pub fn failed(&self) -> u64 {
        self.refused
            + self.timed_out
            + self.unreachable
            + self.reset
            + self.abandoned
            + self.local
            + self.aborted
    }

    /// What is left open by the identity of the ledger.
    pub fn open(&self) -> u64 {
        self.opened - self.failed() - self.died - self.closed
    }

    fn cause(&mut self, cause: Cause) -> &mut u64 {
        match cause {
            Cause::Refused => &mut self.refused,
            Cause::TimedOut => &mut self.timed_out,
            Cause::Unreachable => &mut self.unreachable,
            Cause::Reset => &mut self.reset,
            Cause::Abandoned => &mut self.abandoned,
            Cause::Local => &mut self.local,
            Cause::Aborted => &mut self.aborted,
        }
    }

    fn fields(&mut self) -> [&mut u64; 13] {
        let Self {
            opened,
            established,
            refused,
            timed_out,
            unreachable,
            reset,
            abandoned,
            local,
            aborted,
            died,
            closed,
            sent,
            received,
        } = self;
        [
            opened,
            established,
            refused,
            timed_out,
            unreachable,
            reset,
            abandoned,
            local,
            aborted,
            died,
            closed,
            sent,
            received,
        ]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, mut other: Self) {
        for (mine, theirs) in self.fields().into_iter().zip(other.fields()) {
            *mine += *theirs;
        }
    }
}

impl Sub for Counts {
    type Output = Self;

    /// The difference of two readings of the same counters.
    fn sub(mut self, mut other: Self) -> Self {
        for (mine, theirs) in self.fields().into_iter().zip(other.fields()) {
            *mine -= *theirs;
        }
        self
    }
}

/// Listening sockets of one port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Listens {
    /// `listen()` calls that succeeded.
    pub opened: u64,
    /// Listeners gone.
    pub closed: u64,
}

/// Both ends of a connection, from the side that opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The initiator.
    pub client: SocketAddr,
    /// The responder.
    pub server: SocketAddr,
}

impl Tuple {
    /// A tuple with v4-mapped addresses written as IPv4, as conntrace prints them.
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client: plain(client), server: plain(server) }
    }
}

/// The address without the v6 clothes that a dual-stack socket puts on it.
pub fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {}", self.client, self.server)
    }
}

/// What was done, per direction and service port, and by which tuples.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Truth {
    /// The counts; a key that is absent is all zeros.
    pub counts: BTreeMap<Key, Counts>,
    /// The listeners made on the way.
    pub listens: BTreeMap<u16, Listens>,
    /// The tuples in the order of their making; floods leave it empty.
    pub tuples: Vec<Tuple>,
}

impl Truth {
    /// The counts of outgoing connections to `port`.
    pub fn outgoing(&self, port: u16) -> Counts {
        self.get(Direction::Out, port)
    }

    /// The counts of incoming connections to `port`.
    pub fn incoming(&self, port: u16) -> Counts {
        self.get(Direction::In, port)
    }

    /// The counts of one key.
    pub fn get(&self, direction: Direction, port: u16) -> Counts {
        self.counts.get(&Key { direction, port }).copied().unwrap_or_default()
    }

    /// Every service port there is something about.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.counts.keys().map(|key| key.port).chain(self.listens.keys().copied()).collect()
    }

    /// The only tuple of traffic that made exactly one.
    ///
    /// # Panics
    /// When there is not exactly one.
    pub fn tuple(&self) -> Tuple {
        assert_eq!(self.tuples.len(), 1, "one tuple expected: {:?}", self.tuples);
        self.tuples[0]
    }

    pub(crate) fn out(&mut self, port: u16) -> &mut Counts {
        self.counts.entry(Key { direction: Direction::Out, port }).or_default()
    }

    pub(crate) fn inn(&mut self, port: u16) -> &mut Counts {
        self.counts.entry(Key { direction: Direction::In, port }).or_default()
    }

    /// Both ends of one connection were opened, established and closed.
    pub(crate) fn whole(&mut self, tuple: Tuple) {
        let port = tuple.server.port();
        self.both(port);
        self.out(port).closed += 1;
        self.inn(port).closed += 1;
        self.tuples.push(tuple);
    }

    /// Both ends of one connection were opened and established; they are still open.
    pub(crate) fn both(&mut self, port: u16) {
        let out = self.out(port);
        out.opened += 1;
        out.established += 1;
        let inn = self.inn(port);
        inn.opened += 1;
        inn.established += 1;
    }

    /// An attempt that failed.
    pub(crate) fn failed(&mut self, port: u16, cause: Cause) {
        let out = self.out(port);
        out.opened += 1;
        *out.cause(cause) += 1;
    }

    /// Payload of a connection between two sockets of this host.
    pub(crate) fn payload(&mut self, port: u16, up: u64, down: u64) {
        let out = self.out(port);
        out.sent += up;
        out.received += down;
        let inn = self.inn(port);
        inn.sent += down;
        inn.received += up;
    }

    /// A listener that came and went.
    pub(crate) fn listened(&mut self, port: u16) {
        let listens = self.listens.entry(port).or_default();
        listens.opened += 1;
        listens.closed += 1;
    }
}

impl AddAssign for Truth {
    fn add_assign(&mut self, other: Self) {
        for (key, counts) in other.counts {
            *self.counts.entry(key).or_default() += counts;
        }
        for (port, listens) in other.listens {
            let mine = self.listens.entry(port).or_default();
            mine.opened += listens.opened;
            mine.closed += listens.closed;
        }
        self.tuples.extend(other.tuples);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truths_add_up_and_keep_the_identity() {
        let mut truth = Truth::default();
        let tuple = Tuple::new("[::ffff:127.0.0.1]:40000".parse().unwrap(), "127.0.0.1:80".parse().unwrap());
        truth.whole(tuple);
        truth.payload(80, 3, 4);
        truth.failed(80, Cause::Refused);
        truth.both(80);
        let mut twice = truth.clone();
        twice += truth.clone();

        let out = twice.outgoing(80);
        assert_eq!((out.opened, out.established, out.failed(), out.closed, out.open()), (6, 4, 2, 2, 2));
        assert_eq!((out.sent, out.received), (6, 8));
        assert_eq!(twice.incoming(80).received, 6);
        assert_eq!(twice.outgoing(80) - truth.outgoing(80), truth.outgoing(80));
        assert_eq!(truth.tuple().client, "127.0.0.1:40000".parse().unwrap());
    }
}
