//! A report as a table for people, CSV, or JSON.

use std::borrow::Cow;

use conn_common::counter;
use conn_common::state;
use serde::{Serialize as _, Serializer};
use serde_json::json;

use crate::event::state_name;
use crate::host::services::Services;
use crate::ledger::attempts::AttemptCounts;
use crate::ledger::report::{ENDED, FAILED, PortCounts, Report, direction_name};
use crate::ledger::self_cost::SelfCost;
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};
use crate::render::style::Terminal;

/// The counters in a table: events in the ring, then losses, failures and repairs.
const SHOWN: [u32; 16] = [
    counter::PRODUCED,
    counter::WAKEUPS,
    counter::LOST,
    counter::NO_SOCKET,
    counter::STATE_OVERFLOWED,
    counter::STORAGE_FAILED,
    counter::STEP_STATELESS,
    counter::LEDGER_FAILED,
    counter::NETNS_FAILED,
    counter::FLAGS_FAILED,
    counter::STEP_REPAIRED,
    counter::ADOPTED_LATE,
    counter::CLOSED_LATE,
    counter::END_UNSEEN,
    counter::OWNER_FAILED,
    counter::SPANS_FAILED,
];

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
    /// The report in one of the formats. A table has the ports' names of `services`, and fits into the terminal.
    pub(crate) fn write(&self, format: TableFormat, services: &Services, terminal: Terminal) -> String {
        // In text, a line sums up the ports of a scan.
        let is_shown = |port: &&PortCounts| format != TableFormat::Table || !port.is_refused_only();
        let table = || {
            table(self.ports.iter().filter(is_shown).chain([&self.total]), |port| {
                NumberValue::port(port, services, format)
            })
        };
        match format {
            TableFormat::Csv => table().csv(),
            // A JSON value sorts its fields.
            TableFormat::Json => format!("{}\n", json!(self)),
            TableFormat::Table => {
                let lifetimes = self
                    .lifetimes
                    .as_ref()
                    .map_or_else(String::new, |all| all.table(services, terminal).text());
                format!("{}{lifetimes}{}", table().fitted(&DROPPABLE, terminal.width).text(), self.proof())
            }
        }
    }

    /// The lines of losses and repairs, of the audit, and of the identity.
    fn proof(&self) -> String {
        let audit = &self.audit.found;
        let mut lines = self.tries.lines();
        lines.extend(self.netns_lines());
        let troubles = SHOWN
            .map(|at| format!("{} {}", counter::NAMES[at as usize], self.counters[at as usize]))
            .join(", ");
        let missed: Vec<String> =
            self.programs.iter().map(|(name, cost)| format!("{name} {}", cost.missed)).collect();
        lines.extend([
            format!("witness: {troubles}, repaired {}", self.repaired),
            format!("skipped by the kernel: {}", missed.join(", ")),
            format!(
                "audit {:.1} s ago: {} open in the kernel; {} ports compared, {} moved meanwhile, {} differ",
                self.audit.age.as_secs_f64(),
                audit.kernel_open,
                audit.compared,
                audit.moved,
                audit.differences.len()
            ),
        ]);
        if audit.hidden_netns > 0 {
            lines.push(format!(
                "audit: network namespaces with open connections that cannot be entered: {}; nothing was compared",
                audit.hidden_netns
            ));
        }
        lines.extend(audit.differences.iter().map(|difference| {
            format!(
                "audit: port {} {} {}: {} in the ledger, {} in the kernel",
                difference.port,
                direction_name(difference.direction),
                state_name::name(difference.state).unwrap_or("-"),
                difference.ledger,
                difference.kernel
            )
        }));
        lines.extend(self.self_cost.iter().flat_map(SelfCost::lines));
        let identity = &self.identity;
        lines.push(format!(
            "opened {} + preexisting {} = failed {} + closed {} + open {}: {}",
            identity.opened,
            identity.preexisting,
            identity.failed,
            identity.closed,
            identity.open,
            self.verdict()
        ));
        lines.join("\n") + "\n"
    }

    /// The totals of each namespace, if there are several.
    fn netns_lines(&self) -> Vec<String> {
        if self.netns.len() <= 1 {
            return Vec::new();
        }
        let line = |netns: &crate::ledger::report::NetnsTotals| {
            format!(
                "netns {}: opened {} + preexisting {} = failed {} + closed {} + open {}",
                netns.netns, netns.opened, netns.preexisting, netns.failed, netns.closed, netns.open
            )
        };
        self.netns.iter().map(line).collect()
    }

    /// The verdict on the identity and the audit.
    fn verdict(&self) -> Cow<'static, str> {
        let failures = self.failures();
        let verdict = if failures.total() > 0 {
            return format!("DOES NOT HOLD: the programs failed ({failures})").into();
        } else if !self.identity.holds {
            "DOES NOT HOLD"
        } else if self.audit.found.hidden_netns > 0 {
            "the sums hold, the sockets could not be compared"
        } else if self.audit.found.moved > 0 {
            "holds, as far as ports stood still"
        } else {
            "holds"
        };
        verdict.into()
    }
}

/// The rows of a report as objects.
pub(super) fn port_rows<S: Serializer>(ports: &[PortCounts], serializer: S) -> Result<S::Ok, S::Error> {
    table(ports, NumberValue::from).json().serialize(serializer)
}

/// One row of a report as an object.
pub(super) fn port_row<S: Serializer>(port: &PortCounts, serializer: S) -> Result<S::Ok, S::Error> {
    table([port], NumberValue::from).json()[0].serialize(serializer)
}

/// The rows under the ledger's columns. `name` makes a value of a port.
fn table<'a>(
    rows: impl IntoIterator<Item = &'a PortCounts>,
    name: impl Fn(u16) -> NumberValue,
) -> NumberTable {
    let rows: Vec<&PortCounts> = rows.into_iter().collect();
    let has_rates = rows.first().is_some_and(|row| row.rates.is_some());
    let most = rows.iter().filter_map(|row| row.attempts).reduce(AttemptCounts::largest);
    let mut table = NumberTable::new(&columns(has_rates, most.unwrap_or_default()));
    table.rows.extend(rows.into_iter().map(|counts| row(counts, &name)));
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
fn row(counts: &PortCounts, name: impl Fn(u16) -> NumberValue) -> Vec<NumberValue> {
    let PortCounts { key, slot, listeners, attempts, rates } = counts;
    let mut row = match *key {
        Some((direction, port)) => vec![name(port), NumberValue::Text(direction_name(direction).into())],
        None => vec![NumberValue::Text("total".into()), NumberValue::Text("both".into())],
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
    if let Some(rates) = rates {
        row.extend([rates.opened, rates.failed, rates.closed].map(NumberValue::Rate));
        let attempts = attempts.unwrap_or_default();
        let known =
            |number: Option<u64>, rate| number.map_or(NumberValue::Unknown, |_| NumberValue::Rate(rate));
        row.push(known(attempts.attempts, rates.attempts));
        row.push(known(attempts.refused_by_us, rates.refused_by_us));
    }
    row
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use conn_common::cause::Cause;
    use conn_common::connection::{IN, OUT};
    use conn_common::ledger::{Slot, Totals};
    use conn_common::state::{CLOSE_WAIT, ESTABLISHED, SYN_RECV, SYN_SENT};
    use serde_json::Value as Json;

    use super::*;
    use crate::kernel::attempt_hooks::Sight;
    use crate::kernel::program_stats::Cost;
    use crate::ledger::audit::{Audit, Difference};
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
            ports: BTreeMap::from([((IN, 22), ssh), ((OUT, 443), web)]),
            listeners: BTreeMap::from([(22, listeners)]),
            netns: BTreeMap::from([(4_026_531_840, Totals::of(&ssh)), (4_026_532_200, Totals::of(&web))]),
            unattributed: None,
            attempts: BTreeMap::new(),
        }
    }

    fn report(audit: Audit, since: Option<(&Ledger, f64)>) -> Report {
        let mut counters = [0; counter::COUNT];
        counters[counter::CLOSED_LATE as usize] = 3;
        Report::new(
            Gathered {
                unix_ns: 1_700_000_000_123_456_789,
                ledger: &ledger(),
                sight: Sight { begun: true, refused: true, half_open: true, dropped: true },
                audit,
                audit_age: Duration::from_millis(1_250),
                counters,
                costs: BTreeMap::from([("set_state", Cost { runs: 0, run_ns: 0, missed: 7 })]),
                repaired: 2,
                lifetimes: None,
                self_cost: None,
            },
            since,
        )
    }

    fn audited() -> Audit {
        let difference = Difference { direction: OUT, port: 443, state: SYN_SENT, ledger: 2, kernel: 1 };
        Audit { compared: 2, kernel_open: 2, differences: vec![difference], ..Audit::default() }
    }

    #[test]
    fn table_ends_with_the_proof() {
        let services = Services::parse("ssh 22/tcp");
        insta::assert_snapshot!(report(audited(), None).write(TableFormat::Table, &services, Terminal::NONE), @"
        PORT   DIR   OPENED  PREEXISTING  ESTABLISHED  FAILED  CLOSED  OPEN  SENT  RECEIVED  RETRANS  LISTENERS
        443    out        2            1            0       0       1     2    0B        0B        0          -
        ssh    in         2            0            1       1       0     1    0B        0B        0          2
        total  both       4            1            1       1       1     3    0B        0B        0          2
        netns 4026531840: opened 2 + preexisting 0 = failed 1 + closed 0 + open 1
        netns 4026532200: opened 2 + preexisting 1 = failed 0 + closed 1 + open 2
        witness: events_produced 0, wakeups 0, events_lost 0, no_socket 0, states_overflowed 0, storage_failed 0, steps_stateless 0, ledger_failed 0, netns_failed 0, flags_failed 0, steps_repaired 0, adopted_late 0, closed_late 3, ends_unseen 0, owner_failed 0, spans_failed 0, repaired 2
        skipped by the kernel: set_state 7
        audit 1.2 s ago: 2 open in the kernel; 2 ports compared, 0 moved meanwhile, 1 differ
        audit: port 443 out syn_sent: 2 in the ledger, 1 in the kernel
        opened 4 + preexisting 1 = failed 1 + closed 1 + open 3: DOES NOT HOLD
        ");
    }

    #[test]
    fn verdict_reports_incomplete_audits() {
        let verdict = |audit: Audit| report(audit, None).verdict();
        assert_eq!(verdict(Audit::default()), "holds");
        assert_eq!(verdict(audited()), "DOES NOT HOLD");
        assert_eq!(verdict(Audit { moved: 1, ..Audit::default() }), "holds, as far as ports stood still");
        let hidden = Audit { hidden_netns: 1, ..Audit::default() };
        assert_eq!(verdict(hidden), "the sums hold, the sockets could not be compared");
    }

    #[test]
    fn csv_has_rates_since_the_last_report() {
        let before = Ledger::default();
        let csv = report(audited(), Some((&before, 2.0))).write(
            TableFormat::Csv,
            &Services::default(),
            Terminal::NONE,
        );
        insta::assert_snapshot!(csv, @"
        port,direction,opened,preexisting,established,failed,closed,open,bytes_sent,bytes_received,retransmits,listeners,attempts,half_open,abandoned,dropped,refused_by_us,failed_refused,failed_timed_out,failed_unreachable,failed_reset_by_peer,failed_abandoned,failed_local,failed_aborted,failed_unknown,ended_closed_by_us,ended_closed_by_peer,ended_reset_by_us,ended_reset_by_peer,ended_timed_out,ended_unreachable,ended_aborted,ended_not_accepted,ended_unknown,open_syn_sent,open_syn_recv,open_established,open_fin_wait1,open_fin_wait2,open_close_wait,open_last_ack,open_closing,opened_per_s,failed_per_s,closed_per_s,attempts_per_s,refused_by_us_per_s
        443,out,2,1,0,0,1,2,0,0,0,,,,,,,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,2,0,0,0,0,0,0,0,1.0,0.0,0.5,,
        22,in,2,0,1,1,0,1,0,0,0,2,0,0,0,0,0,0,1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,1.0,0.5,0.0,0.0,0.0
        total,both,4,1,1,1,1,3,0,0,0,2,0,0,0,0,0,0,1,0,0,0,0,0,0,0,1,0,0,0,0,0,0,0,2,0,1,0,0,0,0,0,2.0,0.5,0.5,0.0,0.0
        ");
    }

    #[test]
    fn json_has_the_whole_report() {
        let text =
            report(audited(), None).write(TableFormat::Json, &Services::parse("ssh 22/tcp"), Terminal::NONE);
        let mut json: Json = serde_json::from_str(&text).unwrap();
        let ports = json["ports"].take();
        assert_eq!((&ports[0]["port"], &ports[0]["direction"]), (&json!(443), &json!("out")));
        assert_eq!((&ports[1]["port"], &ports[1]["listeners"]), (&json!(22), &json!(2)));
        assert_eq!((&json["total"]["port"], &json["total"]["open_syn_sent"]), (&json!("total"), &json!(2)));
        json["total"].take();
        json["witness"].take();
        insta::assert_snapshot!(json.to_string(), @r#"{"attempts":{"refused_by_us":0,"refused_ports":0,"unknown":{}},"audit":{"age_seconds":1.25,"compared":2,"differences":[{"direction":"out","kernel":1,"ledger":2,"port":443,"state":"syn_sent"}],"hidden_netns":0,"kernel_open":2,"moved":0},"identity":{"closed":1,"failed":1,"holds":false,"open":3,"opened":4,"preexisting":1},"lifetimes":null,"listeners":[{"closed":1,"open":2,"opened":1,"port":22,"preexisting":2}],"netns":[{"closed":0,"failed":1,"netns":4026531840,"open":1,"opened":2,"preexisting":0},{"closed":1,"failed":0,"netns":4026532200,"open":2,"opened":2,"preexisting":1}],"ports":null,"programs":{"set_state":{"missed":7,"run_ns":0,"runs":0}},"repaired":2,"self":null,"time":"2023-11-14T22:13:20.123456789Z","total":null,"unattributed":null,"witness":null}"#);
    }

    #[test]
    fn report_without_ports_keeps_the_total() {
        let mut report = report(audited(), None);
        report.ports.clear();
        assert_eq!(report.write(TableFormat::Csv, &Services::default(), Terminal::NONE).lines().count(), 2);
        assert_eq!(json!(report)["ports"], json!([]));
    }
}
