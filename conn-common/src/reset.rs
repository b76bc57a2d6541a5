//! Why we reset a connection: what `close()` or a disconnect found at the socket. The kernel sends the reset, with its own
//! reason (`enum sk_rst_reason`, 6.10 and later), only after the transition to CLOSE.

use crate::state::{CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2};

/// A process still has the socket.
pub const HOLDS: u8 = 1;
/// Both directions are shut down, which `close()` begins with.
pub const SHUT: u8 = 1 << 1;
/// `SO_LINGER` with a time of 0.
pub const LINGER_0: u8 = 1 << 2;
/// `TCP_LINGER2` is below 0.
pub const NEVER_LINGERS: u8 = 1 << 3;

/// The reason of our reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Closed with unread data (`TCP_ABORT_ON_CLOSE`).
    UnreadData,
    /// Closed with `SO_LINGER` 0 (`TCP_STATE`).
    Linger0,
    /// Closed in `FIN_WAIT2` with `TCP_LINGER2` below 0 (`TCP_ABORT_ON_LINGER`).
    Linger2,
    /// Disconnected and not closed: `connect()` with `AF_UNSPEC`, or MPTCP gave up a subflow (`TCP_STATE`).
    Disconnect,
}

impl Reset {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::UnreadData, Self::Linger0, Self::Linger2, Self::Disconnect];

    /// The reason of our reset of a connection that ended in `from`, from the flags above and the number of unread bytes
    /// (the peer's FIN counts as one). `None` if more than one qualifies.
    pub const fn of(from: u8, flags: u8, unread: u32) -> Option<Self> {
        if flags & HOLDS == 0 {
            // __tcp_close() goes on after sock_orphan(). In FIN_WAIT1 that is want of memory, or a dying namespace.
            let lingers = from == FIN_WAIT2 && flags & NEVER_LINGERS != 0;
            return if lingers { Some(Self::Linger2) } else { None };
        }
        if flags & SHUT == 0 {
            return Some(Self::Disconnect);
        }
        let unread = unread > (from == CLOSE_WAIT) as u32;
        let lingers_not = flags & LINGER_0 != 0;
        match from {
            // shutdown() of our direction would have left these states, so it is close(), which asks in this order.
            ESTABLISHED | CLOSE_WAIT if unread => Some(Self::UnreadData),
            ESTABLISHED | CLOSE_WAIT if lingers_not => Some(Self::Linger0),
            // The process may have shut down both directions before, so it may be a disconnect. If close() has no reason
            // to reset, it is one.
            FIN_WAIT1 | FIN_WAIT2 if !unread && !lingers_not => Some(Self::Disconnect),
            _ => None,
        }
    }

    /// The word for it in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnreadData => "unread_data",
            Self::Linger0 => "linger_0",
            Self::Linger2 => "linger2",
            Self::Disconnect => "disconnect",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOSED: u8 = HOLDS | SHUT;

    #[test]
    fn ambiguous_resets_have_no_reason() {
        for (from, flags, unread, reason) in [
            (ESTABLISHED, CLOSED, 1, Some(Reset::UnreadData)),
            (ESTABLISHED, CLOSED | LINGER_0, 1, Some(Reset::UnreadData)),
            (ESTABLISHED, CLOSED | LINGER_0, 0, Some(Reset::Linger0)),
            // Repair mode, of which nothing is read.
            (ESTABLISHED, CLOSED, 0, None),
            (ESTABLISHED, HOLDS, 0, Some(Reset::Disconnect)),
            (ESTABLISHED, HOLDS | LINGER_0, 7, Some(Reset::Disconnect)),
            // The FIN is not data.
            (CLOSE_WAIT, CLOSED | LINGER_0, 1, Some(Reset::Linger0)),
            (CLOSE_WAIT, CLOSED, 2, Some(Reset::UnreadData)),
            (FIN_WAIT2, HOLDS, 9, Some(Reset::Disconnect)),
            (FIN_WAIT2, CLOSED, 0, Some(Reset::Disconnect)),
            (FIN_WAIT2, CLOSED | LINGER_0, 0, None),
            (FIN_WAIT1, CLOSED, 3, None),
            (FIN_WAIT2, SHUT | NEVER_LINGERS, 0, Some(Reset::Linger2)),
            (FIN_WAIT1, SHUT | NEVER_LINGERS, 0, None),
        ] {
            assert_eq!(Reset::of(from, flags, unread), reason, "{from} {flags:#b} {unread}");
        }
    }
}
