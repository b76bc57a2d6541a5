//! The families of metrics: name, unit, kind, help. docs/metrics.md is made of this list.

use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

/// A family of metrics. The full name is `conntrace_NAME`, then the unit, then `_total` for a counter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// The middle part of the name.
    pub name: &'static str,
    /// The unit of a value; a family without one counts.
    pub unit: Option<Unit>,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// What a value means, in one sentence without a full stop.
    pub help: &'static str,
}

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A sum that never falls while a run lasts.
    Counter,
    /// A number at the time of the reading.
    Gauge,
    /// Durations by bucket.
    Histogram,
    /// Facts in labels, with the value 1.
    Info,
}

impl Kind {
    pub(super) const fn metric_type(self) -> MetricType {
        match self {
            Self::Counter => MetricType::Counter,
            Self::Gauge => MetricType::Gauge,
            Self::Histogram => MetricType::Histogram,
            Self::Info => MetricType::Info,
        }
    }

    /// Its name in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }
}

impl Family {
    /// The name of its samples, those of a histogram without `_bucket`, `_sum` and `_count`.
    pub fn full_name(&self) -> String {
        let unit = self.unit.as_ref().map_or_else(String::new, |unit| format!("_{}", unit.as_str()));
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("conntrace_{}{unit}{end}", self.name)
    }
}

const BY_PORT: &[&str] = &["direction", "port"];

macro_rules! families {
    ($($static:ident: $name:literal $(in $unit:ident)?, $kind:ident, $labels:expr, $help:literal;)*) => {
        $(pub(super) static $static: Family = Family {
            name: $name,
            unit: families!(@unit $($unit)?),
            kind: Kind::$kind,
            labels: $labels,
            help: $help,
        };)*

        /// All families, in the order of the output.
        pub static ALL: &[&Family] = &[$(&$static),*];
    };
    (@unit) => { None };
    (@unit $unit:ident) => { Some(Unit::$unit) };
}

families! {
    BUILD: "build", Info, &["version"], "The version of conntrace";
    START: "start_time" in Seconds, Gauge, &[], "When counting began, Unix time";
    OPENED: "tcp_connections_opened", Counter, BY_PORT, "Connections that were attempted (out) or accepted by a handshake (in)";
    PREEXISTING: "tcp_connections_preexisting", Counter, BY_PORT, "Connections that were open when counting began";
    ESTABLISHED: "tcp_connections_established", Counter, BY_PORT, "Handshakes that were completed";
    FAILED: "tcp_connections_failed", Counter, &["direction", "port", "cause"], "Connections that ended before they were established";
    ENDED: "tcp_connections_ended", Counter, &["direction", "port", "reason"], "Connections that ended after they were established";
    OPEN: "tcp_connections", Gauge, &["direction", "port", "state"], "Connections that are open";
    SENT: "tcp_sent" in Bytes, Counter, BY_PORT, "Payload that connections which ended had sent";
    RECEIVED: "tcp_received" in Bytes, Counter, BY_PORT, "Payload that connections which ended had received";
    RETRANSMITS: "tcp_retransmits", Counter, BY_PORT, "Segments that connections which ended had sent again";
    LISTENERS: "tcp_listeners", Gauge, &["port"], "Sockets that listen";
    ACCEPT_QUEUE: "tcp_accept_queue", Gauge, &["port"], "Connections that wait to be accepted, at the fullest listener; as old as the audit";
    ACCEPT_LIMIT: "tcp_accept_queue_limit", Gauge, &["port"], "How many may wait to be accepted, at the fullest listener";
    HALF_OPEN: "tcp_half_open", Gauge, &["port"], "Requests that wait for the end of their handshake";
    ATTEMPTS: "tcp_attempts", Counter, &["port"], "Requests that began a handshake";
    REFUSED: "tcp_syns_refused", Counter, &[], "SYNs that this host answered with a reset";
    REFUSED_PORTS: "tcp_refused_ports", Gauge, &[], "Ports of this host at which a SYN was refused since counting began";
    HANDSHAKE: "tcp_handshake_duration" in Seconds, Histogram, BY_PORT, "From the attempt to the end of the handshake; the sum is at most 9 % off";
    LIFETIME: "tcp_connection_duration" in Seconds, Histogram, BY_PORT, "From the attempt to the end, of established connections; the sum is at most 9 % off";
    UDP_BEGUN: "udp_flows_begun", Counter, BY_PORT, "Flows whose first packet was seen";
    UDP_PREEXISTING: "udp_flows_preexisting", Counter, BY_PORT, "Flows of sockets that were connected when counting began";
    UDP_ENDED: "udp_flows_ended", Counter, &["direction", "port", "reason"], "Flows that ended";
    UDP_OPEN: "udp_flows", Gauge, BY_PORT, "Flows that are alive";
    UDP_SENT: "udp_sent" in Bytes, Counter, BY_PORT, "Payload that flows which ended had sent";
    UDP_RECEIVED: "udp_received" in Bytes, Counter, BY_PORT, "Payload that flows which ended had received";
    UDP_SENT_PACKETS: "udp_sent_packets", Counter, BY_PORT, "Packets that flows which ended had sent";
    UDP_RECEIVED_PACKETS: "udp_received_packets", Counter, BY_PORT, "Packets that flows which ended had received";
    UDP_DROPPED: "udp_dropped_packets", Counter, &["port"], "Packets that found a receive buffer full";
    UDP_UNTRACKED: "udp_untracked_packets", Counter, &[], "Packets of flows for which the table had no room";
    TRACKED: "conntrack_entries", Gauge, &[], "Entries in the kernel's table of connection tracking, in the daemon's network namespace";
    TRACKED_LIMIT: "conntrack_entries_limit", Gauge, &[], "How many entries the table may have";
    PINNED: "pinned", Gauge, &[], "1 if the counts outlive the daemon: they are pinned, and the pins are whole";
    COMMANDS: "commands", Gauge, &[], "Commands that the daemon runs for clients";
    LINES_LOST: "stream_lines_lost", Counter, &[], "Lines that slow clients of shared streams lost since the daemon started";
    SELF_CPU: "self_cpu" in Seconds, Counter, &[], "Processor time of the counting process since it started";
    SELF_MEMORY: "self_memory" in Bytes, Gauge, &[], "Memory of the counting process";
    FOLDED: "ports_folded", Gauge, &[], "Ports without a series of their own: their counts are in port=\"other\"";
    EXACT: "exact", Gauge, &["protocol"], "1 if the identity holds, the audit found no difference, and no count failed";
    DIFFERENCES: "audit_differences", Gauge, &["protocol"], "Differences between the counts and the kernel, as the last audit found them";
    AUDIT_AGE: "audit_age" in Seconds, Gauge, &[], "How old the last audit of TCP is";
    REPAIRS: "audit_repairs", Counter, &[], "Connections that an audit counted as ended";
    FAILURES: "failures", Counter, &["counter"], "Steps that the kernel programs could not count or remember";
    MISSES: "bpf_misses", Counter, &["program"], "Runs of a kernel program that the kernel skipped";
    RUNS: "bpf_runs", Counter, &["program"], "Runs of a kernel program while the kernel timed it (--self)";
    RUN_TIME: "bpf_run" in Seconds, Counter, &["program"], "Run time of a kernel program while the kernel timed it (--self)";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_rules() {
        let names: Vec<String> = ALL.iter().map(|family| family.full_name()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for (family, name) in ALL.iter().zip(&names) {
            assert!(name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_')), "{name}");
            assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
            assert!(!family.help.ends_with('.') && family.help.len() < 120, "{name}");
        }
    }
}
