//! What `list` and `count` look at: open connections, and what else the states that were asked for name.

use conn_common::connection::{Connection, PREEXISTING, TUPLE_KNOWN, UNDIRECTED, WAS_ESTABLISHED};
use conn_common::owner::Owner;
use conn_common::row::SocketRow;
use conn_common::state::{self, CLOSE, NEW_SYN_RECV, SYN_RECV};

use crate::filter::Filter;

/// The connection of a row, as people are told of it. Its id is the socket's cookie, which `ss -e` shows behind
/// `sk:`.
pub fn connection(row: &SocketRow) -> Connection {
    let mut connection = row.connection;
    connection.id = row.cookie;
    connection.set(TUPLE_KNOWN | PREEXISTING);
    if connection.state == NEW_SYN_RECV {
        connection.state = SYN_RECV;
    } else if state::is_open(connection.state) && !state::is_opening(connection.state) {
        connection.set(WAS_ESTABLISHED);
    }
    connection
}

/// The connection with the first of its holders (by process id) with whom the filter lets it through, or
/// without one if it has none. Who opened a connection in TIME_WAIT is not known, so that passes if it would
/// pass either way.
pub fn wanted(filter: &Filter, connection: Connection, holders: Option<&Vec<Owner>>) -> Option<Connection> {
    let passes = |connection: &Connection| {
        let turned = || Connection {
            src: connection.dst,
            dst: connection.src,
            sport: connection.dport,
            dport: connection.sport,
            ..*connection
        };
        filter.matches(connection) || (connection.direction == UNDIRECTED && filter.matches(&turned()))
    };
    // A socket that has just ended, and is on its way out of the kernel's tables.
    if connection.state == CLOSE {
        return None;
    }
    let Some(holders) = holders else { return Some(connection).filter(passes) };
    holders.iter().map(|&owner| Connection { owner, ..connection }).find(passes)
}
