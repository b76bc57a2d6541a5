//! The names of log records beside those of `-o json-otel`, which the list of columns has. docs/otlp.md is checked against it.

use crate::render::otel;

/// Events of sockets that listen begin with this.
pub(crate) const LISTENER: &str = "conntrace.listener.";
/// The event of a time without a stream.
pub(crate) const GAP: &str = "conntrace.gap";
/// Its begin.
pub(crate) const GAP_SINCE: &str = "conntrace.gap.since";
/// Its end.
pub(crate) const GAP_UNTIL: &str = "conntrace.gap.until";
/// Where events were lost.
pub(crate) const LOSS_PLACE: &str = "conntrace.loss.place";
/// The stream lost them.
pub(crate) const STREAM: &str = "stream";
/// The export dropped them.
pub(crate) const EXPORT: &str = "export";

/// An event or an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// Its name.
    pub name: &'static str,
    /// What the semantic conventions have for it.
    pub conventions: &'static str,
    /// What it means, in one sentence without a full stop.
    pub help: &'static str,
}

const fn own(name: &'static str, help: &'static str) -> Name {
    Name { name, conventions: "–", help }
}

const fn known(name: &'static str, help: &'static str) -> Name {
    Name { name, conventions: "same", help }
}

/// The names of events.
pub static EVENTS: &[Name] = &[
    own("conntrace.connection.new", "NEW: a connection was attempted (out) or accepted by a handshake (in)"),
    own("conntrace.connection.update", "UPDATE: the state of a connection changed"),
    own("conntrace.connection.destroy", "DESTROY: a connection ended, with reason and counts"),
    own("conntrace.connection.attempt", "ATTEMPT: a SYN without a connection"),
    own("conntrace.listener.listen", "LISTEN: a socket began to listen"),
    own("conntrace.listener.closed", "LISTEN: a socket no longer listens"),
    own(otel::LOSS, "Events are missing, and their number is known"),
    own(GAP, "There was no stream of events: an unknown number may be missing"),
];

/// Attributes that are no column of their own.
pub static ATTRIBUTES: &[Name] = &[
    known("network.connection.state", "State after the event, in the words of the conventions"),
    known("client.address", "Address of the initiator; client and server need a known direction"),
    known("client.port", "Port of the initiator"),
    known("server.address", "Address of the responder"),
    known("server.port", "Port of the responder, the service port"),
    known("network.local.address", "Address of this host's end"),
    known("network.local.port", "Port of this host's end"),
    known("network.peer.address", "Address of the other end"),
    known("network.peer.port", "Port of the other end"),
    own(otel::LOSS_COUNT, "How many events are missing"),
    own(otel::LOSS_SINCE, "None of them happened before, ns since 1970"),
    own(otel::LOSS_UNTIL, "None of them happened after, ns since 1970"),
    own(
        LOSS_PLACE,
        "`stream`: lost before the export read them; `export`: dropped since the collector did not take them",
    ),
    own(GAP_SINCE, "Begin of the gap, ns since 1970; absent if it is not known"),
    own(GAP_UNTIL, "End of the gap, ns since 1970"),
];

/// Attributes of columns that are those of the semantic conventions.
pub static CONVENTIONS: &[&str] = &[
    "container.id",
    "container.name",
    "destination.address",
    "destination.port",
    "error.type",
    "k8s.namespace.name",
    "k8s.pod.name",
    "network.interface.name",
    "network.transport",
    "network.type",
    "process.executable.name",
    "process.pid",
    "process.user.id",
    "source.address",
    "source.port",
    "thread.id",
    "thread.name",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::column::Column;
    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss};

    fn columns() -> BTreeSet<&'static str> {
        Column::native().map(|column| column.names.otel).filter(|name| !name.is_empty()).collect()
    }

    #[test]
    fn names_of_columns_are_conventions_or_own() {
        let others: Vec<_> = columns().into_iter().filter(|name| !name.starts_with("conntrace.")).collect();
        assert_eq!(others, CONVENTIONS);
    }

    #[test]
    fn no_name_is_the_namespace_of_another_one() {
        let names: BTreeSet<_> = ATTRIBUTES.iter().map(|name| name.name).chain(columns()).collect();
        for name in &names {
            assert!(!names.iter().any(|other| other.starts_with(&format!("{name}."))), "{name}");
        }
        assert_eq!(names.len(), ATTRIBUTES.len() + columns().len());
    }

    #[test]
    fn lines_have_no_other_names() {
        let text = lines(Format::Otel, &[new_out(), new_in_v6(), closed()]) + &loss(Format::Otel);
        for line in text.lines() {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(EVENTS.iter().any(|event| record["EventName"] == event.name), "{line}");
            for key in record["Attributes"].as_object().unwrap().keys() {
                let is_known = ATTRIBUTES.iter().any(|name| name.name == key) || columns().contains(&**key);
                assert!(is_known, "{key}");
            }
        }
    }

    #[test]
    fn the_documentation_has_the_table() {
        let page = include_str!("../../../../../docs/otlp.md");
        for names in [EVENTS, ATTRIBUTES] {
            let row =
                |Name { name, conventions, help }: &Name| format!("| `{name}` | {conventions} | {help} |");
            let rows = names.iter().map(row).collect::<Vec<_>>().join("\n");
            assert!(page.contains(&rows), "docs/otlp.md needs this table:\n{rows}");
        }
        let all: Vec<_> = CONVENTIONS.iter().map(|name| format!("`{name}`")).collect();
        let listed = page.replace('\n', " ");
        assert!(listed.contains(&all.join(", ")), "docs/otlp.md needs this list:\n{}", all.join(", "));
    }
}
