//! Why a connection ended.

use crate::protocol::UDP;
use crate::state::{CLOSE_WAIT, CLOSING, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, is_opening};

/// The word for the end of a flow with its socket.
pub const CLOSED: &str = "closed";

/// Why a connection ended: failed before it was established, or closed after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Cause {
    /// The peer answered with a reset to our SYN (ECONNREFUSED).
    Refused = 0,
    /// No answer came (ETIMEDOUT): to our SYN, to data, or to a keepalive.
    TimedOut = 1,
    /// The network said so (ICMP, ARP: EHOSTUNREACH, ENETUNREACH and their kin).
    Unreachable = 2,
    /// The peer reset it (ECONNRESET; EPIPE once it had closed its side).
    ResetByPeer = 3,
    /// We gave up: the socket was closed before an answer came.
    Abandoned = 4,
    /// No SYN was sent: there was no free port, or nothing to send yet (fast open).
    Local = 5,
    /// An administrator killed it (ECONNABORTED, `ss -K`), or a checkpoint took it away (`TCP_REPAIR`), which sends nothing.
    Aborted = 6,
    /// Not known, or an error that none of these is.
    Unknown = 7,
    /// Closed in order, our FIN first.
    ClosedByUs = 8,
    /// Closed in order, the peer's FIN first.
    ClosedByPeer = 9,
    /// We reset it: closed with data unread or with linger 0, disconnected, or out of memory.
    ResetByUs = 10,
    /// Its listener was closed before a task accepted it.
    NotAccepted = 11,
    /// Reset after this end had closed, while its FIN was on its way (ECONNRESET): by the peer, or by us for data that the
    /// peer still sent. `tcp_reset()` is called for both, and the socket does not show which of the two it was.
    LateReset = 12,
}

/// The known facts of a connection at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts that do not depend on each other")]
pub struct Ending {
    /// The state it ends in.
    pub from: u8,
    /// The socket's error, an errno number.
    pub error: u16,
    /// A SYN left (or came).
    pub sent: bool,
    /// A process has had the socket: it connected or was accepted.
    pub held: bool,
    /// A process has the socket now; false once it is closed.
    pub holds: bool,
    /// The peer's FIN arrived.
    pub peer_closed: bool,
    /// The socket may not wait for the peer's FIN once no process has it (`TCP_LINGER2` below 0).
    pub never_lingers: bool,
    /// The socket is in repair mode (`TCP_REPAIR`): its ends send nothing.
    pub in_repair: bool,
}

impl Cause {
    /// How many there are.
    pub const COUNT: usize = 13;
    /// All of them, by number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::ResetByPeer,
        Self::Abandoned,
        Self::Local,
        Self::Aborted,
        Self::Unknown,
        Self::ClosedByUs,
        Self::ClosedByPeer,
        Self::ResetByUs,
        Self::NotAccepted,
        Self::LateReset,
    ];

    /// The cause with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::COUNT { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The word for the cause of an end in a protocol. A socket of UDP closes without a say of the peer.
    pub const fn name_in(self, protocol: u8) -> &'static str {
        match (protocol, self) {
            (UDP, Self::ClosedByUs) => CLOSED,
            _ => self.name(),
        }
    }

    /// The cause with a word that [`Self::name_in`] gives.
    pub fn from_name_in(protocol: u8, wanted: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.name_in(protocol) == wanted)
    }

    /// Why a connection ended. From the last state and the socket's error (`errno` numbers of
    /// `include/uapi/asm-generic/errno.h`), which at the transition to CLOSE are still whole.
    #[inline(always)]
    pub const fn of(end: Ending) -> Self {
        match end.error {
            0 => Self::without_error(end),
            // EADDRNOTAVAIL: no free port.
            99 => Self::Local,
            111 => Self::Refused,
            110 => Self::TimedOut,
            // ENETUNREACH, EHOSTUNREACH, EHOSTDOWN, ENONET, EACCES, ENOPROTOOPT: icmp_err_convert
            // and icmpv6_err_convert have no others.
            101 | 113 | 112 | 64 | 13 | 92 => Self::Unreachable,
            // tcp_rcv_state_process() calls tcp_reset() on itself, too, before it answers data that come after close() by a
            // reset.
            104 if matches!(end.from, FIN_WAIT1 | FIN_WAIT2) && !end.holds => Self::LateReset,
            // tcp_reset(): EPIPE in CLOSE_WAIT, ECONNRESET elsewhere.
            104 | 32 => Self::ResetByPeer,
            103 => Self::Aborted,
            _ => Self::Unknown,
        }
    }

    #[inline(always)]
    const fn without_error(end: Ending) -> Self {
        if is_opening(end.from) {
            return if !end.sent {
                Self::Local
            } else if end.held {
                Self::Abandoned
            } else {
                // A child that died in its handshake: a duplicate, or no memory.
                Self::Unknown
            };
        }
        // tcp_disconnect() sends no reset then, and sets ECONNABORTED after this step.
        if end.in_repair && end.holds {
            return Self::Aborted;
        }
        match end.from {
            LAST_ACK => Self::ClosedByPeer,
            CLOSING => Self::ClosedByUs,
            // The time-wait mini-socket takes over after the peer's FIN, or once the process is gone
            // (tcp_time_wait()). A process that still has the socket and no FIN: __tcp_close() with
            // data unread or linger 0, or a disconnect. One that may not linger resets when it is closed.
            FIN_WAIT2 if end.peer_closed || !(end.holds || end.never_lingers) => Self::ClosedByUs,
            // inet_csk_listen_stop() on a child that no process ever had.
            ESTABLISHED | CLOSE_WAIT if !end.held => Self::NotAccepted,
            // Only what is said above and tcp_out_of_resources() end these without a word of the peer.
            ESTABLISHED | CLOSE_WAIT | FIN_WAIT1 | FIN_WAIT2 => Self::ResetByUs,
            _ => Self::Unknown,
        }
    }

    /// The word for it in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::ResetByPeer => "reset_by_peer",
            Self::Abandoned => "abandoned",
            Self::Local => "local",
            Self::Aborted => "aborted",
            Self::Unknown => "unknown",
            Self::ClosedByUs => "closed_by_us",
            Self::ClosedByPeer => "closed_by_peer",
            Self::ResetByUs => "reset_by_us",
            Self::NotAccepted => "not_accepted",
            Self::LateReset => "late_reset",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{SYN_RECV, SYN_SENT};

    const ORDERLY: Ending = Ending {
        from: ESTABLISHED,
        error: 0,
        sent: true,
        held: true,
        holds: true,
        peer_closed: false,
        never_lingers: false,
        in_repair: false,
    };

    #[test]
    fn numbers_and_causes_agree() {
        for (number, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, number);
            assert_eq!(Cause::from_number(number as u8), Some(cause));
        }
        assert_eq!(Cause::from_number(Cause::COUNT as u8), None);
        assert_eq!(Cause::from_number(0xff), None);
    }

    #[test]
    fn ends_that_were_observed() {
        let child = Ending { held: false, holds: false, ..ORDERLY };
        let orphan = Ending { holds: false, ..ORDERLY };
        for (end, cause) in [
            (Ending { from: SYN_SENT, error: 111, ..ORDERLY }, Cause::Refused),
            (Ending { from: SYN_SENT, error: 110, ..ORDERLY }, Cause::TimedOut),
            (Ending { from: SYN_SENT, ..ORDERLY }, Cause::Abandoned),
            (Ending { from: SYN_SENT, sent: false, ..ORDERLY }, Cause::Local),
            (Ending { from: SYN_RECV, ..child }, Cause::Unknown),
            (Ending { from: SYN_RECV, error: 104, ..child }, Cause::ResetByPeer),
            (Ending { from: LAST_ACK, peer_closed: true, ..orphan }, Cause::ClosedByPeer),
            (Ending { from: FIN_WAIT2, peer_closed: true, ..orphan }, Cause::ClosedByUs),
            (Ending { from: FIN_WAIT2, peer_closed: true, ..ORDERLY }, Cause::ClosedByUs),
            (Ending { from: FIN_WAIT2, ..orphan }, Cause::ClosedByUs),
            (Ending { from: FIN_WAIT2, ..ORDERLY }, Cause::ResetByUs),
            (Ending { from: FIN_WAIT2, never_lingers: true, ..orphan }, Cause::ResetByUs),
            (Ending { from: FIN_WAIT2, never_lingers: true, peer_closed: true, ..orphan }, Cause::ClosedByUs),
            (Ending { from: FIN_WAIT1, error: 110, ..orphan }, Cause::TimedOut),
            (Ending { from: FIN_WAIT1, error: 104, ..orphan }, Cause::LateReset),
            (Ending { in_repair: true, ..ORDERLY }, Cause::Aborted),
            (Ending { from: CLOSE_WAIT, in_repair: true, ..ORDERLY }, Cause::Aborted),
            (Ending { from: LAST_ACK, in_repair: true, peer_closed: true, ..orphan }, Cause::ClosedByPeer),
            (Ending { from: FIN_WAIT1, error: 104, ..ORDERLY }, Cause::ResetByPeer),
            (Ending { from: LAST_ACK, error: 104, peer_closed: true, ..orphan }, Cause::ResetByPeer),
            (Ending { from: CLOSING, peer_closed: true, ..orphan }, Cause::ClosedByUs),
            (ORDERLY, Cause::ResetByUs),
            (Ending { error: 104, ..ORDERLY }, Cause::ResetByPeer),
            (Ending { from: CLOSE_WAIT, error: 32, ..ORDERLY }, Cause::ResetByPeer),
            (Ending { error: 103, ..ORDERLY }, Cause::Aborted),
            (child, Cause::NotAccepted),
            (Ending { from: CLOSE_WAIT, peer_closed: true, ..child }, Cause::NotAccepted),
            (Ending { error: 5, ..ORDERLY }, Cause::Unknown),
        ] {
            assert_eq!(Cause::of(end), cause, "{end:?}");
        }
    }
}
