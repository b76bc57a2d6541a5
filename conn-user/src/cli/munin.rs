//! The options of `munin`.

use clap::{Args, ValueEnum};

pub(super) const EXAMPLES: &str = "\
Examples:
  conntrace munin suggest               the graphs of this host
  conntrace munin port_22               open connections with service port 22
  conntrace munin port_22 config        the description of that graph
  conntrace munin new_443               new and failed connections per second
  munin-run conntrace_port_22           the same through the plugin conntrace_
";

/// The options of `munin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct MuninArgs {
    /// The graph: states, new, `new_PORT` or `port_PORT`; with a port's number, or its name
    #[arg(value_name = "GRAPH")]
    pub graph: String,
    /// config describes the graph, suggest lists the graphs of this host, autoconf says whether the plugin works.
    /// Without it, the values
    #[arg(value_name = "config|suggest|autoconf", hide_possible_values = true)]
    pub task: Option<MuninTask>,
}

/// What munin wants from its plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MuninTask {
    /// The description of the graph.
    Config,
    /// The names of graphs.
    Suggest,
    /// Whether the plugin works.
    Autoconf,
}
