//! TCP states as the kernel numbers them (`include/net/tcp_states.h`; frozen as `BPF_TCP_*` in the
//! kernel's BPF ABI since 4.18).

use crate::flow::{ASSURED, REPLIED, UNREPLIED};
use crate::protocol::{TCP, UDP};

/// No state is kept yet. Not a kernel number.
pub const UNSEEN: u8 = 0;
/// Handshake complete, data flows.
pub const ESTABLISHED: u8 = 1;
/// We sent a SYN.
pub const SYN_SENT: u8 = 2;
/// A child socket exists, its handshake is being finished.
pub const SYN_RECV: u8 = 3;
/// We closed first, our FIN is not acknowledged yet.
pub const FIN_WAIT1: u8 = 4;
/// Our FIN is acknowledged, the peer has not closed.
pub const FIN_WAIT2: u8 = 5;
/// Never a state of a full socket: the kernel hands it to a mini-socket.
pub const TIME_WAIT: u8 = 6;
/// No connection.
pub const CLOSE: u8 = 7;
/// The peer closed first, we have not.
pub const CLOSE_WAIT: u8 = 8;
/// The peer closed first, we did too and wait for the last ACK.
pub const LAST_ACK: u8 = 9;
/// Waiting for connections.
pub const LISTEN: u8 = 10;
/// Both closed at the same time.
pub const CLOSING: u8 = 11;
/// A handshake that a peer has begun: a mini-socket, never a full one. No transition leads here.
pub const NEW_SYN_RECV: u8 = 12;

/// The states in which a connection is open, in the order of [`slot`].
pub const OPEN: [u8; 8] =
    [SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING];

/// The result of [`slot`] for a state that is not open.
pub const NO_SLOT: u8 = 15;

/// Four bits per kernel state number: its index in [`OPEN`], or [`NO_SLOT`]. One shift in place of a table in memory, which
/// a kernel program would have to look up.
const SLOTS: u64 = {
    let mut packed = u64::MAX;
    let mut at = 0;
    while at < OPEN.len() {
        packed &= !(0xf << (OPEN[at] * 4));
        packed |= (at as u64) << (OPEN[at] * 4);
        at += 1;
    }
    packed
};

/// The index of `state` in [`OPEN`], or [`NO_SLOT`].
#[inline(always)]
pub const fn slot(state: u8) -> u8 {
    ((SLOTS >> ((state & 15) * 4)) & 0xf) as u8
}

/// True while a socket in `state` is a connection.
#[inline(always)]
pub const fn is_open(state: u8) -> bool {
    slot(state) != NO_SLOT
}

/// True for the states of a handshake.
#[inline(always)]
pub const fn is_opening(state: u8) -> bool {
    state == SYN_SENT || state == SYN_RECV
}

/// The name of a state of a protocol, as conntrack knows it. `None` if the protocol has no such state.
pub const fn name_in(protocol: u8, state: u8) -> Option<&'static str> {
    match protocol {
        TCP => name(state),
        UDP => match state {
            UNREPLIED => Some("UNREPLIED"),
            REPLIED => Some("REPLIED"),
            ASSURED => Some("ASSURED"),
            ESTABLISHED | CLOSE => name(state),
            _ => None,
        },
        _ => None,
    }
}

/// The kernel's name of a TCP state, upper case with underscores, as conntrack and `/proc` users know it.
pub const fn name(state: u8) -> Option<&'static str> {
    Some(match state {
        ESTABLISHED => "ESTABLISHED",
        SYN_SENT => "SYN_SENT",
        SYN_RECV => "SYN_RECV",
        FIN_WAIT1 => "FIN_WAIT1",
        FIN_WAIT2 => "FIN_WAIT2",
        TIME_WAIT => "TIME_WAIT",
        CLOSE => "CLOSE",
        CLOSE_WAIT => "CLOSE_WAIT",
        LAST_ACK => "LAST_ACK",
        LISTEN => "LISTEN",
        CLOSING => "CLOSING",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_number_the_open_states_and_nothing_else() {
        for (at, &state) in OPEN.iter().enumerate() {
            assert_eq!(usize::from(slot(state)), at);
        }
        for state in [UNSEEN, TIME_WAIT, CLOSE, LISTEN, 12, 13, 14, 15] {
            assert_eq!(slot(state), NO_SLOT, "{state}");
        }
    }
}
