//! A reading of the daemon's counts, as any client gets it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::serve::answers;

/// The part of `/v1/stats` that is exported.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Stats {
    /// When the reading was made.
    pub(crate) time: Moment,
    /// When counting began.
    pub(crate) epoch: Epoch,
    /// Counts by direction and service port.
    pub(crate) ports: Vec<PortRow>,
    /// Listening sockets by port.
    pub(crate) listeners: Vec<Listeners>,
    /// SYNs that this host refused.
    pub(crate) attempts: Refused,
    /// Whether the counts are exact.
    pub(crate) identity: Identity,
    /// Connections whose end no program saw.
    pub(crate) repaired: u64,
    /// What the kernel programs count about themselves.
    pub(crate) witness: BTreeMap<String, u64>,
    /// Histograms of durations.
    pub(crate) lifetimes: Option<Vec<Durations>>,
}

/// Nanoseconds of Unix time.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Moment(pub(crate) u64);

impl TryFrom<String> for Moment {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let time: Timestamp = text.parse().map_err(|error: jiff::Error| error.to_string())?;
        u64::try_from(time.as_nanosecond()).map(Self).map_err(|_| format!("{text} is before 1970"))
    }
}

/// When counting began.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Epoch {
    /// Wall-clock time.
    pub(crate) time: Moment,
}

/// The counts of a direction and service port, by column.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PortRow {
    /// The service port.
    pub(crate) port: u16,
    /// `in` or `out`.
    pub(crate) direction: String,
    /// The columns. One that is unknown is null.
    #[serde(flatten)]
    columns: BTreeMap<String, Value>,
}

/// The listening sockets of a port.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Listeners {
    /// The port.
    pub(crate) port: u16,
    /// Sockets that listen now.
    pub(crate) open: i64,
}

/// SYNs that this host refused.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Refused {
    /// None if the kernel does not show them.
    pub(crate) refused_by_us: Option<i64>,
}

/// Whether the counts are exact.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Identity {
    /// They are.
    pub(crate) holds: bool,
}

/// A histogram of durations.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Durations {
    /// The service port; none for all ports that found no room.
    pub(crate) port: Option<u16>,
    /// `in` or `out`.
    pub(crate) direction: String,
    /// `handshake` or `lifetime`.
    pub(crate) span: String,
    /// The buckets that are not empty.
    pub(crate) buckets: Vec<Bucket>,
}

/// A bucket of a histogram.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct Bucket {
    /// Its upper boundary, included, rounded down.
    pub(crate) to_ns: u64,
    /// How many durations are in it.
    pub(crate) count: u64,
}

impl PortRow {
    /// The number of a column, if it is known.
    pub(crate) fn number(&self, column: &str) -> Option<i64> {
        self.columns.get(column)?.as_i64()
    }

    /// The columns that begin with a prefix, by the rest of their names.
    pub(crate) fn numbers(&self, prefix: &str) -> impl Iterator<Item = (&str, i64)> {
        let columns = self.columns.iter();
        columns.filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value.as_i64()?)))
    }

    /// True if nothing else than refused SYNs is counted: a scan of ports must not take the series of services.
    pub(crate) fn is_refused_only(&self) -> bool {
        let mut others = self.columns.iter().filter(|(name, _)| *name != "refused_by_us");
        self.columns.get("listeners").is_none_or(Value::is_null)
            && others.all(|(_, value)| value.as_f64().is_none_or(|number| number == 0.0))
    }
}

/// Asks the daemon.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn stats(socket: &Path, lifetimes: bool) -> io::Result<Stats> {
    let more = if lifetimes { "&lifetimes" } else { "" };
    answers::json(socket, &format!("/v1/stats?output=json{more}")).await
}
