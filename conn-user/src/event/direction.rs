//! Names of directions: seen from this host, which side opened a connection.

use conn_common::connection::{Connection, FORWARD, IN, OUT};

/// The word of the role that listening sockets have instead of a direction.
pub(crate) const LISTEN: &str = "listen";

/// The names, by number, and [`LISTEN`].
pub(crate) const NAMES: [&str; 4] = {
    let mut names = [LISTEN; 4];
    names[IN as usize] = "in";
    names[OUT as usize] = "out";
    names[FORWARD as usize] = "forward";
    names
};

/// The name of a direction: `in`, `out` or `forward`. `None` if the direction is unknown.
pub(crate) fn name(direction: u8) -> Option<&'static str> {
    NAMES[..3].get(usize::from(direction)).copied()
}

/// The name of a connection's direction, or [`LISTEN`] for a listening socket. `None` if the direction is unknown.
pub(crate) fn of(connection: &Connection) -> Option<&'static str> {
    if connection.is_listener() { Some(LISTEN) } else { name(connection.direction) }
}

/// The direction of a socket's connection with a name, in any case.
pub(crate) fn from_name(name: &str) -> Option<u8> {
    (0..).zip(&NAMES[..2]).find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(direction, _)| direction)
}

#[cfg(test)]
mod tests {
    use conn_common::connection::UNDIRECTED;

    use super::*;

    #[test]
    fn names_lead_back_to_their_directions() {
        for direction in [IN, OUT] {
            assert_eq!(name(direction).and_then(from_name), Some(direction));
        }
        assert_eq!((name(UNDIRECTED), from_name("-")), (None, None));
    }
}
