//! Attempts that never become a connection: SYNs that reach this host and make no socket.

/// The outcome of a SYN that has made no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Attempt {
    /// A listener took the SYN: the half-open request waits for the last ACK of the handshake.
    HalfOpen = 0,
    /// No socket listens on the port: this host answers with a reset.
    Refused = 1,
    /// The accept queue of the listener is full: the last ACK of the handshake is dropped.
    Dropped = 2,
}

impl Attempt {
    /// All of them, by number.
    pub const ALL: [Self; 3] = [Self::HalfOpen, Self::Refused, Self::Dropped];

    /// The outcome with this number.
    pub const fn from_number(number: u8) -> Option<Self> {
        if (number as usize) < Self::ALL.len() { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The word for it in lines and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HalfOpen => "half_open",
            Self::Refused => "refused",
            Self::Dropped => "dropped",
        }
    }
}

/// Ports, and so entries of the array of [`PortAttempts`].
pub const PORTS: u32 = 1 << 16;

/// The counts of one local port. Network namespaces share the entry, like a slot of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PortAttempts {
    /// Half-open requests that began.
    pub begun: u64,
    /// Children of listeners that no request in the queue became: of a cookie, or of fast open.
    pub direct: u64,
    /// SYNs that were answered by a reset, because no socket listens.
    pub refused: u64,
}

impl PortAttempts {
    /// All counts are 0.
    pub const ZERO: Self = Self { begun: 0, direct: 0, refused: 0 };
}

const _: () = assert!(size_of::<PortAttempts>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_outcomes_agree() {
        for (number, attempt) in (0..).zip(Attempt::ALL) {
            assert_eq!((attempt as u8, Attempt::from_number(number)), (number, Some(attempt)));
        }
        assert_eq!(Attempt::from_number(Attempt::ALL.len() as u8), None);
    }
}
