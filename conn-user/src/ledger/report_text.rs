//! A report as a table for people, CSV, or JSON.

use conn_common::ledger::Cells as _;
use conn_common::state;
use serde::ser::SerializeSeq as _;
use serde::{Serialize, Serializer};

use crate::host::services::Services;
use crate::ledger::attempts::AttemptCounts;
use crate::ledger::flow_report::FlowReport;
use crate::ledger::rates::Rates;
use crate::ledger::report::{ENDED, FAILED, PortCounts, Report, RowKey, direction_name};
use crate::ledger::self_cost::SelfCost;
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, RowObjects, TableFormat};
use crate::render::style::Terminal;

/// How many ports a table names, the busiest first. All others are in one row.
pub(super) const BUSIEST: usize = 20;

/// How a report is written.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub(crate) struct ReportStyle {
    /// The format.
    pub format: TableFormat,
    /// Names of ports in tables; empty for numbers.
    pub services: Services,
    /// A table has all ports.
    pub all_ports: bool,
    /// A table ends with the whole proof.
    pub proof: bool,
    /// Table and CSV begin with the names of the columns.
    pub header: bool,
    /// The report is one of several: rows of CSV begin with the time.
    pub is_repeated: bool,
    /// Tables fit into it.
    pub terminal: Terminal,
}

/// Columns that a narrow terminal leaves out, the first one first. The others take 40 characters.
const DROPPABLE: [&str; 13] = [
    "listeners",
    "retransmits",
    "refused_by_us_per_s",
    "attempts_per_s",
    "attempts",
    "preexisting",
    "established",
    "closed_per_s",
    "failed_per_s",
    "bytes_received",
    "bytes_sent",
    "opened_per_s",
    "closed",
];

impl Report {
    /// The report in the style.
    pub(crate) fn write(&self, style: &ReportStyle) -> String {
        match style.format {
            TableFormat::Csv => self.csv(style),
            TableFormat::Json => self.json_with(None),
            TableFormat::Table => self.text(style),
        }
    }

    /// The report as one line of JSON, with the flows of UDP if the run counts them.
    pub(crate) fn json_with(&self, flows: Option<&FlowReport>) -> String {
        /// Both as one object.
        #[derive(Serialize)]
        struct Both<'a> {
            #[serde(flatten)]
            tcp: &'a Report,
            #[serde(skip_serializing_if = "Option::is_none")]
            udp: Option<&'a FlowReport>,
        }
        let json = match flows {
            None => serde_json::to_string(self),
            udp => serde_json::to_string(&Both { tcp: self, udp }),
        };
        match json {
            Ok(json) => json + "\n",
            Err(error) => unreachable!("numbers and text are JSON: {error}"),
        }
    }

    fn csv(&self, style: &ReportStyle) -> String {
        if let Some(sources) = &self.sources {
            let time = style.is_repeated.then_some(&*self.time);
            return sources.csv(style.header, time);
        }
        let rows = self.ports.iter().chain([&self.total]);
        let has_rates = style.is_repeated || self.total.rates.is_some();
        let mut table = table(rows, has_rates, NumberValue::from);
        if style.is_repeated {
            table = table.with_first(
                NumberColumn { name: "time", in_text: true },
                &NumberValue::Text(self.time.clone()),
            );
        }
        table.csv(style.header)
    }

    fn text(&self, style: &ReportStyle) -> String {
        let most = if style.all_ports { usize::MAX } else { BUSIEST };
        // A line sums up the ports of a scan.
        let ports: Vec<&PortCounts> = self.ports.iter().filter(|port| !port.is_refused_only()).collect();
        let (busiest, others) = ports.split_at(ports.len().min(most));
        let others = PortCounts::sum(others);
        let rows = busiest.iter().copied().chain(&others).chain([&self.total]);
        let name = |port| NumberValue::port(port, &style.services, TableFormat::Table);
        let table = table(rows, self.total.rates.is_some(), name).fitted(&DROPPABLE, style.terminal.width);
        let lifetimes = self
            .lifetimes
            .as_ref()
            .map_or_else(String::new, |all| all.table(&style.services, style.terminal).text(style.header));
        let sources = self.sources.as_ref().map_or_else(String::new, |sources| {
            sources.text(style.header, style.terminal.width, self.failures().total())
        });
        let proof = if style.proof { self.proof() } else { self.conclusion() };
        let lines: Vec<String> = self.self_cost.iter().flat_map(SelfCost::lines).chain(proof).collect();
        format!("{}{lifetimes}{sources}{}\n", table.text(style.header), lines.join("\n"))
    }
}

/// The rows of a report as objects.
pub(super) fn port_rows<S: Serializer>(ports: &[PortCounts], serializer: S) -> Result<S::Ok, S::Error> {
    let has_rates = ports.first().is_some_and(|port| port.rates.is_some());
    let objects = RowObjects::new(&columns(has_rates, AttemptCounts::default()));
    let mut rows = serializer.serialize_seq(Some(ports.len()))?;
    for port in ports {
        rows.serialize_element(&objects.object(&row(port, has_rates, NumberValue::from)))?;
    }
    rows.end()
}

/// One row of a report as an object.
pub(super) fn port_row<S: Serializer>(port: &PortCounts, serializer: S) -> Result<S::Ok, S::Error> {
    let has_rates = port.rates.is_some();
    let objects = RowObjects::new(&columns(has_rates, AttemptCounts::default()));
    objects.object(&row(port, has_rates, NumberValue::from)).serialize(serializer)
}

/// The rows under the ledger's columns. `name` makes a value of a port.
fn table<'a>(
    rows: impl IntoIterator<Item = &'a PortCounts>,
    has_rates: bool,
    name: impl Fn(u16) -> NumberValue,
) -> NumberTable {
    let rows: Vec<&PortCounts> = rows.into_iter().collect();
    let most = rows.iter().filter_map(|row| row.attempts).reduce(AttemptCounts::largest);
    let mut table = NumberTable::new(&columns(has_rates, most.unwrap_or_default()));
    table.rows.extend(rows.into_iter().map(|counts| row(counts, has_rates, &name)));
    table
}

/// The columns of the ledger. Only CSV and JSON have a column per cause and per state.
fn columns(has_rates: bool, attempts: AttemptCounts) -> Vec<NumberColumn> {
    let in_text = |name| NumberColumn { name, in_text: true };
    let mut columns: Vec<NumberColumn> = [
        "port",
        "direction",
        "opened",
        "preexisting",
        "established",
        "failed",
        "closed",
        "open",
        "bytes_sent",
        "bytes_received",
        "retransmits",
        "listeners",
    ]
    .map(in_text)
    .into();
    columns.extend(attempts.columns());
    columns.extend(FAILED.iter().chain(&ENDED).map(|&(_, name)| NumberColumn { name, in_text: false }));
    columns.extend(state::OPEN.map(|state| NumberColumn { name: open_name(state), in_text: false }));
    if has_rates {
        columns.extend(["opened_per_s", "failed_per_s", "closed_per_s"].map(in_text));
        let shown =
            |name, number: Option<u64>| NumberColumn { name, in_text: number.is_some_and(|n| n != 0) };
        columns.push(shown("attempts_per_s", attempts.attempts));
        columns.push(shown("refused_by_us_per_s", attempts.refused_by_us));
    }
    columns
}

/// The column of connections open in `state`.
fn open_name(state: u8) -> &'static str {
    match state {
        state::SYN_SENT => "open_syn_sent",
        state::SYN_RECV => "open_syn_recv",
        state::ESTABLISHED => "open_established",
        state::FIN_WAIT1 => "open_fin_wait1",
        state::FIN_WAIT2 => "open_fin_wait2",
        state::CLOSE_WAIT => "open_close_wait",
        state::LAST_ACK => "open_last_ack",
        _ => "open_closing",
    }
}

/// One row, with a value per column.
fn row(counts: &PortCounts, has_rates: bool, name: impl Fn(u16) -> NumberValue) -> Vec<NumberValue> {
    let PortCounts { key, slot, listeners, attempts, rates } = counts;
    let both = |name: String| vec![NumberValue::Text(name), NumberValue::Text("both".into())];
    let mut row = match *key {
        RowKey::Port(direction, port) => {
            vec![name(port), NumberValue::Text(direction_name(direction).into())]
        }
        RowKey::Others(count) => both(format!("{count} others")),
        RowKey::Total => both("total".into()),
    };
    row.extend([
        slot.opened().into(),
        slot.preexisting().into(),
        slot.established().into(),
        slot.failed().into(),
        slot.closed().into(),
        slot.open().into(),
        NumberValue::Bytes(slot.bytes_sent().into()),
        NumberValue::Bytes(slot.bytes_received().into()),
        slot.retransmits().into(),
        listeners.map_or(NumberValue::Unknown, |listeners| listeners.open().into()),
    ]);
    row.extend(attempts.unwrap_or_default().values());
    row.extend(FAILED.map(|(cause, _)| NumberValue::from(slot.failed_by(cause))));
    row.extend(ENDED.map(|(cause, _)| NumberValue::from(slot.closed_by(cause))));
    row.extend(state::OPEN.map(|state| NumberValue::from(slot.open_in(state))));
    if has_rates {
        let attempts = attempts.unwrap_or_default();
        let rate = |known: bool, rate: fn(&Rates) -> f64| {
            let rate = rates.as_ref().filter(|_| known).map(rate);
            rate.map_or(NumberValue::Unknown, NumberValue::Rate)
        };
        row.extend([
            rate(true, |rates| rates.opened),
            rate(true, |rates| rates.failed),
            rate(true, |rates| rates.closed),
            rate(attempts.attempts.is_some(), |rates| rates.attempts),
            rate(attempts.refused_by_us.is_some(), |rates| rates.refused_by_us),
        ]);
    }
    row
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use conn_common::cause::Cause;
    use conn_common::connection::{IN, OUT};
    use conn_common::counter;
    use conn_common::ledger::{Slot, Totals};
    use conn_common::state::{CLOSE_WAIT, ESTABLISHED, SYN_RECV, SYN_SENT};
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::kernel::attempt_hooks::Sight;
    use crate::kernel::program_stats::Cost;
    use crate::ledger::audit::{Audit, Difference};
    use crate::ledger::auditor::AgedAudit;
    use crate::ledger::counts::Counts;
    use crate::ledger::rates::Baseline;
    use crate::ledger::reader::{Ledger, Listeners};
    use crate::ledger::report::Gathered;

    fn ledger() -> Ledger {
        let mut ssh = Slot::ZERO;
        ssh.count_opened(SYN_RECV);
        ssh.count_opened(SYN_RECV);
        ssh.count_step(SYN_RECV, ESTABLISHED);
        ssh.count_ends(SYN_RECV, Cause::TimedOut, 1);
        let mut web = Slot::ZERO;
        web.count_preexisting(CLOSE_WAIT);
        web.count_ends(CLOSE_WAIT, Cause::ClosedByPeer, 1);
        web.count_opened(SYN_SENT);
        web.count_opened(SYN_SENT);
        let listeners = Listeners { opened: 1, preexisting: 2, closed: 1, ..Listeners::default() };
        Ledger {
            ports: BTreeMap::from([((IN, 22), Counts::of(&ssh)), ((OUT, 443), Counts::of(&web))]),
            listeners: BTreeMap::from([(22, listeners)]),
            netns: BTreeMap::from([(4_026_531_840, Totals::of(&ssh)), (4_026_532_200, Totals::of(&web))]),
            ..Ledger::default()
        }
    }

    fn gathered(ledger: &Ledger, audit: Audit) -> Gathered<'_> {
        let mut counters = [0; counter::COUNT];
        counters[counter::CLOSED_LATE as usize] = 3;
        Gathered {
            unix_ns: 1_700_000_000_123_456_789,
            ledger,
            sight: Sight { begun: true, refused: true, half_open: true, dropped: true },
            audit: AgedAudit { found: audit, age: Some(Duration::from_millis(1_250)), failure: None },
            counters,
            costs: BTreeMap::from([("set_state", Cost { runs: 0, run_ns: 0, missed: 7 })]),
            repaired: 2,
            lifetimes: None,
            sources: None,
            self_cost: None,
        }
    }

    pub(in crate::ledger) fn report(audit: Audit, since: Option<(&Baseline, f64)>) -> Report {
        Report::new(gathered(&ledger(), audit), since)
    }

    pub(in crate::ledger) fn audited() -> Audit {
        let difference = Difference {
            netns: 4_026_532_200,
            direction: OUT,
            port: 443,
            state: SYN_SENT,
            ledger: 2,
            kernel: 1,
            moved: false,
        };
        Audit { compared: 2, kernel_open: 2, differences: vec![difference], ..Audit::default() }
    }

    #[test]
    fn table_ends_with_the_proof() {
        let services = Services::parse("ssh 22/tcp");
        let style = ReportStyle { services, header: true, proof: true, ..ReportStyle::default() };
        insta::assert_snapshot!(report(audited(), None).write(&style), @"
        PORT   DIR   OPENED  PREEXISTING  ESTABLISHED  FAILED  CLOSED  OPEN  SENT  RECEIVED  RETRANS  LISTENERS
        443    out        2            1            0       0       1     2    0B        0B        0          -
        ssh    in         2            0            1       1       0     1    0B        0B        0          2
        total  both       4            1            1       1       1     3    0B        0B        0          2
        netns 4026531840: opened 2 + preexisting 0 = failed 1 + closed 0 + open 1
        netns 4026532200: opened 2 + preexisting 1 = failed 0 + closed 1 + open 2
        witness: events_produced 0, wakeups 0, events_lost 0, no_socket 0, states_overflowed 0, storage_failed 0, steps_stateless 0, ledger_overflowed 0, ledger_failed 0, netns_failed 0, flags_failed 0, steps_repaired 0, adopted_late 0, closed_late 3, ends_unseen 0, owner_failed 0, spans_shared 0, spans_failed 0, repaired 2
        skipped by the kernel: set_state 7
        audit 1.2 s ago: 2 open in the kernel; 2 counts compared, 0 moved meanwhile, 1 differ
        audit: netns 4026532200 port 443 out syn_sent: 2 in the ledger, 1 in the kernel
        opened 4 + preexisting 1 = failed 1 + closed 1 + open 3: DOES NOT HOLD
        ");
    }

    #[test]
    fn csv_has_rates_since_the_last_report() {
        let before = Baseline::of(&Ledger::default());
        let style = ReportStyle { format: TableFormat::Csv, header: true, ..ReportStyle::default() };
        let csv = report(audited(), Some((&before, 2.0))).write(&style);
        insta::assert_snapshot!(csv, @"
        port,direction,opened,preexisting,established,failed,closed,open,bytes_sent,bytes_received,retransmits,listeners,attempts,half_open,abandoned,dropped,refused_by_us,failed_refused,failed_timed_out,failed_unreachable,failed_reset_by_peer,failed_abandoned,failed_local,failed_aborted,failed_unknown,ended_closed_by_us,ended_closed_by_peer,ended_reset_by_us,ended_reset_by_peer,ended_timed_out,ended_unreachable,ended_aborted,ended_not_accepted,ended_late_reset,ended_unknown,open_syn_sent,open_syn_recv,open_established,open_fin_wait1,open_fin_wait2,open_close_wait,open_last_ack,open_closing,opened_per_s,failed_per_s,closed_per_s,attempts_per_s,refused_by_us_per_s
        443,out,2,1,0,0,1,2,0,0,0,,,,,,,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,2,0,0,0,0,0,0,0,1.0,0.0,0.5,,
        22,in,2,0,1,1,0,1,0,0,0,2,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,1.0,0.5,0.0,0.0,0.0
        total,both,4,1,1,1,1,3,0,0,0,2,0,0,0,0,0,0,1,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,2,0,1,0,0,0,0,0,2.0,0.5,0.5,0.0,0.0
        ");
    }

    #[test]
    fn json_has_the_whole_report() {
        let style = ReportStyle {
            format: TableFormat::Json,
            services: Services::parse("ssh 22/tcp"),
            ..ReportStyle::default()
        };
        let text = report(audited(), None).write(&style);
        let mut json: Json = serde_json::from_str(&text).unwrap();
        let ports = json["ports"].take();
        assert_eq!((&ports[0]["port"], &ports[0]["direction"]), (&json!(443), &json!("out")));
        assert_eq!((&ports[1]["port"], &ports[1]["listeners"]), (&json!(22), &json!(2)));
        assert_eq!((&json["total"]["port"], &json["total"]["open_syn_sent"]), (&json!("total"), &json!(2)));
        json["total"].take();
        json["witness"].take();
        insta::assert_snapshot!(json.to_string(), @r#"{"attempts":{"refused_by_us":0,"refused_ports":0,"unknown":{}},"audit":{"age_seconds":1.25,"compared":2,"differences":[{"direction":"out","kernel":1,"ledger":2,"netns":4026532200,"port":443,"state":"syn_sent"}],"error":null,"hidden":[],"hidden_netns":0,"kernel_open":2,"moved":0},"identity":{"closed":1,"failed":1,"holds":false,"open":3,"opened":4,"preexisting":1},"kernel":{"netns":[],"unknown":[]},"lifetimes":null,"listeners":[{"closed":1,"open":2,"opened":1,"port":22,"preexisting":2}],"netns":[{"closed":0,"failed":1,"netns":4026531840,"open":1,"opened":2,"preexisting":0},{"closed":1,"failed":0,"netns":4026532200,"open":2,"opened":2,"preexisting":1}],"netns_gone":null,"ports":null,"programs":{"set_state":{"missed":7,"run_ns":0,"runs":0}},"repaired":2,"self":null,"sources":null,"time":"2023-11-14T22:13:20.123456789Z","total":null,"unattributed":null,"witness":null}"#);
    }

    #[test]
    fn report_without_ports_keeps_the_total() {
        let mut report = report(audited(), None);
        report.ports.clear();
        let style = ReportStyle { format: TableFormat::Csv, header: true, ..ReportStyle::default() };
        assert_eq!(report.write(&style).lines().count(), 2);
        assert_eq!(json!(report)["ports"], json!([]));
    }

    #[test]
    fn reports_of_a_series_share_one_header_and_have_their_time() {
        let style = ReportStyle { format: TableFormat::Csv, is_repeated: true, ..ReportStyle::default() };
        let first = report(audited(), None).write(&ReportStyle { header: true, ..style.clone() });
        let before = Baseline::of(&Ledger::default());
        let next = report(audited(), Some((&before, 2.0))).write(&style);
        let lines: Vec<&str> = first.lines().chain(next.lines()).collect();
        assert!(
            lines[0].starts_with("time,port,direction,opened,") && lines[0].ends_with(",refused_by_us_per_s")
        );
        assert_eq!(lines.len(), 1 + 3 + 3);
        for line in &lines[1..] {
            assert!(line.starts_with("2023-11-14T22:13:20.123456789Z,"), "{line}");
            assert_eq!(line.split(',').count(), lines[0].split(',').count(), "{line}");
        }
        // The first report knows no rates.
        assert!(lines[1].ends_with(",,,,,") && lines[4].ends_with(",1.0,0.0,0.5,,"), "{lines:?}");
    }

    #[test]
    fn table_has_the_busiest_ports_and_the_sum_of_the_others() {
        let mut report = report(audited(), None);
        let mut slot = Slot::ZERO;
        slot.count_opened(SYN_SENT);
        let other = |port| PortCounts {
            key: RowKey::Port(OUT, port),
            slot: Counts::of(&slot),
            listeners: None,
            attempts: None,
            rates: None,
        };
        report.ports.extend((1..=30).map(other));
        let style = ReportStyle { header: true, ..ReportStyle::default() };
        let lines = |style: &ReportStyle| report.write(style).lines().map(str::to_owned).collect::<Vec<_>>();
        let short = lines(&style);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&short[BUSIEST + 1])[..4], ["12", "others", "both", "12"]);
        assert_eq!(words(&short[BUSIEST + 2])[..2], ["total", "both"]);
        let all = lines(&ReportStyle { all_ports: true, ..style.clone() });
        assert_eq!(words(&all[33])[..2], ["total", "both"]);
        assert!(!all.iter().any(|line| line.contains("others")), "{all:?}");
        assert_eq!(lines(&ReportStyle { header: false, ..style })[..], short[1..]);
    }

    #[test]
    fn gone_namespaces_are_one_sum() {
        let json = |walked: &[u32]| {
            let audit = Audit { walked: walked.iter().copied().collect(), ..audited() };
            let mut ledger = ledger();
            for netns in 1..=9 {
                ledger.netns.insert(netns, Totals { opened: 2, preexisting: 1, failed: 0, closed: 3 });
            }
            json!(Report::new(gathered(&ledger, audit), None))
        };
        // Something is open in the first two.
        let report = json(&[]);
        assert_eq!(report["netns"].as_array().unwrap().len(), 2);
        let gone =
            json!({"namespaces": 9, "opened": 18, "preexisting": 9, "failed": 0, "closed": 27, "open": 0});
        assert_eq!(report["netns_gone"], gone);
        let report = json(&[1, 2, 3]);
        assert_eq!(report["netns"].as_array().unwrap().len(), 5);
        assert_eq!(report["netns_gone"]["namespaces"], 6);
        assert!(json(&[1, 2, 3, 4, 5, 6, 7, 8, 9])["netns_gone"].is_null());
    }
}
