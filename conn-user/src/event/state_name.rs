//! States, by the kernel's names in lower case. Sockets of UDP have two of them, by the kernel's numbers of TCP states; flows of
//! UDP have states of their own.

use conn_common::flow::{ASSURED, UNREPLIED};
use conn_common::state as number;

/// The names that [`name`] gives, and [`UNCONNECTED`].
pub(crate) const NAMES: [&str; 15] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    UNCONNECTED,
    "unreplied",
    "replied",
    "assured",
];

/// A UDP socket without a peer. Its number is that of CLOSE.
pub(crate) const UNCONNECTED: &str = "unconnected";

/// The name of a state, `None` for a connection that has just begun. The kernel numbers them from 1.
pub(crate) fn name(state: u8) -> Option<&'static str> {
    const { assert!(number::ESTABLISHED == 1 && number::CLOSING == 11 && UNREPLIED == 13 && ASSURED == 15) };
    // A handshake that has begun, without a socket: ss, too, has one word for both.
    let state = if state == number::NEW_SYN_RECV { number::SYN_RECV } else { state };
    // UNCONNECTED is at the place of the mini-socket's number.
    NAMES.get(usize::from(state).wrapping_sub(1)).copied()
}

/// The state with one of [`NAMES`].
pub(crate) fn from_name(wanted: &str) -> Option<u8> {
    if wanted == UNCONNECTED {
        return Some(number::CLOSE);
    }
    (number::ESTABLISHED..=ASSURED).find(|&state| name(state) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use conn_common::protocol::UDP;

    use super::*;

    #[test]
    fn lowercase_names_match_kernel_names() {
        assert_eq!(from_name(UNCONNECTED), Some(number::CLOSE));
        assert_eq!(name(number::NEW_SYN_RECV), Some("syn_recv"));
        for state in (0..=u8::MAX).filter(|&state| state != number::NEW_SYN_RECV) {
            let known = number::name(state).or_else(|| number::name_in(UDP, state));
            assert_eq!(name(state).map(str::to_ascii_uppercase).as_deref(), known);
            assert_eq!(name(state).and_then(from_name), name(state).map(|_| state));
        }
    }
}
