//! Which end opened a connection in TIME_WAIT. The kernel keeps only a mini-socket of it, which does not say. Nor does a UDP
//! socket say which end sent first.
//!
//! Three facts are left. The kernel programs see whether `connect()` chose the local port: then this host opened the
//! connection. A listener on the local port accepted the connection, since `connect()` chooses no port that a listener
//! has. Else the ports show which end is probably the service, and the direction stays unknown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use conn_common::connection::{Connection, IN, OUT, PERHAPS_IN, UNDIRECTED};
use conn_common::protocol::TCP;

use crate::host::namespace;

/// The ports that `connect()` chooses from where nothing else is set (`inet_init_net()`, Linux 4.2 and later).
const DEFAULT_RANGE: RangeInclusive<u16> = 32_768..=60_999;
/// The address of a listener on all addresses of a family.
const ANY: [u8; 16] = [0; 16];
/// `::1`.
const LOOPBACK: [u8; 16] = 1_u128.to_be_bytes();

/// An address of a family, 4 or 6.
type Address = (u8, [u8; 16]);

/// The listeners of each network namespace, and the ports that it gives to connections.
#[derive(Default)]
pub(super) struct Responders {
    /// By network namespace and port.
    listeners: HashMap<(u32, u16), BTreeSet<Address>>,
    ranges: BTreeMap<u32, RangeInclusive<u16>>,
}

impl Responders {
    /// Notes a listener.
    pub(super) fn note_listener(&mut self, listener: &Connection) {
        let addresses = self.listeners.entry((listener.netns, listener.dport)).or_default();
        addresses.insert((listener.family, listener.dst));
    }

    /// Gives a connection in TIME_WAIT, whose `src` is this host's end, its direction if that is certain. Else makes the
    /// end with the service port the responder. The thread must be in the namespace of the connection: that of the walk. A
    /// walk meets the listeners of a namespace before its connections (`tcp_seek_last_pos()`). Of UDP, only the ports show
    /// which end may be the service.
    pub(super) fn direct(&mut self, connection: &mut Connection, protocol: u8) {
        if connection.is_directed() {
            return;
        }
        let Connection { netns, family, .. } = *connection;
        let is_tcp = protocol == TCP;
        let is_heard = is_tcp && self.listens(netns, (family, connection.src), connection.sport);
        let is_peer_heard = is_tcp
            && (is_loopback(family, &connection.dst) || connection.dst == connection.src)
            && self.listens(netns, (family, connection.dst), connection.dport);
        connection.direction = match (is_heard, is_peer_heard) {
            (true, false) => IN,
            (false, true) => OUT,
            _ => {
                let range = self.range(netns);
                let is_client = range.contains(&connection.sport) && !range.contains(&connection.dport);
                if is_client { UNDIRECTED } else { PERHAPS_IN }
            }
        };
        if matches!(connection.direction, IN | PERHAPS_IN) {
            std::mem::swap(&mut connection.src, &mut connection.dst);
            std::mem::swap(&mut connection.sport, &mut connection.dport);
        }
    }

    /// True if a listener of the namespace takes connections to this address and port. A listener on `::` also takes
    /// those over IPv4.
    fn listens(&self, netns: u32, address: Address, port: u16) -> bool {
        self.listeners.get(&(netns, port)).is_some_and(|listeners| {
            [address, (address.0, ANY), (6, ANY)].iter().any(|address| listeners.contains(address))
        })
    }

    fn range(&mut self, netns: u32) -> RangeInclusive<u16> {
        let range = || namespace::port_range(netns).unwrap_or(DEFAULT_RANGE);
        self.ranges.entry(netns).or_insert_with(range).clone()
    }
}

fn is_loopback(family: u8, address: &[u8; 16]) -> bool {
    if family == 4 { address[0] == 127 } else { *address == LOOPBACK }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::LISTENER;

    use super::*;

    const HERE: [u8; 4] = [192, 0, 2, 1];
    const PEER: [u8; 4] = [198, 51, 100, 9];

    fn v4(address: [u8; 4]) -> [u8; 16] {
        let mut bytes = ANY;
        bytes[..4].copy_from_slice(&address);
        bytes
    }

    fn closed(peer: [u8; 4], ports: [u16; 2]) -> Connection {
        let [sport, dport] = ports;
        Connection {
            netns: 1,
            family: 4,
            direction: UNDIRECTED,
            src: v4(HERE),
            dst: v4(peer),
            sport,
            dport,
            ..Connection::UNSEEN
        }
    }

    fn directed(listeners: &[(u8, [u8; 16], u16)], mut connection: Connection) -> (u8, u16, bool) {
        let mut responders = Responders::default();
        for &(family, dst, dport) in listeners {
            let flags = LISTENER;
            responders.note_listener(&Connection { netns: 1, family, dst, dport, flags, ..connection });
        }
        responders.direct(&mut connection, TCP);
        (connection.direction, connection.dport, connection.dst == v4(HERE))
    }

    #[test]
    fn listener_makes_the_connection_incoming() {
        for listener in [(4, v4(HERE)), (4, ANY), (6, ANY)] {
            let listener = (listener.0, listener.1, 8_080);
            assert_eq!(directed(&[listener], closed(PEER, [8_080, 40_000])), (IN, 8_080, true));
            // A listener in the range of ports, too: connect() does not choose its port.
            let listener = (listener.0, listener.1, 40_001);
            assert_eq!(directed(&[listener], closed(PEER, [40_001, 40_000])), (IN, 40_001, true));
        }
        // Listeners on another address, port or host say nothing.
        for listener in [(4, v4(PEER), 40_000), (4, v4(HERE), 443), (4, ANY, 443), (6, v4(HERE), 40_000)] {
            assert_eq!(directed(&[listener], closed(PEER, [40_000, 443])), (UNDIRECTED, 443, false));
        }
        // Both ends are here, and only the other one listens.
        assert_eq!(directed(&[(4, ANY, 8_080)], closed(HERE, [40_000, 8_080])), (OUT, 8_080, true));
    }

    #[test]
    fn ports_show_the_likelier_responder_only() {
        for (ports, expected) in [
            ([40_000, 443], (UNDIRECTED, 443, false)),
            ([443, 40_000], (PERHAPS_IN, 443, true)),
            // bind() took the port, as servers do.
            ([40_000, 50_000], (PERHAPS_IN, 40_000, true)),
            ([443, 1_023], (PERHAPS_IN, 443, true)),
        ] {
            assert_eq!(directed(&[], closed(PEER, ports)), expected, "{ports:?}");
        }
        let known = Connection { direction: OUT, ..closed(PEER, [8_080, 40_000]) };
        assert_eq!(directed(&[(4, ANY, 8_080)], known), (OUT, 40_000, false));
    }
}
