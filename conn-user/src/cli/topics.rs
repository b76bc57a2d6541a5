//! The options of `help` and `completions`, and the topics of `help`.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// The options of `help`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct HelpArgs {
    /// A topic (filters, formats, states, exactness, from) or a command
    #[arg(value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// The options of `completions`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CompletionsArgs {
    /// The shell: bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    pub shell: Shell,
}

/// A topic of half a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Choose connections, by options or by an expression
    Filters,
    /// Output formats and their columns
    Formats,
    /// TCP states, under the names of conntrack and ss
    States,
    /// Which numbers are exact, and how conntrace proves it
    Exactness,
    /// Commands of netstat, ss, conntrack and bcc, and their replacements
    From,
}
