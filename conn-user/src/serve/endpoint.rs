//! The answers that clients may ask for, and the options that each of them takes.

use crate::serve::query::VIEWER;

/// One path of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Endpoint {
    /// How many connections are open.
    Count,
    /// Counts per service port since the epoch.
    Stats,
    /// The connections that are open.
    List,
    /// Events as they happen.
    Events,
    /// Ends as they happen, with lifetimes.
    Lifetimes,
    /// The state of the daemon.
    Health,
    /// The counts as metrics.
    Metrics,
}

/// An option that clients may not use, and why.
pub(crate) type Refused = (&'static str, &'static str);

/// The filters of sockets, and the options of how to print, by their long names.
const SOCKETS: &[&str] = &[
    "protocol",
    "src",
    "dst",
    "reply-src",
    "reply-dst",
    "dport",
    "sport",
    "reply-port-src",
    "reply-port-dst",
    "state",
    "direction",
    "forwarded",
    "mark",
    "zone",
    "src-nat",
    "dst-nat",
    "any-nat",
    "family",
    "pid",
    "comm",
    "uid",
    "netns",
    "cgroup",
    "container",
    "unit",
    "user-unit",
    "failed",
    "reason",
    "error",
    "numeric",
];
/// The filters of flows that `stats` has beside.
const FLOWS: &[&str] = &[
    "src",
    "dst",
    "sport",
    "reply-src",
    "reply-dst",
    "reply-port-src",
    "reply-port-dst",
    "mark",
    "zone",
    "src-nat",
    "dst-nat",
    "any-nat",
    "family",
    "netns",
];
const OUTPUT: &[&str] = &["output", "columns", "no-header", "color", "utc", "resolve"];
const STREAM: &[&str] = &["count", "timeout", "strict"];

const BUFFER: &str = "memory of the kernel belongs to the daemon: use conntrace --local for another size";
const HOOKS: &str = "hooks are chosen to compare them: use conntrace --local";
const PLACE: &str = "it chooses between the daemon and this process, which is the daemon";
/// Options of every command that mean nothing to a client.
const GENERAL: &[Refused] =
    &[("verbose", "the log belongs to the daemon"), ("local", PLACE), ("daemon", PLACE)];
const STREAM_REFUSED: &[Refused] =
    &[("buffer-size", BUFFER), ("max-flows", BUFFER), ("witnesses", HOOKS), ("accept-hook", HOOKS)];

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Count, Self::Stats, Self::List, Self::Events, Self::Lifetimes, Self::Health, Self::Metrics];
    /// Those that answer on an address: they name no process and no remote address.
    pub const ON_ADDRESS: [Self; 2] = [Self::Metrics, Self::Health];

    /// The path, with the version of the interface; scrapers expect `/metrics`.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Count => "/v1/count",
            Self::Stats => "/v1/stats",
            Self::List => "/v1/list",
            Self::Events => "/v1/events",
            Self::Lifetimes => "/v1/lifetimes",
            Self::Health => "/v1/health",
            Self::Metrics => "/metrics",
        }
    }

    /// The endpoint of a path.
    pub fn of(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.path() == path)
    }

    /// The command whose options are the parameters; `health` and `metrics` have none.
    pub const fn command(self) -> Option<&'static str> {
        match self {
            Self::Count => Some("count"),
            Self::Stats => Some("stats"),
            Self::List => Some("list"),
            Self::Events => Some("events"),
            Self::Lifetimes => Some("life"),
            Self::Health | Self::Metrics => None,
        }
    }

    /// The endpoint that answers in place of a command.
    pub fn for_command(command: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|endpoint| endpoint.command() == Some(command))
    }

    /// What the answer is.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Count => "How many connections are open now",
            Self::Stats => "Opened, failed and closed connections per service port, since the epoch",
            Self::List => "The connections that are open now, and their processes",
            Self::Events => "Events as they happen, until the client leaves",
            Self::Lifetimes => {
                "Each connection when it ends: lifetime, process and reason, until the client leaves"
            }
            Self::Health => "Version, epoch and clients of the daemon",
            Self::Metrics => {
                "All counts as metrics, in OpenMetrics, the older text or protobuf, as Accept chooses"
            }
        }
    }

    /// True if the answer has no end of its own.
    pub const fn is_stream(self) -> bool {
        matches!(self, Self::Events | Self::Lifetimes)
    }

    /// True if the daemon itself answers, and equal requests that wait at the same time get one answer.
    pub const fn is_shared(self) -> bool {
        matches!(self, Self::Count | Self::Stats | Self::Health | Self::Metrics)
    }

    /// The long options that are parameters.
    pub(crate) fn parameters(self) -> Vec<&'static str> {
        let own: &[&[&str]] = match self {
            Self::Count => &[&["by", "top", "exit-code", "output"], SOCKETS],
            Self::List => &[&["listening", "dump", "min-age", "exit-code", "sort"], OUTPUT, SOCKETS],
            Self::Events => &[&["event-mask", "summary"], STREAM, OUTPUT, SOCKETS],
            Self::Lifetimes => &[&["min", "max", "top", "sort"], STREAM, OUTPUT, SOCKETS],
            Self::Stats => &[
                &[
                    "since",
                    "rates",
                    "plot",
                    "interval",
                    "timeout",
                    "lifetimes",
                    "sources",
                    "sources-by",
                    "sources-sort",
                    "forwarded",
                    "strict",
                    "total",
                    "all",
                    "proof",
                    "output",
                    "no-header",
                    "numeric",
                    "protocol",
                    "dport",
                    "direction",
                ],
                FLOWS,
            ],
            Self::Health | Self::Metrics => &[],
        };
        own.concat()
    }

    /// The long options that clients may not use.
    pub(crate) fn refused(self) -> Vec<Refused> {
        let of_owners: &[Refused] = if matches!(self, Self::Stats | Self::Health | Self::Metrics) {
            &[]
        } else {
            &[(VIEWER, "the daemon looks which user asks")]
        };
        let own: &[Refused] = match self {
            Self::Events | Self::Lifetimes => STREAM_REFUSED,
            Self::Stats => &[
                ("textfile", "the daemon writes no file for a client: redirect the answer"),
                ("self", "the cost of the daemon is in its unit: systemctl status conntrace"),
                ("max-flows", BUFFER),
                ("witnesses", HOOKS),
                ("accept-hook", HOOKS),
            ],
            _ => &[],
        };
        [own, of_owners, GENERAL].concat()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn every_option_is_a_parameter_or_refused() {
        let mut cli = Cli::command();
        cli.build();
        for endpoint in Endpoint::ALL {
            let Some(name) = endpoint.command() else { continue };
            let command = cli.find_subcommand(name).unwrap();
            let options: BTreeSet<&str> = command
                .get_arguments()
                .filter_map(|arg| arg.get_long())
                .filter(|long| *long != "help")
                .collect();
            let parameters = endpoint.parameters();
            let refused: Vec<&str> = endpoint.refused().into_iter().map(|(name, _)| name).collect();
            let listed: BTreeSet<&str> = parameters.iter().chain(&refused).copied().collect();
            assert_eq!(listed, options, "{name}");
            assert_eq!(parameters.len() + refused.len(), listed.len(), "{name}: an option is listed twice");
        }
    }

    #[test]
    fn paths_and_commands_lead_to_their_endpoint() {
        for endpoint in Endpoint::ALL {
            assert_eq!(Endpoint::of(endpoint.path()), Some(endpoint));
            assert!(
                endpoint.command().is_none_or(|command| Endpoint::for_command(command) == Some(endpoint))
            );
        }
        assert_eq!((Endpoint::of("/v1/count/"), Endpoint::for_command("doctor")), (None, None));
    }
}
