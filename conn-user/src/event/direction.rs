//! Names of directions: seen from this host, which side opened a connection.

use conn_common::connection::{IN, LISTENER, OUT};

/// The names, by number.
pub const NAMES: [&str; 3] = {
    let mut names = [""; 3];
    names[IN as usize] = "in";
    names[OUT as usize] = "out";
    names[LISTENER as usize] = "listen";
    names
};

/// The name of a direction: `in`, `out`, or `listen` for a listening socket. `None` if the direction is unknown.
pub fn name(direction: u8) -> Option<&'static str> {
    NAMES.get(usize::from(direction)).copied()
}

/// The direction with a name, in any case.
pub fn from_name(name: &str) -> Option<u8> {
    (0..).zip(NAMES).find(|(_, known)| known.eq_ignore_ascii_case(name)).map(|(direction, _)| direction)
}

#[cfg(test)]
mod tests {
    use conn_common::connection::UNDIRECTED;

    use super::*;

    #[test]
    fn names_lead_back_to_their_directions() {
        for direction in [IN, OUT, LISTENER] {
            assert_eq!(name(direction).and_then(from_name), Some(direction));
        }
        assert_eq!((name(UNDIRECTED), from_name("-")), (None, None));
    }
}
