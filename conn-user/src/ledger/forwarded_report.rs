//! One reading of the counts of forwarded flows with the accounts that prove them, in three formats.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use conn_common::protocol::{self, TCP, UDP};
use serde_json::{Value, json};

use crate::conntrack::account::{Account, Verdict};
use crate::event::entry::Failures;
use crate::ledger::report_text::{BUSIEST, ReportStyle};
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};

/// How many flows began and ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// Flows that began.
    pub begun: u64,
    /// Flows that ended.
    pub ended: u64,
}

/// The counts by protocol and service port.
pub(crate) type PassedByPort = BTreeMap<(u8, u16), Passed>;

/// One reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForwardedReport {
    /// Wall-clock time (RFC 3339).
    pub time: String,
    /// The counts of messages that were received, of flows that pass the filters. Protocols without ports have port 0.
    pub ports: PassedByPort,
    /// The account of each network namespace, of all that it tracks.
    pub accounts: Vec<Account>,
    /// Only the sums are shown.
    pub is_total: bool,
}

impl ForwardedReport {
    /// Flows whose messages were lost: nothing is known of them, not even whether they passed through.
    fn unattributed(&self) -> Passed {
        let sum = |at: usize| self.accounts.iter().map(|account| account.lost[at]).sum();
        Passed { begun: sum(0), ended: sum(1) }
    }

    fn total(&self) -> Passed {
        let all = self.ports.values().copied().chain([self.unattributed()]);
        all.fold(Passed::default(), |sum, one| Passed {
            begun: sum.begun + one.begun,
            ended: sum.ended + one.ended,
        })
    }

    /// How many messages were lost, and by how many flows the accounts differ.
    pub(crate) fn missed(&self) -> u64 {
        let lost = self.unattributed();
        let differs = self.accounts.iter().map(|account| match account.verdict() {
            Verdict::Differs(by) => by,
            Verdict::Holds | Verdict::Moving => 0,
        });
        lost.begun + lost.ended + differs.sum::<u64>()
    }

    /// The report in the style.
    pub(crate) fn write(&self, style: &ReportStyle) -> String {
        match style.format {
            TableFormat::Json => format!("{}\n", self.json()),
            TableFormat::Csv => {
                let mut table = self.table(style);
                if style.is_repeated {
                    let time = NumberColumn { name: "time", in_text: true };
                    table = table.with_first(time, &NumberValue::Text(self.time.clone()));
                }
                table.csv(style.header)
            }
            TableFormat::Table => {
                let table = self.table(style);
                let mut text = table.text(style.header);
                for account in &self.accounts {
                    // Writing into a string does not fail.
                    _ = writeln!(text, "{}", line(account));
                }
                text
            }
        }
    }

    /// The rows, the busiest first; in a table for people at most [`BUSIEST`], and the sum of the others.
    fn table(&self, style: &ReportStyle) -> NumberTable {
        let columns = ["protocol", "port", "begun", "ended"].map(|name| NumberColumn { name, in_text: true });
        let mut table = NumberTable::new(&columns);
        let mut row = |protocol: NumberValue, port: NumberValue, passed: Passed| {
            table.rows.push(vec![protocol, port, passed.begun.into(), passed.ended.into()]);
        };
        let mut ports: Vec<_> = self.ports.iter().filter(|_| !self.is_total).collect();
        ports.sort_by_key(|(_, passed)| std::cmp::Reverse(passed.begun + passed.ended));
        let is_cut = style.format == TableFormat::Table && !style.all_ports;
        let others = if is_cut { ports.split_off(ports.len().min(BUSIEST)) } else { Vec::new() };
        for (&(number, port), &passed) in ports {
            row(protocol_name(number), port_name(number, port, style), passed);
        }
        let text = |text: String| NumberValue::Text(text);
        if !others.is_empty() {
            let sum = others.iter().fold(Passed::default(), |sum, (_, one)| Passed {
                begun: sum.begun + one.begun,
                ended: sum.ended + one.ended,
            });
            row(text(format!("{} others", others.len())), NumberValue::Unknown, sum);
        }
        let unattributed = self.unattributed();
        if unattributed != Passed::default() {
            row(text("unattributed".into()), NumberValue::Unknown, unattributed);
        }
        row(text("total".into()), NumberValue::Unknown, self.total());
        table
    }

    fn json(&self) -> Value {
        let passed = |passed: Passed| json!({ "begun": passed.begun, "ended": passed.ended });
        let port = |(&(number, port), one): (&(u8, u16), &Passed)| {
            json!({
                "protocol": protocol::name(number),
                "protocol_number": number,
                "port": has_ports(number).then_some(port),
                "begun": one.begun,
                "ended": one.ended,
            })
        };
        let account = |account: &Account| {
            let Failures { insert_failed, dropped, dropped_early } = account.failures;
            let verdict = account.verdict();
            json!({
                "netns": account.netns,
                "begun": account.begun[1],
                "preexisting": account.preexisting,
                "ended": account.ended[1],
                "ended_unseen": account.ended_unseen,
                "tracked": account.tracked,
                "max": account.max,
                "lost_begun": account.lost[0],
                "lost_ended": account.lost[1],
                "moving": verdict == Verdict::Moving,
                "holds": !matches!(verdict, Verdict::Differs(_)),
                "insert_failed": insert_failed,
                "drop": dropped,
                "early_drop": dropped_early,
            })
        };
        json!({ "forwarded": {
            "time": self.time,
            "ports": self.ports.iter().filter(|_| !self.is_total).map(port).collect::<Vec<_>>(),
            "unattributed": passed(self.unattributed()),
            "total": passed(self.total()),
            "namespaces": self.accounts.iter().map(account).collect::<Vec<_>>(),
        } })
    }
}

/// The account of a namespace for people.
fn line(account: &Account) -> String {
    let Account { netns, preexisting, ended_unseen, tracked, max, failures, lost, .. } = account;
    let (begun, ended) = (account.begun[1], account.ended[1]);
    let part =
        |number: u64, name: &str| if number > 0 { format!(" + {number} {name}") } else { String::new() };
    let verdict = match account.verdict() {
        Verdict::Holds => "exact".to_owned(),
        Verdict::Moving => "flows move".to_owned(),
        Verdict::Differs(by) => format!("NOT EXACT by {by}"),
    };
    let mut text = format!(
        "netns {netns}: {verdict}: {begun} begun{} = {ended} ended{} + {tracked} tracked of {max}",
        part(*preexisting, "preexisting"),
        part(*ended_unseen, "ended unseen"),
    );
    let mut also = |number: u64, says: &str| {
        if number > 0 {
            // Writing into a string does not fail.
            _ = write!(text, "; {number} {says}");
        }
    };
    also(lost[0] + lost[1], "messages lost, which have no port");
    also(failures.insert_failed, "flows found no place (insert_failed)");
    also(failures.dropped, "packets dropped (drop)");
    also(failures.dropped_early, "flows given up for others (early_drop)");
    text
}

fn protocol_name(number: u8) -> NumberValue {
    protocol::name(number).map_or_else(|| number.into(), |name| NumberValue::Text(name.into()))
}

/// True of protocols whose flows have a service port. GRE has keys.
const fn has_ports(number: u8) -> bool {
    matches!(number, TCP | UDP | protocol::SCTP | 33 | 136)
}

fn port_name(number: u8, port: u16, style: &ReportStyle) -> NumberValue {
    match number {
        TCP => NumberValue::port(port, &style.services, style.format),
        UDP => NumberValue::port(port, &style.services.of_udp(), style.format),
        number if has_ports(number) => port.into(),
        _ => NumberValue::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::services::Services;

    fn report(lost: [u64; 2]) -> ForwardedReport {
        let ports = [((TCP, 443), (7, 5)), ((UDP, 53), (2, 2)), ((1, 0), (1, 0)), ((2, 0), (1, 1))];
        let ports = ports.map(|(key, (begun, ended))| (key, Passed { begun, ended }));
        let (begun, ended) = (12 + lost[0], 9 + lost[1]);
        let account = Account {
            netns: 4_026_531_840,
            begun: [begun; 2],
            ended: [ended; 2],
            lost,
            preexisting: 3,
            ended_unseen: 1,
            silent: 0,
            tracked: begun + 3 - ended - 1,
            max: 65_536,
            failures: Failures { dropped: 4, ..Failures::default() },
            is_settled: true,
        };
        let idle = Account {
            netns: 7,
            begun: [0; 2],
            ended: [0; 2],
            lost: [0; 2],
            preexisting: 0,
            ended_unseen: 0,
            silent: 0,
            tracked: 1,
            failures: Failures::default(),
            ..account.clone()
        };
        let time = "2026-01-01T00:00:00Z".to_owned();
        ForwardedReport { time, ports: ports.into(), accounts: vec![account, idle], is_total: false }
    }

    #[test]
    fn report_in_three_formats() {
        let style = |format| ReportStyle {
            format,
            header: true,
            services: Services::parse("https 443/tcp"),
            ..ReportStyle::default()
        };
        let formats = [TableFormat::Table, TableFormat::Csv, TableFormat::Json];
        let texts = formats.map(|format| report([2, 1]).write(&style(format)));
        insta::assert_snapshot!(texts.join("\n"));
        assert_eq!((report([0, 0]).missed(), report([2, 1]).missed()), (1, 4));
        assert_eq!(report([2, 1]).total(), Passed { begun: 13, ended: 9 });
        let total = ForwardedReport { is_total: true, ..report([0, 0]) }.write(&style(TableFormat::Csv));
        assert_eq!(total, "protocol,port,begun,ended\ntotal,,11,8\n");
    }
}
