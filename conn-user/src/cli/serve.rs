//! The options of `serve`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// The socket for clients, unless another one is chosen.
pub const DEFAULT_SOCKET: &str = "/run/conntrace/conntrace.sock";

pub(super) const EXAMPLES: &str = "\
Examples:
  conntrace serve                       counts, and answers on its socket, until Ctrl-C
  conntrace serve --transient           takes its kernel programs away at the end
  conntrace serve --socket /tmp/c.sock  another socket
  curl --unix-socket /run/conntrace/conntrace.sock 'http://conntrace/v1/count?dport=443'
";

pub(super) const RULES_EXAMPLES: &str = "\
Examples:
  conntrace rules                       explains each rule of the configuration file in a sentence
  conntrace rules test ssh-flood        asks the daemon, and prints what the rule would do now
";

/// The options of `serve`.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// The configuration file, which these options override [default: /etc/conntrace/conntrace.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read the configuration file, print what is wrong, and end
    #[arg(long, conflicts_with = "detach")]
    pub check: bool,
    /// The socket for clients, at an absolute path [default: /run/conntrace/conntrace.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The group whose members may ask, beside root: a name or a number. A group that is missing has no members
    /// [default: conntrace]
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Pin nothing: the kernel programs and their counts end with the daemon
    #[arg(long)]
    pub transient: bool,
    /// Pin kernel programs and counts below this mount point of a BPF file system [default: /sys/fs/bpf]
    #[arg(long, value_name = "DIR", conflicts_with = "transient")]
    pub bpffs: Option<PathBuf>,
    /// Take away what an earlier daemon has pinned, and end
    #[arg(long, conflicts_with_all = ["transient", "socket", "group"])]
    pub detach: bool,
}

/// The options of the front, which the daemon starts itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct FrontArgs {
    /// The user to become
    #[arg(long)]
    pub user: Option<u32>,
    /// The group to become
    #[arg(long)]
    pub group: Option<u32>,
}

/// The options of `rules`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct RulesArgs {
    /// What to do: list explains each rule, test prints what a rule would do now
    #[arg(
        value_name = "list|test",
        default_value = "list",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub task: RulesTask,
    /// The rule to test
    #[arg(value_name = "RULE")]
    pub rule: Option<String>,
    /// The configuration file of the daemon [default: /etc/conntrace/conntrace.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// What `rules` does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum RulesTask {
    /// Explain each rule.
    #[default]
    List,
    /// Print what a rule would do now.
    Test,
}

/// Where a command runs. Every command has these options.
#[derive(Clone, Debug, Default, Args)]
pub struct PlaceArgs {
    /// Answer from this process, even if a daemon runs (conntrace serve)
    #[arg(long, global = true, conflicts_with = "daemon", hide_short_help = true)]
    pub local: bool,
    /// Ask the daemon, at this socket [default: /run/conntrace/conntrace.sock]. Without the option, events, count, list,
    /// life and stats ask the daemon if this process may not load kernel programs and the socket is there
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = DEFAULT_SOCKET,
        hide_short_help = true
    )]
    pub daemon: Option<PathBuf>,
}
