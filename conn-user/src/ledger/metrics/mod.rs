//! Reports as metrics for Prometheus: one answer of one reading, so that sums agree within it.

pub mod family;
mod own;
pub(crate) mod ports;
mod protobuf;
mod samples;

use std::fmt::Write as _;

use conn_common::cause::Cause;
use conn_common::counter;
use conn_common::flow_counts as flow;
use conn_common::histogram;
use conn_common::ledger::Cells as _;
use conn_common::state;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::registry::Registry;

use crate::ledger::flow_report::FlowReport;
use crate::ledger::report::{ENDED, FAILED, PortCounts, Report, RowKey, direction_name};
use family::Family;
pub(crate) use own::Own;
pub(crate) use ports::NamedPorts;
use samples::{Samples, Value};

/// Buckets of [`histogram`] between two classic buckets: two octaves.
const STEP: usize = 2 << histogram::SCALE;

/// What metrics are made of: the reports that there are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Parts<'a> {
    /// The counts of TCP.
    pub tcp: Option<&'a Report>,
    /// The counts of UDP.
    pub udp: Option<&'a FlowReport>,
    /// The state of the daemon.
    pub own: Option<&'a Own>,
}

/// A form of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text of the format 0.0.4.
    Older,
    /// `OpenMetrics` 1.0.
    Open,
    /// Messages with native histograms.
    Protobuf,
}

/// Makes metrics of reports.
#[derive(Debug)]
pub(crate) struct Exporter {
    ports: NamedPorts,
    /// When counting began, seconds of Unix time.
    start: f64,
}

impl Exporter {
    /// `start_ns`: when counting began, nanoseconds of Unix time.
    pub(crate) fn new(ports: NamedPorts, start_ns: i64) -> Self {
        Self { ports, start: start_ns as f64 / 1e9 }
    }

    /// The text of the format 0.0.4, which every version of Prometheus reads, and `node_exporter`'s textfile collector.
    pub(crate) fn text(&mut self, reports: Parts<'_>) -> String {
        older(&self.open_metrics(reports))
    }

    /// The bytes of a form.
    pub(crate) fn encoded(&mut self, reports: Parts<'_>, format: Format) -> Vec<u8> {
        match format {
            Format::Older => self.text(reports).into_bytes(),
            Format::Open => self.open_metrics(reports).into_bytes(),
            Format::Protobuf => protobuf::encode(&self.samples(reports)),
        }
    }

    /// The text of `OpenMetrics` 1.0.
    fn open_metrics(&mut self, reports: Parts<'_>) -> String {
        let mut registry = Registry::with_prefix("conntrace");
        registry.register_collector(Box::new(Reading(self.samples(reports))));
        let mut text = String::new();
        // A String takes any text.
        let _ = text::encode(&mut text, &registry);
        text
    }

    fn samples(&mut self, reports: Parts<'_>) -> Samples {
        let mut samples = Samples::default();
        samples.add(&family::BUILD, &[env!("CARGO_PKG_VERSION")], Value::Fact);
        samples.add(&family::START, &[], Value::Seconds(self.start));
        if let Some(report) = reports.tcp {
            self.add_tcp(&mut samples, report);
        }
        if let Some(report) = reports.udp {
            self.add_udp(&mut samples, report);
        }
        if let Some(own) = reports.own {
            own.add(&mut samples);
        }
        samples.add(&family::FOLDED, &[], Value::Number(self.ports.folded().cast_signed() as i64));
        samples
    }

    fn add_tcp(&mut self, samples: &mut Samples, report: &Report) {
        // A scan of ports must not take the series of services: a port that only refused counts as no port.
        for row in report.ports.iter().filter(|row| !row.is_refused_only()) {
            if let RowKey::Port(direction, port) = row.key {
                let port = self.ports.label(direction, port);
                add_connections(samples, row, direction_name(direction), &port);
            }
        }
        for listener in &report.listeners {
            let port = self.ports.label(conn_common::connection::IN, listener.port);
            samples.add(&family::LISTENERS, &[&port], Value::Number(listener.open.cast_signed()));
        }
        for (&port, queue) in &report.audit.found.accept_queues {
            let port = self.ports.label(conn_common::connection::IN, port);
            if port != ports::OTHER {
                samples.add(&family::ACCEPT_QUEUE, &[&port], Value::Number(queue.length.into()));
                samples.add(&family::ACCEPT_LIMIT, &[&port], Value::Number(queue.limit.into()));
            }
        }
        for (&(direction, port), durations) in report.lifetimes.iter().flat_map(|all| &all.0) {
            let port = port.map_or_else(|| ports::OTHER.to_owned(), |port| self.ports.label(direction, port));
            let labels = [direction_name(direction), &port];
            samples.add(&family::HANDSHAKE, &labels, Value::Durations(Box::new(durations.handshake)));
            samples.add(&family::LIFETIME, &labels, Value::Durations(Box::new(durations.lifetime)));
        }
        if let Some(refused) = report.tries.refused_by_us {
            samples.add(&family::REFUSED, &[], Value::Count(refused));
        }
        if let Some(ports) = report.tries.refused_ports {
            samples.add(&family::REFUSED_PORTS, &[], Value::Number(ports.cast_signed()));
        }
        samples.add(&family::EXACT, &["tcp"], Value::Number(report.identity.holds.into()));
        if let Some(age) = report.audit.age {
            let differences = report.audit.found.differences.len().cast_signed() as i64;
            samples.add(&family::DIFFERENCES, &["tcp"], Value::Number(differences));
            samples.add(&family::AUDIT_AGE, &[], Value::Seconds(age.as_secs_f64()));
        }
        samples.add(&family::REPAIRS, &[], Value::Count(report.repaired));
        for at in counter::FAILURES {
            let labels = [counter::NAMES[at as usize]];
            samples.add(&family::FAILURES, &labels, Value::Count(report.counters[at as usize]));
        }
        for (program, cost) in &report.programs {
            samples.add(&family::MISSES, &[program], Value::Count(cost.missed));
            if report.self_cost.is_some() {
                samples.add(&family::RUNS, &[program], Value::Count(cost.runs));
                samples.add(&family::RUN_TIME, &[program], Value::Seconds(cost.run_ns as f64 / 1e9));
            }
        }
    }

    fn add_udp(&mut self, samples: &mut Samples, report: &FlowReport) {
        for row in &report.ports {
            let RowKey::Port(direction, port) = row.key else { continue };
            let port = self.ports.label(direction, port);
            let (direction, cells) = (direction_name(direction), &row.counts.cells);
            for (family, cell) in [
                (&family::UDP_BEGUN, flow::BEGUN),
                (&family::UDP_PREEXISTING, flow::PREEXISTING),
                (&family::UDP_SENT, flow::BYTES_SENT),
                (&family::UDP_RECEIVED, flow::BYTES_RECEIVED),
                (&family::UDP_SENT_PACKETS, flow::PACKETS_SENT),
                (&family::UDP_RECEIVED_PACKETS, flow::PACKETS_RECEIVED),
            ] {
                samples.add(family, &[direction, &port], Value::Count(cells[cell]));
            }
            for (reason, cell) in
                [("closed", flow::CLOSED), ("timed_out", flow::TIMED_OUT), ("refused", flow::REFUSED)]
            {
                samples.add(&family::UDP_ENDED, &[direction, &port, reason], Value::Count(cells[cell]));
            }
            samples.add(&family::UDP_OPEN, &[direction, &port], Value::Number(row.counts.open()));
            if row.sees_drops && direction == direction_name(conn_common::connection::IN) {
                samples.add(&family::UDP_DROPPED, &[&port], Value::Count(cells[flow::DROPPED]));
            }
        }
        samples.add(&family::UDP_UNTRACKED, &[], Value::Count(report.packets_untracked));
        samples.add(&family::EXACT, &["udp"], Value::Number(report.identity.holds.into()));
        if let Some(audit) = &report.audit {
            let differences = audit.differences().len().cast_signed() as i64;
            samples.add(&family::DIFFERENCES, &["udp"], Value::Number(differences));
        }
    }
}

/// Adds the counts of one direction and service port.
fn add_connections(samples: &mut Samples, row: &PortCounts, direction: &str, port: &str) {
    let (slot, labels) = (&row.slot, [direction, port]);
    for (family, count) in [
        (&family::OPENED, slot.opened()),
        (&family::PREEXISTING, slot.preexisting()),
        (&family::ESTABLISHED, slot.established()),
        (&family::SENT, slot.bytes_sent()),
        (&family::RECEIVED, slot.bytes_received()),
        (&family::RETRANSMITS, slot.retransmits()),
    ] {
        samples.add(family, &labels, Value::Count(count));
    }
    let mut add_ends = |family, columns: &[(Cause, &str)], count: &dyn Fn(Cause) -> u64| {
        for (cause, column) in columns {
            // Columns are `failed_refused` and `ended_closed_by_us`.
            let cause_name = column.split_once('_').map_or(*column, |(_, name)| name);
            samples.add(family, &[direction, port, cause_name], Value::Count(count(*cause)));
        }
    };
    add_ends(&family::FAILED, &FAILED, &|cause| slot.failed_by(cause));
    add_ends(&family::ENDED, &ENDED, &|cause| slot.closed_by(cause));
    for number in state::OPEN {
        let name = state::name(number).unwrap_or("-").to_lowercase();
        samples.add(&family::OPEN, &[direction, port, &name], Value::Number(slot.open_in(number)));
    }
    if let Some(attempts) = row.attempts {
        if let Some(begun) = attempts.attempts {
            samples.add(&family::ATTEMPTS, &[port], Value::Count(begun));
        }
        if let Some(half_open) = attempts.half_open {
            samples.add(&family::HALF_OPEN, &[port], Value::Number(half_open.cast_signed()));
        }
    }
}

/// Classic buckets.
struct Classic {
    /// In seconds.
    sum: f64,
    /// Upper bounds in seconds, and the durations up to each that are above the one before.
    buckets: Vec<(f64, u64)>,
}

/// Classic buckets, whose bounds are powers of four seconds. The counts are exact, as the bounds are those of finer buckets.
fn classic(counts: &[u64]) -> Classic {
    let mut buckets = Vec::new();
    let mut sum = 0.0;
    let mut count = 0;
    for (at, &one) in counts.iter().enumerate() {
        sum += histogram::estimate_ns(at) as f64 / 1e9 * one as f64;
        count += one;
        if at == counts.len() - 1 {
            buckets.push((f64::INFINITY, count));
        } else if at % STEP == 0 {
            let exponent = ((at >> histogram::SCALE) as u32).cast_signed() - histogram::BELOW.cast_signed();
            buckets.push((2_f64.powi(exponent), count));
            count = 0;
        }
    }
    Classic { sum, buckets }
}

/// The samples of a reading, as the library takes them.
#[derive(Debug)]
struct Reading(Samples);

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        for (family, samples) in self.0.families() {
            let mut metrics = encoder.encode_descriptor(
                family.name,
                family.help,
                family.unit.as_ref(),
                family.kind.metric_type(),
            )?;
            for (labels, value) in samples {
                encode(&mut metrics, family, labels, value)?;
            }
        }
        Ok(())
    }
}

fn encode(
    metrics: &mut MetricEncoder<'_>,
    family: &Family,
    labels: &[String],
    value: &Value,
) -> std::fmt::Result {
    let labels: Vec<(&str, &str)> =
        family.labels.iter().copied().zip(labels.iter().map(String::as_str)).collect();
    if *value == Value::Fact {
        return metrics.encode_info(&labels);
    }
    if labels.is_empty() {
        encode_value(metrics, family, value)
    } else {
        encode_value(&mut metrics.encode_family(&labels)?, family, value)
    }
}

fn encode_value(metric: &mut MetricEncoder<'_>, family: &Family, value: &Value) -> std::fmt::Result {
    match value {
        Value::Count(count) => metric.encode_counter::<NoLabelSet, u64, u64>(count, None),
        Value::Number(number) => metric.encode_gauge(number),
        Value::Seconds(seconds) if family.kind == family::Kind::Counter => {
            metric.encode_counter::<NoLabelSet, f64, f64>(seconds, None)
        }
        Value::Seconds(seconds) => metric.encode_gauge(seconds),
        Value::Durations(durations) => {
            let Classic { sum, buckets } = classic(&durations.counts);
            metric.encode_histogram::<NoLabelSet>(sum, durations.count(), &buckets, None)
        }
        Value::Fact => Ok(()),
    }
}

/// The text of the format 0.0.4: comments name the samples of a counter, which end with `_total`, and there are neither units
/// nor an end mark.
fn older(text: &str) -> String {
    let mut old = String::with_capacity(text.len());
    let mut kinds = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).peekable();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            old.push_str(line);
            old.push('\n');
            continue;
        };
        let (word, rest) = comment.split_once(' ').unwrap_or((comment, ""));
        let (name, said) = rest.split_once(' ').unwrap_or((rest, ""));
        // HELP comes before TYPE, and both before the next family's.
        let kind = kinds.peek().map_or("", |&(_, kind)| kind);
        let (end, said) = match (kind, word) {
            ("counter", _) => ("_total", said),
            ("info", "TYPE") => ("_info", "gauge"),
            ("info", _) => ("_info", said),
            _ => ("", said),
        };
        if matches!(word, "HELP" | "TYPE") {
            // A String takes any text.
            let _ = writeln!(old, "# {word} {name}{end} {said}");
        }
        if word == "TYPE" {
            kinds.next();
        }
    }
    old
}

#[cfg(test)]
mod tests;
