//! The fields that a filter can test. Every value is a number, so that every test is a set of numbers.

use conn_common::cause::Cause;
use conn_common::connection::{Connection, FORWARD, IN, UNDIRECTED};
use conn_common::owner::COMM;
use conn_common::state::{NEW_SYN_RECV, SYN_RECV};

use crate::event::{Event, until_zero};
use crate::filter::expression::state;
use crate::filter::protocols::Protocols;
use crate::filter::subject::Subject;
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;

/// The number of an unknown value. No field has this number for a known value.
pub(crate) const UNKNOWN: u128 = u128::MAX;
/// The number of a listener, which stands among the directions: people ask for `direction listen`.
pub(crate) const LISTEN: u128 = 2;
/// The number of a flow that passes through.
pub(crate) const FORWARDED: u128 = 4;

/// A field of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// The initiator's address.
    Client,
    /// The responder's address.
    Server,
    /// The initiator's port.
    ClientPort,
    /// The responder's port.
    Service,
    /// This host's address.
    Src,
    /// The peer's address.
    Dst,
    /// This host's port.
    Sport,
    /// The peer's port.
    Dport,
    /// The TCP state.
    State,
    /// Which side opened the connection.
    Direction,
    /// The address family.
    Family,
    /// The layer-4 protocol, by its number on the Internet.
    Protocol,
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
    /// 1 if the connection ended without ever being established.
    Failed,
    /// Why the connection ended, by the number of its [`Cause`].
    Reason,
    /// The socket's error at the end, an errno number.
    Error,
    /// From the attempt to the end, in nanoseconds.
    Lifetime,
    /// Payload bytes sent and received.
    Bytes,
}

impl Field {
    /// All fields.
    pub const ALL: [Self; 22] = [
        Self::Client,
        Self::Server,
        Self::ClientPort,
        Self::Service,
        Self::Src,
        Self::Dst,
        Self::Sport,
        Self::Dport,
        Self::State,
        Self::Direction,
        Self::Family,
        Self::Protocol,
        Self::Netns,
        Self::Pid,
        Self::Uid,
        Self::Cgroup,
        Self::Comm,
        Self::Failed,
        Self::Reason,
        Self::Error,
        Self::Lifetime,
        Self::Bytes,
    ];

    /// The word in expressions.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::ClientPort => "client-port",
            Self::Service => "service",
            Self::Src => "src",
            Self::Dst => "dst",
            Self::Sport => "sport",
            Self::Dport => "dport",
            Self::State => "state",
            Self::Direction => "direction",
            Self::Family => "family",
            Self::Protocol => "proto",
            Self::Netns => "netns",
            Self::Pid => "pid",
            Self::Uid => "uid",
            Self::Cgroup => "cgroup",
            Self::Comm => "comm",
            Self::Failed => "failed",
            Self::Reason => "reason",
            Self::Error => "error",
            Self::Lifetime => "lifetime",
            Self::Bytes => "bytes",
        }
    }

    /// The field in words, for `-v`.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Client => "the client's address",
            Self::Server => "the server's address",
            Self::ClientPort => "the client's port",
            Self::Service => "the service port",
            Self::Src => "this host's address",
            Self::Dst => "the peer's address",
            Self::Sport => "this host's port",
            Self::Dport => "the peer's port",
            Self::State => "the state",
            Self::Direction => "the direction",
            Self::Family => "the family",
            Self::Protocol => "the protocol",
            Self::Netns => "the network namespace",
            Self::Pid => "the owner's process id",
            Self::Uid => "the owner's user id",
            Self::Cgroup => "the owner's cgroup",
            Self::Comm => "the owner's name",
            Self::Failed => "failed",
            Self::Reason => "the reason of the end",
            Self::Error => "the error of the end",
            Self::Lifetime => "the lifetime",
            Self::Bytes => "the number of bytes",
        }
    }

    /// The field that a word of an expression names. `dir` and `protocol` are aliases.
    pub fn by_word(word: &str) -> Option<Self> {
        match word {
            "dir" => Some(Self::Direction),
            "protocol" => Some(Self::Protocol),
            _ => Self::ALL.into_iter().find(|field| field.word() == word),
        }
    }

    /// True if `<` and `>` compare values of the field.
    pub const fn is_ordered(self) -> bool {
        self.is_port() || matches!(self, Self::Pid | Self::Uid | Self::Lifetime | Self::Bytes)
    }

    /// True if ss has the word, too.
    pub const fn is_of_ss(self) -> bool {
        matches!(self, Self::Src | Self::Dst | Self::Sport | Self::Dport | Self::State | Self::Cgroup)
    }

    /// True if the field is a port.
    pub const fn is_port(self) -> bool {
        matches!(self, Self::ClientPort | Self::Service | Self::Sport | Self::Dport)
    }

    /// The field with the port beside an address.
    pub const fn port_beside(self) -> Option<Self> {
        match self {
            Self::Client => Some(Self::ClientPort),
            Self::Server => Some(Self::Service),
            Self::Src => Some(Self::Sport),
            Self::Dst => Some(Self::Dport),
            _ => None,
        }
    }

    /// True if the field is an address.
    pub const fn is_address(self) -> bool {
        self.port_beside().is_some()
    }

    /// True if the field is a property of the owner, which may be unknown.
    pub const fn is_owners(self) -> bool {
        matches!(self, Self::Pid | Self::Uid | Self::Cgroup | Self::Comm)
    }

    /// True if only the process that has the socket and root may know it. A new field needs a decision.
    pub(crate) const fn is_private(self) -> bool {
        match self {
            Self::Pid | Self::Uid | Self::Cgroup | Self::Comm => true,
            Self::Client
            | Self::Server
            | Self::ClientPort
            | Self::Service
            | Self::Src
            | Self::Dst
            | Self::Sport
            | Self::Dport
            | Self::State
            | Self::Direction
            | Self::Family
            | Self::Protocol
            | Self::Netns
            | Self::Failed
            | Self::Reason
            | Self::Error
            | Self::Lifetime
            | Self::Bytes => false,
        }
    }

    /// True if only the end of a connection has a value.
    pub const fn is_of_ends(self) -> bool {
        matches!(self, Self::Failed | Self::Reason | Self::Error | Self::Lifetime)
    }

    /// True if a value may be unknown, which `-` stands for.
    pub const fn may_be_unknown(self) -> bool {
        self.is_owners() || matches!(self, Self::Reason | Self::Error | Self::Lifetime | Self::Bytes)
    }

    /// The largest known value of an ordered field.
    pub const fn largest(self) -> u128 {
        match self {
            Self::ClientPort | Self::Service | Self::Sport | Self::Dport => u16::MAX as u128,
            Self::Lifetime | Self::Bytes => u64::MAX as u128,
            _ => u32::MAX as u128,
        }
    }

    /// Every value that the field can have.
    pub fn domain(self) -> Ranges {
        let or_unknown = |high: u128| Ranges::collect([(0, high), (UNKNOWN, UNKNOWN)]);
        match self {
            Self::Client | Self::Server | Self::Src | Self::Dst | Self::Comm => Ranges::between(0, u128::MAX),
            Self::ClientPort | Self::Service | Self::Sport | Self::Dport => {
                Ranges::between(0, u16::MAX.into())
            }
            Self::State => state::all(),
            Self::Direction => Ranges::between(IN.into(), FORWARDED),
            Self::Family => Ranges::collect([(4, 4), (6, 6)]),
            Self::Protocol => Protocols::INET.numbers(),
            Self::Netns => Ranges::between(0, u32::MAX.into()),
            Self::Failed => Ranges::between(0, 1),
            Self::Pid | Self::Uid => or_unknown(u32::MAX.into()),
            Self::Cgroup | Self::Lifetime | Self::Bytes => or_unknown(u64::MAX.into()),
            Self::Reason => or_unknown(Cause::COUNT as u128 - 1),
            Self::Error => or_unknown(u16::MAX.into()),
        }
    }

    /// The value of a connection.
    pub fn of(self, subject: &Subject<'_>) -> u128 {
        let connection = subject.connection;
        let owner = &connection.owner;
        let owners = |value: u128| if owner.is_known() { value } else { UNKNOWN };
        // Neither end of a flow that passes through is here: the initiator stands in place of this host.
        let is_src_ours = connection.is_src_ours() || connection.direction == FORWARD;
        match self {
            Self::Client => src(connection),
            Self::Server => dst(connection),
            Self::Src => {
                if is_src_ours {
                    src(connection)
                } else {
                    dst(connection)
                }
            }
            Self::Dst => {
                if is_src_ours {
                    dst(connection)
                } else {
                    src(connection)
                }
            }
            Self::ClientPort => connection.sport.into(),
            Self::Service => connection.dport.into(),
            Self::Sport => {
                if is_src_ours {
                    connection.sport.into()
                } else {
                    connection.dport.into()
                }
            }
            Self::Dport => {
                if is_src_ours {
                    connection.dport.into()
                } else {
                    connection.sport.into()
                }
            }
            // As in ss, a half-open handshake is SYN_RECV.
            Self::State if connection.state == NEW_SYN_RECV => SYN_RECV.into(),
            Self::State => connection.state.into(),
            Self::Direction if connection.is_listener() => LISTEN,
            Self::Direction if connection.direction == FORWARD => FORWARDED,
            Self::Direction if !connection.is_directed() => UNDIRECTED.into(),
            Self::Direction => connection.direction.into(),
            Self::Family => connection.family.into(),
            Self::Protocol => subject.protocol.into(),
            Self::Netns => connection.netns.into(),
            Self::Pid => owners(owner.pid.into()),
            Self::Uid => owners(owner.uid.into()),
            Self::Cgroup => owners(owner.cgroup.into()),
            Self::Comm => owners(comm(&owner.comm)),
            Self::Failed => subject.event.is_some_and(Event::is_failed).into(),
            Self::Reason => subject.event.and_then(|event| event.end).map_or(UNKNOWN, |end| end as u128),
            Self::Error => {
                let error = subject.event.map_or(0, |event| event.error);
                if error == 0 { UNKNOWN } else { error.into() }
            }
            Self::Lifetime => subject.event.and_then(Event::lifetime_ns).map_or(UNKNOWN, u128::from),
            Self::Bytes => subject.bytes().map_or(UNKNOWN, u128::from),
        }
    }
}

fn src(connection: &Connection) -> u128 {
    prefix::number(connection.family, &connection.src)
}

fn dst(connection: &Connection) -> u128 {
    prefix::number(connection.family, &connection.dst)
}

/// The number of a task's name: the bytes up to the first zero. The last byte of a name is zero, so no name is
/// [`UNKNOWN`].
pub(crate) fn comm(name: &[u8; COMM]) -> u128 {
    let mut plain = [0; COMM];
    let text = until_zero(&name[..COMM - 1]);
    plain[..text.len()].copy_from_slice(text);
    u128::from_be_bytes(plain)
}
