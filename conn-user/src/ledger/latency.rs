//! Histograms of handshakes and lifetimes per direction and service port, as people read them.

use std::collections::BTreeMap;

use aya::{Ebpf, Pod};
use conn_common::histogram::{self, Histogram, Spans};
use conn_common::{ledger, name};
use serde_json::{Value as Json, json};

use crate::error::Error;
use crate::event::direction;
use crate::host::services::Services;
use crate::kernel::map_batch::Entries;
use crate::render::human;
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};

/// Spans, for the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSpans(Spans);

// SAFETY: integers only.
unsafe impl Pod for PodSpans {}

/// Reads the histograms.
pub struct LifetimeReader(Entries<PodSpans>);

impl LifetimeReader {
    /// Takes the map, once.
    ///
    /// # Errors
    /// It was taken before.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        Entries::take(ebpf, name::SPANS).map(Self)
    }

    /// One reading, by direction and service port.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn read(&self) -> Result<Lifetimes, Error> {
        let mut all: BTreeMap<(u8, u16), Spans> = BTreeMap::new();
        let read = self.0.each(|key, PodSpans(spans)| {
            let sum = all.entry(ledger::split(key)).or_insert(Spans::ZERO);
            sum.handshake.add(&spans.handshake);
            sum.lifetime.add(&spans.lifetime);
        });
        read.map_err(|error| Error::Internal(format!("reading the histograms: {error}")))?;
        Ok(Lifetimes(all))
    }
}

/// Histograms by direction ([`conn_common::connection::IN`] or `OUT`) and service port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifetimes(pub BTreeMap<(u8, u16), Spans>);

/// The quantiles that are shown, per mille, and their names. The last is the longest.
const QUANTILES: [(u64, &str); 4] = [(500, "p50"), (900, "p90"), (990, "p99"), (1_000, "max")];

impl Lifetimes {
    /// The histograms with names of their own, the most used port first.
    fn rows(&self) -> impl Iterator<Item = (u8, u16, &'static str, &Histogram)> {
        let mut ports: Vec<_> = self.0.iter().collect();
        ports.sort_by_key(|&(&key, spans)| (std::cmp::Reverse(spans.handshake.count()), key));
        ports.into_iter().flat_map(|(&(direction, port), spans)| {
            [("handshake", &spans.handshake), ("lifetime", &spans.lifetime)]
                .map(|(span, histogram)| (direction, port, span, histogram))
        })
    }

    /// A table with a small plot: one mark per octave, from the shortest to the longest span.
    pub fn table(&self, services: &Services) -> NumberTable {
        let names = ["port", "direction", "span", "count", "p50", "p90", "p99", "max", "from", "plot", "to"];
        let mut table = NumberTable::new(&names.map(|name| NumberColumn { name, in_text: true }));
        for (direction, port, span, histogram) in self.rows() {
            let time = |ns: Option<u64>| {
                ns.map_or(NumberValue::Unknown, |ns| NumberValue::Text(human::duration_text(ns)))
            };
            let mut row = vec![
                NumberValue::port(port, services, TableFormat::Table),
                NumberValue::Text(direction::name(direction).unwrap_or("-").into()),
                NumberValue::Text(span.into()),
                histogram.count().into(),
            ];
            row.extend(QUANTILES.map(|(per_mille, _)| time(histogram.quantile(per_mille))));
            let plot = Plot::of(histogram);
            row.extend([time(plot.from), NumberValue::Text(plot.marks), time(plot.to)]);
            table.rows.push(row);
        }
        table
    }

    /// All of it, with the buckets that are not empty.
    pub fn json(&self) -> Json {
        self.rows()
            .map(|(direction, port, span, histogram)| {
                let mut one = json!({
                    "port": port,
                    "direction": direction::name(direction),
                    "span": span,
                    "count": histogram.count(),
                });
                for (per_mille, name) in QUANTILES {
                    one[format!("{name}_ns")] = json!(histogram.quantile(per_mille));
                }
                one["buckets"] = filled(histogram)
                    .map(|at| {
                        json!({
                            "from_ns": histogram::start(at),
                            "to_ns": histogram::start(at + 1),
                            "count": histogram.counts[at],
                        })
                    })
                    .collect();
                one
            })
            .collect()
    }
}

/// The buckets that are not empty.
fn filled(histogram: &Histogram) -> impl Iterator<Item = usize> {
    histogram.counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(|(at, _)| at)
}

/// Marks for how many spans each octave has, and where the first and the last of them begin and end.
struct Plot {
    from: Option<u64>,
    marks: String,
    to: Option<u64>,
}

/// Eighths of a line's height.
const MARKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Plot {
    fn of(histogram: &Histogram) -> Self {
        // Bucket 0 stands alone, then there are four to an octave.
        let octave = |at: usize| at.div_ceil(4);
        let mut octaves: BTreeMap<usize, u64> = BTreeMap::new();
        for at in filled(histogram) {
            *octaves.entry(octave(at)).or_default() += histogram.counts[at];
        }
        let highest = octaves.values().copied().max().unwrap_or(1);
        let (Some(&first), Some(&last)) = (octaves.keys().next(), octaves.keys().next_back()) else {
            return Self { from: None, marks: String::new(), to: None };
        };
        let mark = |count: u64| {
            let eighths = (u128::from(count) * 8).div_ceil(u128::from(highest)).max(1);
            MARKS[usize::try_from(eighths - 1).unwrap_or(7).min(7)]
        };
        let marks =
            (first..=last).map(|octave| octaves.get(&octave).map_or(' ', |&count| mark(count))).collect();
        let start = |octave: usize| histogram::start(if octave == 0 { 0 } else { octave * 4 - 3 });
        Self { from: Some(start(first)), marks, to: Some(start(last + 1)) }
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::{IN, OUT};

    use super::*;

    fn lifetimes() -> Lifetimes {
        let mut spans = Spans::ZERO;
        for (ns, count) in [(90_000, 3), (200_000, 80), (400_000, 10), (30_000_000, 1)] {
            spans.handshake.counts[histogram::bucket(ns)] += count;
        }
        for (ns, count) in [(1_000_000_000, 50), (3_600_000_000_000, 2), (12, 1)] {
            spans.lifetime.counts[histogram::bucket(ns)] += count;
        }
        Lifetimes(BTreeMap::from([((OUT, 443), spans), ((IN, 22), Spans::ZERO)]))
    }

    #[test]
    fn quantiles_and_a_plot() {
        insta::assert_snapshot!(lifetimes().table(&Services::default()).text(), @"
        PORT  DIRECTION  SPAN       COUNT  P50    P90    P99     MAX     FROM    PLOT                               TO
         443  out        handshake     94  213us  426us  31.5ms  31.5ms  65.5us  ▁█▁     ▁                          33.6ms
         443  out        lifetime      53  1.01s  1.01s  59m33s  59m33s  0ns     ▁                   █           ▁  1h13m
          22  in         handshake      0  -      -      -       -       -                                          -
          22  in         lifetime       0  -      -      -       -       -                                          -
        ");
    }

    #[test]
    fn json_has_the_buckets() {
        insta::assert_snapshot!(lifetimes().json()[0].to_string(), @r#"{"buckets":[{"count":3,"from_ns":81920,"to_ns":98304},{"count":80,"from_ns":196608,"to_ns":229376},{"count":10,"from_ns":393216,"to_ns":458752},{"count":1,"from_ns":29360128,"to_ns":33554432}],"count":94,"direction":"out","max_ns":31457280,"p50_ns":212992,"p90_ns":425984,"p99_ns":31457280,"port":443,"span":"handshake"}"#);
    }
}
