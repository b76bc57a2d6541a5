//! The command line as typed. [`crate::settings`] has the meaning.

pub mod args;
pub(crate) mod conntrack_compat;
pub(crate) mod count;
pub mod environment;
pub(crate) mod filter;
pub mod migration;
pub mod munin;
pub(crate) mod output;
pub mod serve;
pub(crate) mod stats;
#[cfg(test)]
mod tests;
pub mod topics;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::args::rewrite_args;
pub use self::count::{CountArgs, Group};
pub use self::filter::{FilterArgs, FlowArgs};
pub use self::munin::MuninArgs;
pub use self::output::OutputArgs;
pub use self::serve::{FrontArgs, PlaceArgs, RulesArgs, RulesTask, ServeArgs};
pub use self::stats::StatsArgs;
use self::topics::{CompletionsArgs, HelpArgs};
use crate::event::sort_key::{LifeKey, SocketKey};
use crate::render::number_table::TableFormat;

const ABOUT: &str = "Shows every TCP connection of this host as it opens, fails and closes";

const EXAMPLES: &str = "\
Examples:
  conntrace                             every event of every connection
  conntrace -e NEW --dport 22           SSH attempts, from or to this host
  conntrace --dport ssh --direction in  only SSH connections from others
  conntrace 'sport = :ssh'              connections to port 22 of this host, as in ss
  conntrace --failed                    connections that failed, with the reason
  conntrace -e DESTROY -o timestamp     ends, with lifetime and reason
  conntrace -o json --count 9 | jq .    the next nine events as JSON

src and sport are those of the end that opened the connection, dst and dport
those of the other end. So --dport 22 is SSH in both directions, and --direction
chooses one.

A connection between two processes of this host has both ends here, so each
event is shown twice: dir=out and dir=in. --direction out shows it once.
";

const LIST_EXAMPLES: &str = "\
Examples:
  conntrace list                        every open connection, in all namespaces
  conntrace list --dport 443            those with service port 443
  conntrace list --min-age 1h           connections that are at least an hour old
  conntrace list --listening            listening sockets and their accept queues
  conntrace list -l -p udp              UDP sockets without a peer; without -l those with one
  conntrace list -p unix --state all    Unix domain sockets and their peers
  conntrace list --state time-wait      closed connections that the kernel still keeps
  conntrace list --netns .              those of this network namespace only
  conntrace list -l --dport 80 --exit-code >/dev/null
                                        status 1 if nothing listens on port 80
  conntrace -L                          the lines of conntrack, on a terminal, too
";

const LIFE_EXAMPLES: &str = "\
Examples:
  conntrace life                        each connection, when it ends
  conntrace life --min 5s --dport 443   connections that lasted five seconds or more
  conntrace life --timeout 1m --top 10  the ten longest connections of one minute
  conntrace life --sort bytes -o csv    the twenty with the most bytes, at Ctrl-C
";

const STATS_EXAMPLES: &str = "\
Examples:
  conntrace stats --interval 1s         a report every second, with rates
  conntrace -S --timeout 10s            one report after ten seconds
  conntrace stats --total -o json       the sum of all ports as JSON, at Ctrl-C
  conntrace stats --since 1h --rates    the last hour, from the daemon
  conntrace stats --plot --dport 443    the last day of a port, drawn, from the daemon
";

/// The whole command line. Expects arguments from [`rewrite_args`].
#[derive(Clone, Debug, Parser)]
#[command(
    name = "conntrace",
    version,
    about = ABOUT,
    before_help = EXAMPLES,
    max_term_width = 100,
    flatten_help = true,
    disable_help_subcommand = true,
    infer_subcommands = false,
    args_override_self = true
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// Verbose: print kernel features, chosen hooks, the parts of the filter and program sizes to standard
    /// error. -vv adds the log lines of the kernel programs
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Where the command runs.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// A command and its options.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print events as they happen, until Ctrl-C (the default; -E as in conntrack)
    #[command(before_help = EXAMPLES)]
    Events(EventsArgs),
    /// Print how many connections are open now (-C as in conntrack)
    #[command(before_help = count::EXAMPLES)]
    Count(CountArgs),
    /// Print the connections that are open now, and their processes (-L as in conntrack)
    #[command(before_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Print each connection when it ends: lifetime, process and reason
    #[command(before_help = LIFE_EXAMPLES)]
    Life(LifeArgs),
    /// Count opened, failed and closed connections per service port (-S as in conntrack)
    #[command(before_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
    /// Run as a daemon that counts, and answers on a Unix socket
    #[command(before_help = serve::EXAMPLES)]
    Serve(ServeArgs),
    /// The half of the daemon that speaks to clients
    #[command(hide = true)]
    Front(FrontArgs),
    /// The process of the daemon that watches its rules
    #[command(hide = true)]
    WatchRules(FrontArgs),
    /// The process of the daemon that sends its metrics by OTLP
    #[command(hide = true)]
    ExportOtlp(FrontArgs),
    /// Explain the daemon's rules of alarms, and test one
    #[command(before_help = serve::RULES_EXAMPLES)]
    Rules(RulesArgs),
    /// Print a graph for munin, as its plugins do
    #[command(hide = true, before_help = munin::EXAMPLES)]
    Munin(MuninArgs),
    /// Check what conntrace can do on this host, and test it
    Doctor(DoctorArgs),
    /// Explain a command or a topic
    Help(HelpArgs),
    /// Print the completion script for a shell
    #[command(hide = true)]
    Completions(CompletionsArgs),
}

/// The options of `doctor`.
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArgs {
    /// Output format [default: table]
    #[arg(
        short,
        long,
        value_name = "table|json",
        default_value = "table",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub output: TableFormat,
}

/// The options of `events`.
#[derive(Clone, Debug, Default, Args)]
pub struct EventsArgs {
    /// Only these kinds of events: NEW (attempt), UPDATES (change of state), DESTROY (end) or ALL; also
    /// ATTEMPT (a SYN that made no connection yet) and LISTEN (begin and end of a listener), which ALL leaves out. Case does not
    /// matter, and words may be shortened: -e n,d
    #[arg(short, long, value_name = "KIND[,KIND...]")]
    pub event_mask: Vec<String>,
    /// When the stream ends, and how losses count.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// Print the counts per service port to standard error at the end, as `stats` does
    #[arg(long)]
    pub summary: bool,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// The filter. The heading of its options covers all options that follow.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Which hooks. Hidden, so behind all that help shows.
    #[command(flatten)]
    pub hooks: HookArgs,
}

/// The options of every command that prints events as they happen.
#[derive(Clone, Debug, Default, Args)]
pub struct StreamArgs {
    /// End after N events
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub count: Option<String>,
    /// End after this time: 20s, 1m30s, 500ms. A number without unit is in seconds
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub timeout: Option<String>,
    /// Size of the buffer for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M
    /// [default: 8M]
    #[arg(short, long, value_name = "BYTES", allow_negative_numbers = true)]
    pub buffer_size: Option<String>,
    /// Room for flows of UDP, 264 bytes each, rounded up to a power of two: 300000, 1M [default: 131072]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_flows: Option<String>,
    /// End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something
    #[arg(long)]
    pub strict: bool,
}

/// Hidden options that choose hooks, to compare them.
#[derive(Clone, Debug, Default, Args)]
pub struct HookArgs {
    /// Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`,
    /// `sock_ops`, `destroy_sock`
    #[arg(long, value_name = "HOOK[,HOOK...]", hide = true)]
    pub witnesses: Option<String>,
    /// Use this hook to see accepts instead of the planned one, to compare them: `graft`, `function`, `syscalls`
    #[arg(long, value_name = "HOOK", hide = true)]
    pub accept_hook: Option<String>,
}

/// The options of `list`.
#[derive(Clone, Debug, Default, Args)]
pub struct ListArgs {
    /// Show listening sockets instead, with the length and the limit of the accept queue; of UDP and unix, sockets without a peer
    #[arg(short, long)]
    pub listening: bool,
    /// conntrack's lines on a terminal, too: `-L` of conntrack
    #[arg(long, hide = true)]
    pub dump: bool,
    /// Only connections that are certainly at least this old: 5s, 2h
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub min_age: Option<String>,
    /// End with status 1 if nothing was found, as grep does, and with status 2 after an error
    #[arg(long)]
    pub exit_code: bool,
    /// Sort by age, bytes, rtt, retransmits or queue, the largest first; or by port or pid, the smallest first
    #[arg(long, value_name = "KEY", hide_possible_values = true)]
    pub sort: Option<SocketKey>,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// The options of `life`.
#[derive(Clone, Debug, Default, Args)]
pub struct LifeArgs {
    /// Only connections that lasted at least this long: 5s, 1m30s
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub min: Option<String>,
    /// Only connections that lasted at most this long
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub max: Option<String>,
    /// Print only the N largest connections, at the end
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub top: Option<String>,
    /// Sort by lifetime (the default), handshake, bytes, rtt or retransmits, the largest first, and print the
    /// connections at the end: 20, or as many as --top says
    #[arg(long, value_name = "KEY", hide_possible_values = true)]
    pub sort: Option<LifeKey>,
    /// When the stream ends, and how losses count.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Which hooks. Hidden, so behind all that help shows.
    #[command(flatten)]
    pub hooks: HookArgs,
}

impl Command {
    /// True if the exit status is to say whether something was found.
    pub const fn wants_exit_code(&self) -> bool {
        match self {
            Self::Count(args) => args.exit_code,
            Self::List(args) => args.exit_code,
            _ => false,
        }
    }

    /// The words of the filter expression.
    pub fn expression(&self) -> &[String] {
        match self {
            Self::Events(args) => &args.filter.expression,
            Self::Count(args) => &args.filter.expression,
            Self::List(args) => &args.filter.expression,
            Self::Life(args) => &args.filter.expression,
            Self::Stats(args) => &args.expression,
            _ => &[],
        }
    }
}

/// Direction: which side opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Direction {
    /// The peer.
    In,
    /// This host.
    Out,
    /// Neither: the flow passes through.
    Forward,
}

/// Which flows of connection tracking are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Forwarded {
    /// Those that pass through.
    Only,
    /// All, those of this host's own sockets, too.
    All,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// IPv4.
    #[value(name = "ipv4")]
    V4,
    /// IPv6.
    #[value(name = "ipv6")]
    V6,
}
