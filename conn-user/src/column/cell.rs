//! One value of an event, independent of any format.

use std::net::{IpAddr, SocketAddr};

use conn_common::owner::Owner;

use crate::event::enriched::Link;

/// A value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cell<'a> {
    /// Unknown or absent.
    Unknown,
    /// Yes or no.
    Boolean(bool),
    /// A number that is never negative.
    Number(u64),
    /// A number of bytes. Tables write it with a unit, other formats as a number.
    Bytes(u64),
    /// Nanoseconds since 1970, as a number.
    UnixNs(i64),
    /// Nanoseconds since 1970, as a time of the day.
    Time(i64),
    /// Nanoseconds since 1970, as a date and a time.
    Date(i64),
    /// A duration for people.
    Duration {
        /// Nanoseconds.
        ns: u64,
        /// The true duration may be longer.
        at_least: bool,
    },
    /// A word of conntrace's. Needs no escapes in any format.
    Word(&'static str),
    /// Bytes from outside, such as a process name. Needs escapes.
    Name(&'a [u8]),
    /// The id or the name of a container. Needs escapes. Tables add the user whose runtime made the container:
    /// `web@1000`.
    Container {
        /// Id or name.
        name: &'a [u8],
        /// The user; `None` for the host's runtimes.
        user: Option<u32>,
    },
    /// The name of a systemd unit. Needs escapes in JSON only.
    Unit(&'a str),
    /// Processes: name and id of each. There is at least one.
    Processes(&'a [Owner]),
    /// The number of an error.
    Errno(u16),
    /// A service port. Tables write its name, other formats its number.
    Service(u16),
    /// An address. Tables write its name if known, else the address with its scope, other formats the address.
    Address {
        /// The address.
        ip: IpAddr,
        /// Its name, if known.
        name: Option<&'a str>,
        /// The interface of a link-local address.
        scope: Option<Link<'a>>,
    },
    /// An address and a port.
    Endpoint {
        /// Address and port.
        socket: SocketAddr,
        /// The name of the address, if known.
        name: Option<&'a str>,
        /// The interface of a link-local address.
        scope: Option<Link<'a>>,
        /// The port is the service port.
        is_service: bool,
    },
}

impl<'a> Cell<'a> {
    /// A number, if known.
    pub fn number(number: Option<impl Into<u64>>) -> Self {
        number.map_or(Self::Unknown, |number| Self::Number(number.into()))
    }

    /// A number of bytes, if known.
    pub fn bytes(number: Option<impl Into<u64>>) -> Self {
        number.map_or(Self::Unknown, |number| Self::Bytes(number.into()))
    }

    /// A word, if known.
    pub fn word(word: Option<&'static str>) -> Self {
        word.map_or(Self::Unknown, Self::Word)
    }

    /// A name, if known.
    pub fn name(name: Option<&'a [u8]>) -> Self {
        name.map_or(Self::Unknown, Self::Name)
    }

    /// A text, if known.
    pub fn text(text: Option<&'a str>) -> Self {
        Self::name(text.map(str::as_bytes))
    }

    /// An id or a name of a container, if known.
    pub fn container(name: Option<&'a str>, user: Option<u32>) -> Self {
        name.map_or(Self::Unknown, |name| Self::Container { name: name.as_bytes(), user })
    }

    /// The name of a unit, if known.
    pub fn unit(name: Option<&'a str>) -> Self {
        name.map_or(Self::Unknown, Self::Unit)
    }

    /// A unix time in nanoseconds, if known.
    pub fn unix_ns(ns: Option<i64>) -> Self {
        ns.map_or(Self::Unknown, Self::UnixNs)
    }

    /// A duration if known, else its known lower bound.
    pub fn duration(ns: Option<u64>, at_least: Option<u64>) -> Self {
        match (ns, at_least) {
            (Some(ns), _) => Self::Duration { ns, at_least: false },
            (None, Some(ns)) => Self::Duration { ns, at_least: true },
            (None, None) => Self::Unknown,
        }
    }
}
