//! The keys of groups of connections, and their text.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::cli::Group;
use crate::event::enriched::{Enriched, Link};
use crate::event::workload::is_id;
use crate::host::services::Services;
use crate::render::number_table::{NumberColumn, NumberValue, TableFormat};
use crate::render::sanitize;

/// How many digits of an id are written for people, as docker does.
const SHORT_ID: usize = 12;

/// The key of a group, in an order that is good to read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Port(u16),
    Number(u32),
    Word(&'static str),
    Address {
        ip: IpAddr,
        /// The interface of a link-local address: its name, or its index.
        scope: Option<String>,
    },
    Container {
        id: String,
        /// The user whose runtime made the container; `None` for the host's runtimes.
        user: Option<u32>,
    },
    /// A text that needs no escapes in a line.
    Name(String),
    Unknown,
}

/// The key of a connection in a group.
pub(super) fn key(group: Group, event: &Enriched) -> Key {
    let connection = &event.connection;
    let owner = event.owner();
    match group {
        Group::Port => Key::Port(connection.dport),
        Group::State => event.state().map_or(Key::Unknown, Key::Word),
        Group::Direction => event.direction().map_or(Key::Unknown, Key::Word),
        Group::Netns => Key::Number(connection.netns),
        // Nothing has connected to a listener.
        Group::Src | Group::Peer if connection.is_listener() => Key::Unknown,
        Group::Src => address(event, event.src()),
        Group::Dst => address(event, event.dst()),
        Group::Peer => address(event, event.peer().ip()),
        // No process holds a connection that is not accepted yet, or whose process has closed it.
        Group::Comm => owner.map_or(Key::Unknown, |owner| Key::Name(sanitize::comm(owner.comm))),
        Group::Pid => owner.map_or(Key::Unknown, |owner| Key::Number(owner.pid)),
        Group::Uid => owner.map_or(Key::Unknown, |owner| Key::Number(owner.uid)),
        Group::Container => event
            .container()
            .map_or(Key::Unknown, |id| Key::Container { id: id.to_owned(), user: event.container_user() }),
        Group::Unit => event.unit().map_or(Key::Unknown, |unit| Key::Name(sanitize::unit_text(unit))),
    }
}

/// An address as a key: link-local addresses of different links are different keys.
fn address(event: &Enriched, ip: IpAddr) -> Key {
    let scope = event.scope(ip).map(|link| match link {
        Link::Name(name) => sanitize::text(name.as_bytes()),
        Link::Index(index) => index.to_string(),
    });
    Key::Address { ip, scope }
}

/// The columns of a group. A container has three for programs, one for people.
pub(super) fn columns(group: Group) -> Vec<NumberColumn> {
    let column = |name, in_text| NumberColumn { name, in_text };
    match group {
        Group::Port => vec![column("port", true)],
        Group::State => vec![column("state", true)],
        Group::Direction => vec![column("direction", true)],
        Group::Netns => vec![column("netns", true)],
        Group::Src => vec![column("src", true)],
        Group::Dst => vec![column("dst", true)],
        Group::Peer => vec![column("peer", true)],
        Group::Comm => vec![column("comm", true)],
        Group::Pid => vec![column("pid", true)],
        Group::Uid => vec![column("uid", true)],
        Group::Container => {
            vec![column("container", true), column("container_name", false), column("container_user", false)]
        }
        Group::Unit => vec![column("unit", true)],
    }
}

impl Key {
    /// The values in the columns of [`columns`]. `name` is the name of a container.
    pub(super) fn values(
        &self,
        group: Group,
        name: Option<&str>,
        format: TableFormat,
        services: &Services,
    ) -> Vec<NumberValue> {
        let is_table = format == TableFormat::Table;
        let value = match self {
            Self::Port(port) => NumberValue::port(*port, services, format),
            Self::Number(number) => (*number).into(),
            Self::Word(word) => NumberValue::Text((*word).into()),
            Self::Address { ip, scope: None } => NumberValue::Text(ip.to_string()),
            Self::Address { ip, scope: Some(link) } => NumberValue::Text(format!("{ip}%{link}")),
            Self::Container { id, user } if is_table => NumberValue::Text(container(id, *user, name)),
            Self::Container { id, user } => {
                let text = |text: &str| NumberValue::Text(sanitize::text(text.as_bytes()));
                let user = user.map_or(NumberValue::Unknown, NumberValue::from);
                return vec![text(id), name.map_or(NumberValue::Unknown, text), user];
            }
            Self::Name(name) => NumberValue::Text(name.clone()),
            Self::Unknown => NumberValue::Unknown,
        };
        let mut values = vec![value];
        values.resize(columns(group).len(), NumberValue::Unknown);
        values
    }
}

/// A container for people: its name, else the first digits of its id; with the user of the runtime, if that is not the
/// host's.
fn container(id: &str, user: Option<u32>, name: Option<&str>) -> String {
    let short = if is_id(id) { &id[..SHORT_ID] } else { id };
    let mut text = sanitize::text(name.unwrap_or(short).as_bytes());
    if let Some(user) = user {
        // Writing into a string does not fail.
        _ = write!(text, "@{user}");
    }
    text
}
