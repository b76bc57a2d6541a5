//! Metrics in the protobuf form of Prometheus: a `MetricFamily` of `io.prometheus.client` after the other, each with its length
//! before it. Its histograms have classic and native buckets. The other forms have no native ones.

use prost::{Enumeration, Message};

use super::family::{Family, Kind};
use super::samples::{Samples, Value};
use super::{Classic, classic};
use crate::ledger::exponential::{Exponential, SCALE, ZERO_THRESHOLD};

/// All samples of a kind. Messages have the numbers of `metrics.proto`; what conntrace never sends is left out.
#[derive(Clone, PartialEq, Message)]
pub(super) struct MetricFamily {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) help: String,
    #[prost(enumeration = "MetricType", tag = "3")]
    pub(super) kind: i32,
    #[prost(message, repeated, tag = "4")]
    pub(super) metrics: Vec<Metric>,
    #[prost(string, tag = "5")]
    pub(super) unit: String,
}

/// The kind of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub(super) enum MetricType {
    Counter = 0,
    Gauge = 1,
    Histogram = 4,
}

/// A sample.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Metric {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<LabelPair>,
    #[prost(message, optional, tag = "2")]
    pub(super) gauge: Option<Number>,
    #[prost(message, optional, tag = "3")]
    pub(super) counter: Option<Number>,
    #[prost(message, optional, tag = "7")]
    pub(super) histogram: Option<Histogram>,
}

/// A label.
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct LabelPair {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// The value of a gauge or a counter.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Number {
    #[prost(double, tag = "1")]
    pub(super) value: f64,
}

/// Durations by bucket.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Histogram {
    #[prost(uint64, tag = "1")]
    pub(super) sample_count: u64,
    #[prost(double, tag = "2")]
    pub(super) sample_sum: f64,
    #[prost(message, repeated, tag = "3")]
    pub(super) buckets: Vec<Bucket>,
    #[prost(sint32, tag = "5")]
    pub(super) schema: i32,
    #[prost(double, tag = "6")]
    pub(super) zero_threshold: f64,
    #[prost(uint64, tag = "7")]
    pub(super) zero_count: u64,
    #[prost(message, repeated, tag = "12")]
    pub(super) positive_spans: Vec<BucketSpan>,
    #[prost(sint64, repeated, tag = "13")]
    pub(super) positive_deltas: Vec<i64>,
}

/// A classic bucket.
#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Bucket {
    #[prost(uint64, tag = "1")]
    pub(super) cumulative_count: u64,
    #[prost(double, tag = "2")]
    pub(super) upper_bound: f64,
}

/// Native buckets in a row.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(super) struct BucketSpan {
    #[prost(sint32, tag = "1")]
    pub(super) offset: i32,
    #[prost(uint32, tag = "2")]
    pub(super) length: u32,
}

/// The families of a reading.
pub(super) fn encode(samples: &Samples) -> Vec<u8> {
    let mut out = Vec::new();
    for (family, values) in samples.families() {
        let metrics = values.iter().map(|(labels, value)| metric(family, labels, value)).collect();
        let kind = match family.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge | Kind::Info => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        let message = MetricFamily {
            name: family.full_name(),
            help: family.help.into(),
            kind: kind.into(),
            metrics,
            unit: family.unit.as_ref().map_or_else(String::new, |unit| unit.as_str().into()),
        };
        out.extend(message.encode_length_delimited_to_vec());
    }
    out
}

fn metric(family: &Family, labels: &[String], value: &Value) -> Metric {
    let labels = family.labels.iter().zip(labels);
    let labels = labels.map(|(&name, value)| LabelPair { name: name.into(), value: value.clone() }).collect();
    let metric = Metric { labels, ..Metric::default() };
    let number = match value {
        Value::Count(count) => *count as f64,
        Value::Number(number) => *number as f64,
        Value::Seconds(seconds) => *seconds,
        Value::Fact => 1.0,
        Value::Durations(durations) => {
            return Metric { histogram: Some(histogram(&durations.counts)), ..metric };
        }
    };
    let number = Some(Number { value: number });
    if family.kind == Kind::Counter {
        Metric { counter: number, ..metric }
    } else {
        Metric { gauge: number, ..metric }
    }
}

fn histogram(counts: &[u64]) -> Histogram {
    let Classic { sum, buckets } = classic(counts);
    let mut cumulative_count = 0;
    let buckets = buckets.into_iter().map(|(upper_bound, count)| {
        cumulative_count += count;
        Bucket { cumulative_count, upper_bound }
    });
    let (buckets, sample_count) = (buckets.collect(), counts.iter().sum());
    let Exponential { zero_count, offset, counts } = Exponential::of(counts);
    let mut last = 0;
    let deltas = counts.iter().map(|&count| {
        let count = count.cast_signed();
        let delta = count.wrapping_sub(last);
        last = count;
        delta
    });
    // Prometheus numbers a bucket by its upper bound, OTLP by its lower one.
    let span = BucketSpan { offset: offset + 1, length: counts.len() as u32 };
    Histogram {
        sample_count,
        sample_sum: sum,
        buckets,
        schema: SCALE,
        zero_threshold: ZERO_THRESHOLD,
        zero_count,
        positive_deltas: deltas.collect(),
        positive_spans: if counts.is_empty() { Vec::new() } else { vec![span] },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The families of an answer.
    pub(in crate::ledger::metrics) fn decoded(mut bytes: &[u8]) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        while !bytes.is_empty() {
            families.push(MetricFamily::decode_length_delimited(&mut bytes).unwrap());
        }
        families
    }

    /// Native buckets by their numbers.
    pub(in crate::ledger::metrics) fn native(histogram: &Histogram) -> Vec<(i32, u64)> {
        let (mut at, mut count, mut deltas) = (0, 0, histogram.positive_deltas.iter());
        let mut buckets = Vec::new();
        for span in &histogram.positive_spans {
            at += span.offset;
            for _ in 0..span.length {
                count += deltas.next().unwrap();
                buckets.push((at, u64::try_from(count).unwrap()));
                at += 1;
            }
        }
        assert_eq!(deltas.next(), None);
        buckets
    }

    #[test]
    fn numbers_of_the_public_format_are_on_the_wire() {
        let mut counts = [0; conn_common::histogram::BUCKETS];
        // Half a second ends the bucket -4.
        counts[conn_common::histogram::bucket(500_000_000)] = 2;
        let bytes = Histogram { buckets: vec![], ..histogram(&counts) }.encode_to_vec();
        let sum = bytes[3..11].to_vec();
        assert!(f64::from_le_bytes(sum.try_into().unwrap()) > 0.9, "{bytes:?}");
        assert_eq!(bytes[..3], [0x08, 2, 0x11]);
        // Fields 5, 6, 12 and 13: sint32, double, a span of sint32 and uint32, packed sint64.
        let threshold = ZERO_THRESHOLD.to_le_bytes();
        let rest = [&[0x28, 4, 0x31][..], &threshold, &[0x62, 4, 0x08, 7, 0x10, 1, 0x6a, 1, 4]].concat();
        assert_eq!(bytes[11..], rest);
    }
}
