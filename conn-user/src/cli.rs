//! The command line as it was typed. What it means is in [`crate::settings`].

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::OutputArgs;
use crate::table::TableFormat;

const ABOUT: &str =
    "Shows every TCP connection of this host: opened, accepted, failed and closed, as it happens";

const EXAMPLES: &str = "\
Examples:
  conntrace                             every event of every connection
  conntrace -e NEW --dport 22           who connects by SSH, from here or to here
  conntrace --dport ssh --direction in  only who connects to us
  conntrace -e DESTROY -o timestamp     ends, with lifetime and reason of failure
  conntrace -o json --count 9 | jq .    the next nine events as JSON

A connection is written from the side that opened it: src and sport are the
initiator's, dst and dport the responder's. So --dport 22 is SSH in both
directions; --direction narrows it.
";

const COUNT_EXAMPLES: &str = "\
Examples:
  conntrace count                       open TCP connections, one number
  conntrace -C --dport 80               those of port 80
  conntrace count --by port,state       a table
  conntrace count --by comm -o json     who holds how many
";

const STATS_EXAMPLES: &str = "\
Examples:
  conntrace stats --interval 1s         every second, with rates
  conntrace -S --timeout 10s            what happens in ten seconds
  conntrace stats --total -o json       one object at Ctrl-C
";

/// The whole command line. Give it the arguments after [`rewrite_args`].
#[derive(Clone, Debug, Parser)]
#[command(
    name = "conntrace",
    version,
    about = ABOUT,
    before_help = EXAMPLES,
    max_term_width = 100,
    flatten_help = true,
    disable_help_subcommand = true,
    infer_subcommands = false
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Tell more on standard error: what was found here, what follows from it, and the size of the
    /// programs; twice: the programs' own log lines, too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Use these hooks instead of the planned ones, to compare them: `set_state`, `set_state_again`,
    /// `sock_ops`, `destroy_sock`
    #[arg(long, global = true, value_name = "HOOK[,HOOK…]", hide = true)]
    pub witnesses: Option<String>,
    /// Use this hook to see who accepts a connection, to compare them: `function`, `syscalls`
    #[arg(long, global = true, value_name = "HOOK", hide = true)]
    pub accept_hook: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Print events as they happen, until Ctrl-C (the default; -E as in conntrack)
    #[command(before_help = EXAMPLES)]
    Events(EventsArgs),
    /// Print how many connections are open now (-C as in conntrack)
    #[command(before_help = COUNT_EXAMPLES)]
    Count(CountArgs),
    /// Count what happens per service port, and prove it (-S as in conntrack)
    #[command(before_help = STATS_EXAMPLES)]
    Stats(StatsArgs),
    /// Tell what this host has, what conntrace makes of it, and whether it works
    Doctor(DoctorArgs),
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
    /// Tell at the end what happened per service port, on standard error: the report of `stats`, with
    /// what is open now
    #[arg(long)]
    pub summary: bool,
    /// How to print.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Which connections. Last, since its heading holds for all that follows.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// The options of `count`.
#[derive(Clone, Debug, Default, Args)]
pub struct CountArgs {
    /// A table instead of one number, by one or more of these
    #[arg(long, value_name = "port|state|direction|netns|comm", value_delimiter = ',')]
    pub by: Vec<Group>,
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
    /// Which connections.
    #[command(flatten)]
    pub filter: FilterArgs,
}

/// The options of `stats`.
#[derive(Clone, Debug, Default, Args)]
pub struct StatsArgs {
    /// Report every so often, with rates: 1s, 500ms. Without it there is one report at the end
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub interval: Option<String>,
    /// End after this time: 20s, 1m30s; without it, at Ctrl-C
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub timeout: Option<String>,
    /// Only the sum of all ports
    #[arg(long)]
    pub total: bool,
    /// How long handshakes and connections took: count, p50, p90, p99 and the longest per service port,
    /// each at most an eighth off, and a plot with a mark for each doubling
    #[arg(long)]
    pub lifetimes: bool,
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
    /// Only these service ports: 22, ssh, 8000-8099, or a list of such
    #[arg(long, visible_alias = "orig-port-dst", value_name = "PORT[,PORT…]", allow_negative_numbers = true)]
    pub dport: Vec<String>,
    /// Only connections that others opened to us (in), or that we opened (out)
    #[arg(long, value_name = "in|out", hide_possible_values = true)]
    pub direction: Option<Direction>,
}

/// What `count` groups by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Service port.
    Port,
    /// TCP state.
    State,
    /// Who opened it.
    Direction,
    /// Network namespace, by its inode number.
    Netns,
    /// Name of the process that holds the socket.
    Comm,
}

impl Group {
    /// The name of the column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::State => "state",
            Self::Direction => "direction",
            Self::Netns => "netns",
            Self::Comm => "comm",
        }
    }
}

/// Which connections: the same options for every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which connections")]
pub struct FilterArgs {
    /// Only this protocol: tcp (or 6), the only one there is
    #[arg(short, long, alias = "protonum", value_name = "PROTO", allow_negative_numbers = true)]
    pub proto: Option<String>,
    /// Only these service ports, the responder's: 22, ssh, 8000-8099, or a list of such
    #[arg(long, visible_alias = "orig-port-dst", value_name = "PORT[,PORT…]", allow_negative_numbers = true)]
    pub dport: Vec<String>,
    /// Only these source ports, the initiator's
    #[arg(long, visible_alias = "orig-port-src", value_name = "PORT[,PORT…]", allow_negative_numbers = true)]
    pub sport: Vec<String>,
    /// Only connections that others opened to us (in), or that we opened (out)
    #[arg(long, value_name = "in|out", hide_possible_values = true)]
    pub direction: Option<Direction>,
    /// Only this address family. An IPv4 address on an IPv6 socket is IPv4
    #[arg(short, long, value_name = "ipv4|ipv6", hide_possible_values = true)]
    pub family: Option<Family>,
}

/// Who opened a connection.
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

/// conntrack's command flags and the commands they stand for.
/// `--count` is an option of `events`, so `-C` has no long form here.
const COMMAND_FLAGS: [(&str, &str, &str); 3] =
    [("-E", "--event", "events"), ("-C", "-C", "count"), ("-S", "--stats", "stats")];

/// Puts the command where clap looks for it. conntrack's commands are flags (`-E`) that may stand
/// anywhere; without one, `events` is meant. `args` begins with the name of the program.
pub fn rewrite_args(mut args: Vec<OsString>) -> Vec<OsString> {
    let options_end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    let first = 1.min(args.len());
    let options = first..options_end.max(first);
    if args[options.clone()].iter().any(|arg| arg == "-V" || arg == "--version") {
        args.truncate(first);
        args.push("--version".into());
        return args;
    }
    // A word before any option, -v aside, names the command; clap knows whether it exists.
    let word = options.clone().find(|&at| !is_verbose(&args[at]));
    if let Some(at) = word.filter(|&at| !args[at].as_encoded_bytes().starts_with(b"-")) {
        let command = args.remove(at);
        args.insert(first, command);
        return args;
    }
    for at in options {
        if let Some((command, rest)) = command_flag(&args[at]) {
            args.remove(at);
            if let Some(rest) = rest {
                args.insert(at, rest);
            }
            args.insert(first, command.into());
            return args;
        }
    }
    let asks_for_help = word.is_some_and(|at| args[at] == "-h" || args[at] == "--help");
    if !asks_for_help {
        args.insert(first, "events".into());
    }
    args
}

/// The command behind a flag, and what is left of a cluster of short options (`-Ee NEW`).
fn command_flag(arg: &OsString) -> Option<(&'static str, Option<OsString>)> {
    let arg = arg.to_str()?;
    COMMAND_FLAGS.iter().find_map(|&(short, long, command)| {
        if arg == short || arg == long {
            return Some((command, None));
        }
        arg.strip_prefix(short).map(|rest| (command, Some(format!("-{rest}").into())))
    })
}

fn is_verbose(arg: &OsString) -> bool {
    let bytes = arg.as_encoded_bytes();
    arg == "--verbose"
        || bytes.strip_prefix(b"-").is_some_and(|vs| !vs.is_empty() && vs.iter().all(|&byte| byte == b'v'))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    use super::*;

    fn rewritten(line: &str) -> String {
        let args = rewrite_args(line.split(' ').map(OsString::from).collect());
        args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(rewrite_args(line.split(' ').map(OsString::from).collect()))
    }

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_way_to_say_events_is_the_same() {
        for line in [
            "conntrace -e NEW --dport 22",
            "conntrace -E -e NEW --dport 22",
            "conntrace -e NEW -E --dport 22",
            "conntrace -e NEW --dport 22 -E",
            "conntrace --event -e NEW --dport 22",
            "conntrace -Ee NEW --dport 22",
            "conntrace events -e NEW --dport 22",
        ] {
            assert_eq!(rewritten(line), "conntrace events -e NEW --dport 22", "{line}");
        }
        assert_eq!(rewritten("conntrace"), "conntrace events");
        assert_eq!(rewritten("conntrace -v events -e NEW"), "conntrace events -v -e NEW");
        assert_eq!(rewritten("conntrace --event-mask NEW"), "conntrace events --event-mask NEW");
        assert_eq!(rewritten("conntrace -- -E"), "conntrace events -- -E");
    }

    #[test]
    fn help_and_version_stay_what_they_are() {
        assert_eq!(rewritten("conntrace --help"), "conntrace --help");
        assert_eq!(rewritten("conntrace -h"), "conntrace -h");
        assert_eq!(rewritten("conntrace -E --help"), "conntrace events --help");
        assert_eq!(rewritten("conntrace -e NEW --help"), "conntrace events -e NEW --help");
        assert_eq!(rewritten("conntrace -E -V"), "conntrace --version");
        assert_eq!(rewrite_args(Vec::new()), ["events"]);
        assert_eq!(Cli::command().render_version(), "conntrace 0.1.0\n");
    }

    #[test]
    fn reads_what_was_typed() {
        let cli = parse(
            "conntrace -v -e NEW,DESTROY -e u -p tcp --dport ssh,80 --orig-port-dst 443 --sport 1024-2048 \
             --direction in -f ipv6 -o json --count 5 --timeout 1m -b 64M -v",
        )
        .unwrap();
        assert_eq!(cli.verbose, 2);
        let Command::Events(events) = cli.command else { panic!("events was typed") };
        assert_eq!(events.event_mask, ["NEW,DESTROY", "u"]);
        assert_eq!(events.filter.dport, ["ssh,80", "443"]);
        assert_eq!(events.filter.direction, Some(Direction::In));
        assert_eq!(events.filter.family, Some(Family::V6));
        assert_eq!(events.count.as_deref(), Some("5"));
        assert_eq!(events.buffer_size.as_deref(), Some("64M"));
    }

    #[test]
    fn wrong_words_are_refused() {
        for (line, kind) in [
            ("conntrace evnets", ErrorKind::InvalidSubcommand),
            ("conntrace --dprot 22", ErrorKind::UnknownArgument),
            ("conntrace -E extra", ErrorKind::UnknownArgument),
            ("conntrace --direction up", ErrorKind::InvalidValue),
            ("conntrace --dport", ErrorKind::InvalidValue),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
        }
    }

    #[test]
    fn help_shows_examples_and_options() {
        let help = Cli::command().render_help().to_string();
        assert!(help.starts_with("Examples:"), "{help}");
        for word in ["--event-mask", "--dport", "--timeout", "--buffer-size"] {
            assert!(help.contains(word), "{word} is missing:\n{help}");
        }
    }
}
