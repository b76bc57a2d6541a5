//! What `list` and `count` look at: open connections, and what else the states that were asked for name.

use conn_common::connection::{Connection, LISTENER, PREEXISTING, TUPLE_KNOWN, UNDIRECTED, WAS_ESTABLISHED};
use conn_common::filter::bit;
use conn_common::name::{LIST_HALF_OPEN, LIST_TIME_WAIT};
use conn_common::owner::Owner;
use conn_common::row::SocketRow;
use conn_common::state::{self, CLOSE, FIN_WAIT2, NEW_SYN_RECV, SYN_RECV, TIME_WAIT};

use crate::filter::{Filter, Pushed};
use crate::kernel::load_options::Options;

/// What the iterators write for a filter: listeners, or connections.
pub fn options(filter: &Filter, listening: bool) -> Options {
    if listening {
        // Listeners have no direction and no peer, so the kernel is told only what they are.
        let pushed = Pushed { directions: bit(LISTENER), ..Pushed::all() };
        return Options { filter: pushed, ..Options::lists(filter) };
    }
    let asked = |state, bit| if filter.asks_for_state(state) { bit } else { 0 };
    // A stand-in for a socket that nobody has any more may also stand in FIN_WAIT2.
    let listed =
        asked(TIME_WAIT, LIST_TIME_WAIT) | asked(FIN_WAIT2, LIST_TIME_WAIT) | asked(SYN_RECV, LIST_HALF_OPEN);
    Options { listed, ..Options::lists(filter) }
}

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
pub fn wanted(filter: &Filter, connection: Connection, holders: Option<&[Owner]>) -> Option<Connection> {
    let passes = |connection: &Connection| {
        let turned = || Connection {
            src: connection.dst,
            dst: connection.src,
            sport: connection.dport,
            dport: connection.sport,
            ..*connection
        };
        filter.wants(connection) || (connection.direction == UNDIRECTED && filter.wants(&turned()))
    };
    // A socket that has just ended, and is on its way out of the kernel's tables.
    if connection.state == CLOSE {
        return None;
    }
    let Some(holders) = holders else { return Some(connection).filter(passes) };
    holders.iter().map(|&owner| Connection { owner, ..connection }).find(passes)
}
