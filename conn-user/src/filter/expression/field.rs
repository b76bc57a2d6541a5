//! The fields that a filter can test. Every value is a number, so that every test is a set of numbers.

use conn_common::connection::{Connection, IN, UNDIRECTED};
use conn_common::owner::COMM;
use conn_common::state::{NEW_SYN_RECV, SYN_RECV};

use crate::event::until_zero;
use crate::filter::expression::state;
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;

/// The number of an unknown value. No field has this number for a known value.
pub(crate) const UNKNOWN: u128 = u128::MAX;
/// The number of a listener, which stands among the directions: people ask for `direction listen`.
pub(crate) const LISTEN: u128 = 2;

/// A field of a connection. Source is the initiator, destination the responder.
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
    /// Which side opened the connection.
    Direction,
    /// The address family.
    Family,
    /// The network namespace, by inode number.
    Netns,
    /// The owner's process.
    Pid,
    /// The owner's user.
    Uid,
    /// The owner's cgroup, by id.
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

    /// The word in expressions.
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

    /// The field that a word of an expression names. `dir` is an alias.
    pub fn by_word(word: &str) -> Option<Self> {
        match word {
            "dir" => Some(Self::Direction),
            _ => Self::ALL.into_iter().find(|field| field.word() == word),
        }
    }

    /// True if `<` and `>` compare values of the field.
    pub const fn is_ordered(self) -> bool {
        matches!(self, Self::Sport | Self::Dport | Self::Pid | Self::Uid)
    }

    /// True if the field is a property of the owner, which may be unknown.
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

    /// The value of a connection.
    pub fn of(self, connection: &Connection) -> u128 {
        let owner = &connection.owner;
        let owners = |value: u128| if owner.is_known() { value } else { UNKNOWN };
        match self {
            Self::Src => prefix::number(connection.family, &connection.src),
            Self::Dst => prefix::number(connection.family, &connection.dst),
            Self::Sport => connection.sport.into(),
            Self::Dport => connection.dport.into(),
            // As in ss, a half-open handshake is SYN_RECV.
            Self::State if connection.state == NEW_SYN_RECV => SYN_RECV.into(),
            Self::State => connection.state.into(),
            Self::Direction if connection.is_listener() => LISTEN,
            Self::Direction if !connection.is_directed() => UNDIRECTED.into(),
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

/// The number of a task's name: the bytes up to the first zero. The last byte of a name is zero, so no name is
/// [`UNKNOWN`].
pub(crate) fn comm(name: &[u8; COMM]) -> u128 {
    let mut plain = [0; COMM];
    let text = until_zero(&name[..COMM - 1]);
    plain[..text.len()].copy_from_slice(text);
    u128::from_be_bytes(plain)
}
