//! The protocols of a run. Programs of other protocols are neither loaded nor attached.

use std::fmt::{Display, Formatter, Result};

use conn_common::protocol;

use crate::filter::value::ranges::Ranges;

/// A set of protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocols(u8);

impl Protocols {
    /// No protocol.
    pub const NONE: Self = Self(0);
    /// TCP, the set of a run that names no protocol.
    pub const TCP: Self = Self(1);
    /// UDP.
    pub const UDP: Self = Self(1 << 1);
    /// Sockets within this host that have paths in place of addresses (`AF_UNIX`).
    pub const UNIX: Self = Self(1 << 2);
    /// The protocols with addresses and ports.
    pub const INET: Self = Self::TCP.union(Self::UDP);

    /// Each protocol with its word and its number on the Internet.
    const EACH: [(Self, &str, Option<u8>); 3] = [
        (Self::TCP, "tcp", Some(protocol::TCP)),
        (Self::UDP, "udp", Some(protocol::UDP)),
        (Self::UNIX, "unix", None),
    ];

    /// The protocol that a word or a number names, in any case.
    pub(crate) fn from_word(text: &str) -> Option<Self> {
        let number: Option<u8> = text.parse().ok();
        let is_named = |name: &str| text.eq_ignore_ascii_case(name);
        Self::EACH
            .into_iter()
            .find(|&(_, name, known)| is_named(name) || number.is_some() && number == known)
            .map(|(protocol, ..)| protocol)
    }

    /// The protocols with these numbers.
    pub(crate) fn from_numbers(numbers: &Ranges) -> Self {
        let has = |number: Option<u8>| number.is_some_and(|number| numbers.contains(number.into()));
        let found = Self::EACH.into_iter().filter(|&(_, _, number)| has(number));
        found.fold(Self::NONE, |all, (protocol, ..)| all.union(protocol))
    }

    /// The protocol with this number, if it is one of these.
    pub(crate) const fn of(number: u8) -> Self {
        match number {
            protocol::TCP => Self::TCP,
            protocol::UDP => Self::UDP,
            _ => Self::NONE,
        }
    }

    /// The numbers of the protocols that have one.
    pub(crate) fn numbers(self) -> Ranges {
        let own = Self::EACH.into_iter().filter(|&(protocol, ..)| self.contains(protocol));
        Ranges::collect(own.filter_map(|(_, _, number)| number.map(|number| (number.into(), number.into()))))
    }

    /// The protocols of either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The protocols of both sets.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The protocols of this set that the other has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// True if all protocols of the other set are in this one.
    pub const fn contains(self, other: Self) -> bool {
        other.without(self).is_empty()
    }

    /// True if the sets have a protocol in common.
    pub const fn intersects(self, other: Self) -> bool {
        !self.intersection(other).is_empty()
    }

    /// True if there is no protocol in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The words, as a list that `-p` takes: `tcp,udp`.
impl Display for Protocols {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let own = Self::EACH.into_iter().filter(|&(protocol, ..)| self.contains(protocol));
        for (at, (_, name, _)) in own.enumerate() {
            if at > 0 {
                out.write_str(",")?;
            }
            out.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_name_protocols() {
        for (text, protocol) in [
            ("tcp", Some(Protocols::TCP)),
            ("TCP", Some(Protocols::TCP)),
            ("6", Some(Protocols::TCP)),
            ("17", Some(Protocols::UDP)),
            ("Unix", Some(Protocols::UNIX)),
            ("181", None),
            ("", None),
            ("icmp", None),
        ] {
            assert_eq!(Protocols::from_word(text), protocol, "{text}");
        }
        assert_eq!(Protocols::from_numbers(&Protocols::INET.numbers()), Protocols::INET);
        assert_eq!(Protocols::UNIX.numbers(), Ranges::EMPTY);
    }

    #[test]
    fn sets_are_printed_as_typed() {
        assert_eq!(Protocols::INET.union(Protocols::UNIX).to_string(), "tcp,udp,unix");
        assert_eq!(Protocols::UDP.to_string(), "udp");
    }
}
