//! The settings of `munin`.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use crate::cli::munin::{MuninArgs, MuninTask};
use crate::cli::serve::DEFAULT_SOCKET;
use crate::complaint::complaint;
use crate::error::UsageError;
use crate::filter::value::port;
use crate::host::services::Services;
use crate::render::munin::Graph;

/// What the command prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MuninTaskOf {
    /// The names of graphs.
    Suggest,
    /// Whether the plugin works.
    Autoconf,
    /// The description of a graph.
    Config(Graph),
    /// The values of a graph.
    Values(Graph),
}

/// The settings of `conntrace munin`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MuninSettings {
    /// What to print.
    pub task: MuninTaskOf,
    /// The socket of the daemon.
    pub socket: PathBuf,
    /// The names of ports.
    pub services: Services,
}

impl MuninSettings {
    /// Validates the options.
    ///
    /// # Errors
    /// The graph is none.
    pub(crate) fn new(
        args: &MuninArgs,
        daemon: Option<&Path>,
        services: &Services,
    ) -> Result<Self, UsageError> {
        let alone = MuninTask::from_str(&args.graph, false).ok().filter(|_| args.task.is_none());
        let task = match alone.or(args.task) {
            Some(MuninTask::Suggest) => MuninTaskOf::Suggest,
            Some(MuninTask::Autoconf) => MuninTaskOf::Autoconf,
            Some(MuninTask::Config) => MuninTaskOf::Config(graph(&args.graph, services)?),
            None => MuninTaskOf::Values(graph(&args.graph, services)?),
        };
        let socket = daemon.unwrap_or(Path::new(DEFAULT_SOCKET)).to_owned();
        Ok(Self { task, socket, services: services.clone() })
    }
}

/// The graph of a name.
fn graph(name: &str, services: &Services) -> Result<Graph, UsageError> {
    let of_port = |text: &str| {
        port::port(text, services).map_err(|complaint| UsageError::value("GRAPH", name, complaint))
    };
    match name.split_once('_') {
        None if name == "states" => Ok(Graph::States),
        None if name == "new" => Ok(Graph::New(None)),
        Some(("new", port)) => of_port(port).map(|port| Graph::New(Some(port))),
        Some(("port", port)) => of_port(port).map(Graph::Port),
        _ => Err(UsageError::value(
            "GRAPH",
            name,
            complaint!(
                "graphs are states, new, new_PORT and port_PORT: conntrace munin suggest lists those of this host"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(graph: &str, task: Option<MuninTask>) -> Result<MuninTaskOf, String> {
        let services = Services::parse("ssh 22/tcp\n");
        let args = MuninArgs { graph: graph.into(), task };
        MuninSettings::new(&args, None, &services).map(|it| it.task).map_err(|error| error.to_string())
    }

    #[test]
    fn graphs_have_names() {
        assert_eq!(task("states", None), Ok(MuninTaskOf::Values(Graph::States)));
        assert_eq!(task("new", None), Ok(MuninTaskOf::Values(Graph::New(None))));
        assert_eq!(task("new_443", None), Ok(MuninTaskOf::Values(Graph::New(Some(443)))));
        assert_eq!(task("port_ssh", Some(MuninTask::Config)), Ok(MuninTaskOf::Config(Graph::Port(22))));
        // munin-node-configure calls the plugin without a graph.
        assert_eq!(task("", Some(MuninTask::Suggest)), Ok(MuninTaskOf::Suggest));
        assert_eq!(task("autoconf", None), Ok(MuninTaskOf::Autoconf));
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "port", "port_", "port_70000", "port_nosuch", "udp_53", "config"] {
            let error = task(name, None).unwrap_err();
            assert!(error.starts_with("GRAPH:"), "{name}: {error}");
        }
    }
}
