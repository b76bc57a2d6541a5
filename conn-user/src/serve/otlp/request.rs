//! A reading → one request of OTLP.

use std::collections::BTreeMap;

use conn_common::connection::{IN, OUT};
use conn_common::{counter, histogram};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exponential_histogram_data_point::Buckets,
    metric::Data, number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use crate::ledger::exponential::{Exponential, SCALE, ZERO_THRESHOLD};
use crate::ledger::metrics::{NamedPorts, ports};
use crate::serve::otlp::events::counts::Counts;
use crate::serve::otlp::reading::{Durations, PortRow, Stats};
use crate::serve::otlp::resource;
use crate::serve::otlp::table::{self, DIRECTION, Kind, OTHER, PORT, Source};

/// What the export says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    /// When it started, nanoseconds of Unix time.
    pub(crate) start_unix_ns: u64,
    /// Requests that were dropped.
    pub(crate) dropped: u64,
    /// Data points that were rejected.
    pub(crate) rejected: u64,
    /// What the export of events counts, if there is one.
    pub(crate) events: Option<Counts>,
}

/// Makes requests of readings.
#[derive(Debug)]
pub(crate) struct Maker {
    ports: NamedPorts,
    resource: Resource,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word {
    Text(String),
    Number(i64),
}

type Attributes = Vec<(&'static str, Word)>;
type Points = BTreeMap<Attributes, i64>;

impl Maker {
    /// `ports`: ranges that have points in both directions.
    pub(crate) fn new(ports: Vec<(u16, u16)>, resource: Resource) -> Self {
        Self { ports: NamedPorts::new(false).with(ports), resource }
    }

    /// The request of a reading.
    pub(crate) fn request(&mut self, stats: &Stats, own: Own) -> ExportMetricsServiceRequest {
        let start = stats.epoch.time.0;
        // A clock that was set back makes no time before the start.
        let time = stats.time.0.max(start);
        let mut metrics = Vec::new();
        for metric in table::ALL {
            let data = match metric.source {
                Source::Durations(span) => self.histogram(stats, span, start, time),
                source => {
                    let start = match source {
                        Source::Dropped | Source::Rejected | Source::Events(_) => own.start_unix_ns.min(time),
                        _ => start,
                    };
                    numbers(metric.kind, self.points(metric, stats, own), start, time)
                }
            };
            let Some(data) = data else { continue };
            metrics.push(Metric {
                name: metric.name.into(),
                description: metric.help.into(),
                unit: metric.unit.into(),
                data: Some(data),
                ..Metric::default()
            });
        }
        let scope = Some(resource::scope());
        let scope_metrics = vec![ScopeMetrics { scope, metrics, ..ScopeMetrics::default() }];
        let resource = Some(self.resource.clone());
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
        }
    }

    /// The points of a metric. Those of ports without points of their own are added up.
    fn points(&mut self, metric: &table::Metric, stats: &Stats, own: Own) -> Points {
        let mut points = Points::new();
        let mut add = |attributes: Attributes, value: i64| {
            let sum = points.entry(attributes).or_default();
            *sum = sum.saturating_add(value);
        };
        let key = metric.attributes.last().copied().unwrap_or_default();
        let rows = stats.ports.iter().filter(|row| !row.is_refused_only());
        let word = |text: &str| Word::Text(text.to_owned());
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        match metric.source {
            Source::Column(column) => {
                for row in rows {
                    if let Some(number) = row.number(column) {
                        add(self.of_row(row), number);
                    }
                }
            }
            Source::Columns(columns) => {
                for row in rows {
                    let known = columns.iter().filter_map(|(name, value)| Some((row.number(name)?, value)));
                    for (number, value) in known {
                        add(with(self.of_row(row), key, word(value)), number);
                    }
                }
            }
            Source::Causes(prefix) => {
                for row in rows {
                    for (cause, number) in row.numbers(prefix).filter(|&(_, number)| number != 0) {
                        add(with(self.of_row(row), key, word(cause)), number);
                    }
                }
            }
            Source::Listeners => {
                for one in &stats.listeners {
                    add(self.of_port("in", Some(one.port)), one.open);
                }
            }
            Source::Failures => {
                for at in counter::FAILURES {
                    let name = counter::NAMES[at as usize];
                    if let Some(&number) = stats.witness.get(name) {
                        add(vec![(key, word(name))], count(number));
                    }
                }
            }
            Source::Refused => {
                if let Some(refused) = stats.attempts.refused_by_us {
                    add(vec![], refused);
                }
            }
            Source::Folded => add(vec![], count(self.ports.folded() as u64)),
            Source::Exact => add(vec![], stats.identity.holds.into()),
            Source::Repairs => add(vec![], count(stats.repaired)),
            Source::Dropped => add(vec![], count(own.dropped)),
            Source::Rejected => add(vec![], count(own.rejected)),
            Source::Events(which) => {
                if let Some(counts) = own.events {
                    add(vec![], count(counts.of(which)));
                }
            }
            Source::Durations(_) => {}
        }
        points
    }

    fn of_row(&mut self, row: &PortRow) -> Attributes {
        self.of_port(&row.direction, Some(row.port))
    }

    /// The attributes of a direction and a port; of no port, those of all others.
    fn of_port(&mut self, direction: &str, port: Option<u16>) -> Attributes {
        let way = if direction == "in" { IN } else { OUT };
        let named = port.filter(|&port| self.ports.label(way, port) != ports::OTHER);
        let port = match named {
            Some(port) => (PORT, Word::Number(port.into())),
            None => (OTHER, Word::Text(ports::OTHER.into())),
        };
        vec![(DIRECTION, Word::Text(direction.into())), port]
    }

    /// The histograms of a span.
    fn histogram(&mut self, stats: &Stats, span: &str, start: u64, time: u64) -> Option<Data> {
        let mut sums: BTreeMap<Attributes, Vec<u64>> = BTreeMap::new();
        for one in stats.lifetimes.iter().flatten().filter(|one| one.span == span) {
            let counts = sums
                .entry(self.of_port(&one.direction, one.port))
                .or_insert_with(|| vec![0; histogram::BUCKETS]);
            add_buckets(counts, one);
        }
        let data_points: Vec<_> = sums
            .into_iter()
            .map(|(attributes, counts)| exponential(attributes, &counts, start, time))
            .collect();
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        (!data_points.is_empty()).then_some(Data::ExponentialHistogram(ExponentialHistogram {
            data_points,
            aggregation_temporality,
        }))
    }
}

fn add_buckets(counts: &mut [u64], durations: &Durations) {
    for bucket in &durations.buckets {
        // An upper boundary belongs to its bucket, also rounded down.
        let count = &mut counts[histogram::bucket(bucket.to_ns)];
        *count = count.saturating_add(bucket.count);
    }
}

/// A point of all buckets between the first and the last one that is not empty. The sum is not known exactly, so it is left out.
fn exponential(
    attributes: Attributes,
    counts: &[u64],
    start: u64,
    time: u64,
) -> ExponentialHistogramDataPoint {
    let Exponential { zero_count, offset, counts: filled } = Exponential::of(counts);
    ExponentialHistogramDataPoint {
        attributes: key_values(attributes),
        start_time_unix_nano: start,
        time_unix_nano: time,
        count: counts.iter().sum(),
        sum: None,
        scale: SCALE,
        zero_count,
        positive: Some(Buckets { offset, bucket_counts: filled.to_vec() }),
        zero_threshold: ZERO_THRESHOLD,
        ..ExponentialHistogramDataPoint::default()
    }
}

/// None without points: such a metric says nothing.
fn numbers(kind: Kind, points: Points, start: u64, time: u64) -> Option<Data> {
    let is_sum = kind != Kind::Gauge;
    let data_points: Vec<_> = points
        .into_iter()
        .map(|(attributes, value)| NumberDataPoint {
            attributes: key_values(attributes),
            start_time_unix_nano: if is_sum { start } else { 0 },
            time_unix_nano: time,
            value: Some(number_data_point::Value::AsInt(value)),
            ..NumberDataPoint::default()
        })
        .collect();
    if data_points.is_empty() {
        return None;
    }
    if !is_sum {
        return Some(Data::Gauge(Gauge { data_points }));
    }
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    Some(Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: kind == Kind::Counter }))
}

fn with(mut attributes: Attributes, key: &'static str, value: Word) -> Attributes {
    attributes.push((key, value));
    attributes
}

fn key_values(attributes: Attributes) -> Vec<KeyValue> {
    attributes.into_iter().map(|(key, value)| key_value(key, value)).collect()
}

fn key_value(key: &str, value: Word) -> KeyValue {
    let value = match value {
        Word::Text(text) => any_value::Value::StringValue(text),
        Word::Number(number) => any_value::Value::IntValue(number),
    };
    resource::attribute(key, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bucket_has_the_boundaries_of_its_index() {
        for at in 1..histogram::BUCKETS - 1 {
            let mut counts = vec![0; histogram::BUCKETS];
            let bucket = crate::serve::otlp::reading::Bucket { to_ns: histogram::upper_ns(at), count: 7 };
            add_buckets(&mut counts, &Durations { buckets: vec![bucket], ..Durations::default() });
            let point = exponential(vec![], &counts, 1, 2);
            let positive = point.positive.unwrap();
            assert_eq!((point.count, point.zero_count, positive.bucket_counts.as_slice()), (7, 0, &[7][..]));
            // An index i of scale 2 is (2^(i/4), 2^((i+1)/4)] seconds.
            let upper = 2_f64.powf(f64::from(positive.offset + 1) / 4.0) * 1e9;
            assert!((upper - histogram::upper_ns(at) as f64).abs() <= 1.0 + upper * 1e-12, "{at}: {upper}");
        }
        let mut counts = vec![0; histogram::BUCKETS];
        counts[0] = 3;
        let point = exponential(vec![], &counts, 1, 2);
        assert_eq!((point.count, point.zero_count, point.positive.unwrap().bucket_counts.len()), (3, 3, 0));
        assert!((histogram::upper_ns(0) as f64 - ZERO_THRESHOLD * 1e9).abs() < 1.0);
    }

    #[test]
    fn ports_without_points_of_their_own_are_added_up() {
        let text = r#"{"time":"2024-01-01T00:00:10Z","epoch":{"time":"2024-01-01T00:00:00Z"},"listeners":[],
            "attempts":{"refused_by_us":null},"identity":{"holds":true},"repaired":0,"witness":{},"lifetimes":null,
            "ports":[{"port":1,"direction":"out","opened":2,"listeners":null,"refused_by_us":null},
            {"port":2,"direction":"out","opened":3,"listeners":null},{"port":443,"direction":"out","opened":4},
            {"port":9,"direction":"in","opened":0,"refused_by_us":5,"listeners":null}]}"#;
        let stats: Stats = serde_json::from_str(text).unwrap();
        let mut maker = Maker::new(vec![(443, 443)], Resource::default());
        let points = maker.points(&table::ALL[0], &stats, Own::default());
        let key = |port| vec![(DIRECTION, Word::Text("out".into())), port];
        let other = key((OTHER, Word::Text("other".into())));
        assert_eq!(points, BTreeMap::from([(other, 5), (key((PORT, Word::Number(443))), 4)]));
        let request = maker.request(&stats, Own::default());
        let Some(Data::Sum(sum)) = &request.resource_metrics[0].scope_metrics[0].metrics[0].data else {
            panic!()
        };
        let point = &sum.data_points[0];
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        assert_eq!(point.start_time_unix_nano, 1_704_067_200_000_000_000);
        assert_eq!(point.time_unix_nano - point.start_time_unix_nano, 10_000_000_000);
    }
}
