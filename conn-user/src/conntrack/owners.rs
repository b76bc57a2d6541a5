//! The processes behind flows: the sockets of this host by their tuples.
//!
//! The socket is in another network namespace than the flow that passes through. Only the tuple is common to both. So a
//! tuple that sockets of several processes have names no process.

use std::collections::{HashMap, VecDeque};

use conn_common::connection::{Connection, OUT};
use conn_common::owner::{Owner, SOCKET};
use conn_common::protocol::TCP;

use crate::event::Event;
use crate::filter::protocols::Protocols;

/// How many sockets are remembered: about 50 MB.
const MAX_SOCKETS: usize = 1 << 18;
/// How many rounds a socket that has closed is remembered: a round that began before the close may not have read the
/// beginning of a flow, and the next one reads it.
const ROUNDS: u64 = 2;

/// The id of a socket that a walk found.
pub(crate) const WALKED: u64 = 0;

/// A tuple: the end that sent the first packet of a flow comes first, and the socket's own end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Tuple {
    src: [u8; 16],
    dst: [u8; 16],
    sport: u16,
    dport: u16,
    family: u8,
    protocol: u8,
}

impl Tuple {
    fn new(protocol: u8, connection: &Connection) -> Self {
        let Connection { family, sport, dport, .. } = *connection;
        let plain = |mut address: [u8; 16]| {
            if family == 4 {
                address[4..].fill(0);
            }
            address
        };
        Self { src: plain(connection.src), dst: plain(connection.dst), sport, dport, family, protocol }
    }
}

/// A socket with a tuple.
#[derive(Clone, Copy, Debug)]
struct Holder {
    /// The id of its connection or flow, or [`WALKED`].
    id: u64,
    netns: u32,
    owner: Owner,
    /// The round in which it closed.
    closed: Option<u64>,
}

/// The sockets with a tuple: one, but for rare exceptions.
#[derive(Debug)]
struct Holders {
    first: Holder,
    others: Vec<Holder>,
}

impl Holders {
    fn iter(&self) -> impl Iterator<Item = &Holder> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Holder> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    /// Keeps some. False if none is left.
    fn retain(&mut self, is_kept: impl Fn(&Holder) -> bool) -> bool {
        self.others.retain(&is_kept);
        if is_kept(&self.first) {
            return true;
        }
        self.others.pop().map(|other| self.first = other).is_some()
    }
}

/// The sockets of all network namespaces that sent first.
#[derive(Debug, Default)]
pub(crate) struct Owners {
    sockets: HashMap<Tuple, Holders>,
    /// The tuples of sockets that have closed, with the round, in order.
    closed: VecDeque<(u64, Tuple)>,
    /// The number of the round.
    round: u64,
}

impl Owners {
    /// A socket has a tuple from now on.
    pub(crate) fn open(&mut self, protocol: u8, connection: &Connection) {
        let tuple = Tuple::new(protocol, connection);
        let new =
            Holder { id: connection.id, netns: connection.netns, owner: connection.owner, closed: None };
        let round = self.round;
        let Some(holders) = self.sockets.get_mut(&tuple) else {
            self.sockets.insert(tuple, Holders { first: new, others: Vec::new() });
            return;
        };
        for known in holders.iter_mut().filter(|known| known.netns == new.netns && known.closed.is_none()) {
            if known.id == WALKED || new.id == WALKED || known.id == new.id {
                // The walk and the hooks saw the same socket.
                *known = if new.id == WALKED { *known } else { new };
                return;
            }
            if protocol == TCP {
                // Two sockets of TCP never have one tuple in one namespace.
                known.closed = Some(round);
                self.closed.push_back((round, tuple));
            }
        }
        holders.others.push(new);
    }

    /// A socket has its tuple no more.
    pub(crate) fn close(&mut self, protocol: u8, connection: &Connection) {
        let tuple = Tuple::new(protocol, connection);
        let Some(holders) = self.sockets.get_mut(&tuple) else { return };
        let is_it = |known: &Holder| {
            known.netns == connection.netns
                && (known.id == connection.id || (protocol == TCP && known.id == WALKED))
        };
        for known in holders.iter_mut().filter(|known| known.closed.is_none() && is_it(known)) {
            known.closed = Some(self.round);
            self.closed.push_back((self.round, tuple));
        }
    }

    /// Forgets the sockets of other protocols than TCP that a walk found: hooks see their next packet, and not their end.
    pub(crate) fn forget_walked(&mut self) {
        self.sockets
            .retain(|tuple, holders| tuple.protocol == TCP || holders.retain(|known| known.id != WALKED));
    }

    /// Every network namespace was read up to a moment after the last call. Forgets the sockets that closed long enough
    /// before.
    pub(crate) fn end_round(&mut self) {
        self.round += 1;
        let round = self.round;
        while let Some(&(closed, tuple)) = self.closed.front()
            && closed + ROUNDS <= round
        {
            self.closed.pop_front();
            let is_kept = |known: &Holder| known.closed.is_none_or(|closed| closed + ROUNDS > round);
            if let Some(holders) = self.sockets.get_mut(&tuple)
                && !holders.retain(is_kept)
            {
                self.sockets.remove(&tuple);
            }
        }
    }

    /// True if there is no room for another socket.
    pub(crate) fn is_full(&self) -> bool {
        self.sockets.len() >= MAX_SOCKETS
    }

    /// Forgets the sockets of these protocols.
    pub(crate) fn forget_sockets(&mut self, protocols: Protocols) {
        if protocols == Protocols::INET {
            // Also gives the memory back.
            self.sockets = HashMap::new();
            self.closed = VecDeque::new();
            return;
        }
        let is_kept = |tuple: &Tuple| !protocols.contains(Protocols::of(tuple.protocol));
        self.sockets.retain(|tuple, _| is_kept(tuple));
        self.closed.retain(|(_, tuple)| is_kept(tuple));
    }

    /// The owner of the socket with the original tuple of a flow. `None` if there is no such socket, if its owner is not
    /// known, or if sockets of several processes have the tuple.
    pub(crate) fn of_socket(&self, flow: &Event) -> Option<Owner> {
        let Connection { netns, direction, .. } = flow.connection;
        let holders = self.sockets.get(&Tuple::new(flow.protocol, &flow.connection))?;
        // The socket of a flow that begins here is in the flow's own namespace, any other one is not.
        let mut may_be = holders.iter().filter(|holder| (holder.netns == netns) == (direction == OUT));
        let owner = may_be.next()?.owner;
        let is_same = |holder: &Holder| holder.owner.is_known() && holder.owner.is_process_of(&owner);
        (owner.is_known() && may_be.all(is_same)).then_some(Owner { source: SOCKET, ..owner })
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::FORWARD;
    use conn_common::protocol::UDP;

    use super::*;
    use crate::event::entry::tests::{entry, reading};
    use crate::event::kind::Kind;

    /// A flow of UDP in network namespace 1, and its socket with this id in a namespace, of a process.
    fn flow() -> Event {
        let mut flow = entry().event(&reading(Kind::New));
        (flow.connection.netns, flow.connection.direction) = (1, FORWARD);
        flow
    }

    fn socket(id: u64, netns: u32, pid: u32) -> Connection {
        let source = if pid == 0 { conn_common::owner::UNKNOWN } else { conn_common::owner::CONNECT };
        let owner = Owner { pid, source, ..Owner::NONE };
        Connection { id, netns, owner, direction: OUT, ..flow().connection }
    }

    /// The process id behind the flow.
    fn pid(owners: &Owners) -> Option<u32> {
        owners.of_socket(&flow()).map(|owner| {
            assert_eq!(owner.source, SOCKET);
            owner.pid
        })
    }

    #[test]
    fn the_process_of_the_only_socket_with_the_tuple_is_the_owner() {
        let mut owners = Owners::default();
        assert_eq!(pid(&owners), None);
        owners.open(UDP, &socket(7, 2, 40));
        assert_eq!(pid(&owners), Some(40));
        let tcp = Event { protocol: TCP, ..flow() };
        assert_eq!(owners.of_socket(&tcp), None);
        let mut local = flow();
        local.connection.direction = OUT;
        assert_eq!(owners.of_socket(&local), None, "its socket is in namespace 2");
        local.connection.netns = 2;
        assert_eq!(owners.of_socket(&local).map(|owner| owner.pid), Some(40));
    }

    #[test]
    fn sockets_of_several_processes_name_none() {
        for (second, expected) in [
            (socket(8, 3, 41), None),
            (socket(8, 3, 0), None),
            (socket(8, 2, 41), None),
            // The same process, with a socket in each namespace.
            (socket(8, 3, 40), Some(40)),
            // A socket in the flow's own namespace does not pass through it.
            (socket(8, 1, 41), Some(40)),
        ] {
            let mut owners = Owners::default();
            owners.open(UDP, &socket(7, 2, 40));
            owners.open(UDP, &second);
            assert_eq!(pid(&owners), expected, "{second:?}");
            owners.close(UDP, &second);
            assert_eq!(pid(&owners), expected, "a flow of it may be unread");
            owners.end_round();
            owners.end_round();
            assert_eq!(pid(&owners), Some(40));
        }
    }

    #[test]
    fn a_socket_that_closed_is_known_until_its_flow_is_read() {
        let mut owners = Owners::default();
        owners.open(UDP, &socket(7, 2, 40));
        owners.close(UDP, &socket(9, 2, 40));
        owners.close(UDP, &socket(7, 2, 40));
        owners.end_round();
        assert_eq!(pid(&owners), Some(40));
        // Another process takes the tuple meanwhile: the flow may be of either.
        owners.open(UDP, &socket(8, 2, 41));
        assert_eq!(pid(&owners), None);
        owners.end_round();
        assert_eq!(pid(&owners), Some(41));
        owners.close(UDP, &socket(8, 2, 41));
        owners.end_round();
        owners.end_round();
        assert!(pid(&owners).is_none() && owners.sockets.is_empty() && owners.closed.is_empty());
    }

    #[test]
    fn walks_and_hooks_see_the_same_socket() {
        let mut owners = Owners::default();
        owners.open(UDP, &socket(WALKED, 2, 40));
        owners.open(UDP, &socket(7, 2, 41));
        owners.open(UDP, &socket(WALKED, 2, 40));
        assert_eq!(pid(&owners), Some(41));
        let mut walked = Owners::default();
        for protocol in [TCP, UDP] {
            walked.open(protocol, &socket(WALKED, 2, 40));
        }
        walked.forget_walked();
        assert_eq!((pid(&walked), walked.sockets.len()), (None, 1));
        // Its end has the id that the hooks gave it.
        walked.close(TCP, &socket(7, 2, 40));
        walked.end_round();
        walked.end_round();
        assert!(walked.sockets.is_empty());
    }
}
