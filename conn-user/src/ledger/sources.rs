//! The remote addresses with the most attempts and connections, as a part of a report.

use conn_common::remote::{CAPACITY, RemoteCounts, RemoteKey};
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::event::sort_key::{SourceGroup, TopSources};
use crate::kernel::attempt_hooks::Sight;
use crate::ledger::remotes::{self, Remotes};
use crate::ledger::report::direction_name;
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue};

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// One address or prefix.
    One(RemoteKey),
    /// So many that have an entry and no row.
    Others(usize),
    /// Events whose address has no entry.
    Unlisted,
    /// All of them.
    Total,
}

/// A row: the counts, and what they were at the last report.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Row {
    who: Who,
    counts: RemoteCounts,
    before: RemoteCounts,
}

/// The sources of a report.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sources {
    group: SourceGroup,
    sight: Sight,
    /// How many addresses have an entry.
    listed: usize,
    is_full: bool,
    /// Those with the largest counts, the largest first.
    largest: Vec<Row>,
    others: Row,
    unlisted: Row,
    total: Row,
    /// Since the last report; none in the first one.
    seconds: Option<f64>,
}

impl Sources {
    /// Ranks a reading. `since` is the last one, and how many seconds old it is.
    pub(super) fn new(
        top: TopSources,
        sight: Sight,
        remotes: &Remotes,
        since: Option<(&Remotes, f64)>,
    ) -> Self {
        let nothing = Remotes::default();
        let before = since.map_or(&nothing, |(before, _)| before);
        let row = |who, counts, before| Row { who, counts, before };
        let largest: Vec<Row> = remotes
            .largest(top.most, top.key)
            .into_iter()
            .map(|(key, counts)| row(Who::One(key), counts, before.get(&key)))
            .collect();
        let (listed, listed_before) = (remotes.listed(), before.listed());
        let shown = remotes::sum(largest.iter().map(|row| &row.counts));
        let shown_before = remotes::sum(largest.iter().map(|row| &row.before));
        Self {
            group: top.group,
            sight,
            listed: remotes.len(),
            is_full: remotes.is_full(),
            others: row(
                Who::Others(remotes.len() - largest.len()),
                remotes::difference(listed, shown),
                remotes::difference(listed_before, shown_before),
            ),
            unlisted: row(
                Who::Unlisted,
                remotes::difference(remotes.total, listed),
                remotes::difference(before.total, listed_before),
            ),
            total: row(Who::Total, remotes.total, before.total),
            largest,
            seconds: since.map(|(_, seconds)| seconds),
        }
    }

    /// All rows. Text has only those that are not zero.
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.largest.iter().chain([&self.others, &self.unlisted, &self.total])
    }

    fn table<'a>(&self, rows: impl IntoIterator<Item = &'a Row>, has_rates: bool) -> NumberTable {
        let column = |name| NumberColumn { name, in_text: true };
        let mut columns = ["address", "direction"].map(column).to_vec();
        columns.extend(COUNTS.map(column));
        if has_rates {
            columns.extend(RATES.map(column));
        }
        let mut table = NumberTable::new(&columns);
        table.rows.extend(rows.into_iter().map(|row| self.values(row, has_rates)));
        table
    }

    fn values(&self, row: &Row, has_rates: bool) -> Vec<NumberValue> {
        let (name, direction) = match row.who {
            Who::One(key) => (remotes::text(&key, self.group), direction_name(key.direction)),
            Who::Others(count) => (format!("{count} others"), "both"),
            Who::Unlisted => ("unlisted".into(), "both"),
            Who::Total => ("total".into(), "both"),
        };
        let mut values = vec![NumberValue::Text(name), NumberValue::Text(direction.into())];
        let (now, before) = (self.numbers(&row.counts), self.numbers(&row.before));
        values.extend(now.map(|count| count.map_or(NumberValue::Unknown, NumberValue::from)));
        if has_rates {
            values.extend(now.into_iter().zip(before).map(|(now, before)| {
                let change = self.seconds.zip(now).zip(before);
                change.map_or(NumberValue::Unknown, |((seconds, now), before)| {
                    NumberValue::Rate(now.saturating_sub(before) as f64 / seconds)
                })
            }));
        }
        values
    }

    /// In the order of [`COUNTS`]. A number that this host does not show is none.
    fn numbers(&self, counts: &RemoteCounts) -> [Option<u64>; COUNTS.len()] {
        let &RemoteCounts { attempts, refused, opened, failed } = counts;
        [
            self.sight.begun.then_some(attempts),
            self.sight.refused.then_some(refused),
            Some(opened),
            Some(failed),
        ]
    }

    /// The table for people, and a line about its exactness.
    /// `failures` is how often the programs failed.
    pub(super) fn text(&self, header: bool, width: Option<usize>, failures: u64) -> String {
        let is_shown = |row: &&Row| match row.who {
            Who::Others(count) => count != 0,
            Who::Unlisted => row.counts != RemoteCounts::ZERO,
            Who::One(_) | Who::Total => true,
        };
        let table = self.table(self.rows().filter(is_shown), self.seconds.is_some());
        format!("{}{}\n", table.fitted(&DROPPABLE, width).text(header), self.verdict(failures))
    }

    /// The rows for programs, with the time of the report if it is one of several.
    pub(super) fn csv(&self, header: bool, time: Option<&str>) -> String {
        let mut table = self.table(self.rows(), time.is_some() || self.seconds.is_some());
        if let Some(time) = time {
            let column = NumberColumn { name: "time", in_text: true };
            table = table.with_first(column, &NumberValue::Text(time.into()));
        }
        table.csv(header)
    }

    /// The exactness of the rows, in words.
    fn verdict(&self, failures: u64) -> String {
        let noun = self.noun();
        let RemoteCounts { attempts, refused, opened, .. } = self.unlisted.counts;
        let error = attempts + refused + opened;
        let room = format!("{} of {CAPACITY} {noun} are counted", self.listed);
        if failures != 0 {
            return format!("sources: NOT EXACT, the kernel programs failed {failures} times; {room}");
        }
        match (self.is_full, error) {
            (_, 0) => format!("sources: exact; {room}"),
            (false, _) => {
                format!("sources: exact but for {error} SYNs and connections without an address; {room}")
            }
            (true, _) => format!(
                "sources: each row is exact; {room}, and there is no room for more: {noun} with more than {error} \
                 SYNs and connections have a row or are among the others"
            ),
        }
    }

    const fn noun(&self) -> &'static str {
        match self.group {
            SourceGroup::Address => "addresses",
            SourceGroup::Prefix => "prefixes",
        }
    }
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let has_rates = self.seconds.is_some();
        let one = |row| self.table([row], has_rates).json()[0].take();
        json!({
            "by": self.group.name(),
            "room": CAPACITY,
            "listed": self.listed,
            "full": self.is_full,
            "rows": self.table(&self.largest, has_rates).json(),
            "others": one(&self.others),
            "unlisted": one(&self.unlisted),
            "total": one(&self.total),
        })
        .serialize(serializer)
    }
}

/// The columns of counts, under the names that ports have.
const COUNTS: [&str; 4] = ["attempts", "refused_by_us", "opened", "failed"];
/// Their rates.
const RATES: [&str; 4] = ["attempts_per_s", "refused_by_us_per_s", "opened_per_s", "failed_per_s"];
/// Columns that a narrow terminal leaves out, the first one first.
const DROPPABLE: [&str; 8] = [
    "failed_per_s",
    "refused_by_us_per_s",
    "opened_per_s",
    "attempts_per_s",
    "direction",
    "failed",
    "opened",
    "refused_by_us",
];

#[cfg(test)]
mod tests {
    use conn_common::connection::{IN, OUT};

    use super::*;
    use crate::event::sort_key::SourceKey;
    use crate::ledger::remotes::tests::v4;

    const ALL: Sight = Sight { begun: true, refused: true, half_open: true, dropped: true };

    const TOP: TopSources = TopSources { most: 2, group: SourceGroup::Address, key: SourceKey::All };

    fn counts(attempts: u64, refused: u64, opened: u64, failed: u64) -> RemoteCounts {
        RemoteCounts { attempts, refused, opened, failed }
    }

    fn remotes(unlisted: u64) -> Remotes {
        let entries = vec![
            (v4([10, 0, 0, 1], IN), counts(100, 0, 90, 0)),
            (v4([10, 0, 0, 2], IN), counts(0, 1_000, 0, 0)),
            (v4([10, 0, 0, 3], OUT), counts(0, 0, 7, 7)),
            (v4([10, 0, 0, 4], IN), counts(1, 0, 0, 0)),
        ];
        let total = counts(101 + unlisted, 1_000, 97, 7);
        Remotes::new(entries, total)
    }

    #[test]
    fn largest_sources_stand_before_the_sum_of_the_others() {
        let sources = Sources::new(TOP, ALL, &remotes(0), None);
        insta::assert_snapshot!(sources.text(true, None, 0), @"
        ADDRESS   DIR   ATTEMPTS  REFUSED_BY_US  OPENED  FAILED
        10.0.0.2  in           0           1000       0       0
        10.0.0.1  in         100              0      90       0
        2 others  both         1              0       7       7
        total     both       101           1000      97       7
        sources: exact; 4 of 65536 addresses are counted
        ");
        insta::assert_snapshot!(sources.csv(true, Some("2026-01-02T03:04:05Z")), @"
        time,address,direction,attempts,refused_by_us,opened,failed,attempts_per_s,refused_by_us_per_s,opened_per_s,failed_per_s
        2026-01-02T03:04:05Z,10.0.0.2,in,0,1000,0,0,,,,
        2026-01-02T03:04:05Z,10.0.0.1,in,100,0,90,0,,,,
        2026-01-02T03:04:05Z,2 others,both,1,0,7,7,,,,
        2026-01-02T03:04:05Z,unlisted,both,0,0,0,0,,,,
        2026-01-02T03:04:05Z,total,both,101,1000,97,7,,,,
        ");
        insta::assert_snapshot!(json!(sources).to_string(), @r#"{"by":"address","full":false,"listed":4,"others":{"address":"2 others","attempts":1,"direction":"both","failed":7,"opened":7,"refused_by_us":0},"room":65536,"rows":[{"address":"10.0.0.2","attempts":0,"direction":"in","failed":0,"opened":0,"refused_by_us":1000},{"address":"10.0.0.1","attempts":100,"direction":"in","failed":0,"opened":90,"refused_by_us":0}],"total":{"address":"total","attempts":101,"direction":"both","failed":7,"opened":97,"refused_by_us":1000},"unlisted":{"address":"unlisted","attempts":0,"direction":"both","failed":0,"opened":0,"refused_by_us":0}}"#);
    }

    #[test]
    fn rates_are_changes_since_the_last_report() {
        let before = Remotes::new(vec![(v4([10, 0, 0, 1], IN), counts(50, 0, 90, 0))], counts(50, 0, 90, 0));
        let sources = Sources::new(TOP, ALL, &remotes(6), Some((&before, 2.0)));
        insta::assert_snapshot!(sources.text(true, None, 0), @"
        ADDRESS   DIR   ATTEMPTS  REFUSED_BY_US  OPENED  FAILED  ATTEMPTS/S  REFUSED_BY_US/S  OPENED/S  FAILED/S
        10.0.0.2  in           0           1000       0       0         0.0            500.0       0.0       0.0
        10.0.0.1  in         100              0      90       0        25.0              0.0       0.0       0.0
        2 others  both         1              0       7       7         0.5              0.0       3.5       3.5
        unlisted  both         6              0       0       0         3.0              0.0       0.0       0.0
        total     both       107           1000      97       7        28.5            500.0       3.5       3.5
        sources: exact but for 6 SYNs and connections without an address; 4 of 65536 addresses are counted
        ");
        for width in [40, 60, 80] {
            let text = sources.text(true, Some(width), 0);
            let table = text.lines().filter(|line| !line.starts_with("sources:"));
            assert!(table.clone().all(|line| line.len() <= width), "{width}: {text}");
        }
    }

    #[test]
    fn full_table_states_its_error() {
        let entries = (0..CAPACITY).map(|number| (v4(number.to_be_bytes(), IN), counts(1, 0, 0, 0)));
        let full = Remotes::new(entries.collect(), counts(u64::from(CAPACITY) + 500, 0, 0, 0));
        let text = Sources::new(TOP, ALL, &full, None).text(true, None, 0);
        assert!(text.contains("\n65534 others  both     65534 "), "{text}");
        assert!(text.contains("\nunlisted      both       500 "), "{text}");
        assert!(
            text.ends_with("have a row or are among the others\n") && text.contains("more than 500 SYNs"),
            "{text}"
        );
    }

    #[test]
    fn counts_that_are_not_seen_are_unknown() {
        let blind = Sources::new(TOP, Sight::default(), &remotes(0), None);
        let json = json!(blind);
        assert!(json["total"]["attempts"].is_null() && json["total"]["refused_by_us"].is_null(), "{json}");
        assert_eq!(json["total"]["opened"], 97);
    }
}
