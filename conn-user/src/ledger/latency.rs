//! Histograms of handshakes and lifetimes per direction and service port, as people read them.

use std::collections::BTreeMap;

use conn_common::histogram::{self, Durations, Histogram};
use conn_common::ledger::{self, SlotId};
use conn_common::name;
use serde::{Serialize, Serializer};
use serde_json::{Value as Json, json};

use crate::event::direction;
use crate::host::services::Services;
use crate::kernel::map::MapError;
use crate::kernel::map_batch::Entries;
use crate::kernel::probe::Probe;
use crate::render::human;
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};
use crate::render::style::Terminal;

/// Reads the histograms.
#[derive(Debug)]
pub(crate) struct LifetimeReader {
    ports: Entries<Durations>,
    rest: Entries<Durations>,
}

impl LifetimeReader {
    /// Opens the map.
    ///
    /// # Errors
    /// The map cannot be opened.
    pub(crate) fn new(probe: &Probe) -> Result<Self, MapError> {
        Ok(Self { ports: probe.map(name::SPANS)?, rest: probe.map(name::SPANS_REST)? })
    }

    /// One reading, by direction and service port.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn read(&self) -> Result<Lifetimes, MapError> {
        let mut all: BTreeMap<(u8, Option<u16>), Durations> = BTreeMap::new();
        let mut add = |direction, port, durations: &Durations| {
            let sum = all.entry((direction, port)).or_insert(Durations::ZERO);
            sum.handshake.add(&durations.handshake);
            sum.lifetime.add(&durations.lifetime);
        };
        self.ports.each(|key, durations| {
            let SlotId { direction, port, .. } = SlotId::from_bits(key);
            add(direction, Some(port), durations);
        })?;
        self.rest.each(|at, durations| {
            if *durations != Durations::ZERO {
                add(ledger::rest_direction(at), None, durations);
            }
        })?;
        Ok(Lifetimes(all))
    }
}

/// Histograms by direction ([`conn_common::connection::IN`] or `OUT`) and service port. Ports beyond the room of the kernel's
/// map have one histogram together, without a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifetimes(pub BTreeMap<(u8, Option<u16>), Durations>);

/// The ports that share a histogram, in a table.
const OTHER_PORTS: &str = "others";

/// The quantiles that are shown, per mille, and their names. The last is the longest.
const QUANTILES: [(u64, &str); 4] = [(500, "p50"), (900, "p90"), (990, "p99"), (1_000, "max")];

impl Lifetimes {
    /// The histograms with names of their own, the most used port first.
    fn rows(&self) -> impl Iterator<Item = (u8, Option<u16>, &'static str, &Histogram)> {
        let mut ports: Vec<_> = self.0.iter().collect();
        ports.sort_by_key(|&(&key, durations)| (std::cmp::Reverse(durations.handshake.count()), key));
        ports.into_iter().flat_map(|(&(direction, port), durations)| {
            [("handshake", &durations.handshake), ("lifetime", &durations.lifetime)]
                .map(|(span, histogram)| (direction, port, span, histogram))
        })
    }

    /// A table with a small plot: one mark per octave, from the shortest to the longest duration. It fits into the
    /// terminal.
    pub(crate) fn table(&self, services: &Services, terminal: Terminal) -> NumberTable {
        let names = ["port", "direction", "span", "count", "p50", "p90", "p99", "max", "from", "plot", "to"];
        let mut table = NumberTable::new(&names.map(|name| NumberColumn { name, in_text: true }));
        for (direction, port, span, histogram) in self.rows() {
            let time = |ns: Option<u64>| {
                ns.map_or(NumberValue::Unknown, |ns| NumberValue::Text(human::duration_text(ns)))
            };
            let mut row = vec![
                port.map_or(NumberValue::Text(OTHER_PORTS.into()), |port| {
                    NumberValue::port(port, services, TableFormat::Table)
                }),
                NumberValue::Text(direction::name(direction).unwrap_or("-").into()),
                NumberValue::Text(span.into()),
                histogram.count().into(),
            ];
            row.extend(QUANTILES.map(|(per_mille, _)| time(histogram.quantile(per_mille))));
            let plot = Plot::of(histogram, if terminal.utf8 { &BLOCKS } else { &DIGITS });
            row.extend([time(plot.from), NumberValue::Text(plot.marks), time(plot.to)]);
            table.rows.push(row);
        }
        table.fitted(&["plot", "from", "to", "p90", "p99"], terminal.width)
    }

    /// All histograms as JSON, with the buckets that are not empty: durations above `from_ns`, up to and including `to_ns`.
    pub(crate) fn json(&self) -> Json {
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
                            "from_ns": histogram::lower_ns(at),
                            "to_ns": histogram::upper_ns(at),
                            "count": histogram.counts[at],
                        })
                    })
                    .collect();
                one
            })
            .collect()
    }
}

impl Serialize for Lifetimes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.json().serialize(serializer)
    }
}

/// The buckets that are not empty.
fn filled(histogram: &Histogram) -> impl Iterator<Item = usize> {
    histogram.counts.iter().enumerate().filter(|&(_, &count)| count > 0).map(|(at, _)| at)
}

/// Marks for how many durations each octave has, and the bounds of the first and the last octave.
struct Plot {
    from: Option<u64>,
    marks: String,
    to: Option<u64>,
}

/// Marks for the eighths of a line's height.
const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same where the terminal shows ASCII only.
const DIGITS: [char; 8] = ['1', '2', '3', '4', '5', '6', '7', '8'];

impl Plot {
    fn of(histogram: &Histogram, marks_of_eighths: &[char; 8]) -> Self {
        // The zero bucket stands alone, then there are four buckets to an octave.
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
            marks_of_eighths[usize::try_from(eighths - 1).unwrap_or(7).min(7)]
        };
        let marks =
            (first..=last).map(|octave| octaves.get(&octave).map_or(' ', |&count| mark(count))).collect();
        let from = if first == 0 { 0 } else { histogram::upper_ns((first - 1) * 4) };
        Self { from: Some(from), marks, to: Some(histogram::upper_ns(last * 4)) }
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::{IN, OUT};

    use super::*;

    fn lifetimes() -> Lifetimes {
        let mut durations = Durations::ZERO;
        for (ns, count) in [(90_000, 3), (200_000, 80), (400_000, 10), (30_000_000, 1)] {
            durations.handshake.counts[histogram::bucket(ns)] += count;
        }
        for (ns, count) in [(1_000_000_000, 50), (3_600_000_000_000, 2), (12, 1)] {
            durations.lifetime.counts[histogram::bucket(ns)] += count;
        }
        Lifetimes(BTreeMap::from([((OUT, Some(443)), durations), ((IN, Some(22)), Durations::ZERO)]))
    }

    #[test]
    fn quantiles_and_a_plot() {
        let table = |terminal| lifetimes().table(&Services::default(), terminal).text(true);
        insta::assert_snapshot!(table(Terminal { utf8: true, ..Terminal::NONE }), @"
        PORT  DIR  SPAN       COUNT  P50    P90    P99     MAX     FROM    PLOT                               TO
         443  out  handshake     94  188us  375us  28.5ms  28.5ms  61.0us  ▁█▁     ▁                          31.3ms
         443  out  lifetime      53  914ms  914ms  1h02m   1h02m   0ns     ▁                   █           ▁  1h08m
          22  in   handshake      0  -      -      -       -       -                                          -
          22  in   lifetime       0  -      -      -       -       -                                          -
        ");
        let ascii = table(Terminal::NONE);
        assert!(ascii.is_ascii() && ascii.contains("181     1"), "{ascii}");
        for width in 50..120 {
            let narrow = table(Terminal { width: Some(width), ..Terminal::NONE });
            assert!(narrow.lines().all(|line| line.len() <= width), "{width}:\n{narrow}");
        }
    }

    #[test]
    fn json_has_the_buckets() {
        insta::assert_snapshot!(lifetimes().json()[0].to_string(), @r#"{"buckets":[{"count":3,"from_ns":86316,"to_ns":102648},{"count":80,"from_ns":172633,"to_ns":205296},{"count":10,"from_ns":345266,"to_ns":410593},{"count":1,"from_ns":26278012,"to_ns":31250000}],"count":94,"direction":"out","max_ns":28549148,"p50_ns":187553,"p90_ns":375106,"p99_ns":28549148,"port":443,"span":"handshake"}"#);
    }
}
