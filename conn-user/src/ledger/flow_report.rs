//! One reading of the counts of UDP flows with all that proves it, as data and in three formats.

use conn_common::connection::OUT;
use conn_common::counter::{BYTES_UNTRACKED, CLOSES_UNNOTED, COUNT, NETNS_FAILED, PACKETS_UNTRACKED};
use conn_common::flow_counts::{
    ASSURED, BEGUN, BYTES_RECEIVED, BYTES_SENT, CLOSED, DROPPED, FlowCounts, PACKETS_RECEIVED, PACKETS_SENT,
    PREEXISTING, REFUSED, REPLIED, TIMED_OUT,
};
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};

use crate::ledger::flow_audit::FlowAudit;
use crate::ledger::report::{RowKey, direction_name};
use crate::ledger::report_text::{BUSIEST, ReportStyle};
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, RowObjects, TableFormat};

/// One reading. As JSON, the field names are part of the interface (docs/json.md).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct FlowReport {
    /// Wall-clock time (RFC 3339).
    pub time: String,
    /// By direction and service port, the most used first.
    #[serde(serialize_with = "rows")]
    pub ports: Vec<FlowRow>,
    /// All ports and directions added up.
    #[serde(serialize_with = "row")]
    pub total: FlowRow,
    /// The sums that must agree.
    pub identity: FlowIdentity,
    /// The comparison with the kernel's counters; none before the first one.
    pub audit: Option<FlowAudit>,
    /// Packets of flows for which the table had no room.
    pub packets_untracked: u64,
    /// The payload bytes of these packets.
    pub bytes_untracked: u64,
    /// Sockets whose close could not be noted: their flows end by idle time.
    pub closes_unnoted: u64,
    /// Packets of namespaces that found no room: the audit lacks them.
    pub netns_failed: u64,
}

/// The counts of one direction and service port, or of all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct FlowRow {
    /// What is counted.
    pub key: RowKey,
    /// The counts.
    pub counts: FlowCounts,
    /// Packets that found a receive buffer full are counted.
    pub sees_drops: bool,
    /// Flows that began and that ended, per second, since the last report; none in the first one.
    pub rates: Option<(f64, f64)>,
}

/// `begun + preexisting = closed + timed_out + refused + open`, over all ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FlowIdentity {
    /// Flows that began while conntrace watched.
    pub begun: u64,
    /// Flows of sockets that were connected before.
    pub preexisting: u64,
    /// Flows that ended with their socket.
    pub closed: u64,
    /// Flows that ended by their idle time.
    pub timed_out: u64,
    /// Flows that the peer's host refused.
    pub refused: u64,
    /// Flows that are alive.
    pub open: i64,
    /// No packet was untracked, no count failed, and the audit found no difference.
    pub holds: bool,
}

impl FlowReport {
    /// A report of these rows, whose sum is `total`. `counters` are the programs' counters of themselves.
    pub(super) fn new(
        time: String,
        ports: Vec<FlowRow>,
        total: FlowRow,
        audit: Option<FlowAudit>,
        counters: &[u64; COUNT],
    ) -> Self {
        let counter = |at: u32| counters[at as usize];
        let (packets_untracked, closes_unnoted) = (counter(PACKETS_UNTRACKED), counter(CLOSES_UNNOTED));
        let netns_failed = counter(NETNS_FAILED);
        let failures = packets_untracked + closes_unnoted + netns_failed;
        let all = &total.counts;
        let identity = FlowIdentity {
            begun: all.cells[BEGUN],
            preexisting: all.cells[PREEXISTING],
            closed: all.cells[CLOSED],
            timed_out: all.cells[TIMED_OUT],
            refused: all.cells[REFUSED],
            open: all.open(),
            holds: all.open() >= 0 && failures == 0 && audit.as_ref().is_none_or(FlowAudit::holds),
        };
        Self {
            time,
            ports,
            total,
            identity,
            audit,
            packets_untracked,
            bytes_untracked: counter(BYTES_UNTRACKED),
            closes_unnoted,
            netns_failed,
        }
    }

    /// How many packets and closes were missed, and how many namespaces differ.
    pub(crate) fn missed(&self) -> u64 {
        let differing = self.audit.as_ref().map_or(0, |audit| audit.differences().len() as u64);
        self.packets_untracked + self.closes_unnoted + differing
    }

    /// The rows as CSV.
    pub(crate) fn csv(&self, style: &ReportStyle) -> String {
        let mut table = table(self.ports.iter().chain([&self.total]), style.is_repeated, NumberValue::from);
        if style.is_repeated {
            let time = NumberColumn { name: "time", in_text: true };
            table = table.with_first(time, &NumberValue::Text(self.time.clone()));
        }
        table.csv(style.header)
    }

    /// The report as one line of JSON: an object with the flows as its only member.
    pub(crate) fn json(&self) -> String {
        format!("{}\n", serde_json::json!({ "udp": self }))
    }

    /// The report for people.
    pub(crate) fn text(&self, style: &ReportStyle) -> String {
        let most = if style.all_ports { usize::MAX } else { BUSIEST };
        let (busiest, others) = self.ports.split_at(self.ports.len().min(most));
        let others = sum(others);
        let rows = busiest.iter().chain(&others).chain([&self.total]);
        let services = style.services.of_udp();
        let name = |port| NumberValue::port(port, &services, TableFormat::Table);
        let has_rates = self.total.rates.is_some();
        let table = table(rows, has_rates, name).fitted(&DROPPABLE, style.terminal.width);
        format!("{}{}\n", table.text(style.header), self.conclusion().join("\n"))
    }

    /// The verdict, and what is wrong.
    fn conclusion(&self) -> Vec<String> {
        let FlowIdentity { begun, preexisting, closed, timed_out, refused, open, holds } = self.identity;
        let parts = |parts: &[(u64, &str)]| {
            let used: Vec<String> = parts
                .iter()
                .enumerate()
                // A sum has at least one part.
                .filter(|(at, (number, _))| *at == 0 || *number > 0)
                .map(|(_, (number, name))| format!("{number} {name}"))
                .collect();
            used.join(" + ")
        };
        let left = parts(&[(begun, "begun"), (preexisting, "preexisting")]);
        let right = parts(&[(closed, "closed"), (timed_out, "timed out"), (refused, "refused")]);
        let verdict = if holds { "exact" } else { "NOT EXACT" };
        let audit = self
            .audit
            .as_ref()
            .map_or_else(|| "not compared with the kernel's counters yet".into(), FlowAudit::summary);
        let mut says = vec![format!("udp: {verdict}: {left} = {right} + {open} open"), audit];
        if self.packets_untracked > 0 {
            says.push(format!(
                "{} packets of {} bytes are in no flow, because the table was full",
                self.packets_untracked, self.bytes_untracked
            ));
        }
        if self.closes_unnoted > 0 {
            says.push(format!("closes_unnoted {}", self.closes_unnoted));
        }
        if self.netns_failed > 0 {
            says.push(format!("netns_failed {}", self.netns_failed));
        }
        let mut lines = vec![says.join("; ")];
        lines.extend(self.audit.iter().flat_map(FlowAudit::differences));
        lines
    }
}

/// Columns that a narrow terminal leaves out, the first one first.
const DROPPABLE: [&str; 12] = [
    "streams",
    "ended_per_s",
    "preexisting",
    "dropped",
    "begun_per_s",
    "refused",
    "replied",
    "packets_received",
    "packets_sent",
    "bytes_received",
    "bytes_sent",
    "timed_out",
];

/// The sum of rows; none if there are none.
fn sum(rows: &[FlowRow]) -> Option<FlowRow> {
    let (first, others) = rows.split_first()?;
    let mut sum = FlowRow { key: RowKey::Others(rows.len()), ..first.clone() };
    for row in others {
        sum.counts.add(&row.counts);
        sum.rates = sum.rates.zip(row.rates).map(|(one, other)| (one.0 + other.0, one.1 + other.1));
    }
    Some(sum)
}

/// The counts with a column each, and the name of the column.
const COUNTED: [(usize, &str); 7] = [
    (BEGUN, "begun"),
    (PREEXISTING, "preexisting"),
    (REPLIED, "replied"),
    (ASSURED, "streams"),
    (CLOSED, "closed"),
    (TIMED_OUT, "timed_out"),
    (REFUSED, "refused"),
];

fn columns(has_rates: bool) -> Vec<NumberColumn> {
    let column = |name| NumberColumn { name, in_text: true };
    let mut columns: Vec<NumberColumn> = ["port", "direction"].map(column).into();
    columns.extend(COUNTED.map(|(_, name)| column(name)));
    columns.extend(
        ["open", "packets_sent", "packets_received", "bytes_sent", "bytes_received", "dropped"].map(column),
    );
    if has_rates {
        columns.extend(["begun_per_s", "ended_per_s"].map(column));
    }
    columns
}

fn table<'a>(
    rows: impl IntoIterator<Item = &'a FlowRow>,
    has_rates: bool,
    name: impl Fn(u16) -> NumberValue,
) -> NumberTable {
    let mut table = NumberTable::new(&columns(has_rates));
    table.rows.extend(rows.into_iter().map(|one| values(one, has_rates, &name)));
    table
}

fn values(row: &FlowRow, has_rates: bool, name: impl Fn(u16) -> NumberValue) -> Vec<NumberValue> {
    let FlowRow { key, counts, sees_drops, rates } = row;
    let both = |name: String| vec![NumberValue::Text(name), NumberValue::Text("both".into())];
    let mut values = match *key {
        RowKey::Port(direction, port) => {
            vec![name(port), NumberValue::Text(direction_name(direction).into())]
        }
        RowKey::Others(count) => both(format!("{count} others")),
        RowKey::Total => both("total".into()),
    };
    let cell = |at: usize| counts.cells[at];
    values.extend(COUNTED.map(|(at, _)| NumberValue::from(cell(at))));
    values.extend([
        counts.open().into(),
        cell(PACKETS_SENT).into(),
        cell(PACKETS_RECEIVED).into(),
        NumberValue::Bytes(cell(BYTES_SENT).into()),
        NumberValue::Bytes(cell(BYTES_RECEIVED).into()),
        // Receive buffers are of sockets, which have no direction: they are in the rows of incoming flows.
        if *sees_drops && !matches!(key, RowKey::Port(OUT, _)) {
            cell(DROPPED).into()
        } else {
            NumberValue::Unknown
        },
    ]);
    if has_rates {
        let rate = |rate: Option<f64>| rate.map_or(NumberValue::Unknown, NumberValue::Rate);
        values.extend([rate(rates.map(|rates| rates.0)), rate(rates.map(|rates| rates.1))]);
    }
    values
}

fn rows<S: Serializer>(ports: &[FlowRow], serializer: S) -> Result<S::Ok, S::Error> {
    let has_rates = ports.first().is_some_and(|port| port.rates.is_some());
    let objects = RowObjects::new(&columns(has_rates));
    let mut rows = serializer.serialize_seq(Some(ports.len()))?;
    for port in ports {
        rows.serialize_element(&objects.object(&values(port, has_rates, NumberValue::from)))?;
    }
    rows.end()
}

fn row<S: Serializer>(row: &FlowRow, serializer: S) -> Result<S::Ok, S::Error> {
    let has_rates = row.rates.is_some();
    let objects = RowObjects::new(&columns(has_rates));
    objects.object(&values(row, has_rates, NumberValue::from)).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use conn_common::connection::IN;

    use super::*;
    use crate::render::style::Terminal;

    fn counts(begun: u64, closed: u64, refused: u64) -> FlowCounts {
        let mut counts = FlowCounts::default();
        for (at, number) in
            [(BEGUN, begun), (CLOSED, closed), (REFUSED, refused), (PACKETS_SENT, 40), (BYTES_SENT, 4_000)]
        {
            counts.cells[at] = number;
        }
        counts
    }

    fn report(audit: Option<FlowAudit>, counters: &[u64; COUNT]) -> FlowReport {
        let row = |key, counts| FlowRow { key, counts, sees_drops: true, rates: None };
        let rows =
            vec![row(RowKey::Port(OUT, 53), counts(5, 3, 1)), row(RowKey::Port(IN, 123), counts(2, 2, 0))];
        let all = sum(&rows).unwrap().counts;
        let total = row(RowKey::Total, all);
        FlowReport::new("2026-01-01T00:00:00Z".into(), rows, total, audit, counters)
    }

    #[test]
    fn report_in_three_formats() {
        let report = report(Some(FlowAudit::default()), &[0; COUNT]);
        let style = ReportStyle { header: true, ..ReportStyle::default() };
        insta::assert_snapshot!(report.text(&style));
        insta::assert_snapshot!(report.csv(&style));
        insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
        let narrow = ReportStyle { terminal: Terminal { width: Some(80), ..Terminal::default() }, ..style };
        let text = report.text(&narrow);
        assert!(text.lines().take(4).all(|line| line.len() <= 80), "{text}");
        assert_eq!(report.missed(), 0);
    }

    #[test]
    fn conclusion_names_what_is_wrong() {
        let mut counters = [0; COUNT];
        counters[PACKETS_UNTRACKED as usize] = 2;
        counters[BYTES_UNTRACKED as usize] = 200;
        let report = report(None, &counters);
        assert_eq!(report.missed(), 2);
        insta::assert_snapshot!(report.conclusion().join("\n"), @"udp: NOT EXACT: 7 begun = 5 closed + 1 refused + 1 open; not compared with the kernel's counters yet; 2 packets of 200 bytes are in no flow, because the table was full");
    }
}
