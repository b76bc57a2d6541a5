//! The options of `stats`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::{Direction, Family, FlowArgs, Forwarded, HookArgs};
use crate::event::sort_key::{SourceGroup, SourceKey};
use crate::render::number_table::ReportFormat;

/// The options of `stats`.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct StatsArgs {
    /// Print a report with rates at this interval: 1s, 500ms. Without it, there is one report at the end
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub interval: Option<String>,
    /// End after this time: 20s, 1m30s. Without it, end at Ctrl-C
    #[arg(long, value_name = "DURATION", allow_negative_numbers = true)]
    pub timeout: Option<String>,
    /// Ask the daemon for the counts since so long ago: 10m, 2h. It keeps those of each minute for a day
    #[arg(
        long,
        value_name = "DURATION",
        allow_negative_numbers = true,
        conflicts_with_all = ["interval", "timeout", "lifetimes", "sources", "self_cost", "textfile", "forwarded"]
    )]
    pub since: Option<String>,
    /// Add rates per second, over the time of --since [default there: 1m]
    #[arg(long, conflicts_with_all = ["interval", "timeout", "lifetimes", "sources", "self_cost", "textfile", "forwarded"])]
    pub rates: bool,
    /// Draw opened, failed and open connections over the time of --since [default there: 1d], of all and of the busiest
    /// ports, as the daemon has counted them
    #[arg(
        long,
        conflicts_with_all = [
            "interval", "timeout", "lifetimes", "sources", "self_cost", "textfile", "forwarded", "rates", "output", "proof"
        ]
    )]
    pub plot: bool,
    /// End with status 3 if a step of a connection was missed or could not be counted: the last report has a
    /// failure, a repair or a difference
    #[arg(long)]
    pub strict: bool,
    /// Print only the sum of all ports
    #[arg(long, conflicts_with = "all")]
    pub total: bool,
    /// Print every port in a table. Without it, a table has the 20 busiest ports and the sum of the others
    #[arg(long)]
    pub all: bool,
    /// Print the whole proof below the table: sums per network namespace, every counter, and the audit.
    /// Without it, one line says whether the counts are exact, and only what is not zero follows
    #[arg(long)]
    pub proof: bool,
    /// Also print how long handshakes and connections took, per service port: count, p50, p90, p99 and the
    /// longest, each at most 9 % off, and a plot with a mark for each doubling
    #[arg(long)]
    pub lifetimes: bool,
    /// Also print the N remote addresses with the most SYNs and connections: half-open requests (attempts), SYNs
    /// that this host refused, connections, and those that failed. The kernel counts up to 65536 addresses, and
    /// all others in one row. CSV has these rows instead of the ports
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub sources: Option<String>,
    /// Count for --sources by address, or by prefix: /24 of IPv4, /64 of IPv6 [default: address]
    #[arg(
        long,
        value_name = "address|prefix",
        default_value = "address",
        requires = "sources",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub sources_by: SourceGroup,
    /// Sort --sources by this count: all (SYNs and connections), attempts, `refused_by_us`, opened, failed
    /// [default: all]
    #[arg(
        long,
        value_name = "COUNT",
        default_value = "all",
        requires = "sources",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub sources_sort: SourceKey,
    /// Also print what conntrace itself costs: runs and run time of its kernel programs, CPU time and memory.
    /// The kernel measures the programs, which costs some time itself
    #[arg(long = "self")]
    pub self_cost: bool,
    /// Output format. prometheus has a series for each port with incoming connections, up to 256, and for each port
    /// of --dport; all others are port="other" [default: table]
    #[arg(
        short,
        long,
        value_name = "table|json|csv|prometheus",
        default_value = "table",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub output: ReportFormat,
    /// Write the metrics of -o prometheus into this file, at each --interval and at the end: each time as a new file
    /// under the old name, as the textfile collector of `node_exporter` wants it
    #[arg(long, value_name = "FILE")]
    pub textfile: Option<PathBuf>,
    /// Leave out the line with the names of the columns, in table and csv
    #[arg(long)]
    pub no_header: bool,
    /// Show port numbers instead of service names in tables: 22, not ssh
    #[arg(short, long)]
    pub numeric: bool,
    /// Only these protocols: tcp (the default), udp, all, or their numbers
    #[arg(
        short,
        long,
        aliases = ["proto", "protonum"],
        value_name = "PROTO[,PROTO...]",
        allow_negative_numbers = true
    )]
    pub protocol: Option<String>,
    /// Room for flows of UDP, 264 bytes each, rounded up to a power of two: 300000, 1M [default: 131072]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub max_flows: Option<String>,
    /// Only these service ports: 22, ssh, 8000-8099, a list of them; !22 excludes one
    #[arg(
        long,
        visible_alias = "orig-port-dst",
        value_name = "PORT[,PORT...]",
        allow_negative_numbers = true
    )]
    pub dport: Vec<String>,
    /// Only connections that the peer opened (in), or that this host opened (out); forward is the same as --forwarded
    #[arg(long, value_name = "in|out|forward", hide_possible_values = true)]
    pub direction: Option<Direction>,
    /// Count flows that pass through this host instead of its sockets, from connection tracking, with the account and the
    /// failures of each network namespace. --forwarded=all counts every flow that is tracked
    #[arg(
        long,
        value_name = "all",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "only",
        hide_possible_values = true
    )]
    pub forwarded: Option<Forwarded>,
    /// Only flows from these addresses, with --forwarded: an address, a prefix, or a list of them; '!10.0.0.0/8' excludes
    #[arg(short, long, visible_alias = "orig-src", value_name = "ADDR[,ADDR...]", hide_short_help = true)]
    pub src: Vec<String>,
    /// Only flows to these addresses, with --forwarded, like --src
    #[arg(short, long, visible_alias = "orig-dst", value_name = "ADDR[,ADDR...]", hide_short_help = true)]
    pub dst: Vec<String>,
    /// Only flows from these ports, with --forwarded, like --dport
    #[arg(
        long,
        visible_alias = "orig-port-src",
        value_name = "PORT[,PORT...]",
        allow_negative_numbers = true,
        hide_short_help = true
    )]
    pub sport: Vec<String>,
    /// Only flows of this address family, with --forwarded
    #[arg(short, long, value_name = "ipv4|ipv6", hide_possible_values = true, hide_short_help = true)]
    pub family: Option<Family>,
    /// Only flows in this network namespace, with --forwarded: `.` for the one that conntrace runs in, a name of
    /// `ip netns`, a path, a process in it, or its inode number
    #[arg(long, value_name = "NETNS[,...]", allow_negative_numbers = true, hide_short_help = true)]
    pub netns: Vec<String>,
    /// The tests of flows.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Filter expression of service ports and directions, in the language of ss: 'service = :ssh or direction out'. With
    /// --forwarded also of addresses, ports and states
    #[arg(value_name = "EXPRESSION")]
    pub expression: Vec<String>,
    /// Which hooks. Hidden, so behind all that help shows.
    #[command(flatten)]
    pub hooks: HookArgs,
}

impl StatsArgs {
    /// True if the daemon alone has the answer: counts of a time that is over.
    pub fn asks_for_history(&self) -> bool {
        self.since.is_some() || self.rates || self.plot
    }
}
