//! How events are printed: format, columns, colours, and what a command shows.

use clap::ValueEnum;

use crate::column::Columns;
use crate::host::services::Services;

/// How events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As `conntrack -E` writes them.
    Conntrack(ConntrackFields),
    /// As `conntrack -o save` writes them: the options that make such an entry.
    Save,
    /// As `conntrack -o xml` writes them.
    Xml(ConntrackFields),
    /// Columns for people.
    Table,
    /// Comma-separated values.
    Csv,
    /// One JSON object a line, with our names.
    Json,
    /// Words `key=value`.
    Logfmt,
    /// JSON with the names of OpenTelemetry.
    Otel,
    /// JSON with the names of the Elastic Common Schema.
    Ecs,
}

/// What conntrack's `-o` adds to its line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct ConntrackFields {
    /// The unix time of the event, before the line.
    pub timestamp: bool,
    /// The address family.
    pub extended: bool,
    /// The connection's id.
    pub id: bool,
    /// When the connection began and ended.
    pub ktimestamp: bool,
}

/// What a command shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Events as they happen.
    Events,
    /// Connections that ended.
    Lives,
    /// Connections that are open.
    Open,
    /// Sockets that wait for connections.
    Listeners,
}

impl View {
    /// True if it is a table unless somebody wants something else: conntrack has no line for it.
    pub const fn is_tabular(self) -> bool {
        matches!(self, Self::Lives | Self::Listeners)
    }

    /// The columns of its table.
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
            // As ss has it: the queues are how many wait to be accepted, and how many may.
            Self::Listeners => &["state", "receive_queue", "send_queue", "local", "netns", "pid", "comm"],
        }
    }

    /// Those of them that a narrow terminal goes without, the first one first.
    pub(super) const fn droppable(self) -> &'static [&'static str] {
        match self {
            Self::Events => &["direction", "pid", "time", "state", "sport"],
            Self::Lives => &[
                "old_state",
                "owner",
                "handshake",
                "direction",
                "bytes_received",
                "bytes_sent",
                "pid",
                "time",
                "sport",
            ],
            Self::Open => &["direction", "pid", "receive_queue", "send_queue"],
            Self::Listeners => &["netns", "pid"],
        }
    }
}

/// When there are colours.
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
    /// Columns that were chosen.
    pub columns: Option<Columns>,
    /// A line with the names of the columns.
    pub header: bool,
    /// When there are colours.
    pub color: Color,
    /// Times for people in UTC.
    pub utc: bool,
    /// Names of addresses.
    pub resolve: bool,
    /// Names of ports, for tables; none if nobody wants any.
    pub services: Services,
}

/// Where standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// How many columns it has; `None` if it is no terminal.
    pub width: Option<usize>,
    /// There shall be colours.
    pub color: bool,
}

impl Terminal {
    /// A file.
    pub const NONE: Self = Self { width: None, color: false };
}
