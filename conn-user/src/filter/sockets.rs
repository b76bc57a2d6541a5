//! Rows of the socket iterators as connections, and the filter on them, for `list` and `count`.

use conn_common::connection::{
    Connection, PERHAPS_IN, PREEXISTING, TUPLE_KNOWN, UNDIRECTED, WAS_ESTABLISHED,
};
use conn_common::owner::Owner;
use conn_common::protocol::TCP;
use conn_common::row::SocketRow;
use conn_common::state::{self, CLOSE, NEW_SYN_RECV, SYN_RECV};

/// The connection of a row. The id is the socket's cookie, which `ss -e` shows after `sk:`.
pub(crate) fn connection(row: &SocketRow) -> Connection {
    let mut connection = row.connection;
    connection.id = row.cookie;
    connection.set(TUPLE_KNOWN | PREEXISTING);
    if connection.state == NEW_SYN_RECV {
        connection.state = SYN_RECV;
    } else if row.protocol == TCP && state::is_open(connection.state) && !state::is_opening(connection.state)
    {
        connection.set(WAS_ESTABLISHED);
    }
    connection
}

/// True of a TCP socket that has just ended and leaves the kernel's tables.
pub(crate) const fn has_ended(row: &SocketRow) -> bool {
    row.protocol == TCP && row.connection.state == CLOSE
}

/// The connection with its first holder that passes, or without a holder if it has none. Holders with the
/// socket's user `uid` come first, then those with a lower process id: a process of another user may have got the socket.
/// The opener of a connection in TIME_WAIT or of UDP is not known, so such a connection passes if it passes in either
/// direction.
pub(crate) fn wanted(
    connection: Connection,
    uid: u32,
    holders: Option<&[Owner]>,
    mut passes: impl FnMut(&Connection) -> bool,
) -> Option<Connection> {
    let mut passes = |connection: &Connection| {
        let turned = || Connection {
            src: connection.dst,
            dst: connection.src,
            sport: connection.dport,
            dport: connection.sport,
            direction: if connection.direction == UNDIRECTED { PERHAPS_IN } else { UNDIRECTED },
            ..*connection
        };
        passes(connection) || (!connection.is_directed() && passes(&turned()))
    };
    let Some(holders) = holders else { return Some(connection).filter(|connection| passes(connection)) };
    let count = u16::try_from(holders.len()).unwrap_or(u16::MAX);
    let of = |own: bool| holders.iter().filter(move |holder| (holder.uid == uid) == own);
    of(true)
        .chain(of(false))
        .map(|&owner| Connection { owner: Owner { holders: count, ..owner }, ..connection })
        .find(passes)
}
