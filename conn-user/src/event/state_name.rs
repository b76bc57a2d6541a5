//! TCP states, by the kernel's names in lower case.

use conn_common::state as number;

/// The names that [`name`] gives.
pub(crate) const NAMES: [&str; 11] = [
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
];

/// The name of a state, `None` for a connection that has just begun. The kernel numbers them from 1.
pub(crate) fn name(state: u8) -> Option<&'static str> {
    const { assert!(number::ESTABLISHED == 1 && number::CLOSING as usize == NAMES.len()) };
    // A handshake that has begun, without a socket: ss, too, has one word for both.
    let state = if state == number::NEW_SYN_RECV { number::SYN_RECV } else { state };
    NAMES.get(usize::from(state).wrapping_sub(1)).copied()
}

/// The state with a name that [`name`] gives.
pub(crate) fn from_name(wanted: &str) -> Option<u8> {
    (number::ESTABLISHED..=number::CLOSING).find(|&state| name(state) == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowercase_names_match_kernel_names() {
        assert_eq!(name(number::NEW_SYN_RECV), Some("syn_recv"));
        for state in (0..=u8::MAX).filter(|&state| state != number::NEW_SYN_RECV) {
            assert_eq!(name(state).map(str::to_ascii_uppercase).as_deref(), number::name(state));
            assert_eq!(name(state).and_then(from_name), name(state).map(|_| state));
        }
    }
}
