//! What a connection can be asked for. Each answer is a number, so that every question is a set of numbers.

use conn_common::connection::{Connection, IN, UNDIRECTED};
use conn_common::owner::COMM;
use conn_common::state::{NEW_SYN_RECV, SYN_RECV};

use crate::event::until_zero;
use crate::filter::expression::state;
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;

/// The number of what is not known. No field has it for a value.
pub const UNKNOWN: u128 = u128::MAX;

/// What is asked for. Source and destination are the initiator's and the responder's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The initiator's address.
    Src,
    /// The responder's address.
    Dst,
    /// The initiator's port.
    Sport,
    /// The responder's port.
    Dport,
    /// The TCP state.
    State,
    /// Who opened it.
    Direction,
    /// The address family.
    Family,
    /// The network namespace, by inode number.
    Netns,
    /// The owner's process.
    Pid,
    /// The owner's user.
    Uid,
    /// The owner's cgroup, by its id.
    Cgroup,
    /// The name of the owner's process.
    Comm,
}

impl Field {
    /// All fields.
    pub const ALL: [Self; 12] = [
        Self::Src,
        Self::Dst,
        Self::Sport,
        Self::Dport,
        Self::State,
        Self::Direction,
        Self::Family,
        Self::Netns,
        Self::Pid,
        Self::Uid,
        Self::Cgroup,
        Self::Comm,
    ];

    /// The word for it in expressions.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Src => "src",
            Self::Dst => "dst",
            Self::Sport => "sport",
            Self::Dport => "dport",
            Self::State => "state",
            Self::Direction => "direction",
            Self::Family => "family",
            Self::Netns => "netns",
            Self::Pid => "pid",
            Self::Uid => "uid",
            Self::Cgroup => "cgroup",
            Self::Comm => "comm",
        }
    }

    /// The field that a word of an expression means, by its own name or another.
    pub fn by_word(word: &str) -> Option<Self> {
        match word {
            "dir" => Some(Self::Direction),
            _ => Self::ALL.into_iter().find(|field| field.word() == word),
        }
    }

    /// True if the field's values have an order that people ask for.
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Sport | Self::Dport | Self::Pid | Self::Uid)
    }

    /// True if it is a property of the task that opened the connection, which may not be known.
    pub const fn is_owners(self) -> bool {
        matches!(self, Self::Pid | Self::Uid | Self::Cgroup | Self::Comm)
    }

    /// Every value that the field can have.
    pub fn domain(self) -> Ranges {
        let or_unknown = |high: u128| Ranges::collect([(0, high), (UNKNOWN, UNKNOWN)]);
        match self {
            Self::Src | Self::Dst | Self::Comm => Ranges::between(0, u128::MAX),
            Self::Sport | Self::Dport => Ranges::between(0, u16::MAX.into()),
            Self::State => state::all(),
            Self::Direction => Ranges::between(IN.into(), UNDIRECTED.into()),
            Self::Family => Ranges::collect([(4, 4), (6, 6)]),
            Self::Netns => Ranges::between(0, u32::MAX.into()),
            Self::Pid | Self::Uid => or_unknown(u32::MAX.into()),
            Self::Cgroup => or_unknown(u64::MAX.into()),
        }
    }

    /// The value that a connection has.
    pub fn of(self, connection: &Connection) -> u128 {
        let owner = &connection.owner;
        let owners = |value: u128| if owner.is_known() { value } else { UNKNOWN };
        match self {
            Self::Src => prefix::number(connection.family, &connection.src),
            Self::Dst => prefix::number(connection.family, &connection.dst),
            Self::Sport => connection.sport.into(),
            Self::Dport => connection.dport.into(),
            // A handshake that a peer has begun is no other state for people, as in ss.
            Self::State if connection.state == NEW_SYN_RECV => SYN_RECV.into(),
            Self::State => connection.state.into(),
            Self::Direction => connection.direction.into(),
            Self::Family => connection.family.into(),
            Self::Netns => connection.netns.into(),
            Self::Pid => owners(owner.pid.into()),
            Self::Uid => owners(owner.uid.into()),
            Self::Cgroup => owners(owner.cgroup.into()),
            Self::Comm => owners(comm(&owner.comm)),
        }
    }
}

/// The number of a task's name: its bytes up to the first zero. A name ends with a zero, so none is [`UNKNOWN`].
pub fn comm(name: &[u8; COMM]) -> u128 {
    let mut plain = [0; COMM];
    let text = until_zero(&name[..COMM - 1]);
    plain[..text.len()].copy_from_slice(text);
    u128::from_be_bytes(plain)
}
