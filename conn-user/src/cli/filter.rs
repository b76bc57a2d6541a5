//! The options that choose connections, for every command that sees connections.

use clap::Args;

use crate::cli::{Direction, Family, Forwarded};

/// The filter options as typed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub struct FilterArgs {
    /// Only these protocols: tcp (the default), udp, all (both), or their numbers. `list` takes unix alone, too. With
    /// --forwarded any protocol, and all is the default
    #[arg(
        short,
        long,
        aliases = ["proto", "protonum"],
        value_name = "PROTO[,PROTO...]",
        allow_negative_numbers = true,
        hide_short_help = true
    )]
    pub protocol: Option<String>,
    /// Only these initiators: an address, a prefix, or a list of them; '!10.0.0.0/8' excludes
    #[arg(short, long, visible_alias = "orig-src", value_name = "ADDR[,ADDR...]")]
    pub src: Vec<String>,
    /// Only these responders, like --src
    #[arg(short, long, visible_alias = "orig-dst", value_name = "ADDR[,ADDR...]")]
    pub dst: Vec<String>,
    /// Only these service ports (the responder's): 22, ssh, 8000-8099, a list of them; '!22' excludes
    #[arg(
        long,
        visible_alias = "orig-port-dst",
        value_name = "PORT[,PORT...]",
        allow_negative_numbers = true
    )]
    pub dport: Vec<String>,
    /// Only these source ports (the initiator's), like --dport
    #[arg(
        long,
        visible_alias = "orig-port-src",
        value_name = "PORT[,PORT...]",
        allow_negative_numbers = true
    )]
    pub sport: Vec<String>,
    /// The tests of flows.
    #[command(flatten)]
    pub flow: FlowArgs,
    /// Only these TCP states: established, syn-sent and so on, or a set of ss: connected, synchronized, bucket, big
    #[arg(long, value_name = "STATE[,STATE...]")]
    pub state: Vec<String>,
    /// Only connections that the peer opened (in), or that this host opened (out). A connection within this host
    /// has both ends here: without this option it is shown twice. forward is the same as --forwarded
    #[arg(long, value_name = "in|out|forward", hide_possible_values = true)]
    pub direction: Option<Direction>,
    /// Flows that pass through this host instead of its sockets, from connection tracking: of a router, a NAT gateway, the
    /// host of containers. --forwarded=all shows every flow that is tracked. -p takes any protocol then
    #[arg(
        long,
        value_name = "all",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "only",
        hide_possible_values = true
    )]
    pub forwarded: Option<Forwarded>,
    /// Only this address family. An IPv4 address on an IPv6 socket counts as IPv4
    #[arg(short, long, value_name = "ipv4|ipv6", hide_possible_values = true)]
    pub family: Option<Family>,
    /// Only these owners, by process id
    #[arg(long, value_name = "PID[,PID...]", allow_negative_numbers = true)]
    pub pid: Vec<String>,
    /// Only owners with these process names. - stands for an unknown owner
    #[arg(long, value_name = "NAME[,NAME...]")]
    pub comm: Vec<String>,
    /// Only owners of these users, by name or number
    #[arg(long, value_name = "USER[,USER...]", allow_negative_numbers = true)]
    pub uid: Vec<String>,
    /// Only this network namespace: `.` for the one that conntrace runs in, a name of `ip netns`, a path, a process in
    /// it, or its inode number
    #[arg(long, value_name = "NETNS[,...]", allow_negative_numbers = true)]
    pub netns: Vec<String>,
    /// Only owners in this cgroup itself, by its path below the cgroup v2 root
    #[arg(long, value_name = "PATH[,PATH...]", hide_short_help = true)]
    pub cgroup: Vec<String>,
    /// Only owners in these containers: names, ids, first digits of ids, or patterns like 'web*'. NAME@USER is a
    /// container of a user's runtime, NAME@* one of any user's
    #[arg(long, value_name = "CONTAINER[,...]", value_delimiter = ',')]
    pub container: Vec<String>,
    /// Only owners in these systemd units, or below these slices: nginx, ssh.service, system.slice, 'php*'
    #[arg(long, value_name = "UNIT[,UNIT...]", value_delimiter = ',', allow_hyphen_values = true)]
    pub unit: Vec<String>,
    /// Only owners in these units or slices of a user's own service manager (systemctl --user)
    #[arg(
        long,
        value_name = "UNIT[,UNIT...]",
        value_delimiter = ',',
        allow_hyphen_values = true,
        hide_short_help = true
    )]
    pub user_unit: Vec<String>,
    /// Only connections that ended without ever being established
    #[arg(long)]
    pub failed: bool,
    // The help names words with underscores, which a doc comment would have to put into backticks.
    #[expect(missing_docs, reason = "the help is the text")]
    #[arg(
        long,
        value_name = "REASON[,REASON...]",
        help = "Only ends for these reasons: refused, timed_out, reset_by_peer, ... (docs/columns.md)"
    )]
    pub reason: Vec<String>,
    /// Only ends with these errors: ECONNREFUSED, 111; - for no error
    #[arg(long, value_name = "ERROR[,ERROR...]")]
    pub error: Vec<String>,
    /// The user whose processes the run shows; owners of others are unknown. The daemon gives it for a client that is no
    /// member of its group
    #[arg(long, value_name = "UID", hide = true)]
    pub viewer: Option<u32>,
    /// Filter expression in the language of ss, where src is this host; client, server and service are its own words:
    /// 'service = :ssh or client 10.0.0.0/8 and not state time-wait'
    #[arg(value_name = "EXPRESSION")]
    pub expression: Vec<String>,
}

/// The options that only flows of connection tracking have a value of their own for.
#[derive(Clone, Debug, Default, Args)]
pub struct FlowArgs {
    /// The source of replies, as in conntrack: the same as --dst, since a socket knows nothing of NAT. With --forwarded the
    /// two differ
    #[arg(short, long, value_name = "ADDR[,ADDR...]", hide_short_help = true)]
    pub reply_src: Vec<String>,
    /// The destination of replies, as in conntrack: the same as --src
    #[arg(short = 'q', long, value_name = "ADDR[,ADDR...]", hide_short_help = true)]
    pub reply_dst: Vec<String>,
    /// The source port of replies, as in conntrack: the same as --dport
    #[arg(long, value_name = "PORT[,PORT...]", allow_negative_numbers = true, hide_short_help = true)]
    pub reply_port_src: Vec<String>,
    /// The destination port of replies, as in conntrack: the same as --sport
    #[arg(long, value_name = "PORT[,PORT...]", allow_negative_numbers = true, hide_short_help = true)]
    pub reply_port_dst: Vec<String>,
    /// Only flows with this mark, with --forwarded: 7, or a mark and a mask like 0x1/0xff
    #[arg(short, long, value_name = "MARK[/MASK]", hide_short_help = true)]
    pub mark: Vec<String>,
    /// Only flows in this zone of connection tracking, with --forwarded
    #[arg(short = 'w', long, value_name = "ZONE[,ZONE...]", hide_short_help = true)]
    pub zone: Vec<String>,
    /// Only flows whose source is translated, with --forwarded; to this address, if one is given. -n ADDR is the same
    #[arg(long, value_name = "ADDR", num_args = 0..=1, default_missing_value = "any", hide_short_help = true)]
    pub src_nat: Option<String>,
    /// Only flows whose destination is translated, with --forwarded; to this address, if one is given
    #[arg(
        short = 'g',
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = "any",
        hide_short_help = true
    )]
    pub dst_nat: Option<String>,
    /// Only flows whose source or destination is translated, with --forwarded; to this address, if one is given
    #[arg(
        short = 'j',
        long,
        value_name = "ADDR",
        num_args = 0..=1,
        default_missing_value = "any",
        hide_short_help = true
    )]
    pub any_nat: Option<String>,
}
