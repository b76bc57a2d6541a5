//! `conntrace munin`: a plugin of munin. It asks the daemon, so it needs no privilege.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use conn_common::state;
use serde::Deserialize;

use crate::error::Error;
use crate::output::stdout;
use crate::render::munin::{self, Counts, Graph, state_name};
use crate::serve::answers;
use crate::settings::munin::{MuninSettings, MuninTaskOf};

/// munin sets this variable if a description may end with the values.
const DIRTY_CONFIG: &str = "MUNIN_CAP_DIRTYCONFIG";
/// The most ports that the plugin suggests.
const MOST_SUGGESTED: usize = 50;

/// The part of `/v1/stats` that graphs show.
#[derive(Debug, Deserialize)]
struct Stats {
    ports: Vec<Row>,
    listeners: Vec<Listener>,
}

/// The counts of a direction and service port.
#[derive(Debug, Deserialize)]
struct Row {
    direction: String,
    opened: u64,
    failed: u64,
    open: i64,
    /// Other columns: `open_` and a state are numbers.
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// The listening sockets of a port.
#[derive(Debug, Deserialize)]
struct Listener {
    port: u16,
    open: u64,
}

impl Row {
    fn counts(&self) -> Counts {
        let in_state = |state| {
            let number = self.others.get(&format!("open_{}", state_name(state)));
            number.and_then(serde_json::Value::as_i64).unwrap_or_default()
        };
        Counts {
            is_in: self.direction == "in",
            opened: self.opened,
            failed: self.failed,
            open: self.open,
            states: state::OPEN.map(in_state),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The daemon does not answer, or standard output cannot be written.
pub fn run(settings: &MuninSettings) -> Result<(), Error> {
    let error =
        |source| Error::Io { context: format!("asking the daemon at {}", settings.socket.display()), source };
    let ask = |port| ask(settings, port).map_err(error);
    let text = match settings.task {
        MuninTaskOf::Autoconf => match ask(None) {
            Ok(_) => "yes\n".to_owned(),
            // munin shows the reason, and wants success.
            Err(error) => format!("no ({})\n", error.report().replace('\n', " ")),
        },
        MuninTaskOf::Suggest => {
            let listening = ask(None)?.listeners.into_iter().filter(|one| one.open > 0).map(|one| one.port);
            let ports: BTreeSet<u16> = listening.collect();
            munin::suggestions(&ports.into_iter().take(MOST_SUGGESTED).collect::<Vec<_>>())
        }
        MuninTaskOf::Config(graph) => {
            let mut text = munin::config(graph, &settings.services);
            if std::env::var_os(DIRTY_CONFIG).is_some_and(|is_on| is_on == "1") {
                text += &values(graph, &ask(port(graph))?);
            }
            text
        }
        MuninTaskOf::Values(graph) => values(graph, &ask(port(graph))?),
    };
    stdout::print(text)
}

/// The service port of a graph, if it has one.
const fn port(graph: Graph) -> Option<u16> {
    match graph {
        Graph::Port(port) | Graph::New(Some(port)) => Some(port),
        Graph::New(None) | Graph::States => None,
    }
}

fn values(graph: Graph, stats: &Stats) -> String {
    munin::values(graph, &stats.ports.iter().map(Row::counts).collect::<Vec<_>>())
}

/// Asks the daemon for the counts of a port, or of all.
fn ask(settings: &MuninSettings, port: Option<u16>) -> io::Result<Stats> {
    let target = match port {
        Some(port) => format!("/v1/stats?output=json&dport={port}"),
        None => "/v1/stats?output=json".to_owned(),
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(answers::json(&settings.socket, &target))
}
