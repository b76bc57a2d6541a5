//! Tests that no set of numbers can express.

use std::fmt::{Display, Formatter, Result};

use crate::filter::expression::print;
use crate::filter::subject::Subject;
use crate::filter::workload::{ContainerPattern, UnitPattern};

/// The subject of a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredicateKind {
    /// The mark of the socket.
    Mark,
    /// The interface that the socket is bound to.
    Interface,
    /// The container of the owner.
    Container,
    /// The systemd unit of the owner.
    Unit,
    /// The unit of the owner in a user's service manager.
    UserUnit,
}

impl PredicateKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Mark, Self::Interface, Self::Container, Self::Unit, Self::UserUnit];

    /// The word in expressions, which for the first two is that of ss.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Mark => "fwmark",
            Self::Interface => "dev",
            Self::Container => "container",
            Self::Unit => "unit",
            Self::UserUnit => "user-unit",
        }
    }

    /// True if the test is of workloads, which user space looks up.
    pub const fn is_of_workloads(self) -> bool {
        matches!(self, Self::Container | Self::Unit | Self::UserUnit)
    }

    /// True if only the process that has the socket and root may know it. The kernel shows marks to network
    /// administrators alone (`inet_diag_msg_attrs_fill`).
    pub(crate) const fn is_private(self) -> bool {
        match self {
            Self::Mark | Self::Container | Self::Unit | Self::UserUnit => true,
            Self::Interface => false,
        }
    }

    /// The kind that a word of an expression names.
    pub fn by_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// A test that no set of numbers can express.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Predicate {
    /// The mark of the socket under a mask.
    Mark {
        /// The wanted mark.
        mark: u32,
        /// The bits that count.
        mask: u32,
    },
    /// The interface that the socket is bound to, by name or index.
    Interface(String),
    /// The container of the owner, by name, id or pattern.
    Container(ContainerPattern),
    /// The systemd unit of the owner, by name or pattern.
    Unit(UnitPattern),
    /// The unit of the owner in a user's service manager, by name or pattern.
    UserUnit(UnitPattern),
}

impl Predicate {
    /// The kind.
    pub const fn kind(&self) -> PredicateKind {
        match self {
            Self::Mark { .. } => PredicateKind::Mark,
            Self::Interface(_) => PredicateKind::Interface,
            Self::Container(_) => PredicateKind::Container,
            Self::Unit(_) => PredicateKind::Unit,
            Self::UserUnit(_) => PredicateKind::UserUnit,
        }
    }

    /// True if the subject passes. An unknown value passes no test.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Mark { mark, mask } => subject.mark.is_some_and(|socket| socket & mask == *mark),
            Self::Interface(wanted) => {
                let index = subject.connection.interface();
                let is_name = || index != 0 && subject.interface == Some(wanted);
                wanted.parse() == Ok(index) || is_name()
            }
            Self::Container(pattern) => {
                let container = subject.workload.and_then(|workload| workload.container.as_ref());
                container.is_some_and(|container| pattern.matches(container))
            }
            Self::Unit(pattern) => subject
                .workload
                .is_some_and(|workload| pattern.matches(workload.unit.as_deref(), workload.slice.as_deref())),
            Self::UserUnit(pattern) => subject.workload.is_some_and(|workload| {
                pattern.matches(workload.user_unit.as_deref(), workload.user_slice.as_deref())
            }),
        }
    }

    /// The test in words, for `-v`.
    pub(crate) fn describe(&self, holds: bool) -> String {
        let is = if holds { "is" } else { "is not" };
        match self {
            Self::Mark { mark, mask: u32::MAX } => format!("the mark {is} {mark:#x}"),
            Self::Mark { mark, mask } => format!("the mark {is} {mark:#x} under the mask {mask:#x}"),
            Self::Interface(name) => format!("the interface {is} {name}"),
            Self::Container(pattern) => format!("the owner's container {is} {}", pattern.typed),
            Self::Unit(pattern) => format!("the owner's unit {is} {}", pattern.typed),
            Self::UserUnit(pattern) => format!("the owner's unit of a user {is} {}", pattern.typed),
        }
    }
}

impl Display for Predicate {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        write!(out, "{} = ", self.kind().word())?;
        match self {
            Self::Mark { mark, mask: u32::MAX } => write!(out, "{mark:#x}"),
            Self::Mark { mark, mask } => write!(out, "{mark:#x}/{mask:#x}"),
            Self::Interface(text)
            | Self::Container(ContainerPattern { typed: text, .. })
            | Self::Unit(UnitPattern { typed: text, .. })
            | Self::UserUnit(UnitPattern { typed: text, .. }) => {
                out.write_str(&print::escaped(text.as_bytes()))
            }
        }
    }
}
