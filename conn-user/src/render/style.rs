//! The style of printed events: format, columns, colours, and view.

use clap::ValueEnum;

use crate::column::Columns;
use crate::filter::protocols::Protocols;
use crate::host::services::Services;

/// A format of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The lines of `conntrack -E`.
    Conntrack(ConntrackFields),
    /// The lines of `conntrack -o save`: options that create an entry.
    Save,
    /// The XML of `conntrack -o xml`.
    Xml(ConntrackFields),
    /// Columns for people.
    Table,
    /// Comma-separated values.
    Csv,
    /// One JSON object a line, with conntrace's names.
    Json,
    /// Words `key=value`.
    Logfmt,
    /// JSON with the names of OpenTelemetry.
    Otel,
    /// JSON with the names of the Elastic Common Schema.
    Ecs,
}

/// Optional fields of conntrack's line and XML.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct ConntrackFields {
    /// The unix time of the event, before the line.
    pub timestamp: bool,
    /// The address family.
    pub extended: bool,
    /// The connection's id.
    pub id: bool,
    /// Begin and end of the connection.
    pub ktimestamp: bool,
}

/// The view of a command: which records it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Events as they happen.
    Events,
    /// Connections that ended.
    Lives,
    /// Connections that are open.
    Open,
    /// Listening sockets.
    Listeners,
    /// Sockets of several protocols, or of others than TCP, with their peers.
    Sockets,
    /// Listening sockets, and those of UDP without a peer.
    Unconnected,
}

impl View {
    /// True if the default format is a table, since conntrack has no line for such records.
    pub const fn is_tabular(self) -> bool {
        matches!(self, Self::Lives | Self::Listeners | Self::Unconnected)
    }

    /// The view of the sockets of these protocols that exist now.
    pub(crate) fn of_sockets(protocols: Protocols, listening: bool) -> Self {
        match (protocols == Protocols::TCP, listening) {
            (true, true) => Self::Listeners,
            (true, false) => Self::Open,
            (false, true) => Self::Unconnected,
            (false, false) => Self::Sockets,
        }
    }

    /// The columns of the table.
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Events => &[
                "time",
                "event",
                "state",
                "direction",
                "src",
                "sport",
                "dst",
                "dport",
                "pid",
                "comm",
                "lifetime",
                "reason",
            ],
            Self::Lives => &[
                "time",
                "direction",
                "pid",
                "comm",
                "owner",
                "src",
                "sport",
                "dst",
                "dport",
                "bytes_sent",
                "bytes_received",
                "handshake",
                "lifetime",
                "old_state",
                "reason",
            ],
            Self::Open => {
                &["state", "direction", "receive_queue", "send_queue", "local", "peer", "age", "pid", "comm"]
            }
            // As in ss, the queues are the length and the limit of the accept queue.
            Self::Listeners => &[
                "state",
                "receive_queue",
                "send_queue",
                "half_open",
                "dropped",
                "local",
                "netns",
                "processes",
            ],
            Self::Sockets => {
                &["protocol", "state", "receive_queue", "send_queue", "local", "peer", "pid", "comm"]
            }
            Self::Unconnected => &[
                "protocol",
                "state",
                "receive_queue",
                "send_queue",
                "dropped",
                "local",
                "netns",
                "processes",
            ],
        }
    }

    /// The columns that a narrow terminal leaves out, in this order. The others stay at any width: 40 columns are enough
    /// for them, and 60 with the longest IPv6 addresses.
    pub(super) const fn droppable(self) -> &'static [&'static str] {
        match self {
            Self::Events => {
                &["pid", "sport", "state", "time", "direction", "lifetime", "src", "reason", "comm"]
            }
            Self::Lives => &[
                "old_state",
                "owner",
                "pid",
                "sport",
                "handshake",
                "time",
                "direction",
                "bytes_received",
                "bytes_sent",
                "src",
                "reason",
                "comm",
            ],
            Self::Open => {
                &["direction", "receive_queue", "send_queue", "pid", "age", "local", "state", "comm"]
            }
            Self::Listeners => {
                &["netns", "state", "half_open", "send_queue", "dropped", "receive_queue", "processes"]
            }
            Self::Unconnected => {
                &["netns", "state", "send_queue", "dropped", "receive_queue", "protocol", "processes"]
            }
            Self::Sockets => &["receive_queue", "send_queue", "pid", "protocol", "local", "state", "comm"],
        }
    }
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The options, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Chosen columns; `None` for the defaults.
    pub columns: Option<Columns>,
    /// Tables and CSV begin with the names of the columns.
    pub header: bool,
    /// When to use colours.
    pub color: Color,
    /// Times for people in UTC.
    pub utc: bool,
    /// Look names of addresses up.
    pub resolve: bool,
    /// Names of ports in tables; empty for numbers.
    pub services: Services,
}

/// The properties of standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Terminal {
    /// Width in characters; `None` if standard output is not a terminal, or a terminal without a size.
    pub width: Option<usize>,
    /// Standard output is a terminal.
    pub is_terminal: bool,
    /// Colours are wanted and possible.
    pub color: bool,
    /// The locale's encoding is UTF-8. Without it, text that conntrace makes is ASCII.
    pub utf8: bool,
}

impl Terminal {
    /// Not a terminal.
    pub const NONE: Self = Self { width: None, is_terminal: false, color: false, utf8: false };

    /// The mark of a cut name: one character wide.
    pub(crate) const fn ellipsis(self) -> &'static str {
        if self.utf8 { "\u{2026}" } else { "~" }
    }
}
