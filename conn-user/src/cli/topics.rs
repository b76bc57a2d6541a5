//! The options of `help` and `completions`, and the topics of `help`.

use clap::{Args, ValueEnum};
use clap_complete::Shell;

/// The options of `help`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct HelpArgs {
    /// filters, formats, states, exactness, from; or a command
    #[arg(value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// The options of `completions`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct CompletionsArgs {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL", hide_possible_values = true)]
    pub shell: Shell,
}

/// A topic of half a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// How to choose connections.
    Filters,
    /// How to print.
    Formats,
    /// States of a connection.
    States,
    /// How exact events and counts are.
    Exactness,
    /// Commands of other tools, and conntrace's.
    From,
}
