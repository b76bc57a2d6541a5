//! Counts in the form of munin's plugins: a name, a dot, a word, a value in each line.

use std::fmt::Write as _;

use conn_common::state;

use crate::host::services::Services;

/// A graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Graph {
    /// Open connections by state.
    States,
    /// New and failed connections per second: of one service port, or of all.
    New(Option<u16>),
    /// Open connections of a service port.
    Port(u16),
}

/// The counts of a direction and service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Others opened the connections.
    pub(crate) is_in: bool,
    /// Connections that began.
    pub(crate) opened: u64,
    /// Connections that failed.
    pub(crate) failed: u64,
    /// Open now.
    pub(crate) open: i64,
    /// Open by state, in the order of [`state::OPEN`].
    pub(crate) states: [i64; state::OPEN.len()],
}

/// A line of a graph: its name, its label, and the value that counts have.
type Field = (&'static str, &'static str, fn(&Counts) -> i64);

const OPEN: [Field; 2] = [
    ("in", "opened by others", |one| if one.is_in { one.open } else { 0 }),
    ("out", "opened by this host", |one| if one.is_in { 0 } else { one.open }),
];
const NEW: [Field; 4] = [
    ("opened_in", "new, opened by others", |one| if one.is_in { one.opened.cast_signed() } else { 0 }),
    ("opened_out", "new, opened by this host", |one| if one.is_in { 0 } else { one.opened.cast_signed() }),
    ("failed_in", "failed, opened by others", |one| if one.is_in { one.failed.cast_signed() } else { 0 }),
    ("failed_out", "failed, opened by this host", |one| if one.is_in { 0 } else { one.failed.cast_signed() }),
];

/// The description of a graph.
pub(crate) fn config(graph: Graph, services: &Services) -> String {
    let (title, label) = match graph {
        Graph::States => ("Open TCP connections by state".into(), "connections"),
        Graph::New(None) => ("New TCP connections".into(), "connections per ${graph_period}"),
        Graph::New(Some(port)) => {
            (format!("New connections on port {}", named(port, services)), "connections per ${graph_period}")
        }
        Graph::Port(port) => (format!("Open connections on port {}", named(port, services)), "connections"),
    };
    let mut text = format!(
        "graph_title {title}\ngraph_category network\ngraph_args --base 1000 --lower-limit 0\n\
         graph_scale no\ngraph_vlabel {label}\n\
         graph_info The kernel counts each connection: none is missed between two looks.\n"
    );
    // Writing into a string does not fail.
    match graph {
        Graph::States => {
            for state in state::OPEN {
                let name = state_name(state);
                _ = write!(
                    text,
                    "{name}.label {}\n{name}.draw AREASTACK\n{name}.min 0\n",
                    name.to_uppercase()
                );
            }
        }
        Graph::New(_) => {
            for (name, label, _) in NEW {
                _ = write!(text, "{name}.label {label}\n{name}.type DERIVE\n{name}.min 0\n");
            }
        }
        Graph::Port(_) => {
            for (name, label, _) in OPEN {
                _ = write!(text, "{name}.label {label}\n{name}.draw LINE1\n{name}.min 0\n");
            }
        }
    }
    text
}

/// The values of a graph.
pub(crate) fn values(graph: Graph, counts: &[Counts]) -> String {
    let mut text = String::new();
    let mut add = |name: &str, value: i64| {
        // Writing into a string does not fail.
        _ = writeln!(text, "{name}.value {value}");
    };
    let fields: &[Field] = match graph {
        Graph::States => {
            for (at, state) in state::OPEN.into_iter().enumerate() {
                add(&state_name(state), counts.iter().map(|one| one.states[at]).sum());
            }
            return text;
        }
        Graph::New(_) => &NEW,
        Graph::Port(_) => &OPEN,
    };
    for (name, _, of) in fields {
        add(name, counts.iter().map(of).sum());
    }
    text
}

/// The names of graphs, one in a line, for a host with these listening ports.
pub(crate) fn suggestions(listening: &[u16]) -> String {
    let ports = listening.iter().map(|port| format!("port_{port}\n"));
    ["states\n".to_owned(), "new\n".to_owned()].into_iter().chain(ports).collect()
}

/// The name of a state, as the interface of the daemon writes it behind `open_`.
pub(crate) fn state_name(number: u8) -> String {
    state::name(number).unwrap_or("-").to_lowercase()
}

fn named(port: u16, services: &Services) -> String {
    services.name(port).map_or_else(|| port.to_string(), |name| format!("{port} ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_a_description_and_values() {
        let services = Services::parse("ssh 22/tcp\n");
        let mut states = [0; state::OPEN.len()];
        states[2] = 3;
        let inward = Counts { is_in: true, opened: 7, failed: 1, open: 4, states };
        let outward = Counts { is_in: false, opened: 2, open: 1, ..Counts::default() };
        let all = [inward, outward];
        let text = [Graph::Port(22), Graph::New(Some(23)), Graph::States]
            .map(|graph| config(graph, &services) + &values(graph, &all))
            .join("\n");
        insta::assert_snapshot!(text);
        assert_eq!(suggestions(&[22, 80]), "states\nnew\nport_22\nport_80\n");
    }
}
