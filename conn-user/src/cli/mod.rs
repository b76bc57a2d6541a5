//! The command line as typed. [`crate::settings`] has the meaning.

pub mod args;
pub(crate) mod conntrack_compat;
pub(crate) mod count;
pub mod environment;
pub(crate) mod filter;
pub(crate) mod output;
#[cfg(test)]
mod tests;
pub mod topics;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::args::rewrite_args;
pub use self::count::{CountArgs, Group};
pub use self::filter::FilterArgs;
pub use self::output::OutputArgs;
use self::topics::{CompletionsArgs, HelpArgs};
use crate::event::sort_key::{LifeKey, SocketKey};
use crate::render::number_table::TableFormat;

const ABOUT: &str =
    "Shows every TCP connection of this host: opened, accepted, failed and closed, as it happens";

const EXAMPLES: &str = "\
Examples:
  conntrace                             every event of every connection
  conntrace -e NEW --dport 22           who connects by SSH, from here or to here
  conntrace 'dport = :ssh and dir in'   only who connects to us, in the words of ss
  conntrace -e DESTROY -o timestamp     ends, with lifetime and reason of failure
  conntrace -o json --count 9 | jq .    the next nine events as JSON

A connection is written from the side that opened it: src and sport are the
initiator's, dst and dport the responder's. So --dport 22 is SSH in both
directions; --direction narrows it.
";

const LIST_EXAMPLES: &str = "\
Examples:
  conntrace list                        every open connection, in all namespaces
  conntrace -L --dport 443 -o table     a table like that of ss
  conntrace list --min-age 1h           who has been connected for an hour
  conntrace list --listening            who waits for connections, and how many wait
  conntrace list --state time-wait      closed, but not forgotten yet
  conntrace list --netns .              only of this network namespace
  conntrace list -l --dport 80 --exit-code >/dev/null
                                        status 1 if nothing listens on port 80
";

const LIFE_EXAMPLES: &str = "\
Examples:
  conntrace life                        each connection as it ends
  conntrace life --min 5s --dport 443   those that lasted five seconds or more
  conntrace life --timeout 1m --top 10  the ten longest of a minute
  conntrace life --sort bytes -o csv    the twenty that moved most, at Ctrl-C
";

const STATS_EXAMPLES: &str = "\
Examples:
  conntrace stats --interval 1s         every second, with rates
  conntrace -S --timeout 10s            what happens in ten seconds
  conntrace stats --total -o json       one object at Ctrl-C
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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Tell more on standard error: what was found here, what follows from it, and the size of the
    /// programs; twice: the programs' own log lines, too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print events as they happen, until Ctrl-C (the default; -E as in conntrack)
    #[command(before_help = EXAMPLES)]
    Events(EventsArgs),
    /// Print how many connections are open now (-C as in conntrack)
    #[command(before_help = count::EXAMPLES)]
    Count(CountArgs),
    /// Print what is open now, and who has it (-L as in conntrack)
    #[command(before_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Print each connection when it ends: how long it was, whose, and why
    #[command(before_help = LIFE_EXAMPLES)]
    Life(LifeArgs),
    /// Count what happens per service port, and prove it (-S as in conntrack)
    #[command(before_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
    /// Tell what this host has, what follows from it, and whether it works
    Doctor(DoctorArgs),
    /// Explain a command, filters, formats, states or exactness
    Help(HelpArgs),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions(CompletionsArgs),
}

/// The options of `doctor`.
#[derive(Clone, Debug, Default, Args)]
pub struct DoctorArgs {
    /// How to print
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
    /// Only these kinds of events: NEW (attempt), UPDATES (state change), DESTROY (end) or ALL. In
    /// any case, shortened at will
    #[arg(short, long, value_name = "KIND[,KIND…]")]
    pub event_mask: Vec<String>,
    /// When the stream ends, and how losses count.
    #[command(flatten)]
    pub stream: StreamArgs,
    /// Tell at the end what happened per service port, on standard error: the report of `stats`, with
    /// what is open now
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
    /// End after this time: 20s, 1m30s, 500ms; a plain number is in seconds
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub timeout: Option<String>,
    /// Room for events that wait to be printed, rounded up to a power of two: 65536, 512K, 64M
    /// [default: 8M]
    #[arg(short, long, value_name = "BYTES", allow_negative_numbers = true)]
    pub buffer_size: Option<String>,
    /// End with status 3 if an event was lost, or if the kernel programs had no memory or no room for something
    #[arg(long)]
    pub strict: bool,
}

/// Hidden options that choose hooks, to compare them.
#[derive(Clone, Debug, Default, Args)]
pub struct HookArgs {
    /// Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`,
    /// `sock_ops`, `destroy_sock`
    #[arg(long, value_name = "HOOK[,HOOK…]", hide = true)]
    pub witnesses: Option<String>,
    /// Use this hook to see who accepts a connection, to compare them: `graft`, `function`, `syscalls`
    #[arg(long, value_name = "HOOK", hide = true)]
    pub accept_hook: Option<String>,
}

/// The options of `list`.
#[derive(Clone, Debug, Default, Args)]
pub struct ListArgs {
    /// Sockets that wait for connections instead, with how many wait to be accepted and how many may
    #[arg(short, long)]
    pub listening: bool,
    /// conntrack's lines on a terminal, too: `-L` of conntrack
    #[arg(long, hide = true)]
    pub dump: bool,
    /// Only connections that are certainly so old: 5s, 2h
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub min_age: Option<String>,
    /// End with status 1 if nothing was found, as grep does, and with status 2 after an error
    #[arg(long)]
    pub exit_code: bool,
    /// The largest first: age, bytes, rtt, retransmits, queue; or by port or pid
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
    /// Only connections that lasted at least so long: 5s, 1m30s
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub min: Option<String>,
    /// Only connections that lasted at most so long
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub max: Option<String>,
    /// At the end the N largest, instead of all as they end
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub top: Option<String>,
    /// What makes them large: lifetime (the default), handshake, bytes, rtt or retransmits. Without --top,
    /// the first 20
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

/// The options of `stats`.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct StatsArgs {
    /// Report every so often, with rates: 1s, 500ms. Without it there is one report at the end
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub interval: Option<String>,
    /// End after this time: 20s, 1m30s; without it, at Ctrl-C
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub timeout: Option<String>,
    /// End with status 3 if a step of a connection was missed or could not be counted: the last report
    /// tells of a failure, a repair or a difference
    #[arg(long)]
    pub strict: bool,
    /// Only the sum of all ports
    #[arg(long)]
    pub total: bool,
    /// How long handshakes and connections took: count, p50, p90, p99 and the longest per service port,
    /// each at most 9 % off, and a plot with a mark for each doubling
    #[arg(long)]
    pub lifetimes: bool,
    /// What conntrace itself costs: runs and run time of its kernel programs, which the kernel times
    /// meanwhile, CPU and memory
    #[arg(long = "self")]
    pub self_cost: bool,
    /// How to print
    #[arg(
        short,
        long,
        value_name = "table|json|csv",
        default_value = "table",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub output: TableFormat,
    /// Numbers of ports instead of names in tables: 22, not ssh
    #[arg(short, long)]
    pub numeric: bool,
    /// Only these service ports: 22, ssh, 8000-8099, '!22', or a list of such
    #[arg(long, visible_alias = "orig-port-dst", value_name = "PORT[,PORT…]", allow_negative_numbers = true)]
    pub dport: Vec<String>,
    /// Only connections that others opened to us (in), or that we opened (out)
    #[arg(long, value_name = "in|out", hide_possible_values = true)]
    pub direction: Option<Direction>,
    /// A filter in the language of ss, of ports and directions: 'dport = :ssh or direction out'
    #[arg(value_name = "EXPRESSION")]
    pub expression: Vec<String>,
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
            Self::Doctor(_) | Self::Help(_) | Self::Completions(_) => &[],
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
