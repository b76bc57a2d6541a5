//! The one list of names that are exported, with the semantic conventions beside them. docs/otlp.md is checked against it.

use crate::serve::otlp::events::counts::Count;

/// A metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its unit, in UCUM.
    pub unit: &'static str,
    /// How its values are to be read.
    pub kind: Kind,
    /// The attributes of its points.
    pub attributes: &'static [&'static str],
    /// What the semantic conventions have for it.
    pub conventions: &'static str,
    /// What a value means, in one sentence without a full stop.
    pub help: &'static str,
    /// Where its values come from.
    pub(crate) source: Source,
}

/// How values are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A cumulative sum that never falls.
    Counter,
    /// A cumulative sum that may fall: values of several points add up.
    UpDownCounter,
    /// A value that does not add up.
    Gauge,
    /// A cumulative exponential histogram of scale 2.
    Histogram,
}

impl Kind {
    /// The name of the instrument.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::UpDownCounter => "updowncounter",
            Self::Gauge => "gauge",
            Self::Histogram => "exponential histogram",
        }
    }
}

/// Where values come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A column of ports.
    Column(&'static str),
    /// Columns of ports, each with the value of the last attribute.
    Columns(&'static [(&'static str, &'static str)]),
    /// Columns with this prefix: the rest of the name is the value of the last attribute. Zeros are left out.
    Causes(&'static str),
    /// Listening sockets of a port.
    Listeners,
    /// Histograms of this span.
    Durations(&'static str),
    /// SYNs that this host refused.
    Refused,
    /// Ports without points of their own.
    Folded,
    /// 1 if the counts are exact.
    Exact,
    /// Ends that audits counted.
    Repairs,
    /// Counters of failures.
    Failures,
    /// Requests that never arrived.
    Dropped,
    /// Data points that the collector did not want.
    Rejected,
    /// A count of the export of events.
    Events(Count),
}

/// The attribute with the direction of a connection.
pub(crate) const DIRECTION: &str = "conntrace.direction";
/// The attribute with the service port, an integer.
pub(crate) const PORT: &str = "server.port";
/// Stands in place of [`PORT`] at the sum of all ports without points of their own.
pub(crate) const OTHER: &str = "conntrace.port";

const BY_PORT: &[&str] = &[DIRECTION, PORT];
const NONE: &str = "–";

const STATES: &[(&str, &str)] = &[
    ("open_syn_sent", "syn_sent"),
    ("open_syn_recv", "syn_received"),
    ("open_established", "established"),
    ("open_fin_wait1", "fin_wait_1"),
    ("open_fin_wait2", "fin_wait_2"),
    ("open_close_wait", "close_wait"),
    ("open_last_ack", "last_ack"),
    ("open_closing", "closing"),
];
const BYTES: &[(&str, &str)] = &[("bytes_sent", "transmit"), ("bytes_received", "receive")];

macro_rules! metrics {
    ($($name:literal, $unit:literal, $kind:ident, $attributes:expr, $conventions:expr, $source:expr, $help:literal;)*) => {
        /// All metrics, in the order of a request.
        pub static ALL: &[Metric] = &[$(Metric {
            name: $name,
            unit: $unit,
            kind: Kind::$kind,
            attributes: $attributes,
            conventions: $conventions,
            help: $help,
            source: $source,
        }),*];
    };
}

metrics! {
    "conntrace.tcp.connections.opened", "{connection}", Counter, BY_PORT, NONE, Source::Column("opened"),
        "Connections that were attempted (out) or accepted by a handshake (in)";
    "conntrace.tcp.connections.preexisting", "{connection}", Counter, BY_PORT, NONE, Source::Column("preexisting"),
        "Connections that were open when counting began";
    "conntrace.tcp.connections.established", "{connection}", Counter, BY_PORT, NONE, Source::Column("established"),
        "Handshakes that were completed";
    "conntrace.tcp.connections.failed", "{connection}", Counter, &[DIRECTION, PORT, "error.type"],
        "attribute `error.type`", Source::Causes("failed_"), "Connections that ended before they were established";
    "conntrace.tcp.connections.ended", "{connection}", Counter, &[DIRECTION, PORT, "conntrace.reason"], NONE,
        Source::Causes("ended_"), "Connections that ended after they were established";
    "conntrace.tcp.connection.count", "{connection}", UpDownCounter, &[DIRECTION, PORT, "network.connection.state"],
        "as `system.network.connection.count`, with a direction and a port; attribute `network.connection.state`",
        Source::Columns(STATES), "Connections that are open";
    "conntrace.tcp.io", "By", Counter, &[DIRECTION, PORT, "network.io.direction"],
        "as `system.network.io`, payload only; attribute `network.io.direction`", Source::Columns(BYTES),
        "Payload of connections that ended";
    "conntrace.tcp.retransmits", "{segment}", Counter, BY_PORT, NONE, Source::Column("retransmits"),
        "Segments that connections which ended had sent again";
    "conntrace.tcp.listeners", "{socket}", UpDownCounter, BY_PORT, NONE, Source::Listeners, "Sockets that listen";
    "conntrace.tcp.half_open", "{request}", UpDownCounter, BY_PORT, NONE, Source::Column("half_open"),
        "Requests that wait for the end of their handshake";
    "conntrace.tcp.attempts", "{request}", Counter, BY_PORT, NONE, Source::Column("attempts"),
        "Requests that began a handshake";
    "conntrace.tcp.syns.refused", "{packet}", Counter, &[], NONE, Source::Refused,
        "SYNs that this host answered with a reset";
    "conntrace.tcp.handshake.duration", "s", Histogram, BY_PORT, NONE, Source::Durations("handshake"),
        "From the attempt to the end of the handshake";
    "conntrace.tcp.connection.duration", "s", Histogram, BY_PORT, NONE, Source::Durations("lifetime"),
        "From the attempt to the end, of established connections";
    "conntrace.ports.folded", "{port}", UpDownCounter, &[], NONE, Source::Folded,
        "Ports without points of their own: their counts are in the points with conntrace.port=other";
    "conntrace.exact", "1", Gauge, &[], NONE, Source::Exact,
        "1 if the identity holds, the audit found no difference, and no count failed";
    "conntrace.audit.repairs", "{connection}", Counter, &[], NONE, Source::Repairs,
        "Connections that an audit counted as ended";
    "conntrace.failures", "{step}", Counter, &["conntrace.counter"], NONE, Source::Failures,
        "Steps that the kernel programs could not count or remember";
    "conntrace.otlp.requests.dropped", "{request}", Counter, &[], NONE, Source::Dropped,
        "Requests that never arrived, since the export started";
    "conntrace.otlp.points.rejected", "{data_point}", Counter, &[], NONE, Source::Rejected,
        "Data points that the collector did not want, since the export started";
    "conntrace.otlp.events.read", "{event}", Counter, &[], NONE, Source::Events(Count::Read),
        "Events that the export read, since it started";
    "conntrace.otlp.events.exported", "{event}", Counter, &[], NONE, Source::Events(Count::Exported),
        "Events that the collector took, since the export started";
    "conntrace.otlp.events.dropped", "{event}", Counter, &[], NONE, Source::Events(Count::Dropped),
        "Events that the export read and that never arrived, since it started";
    "conntrace.otlp.events.rejected", "{event}", Counter, &[], NONE, Source::Events(Count::Rejected),
        "Events that the collector did not want, since the export started";
    "conntrace.otlp.events.lost", "{event}", Counter, &[], NONE, Source::Events(Count::Lost),
        "Events that the stream lost before the export read them, since it started";
    "conntrace.otlp.events.gaps", "{gap}", Counter, &[], NONE, Source::Events(Count::Gaps),
        "Times without a stream of events, since the export started";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let name = metric.name;
            assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'.')), "{name}");
            assert!(!metric.help.ends_with('.') && metric.help.len() < 120, "{name}");
            // No name is the namespace of another one.
            assert!(!names.iter().any(|other| other.starts_with(&format!("{name}."))), "{name}");
        }
    }

    #[test]
    fn the_documentation_has_the_table() {
        let page = include_str!("../../../../docs/otlp.md");
        let rows: Vec<_> = ALL
            .iter()
            .map(|Metric { name, unit, kind, attributes, conventions, help, .. }| {
                let attributes: Vec<_> = attributes.iter().map(|name| format!("`{name}`")).collect();
                let attributes = if attributes.is_empty() { NONE.into() } else { attributes.join(", ") };
                format!("| `{name}` | `{unit}` | {} | {attributes} | {conventions} | {help} |", kind.name())
            })
            .collect();
        assert!(page.contains(&rows.join("\n")), "docs/otlp.md needs this table:\n{}", rows.join("\n"));
    }
}
