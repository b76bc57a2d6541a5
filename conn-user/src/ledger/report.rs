//! One reading of the ledger with all that proves it, as a table, JSON or CSV.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use conn_common::cause::Cause;
use conn_common::connection::IN;
use conn_common::counter;
use conn_common::ledger::{Slot, Totals};
use conn_common::state;
use serde_json::{Value as Json, json};

use crate::error::Error;
use crate::event::direction;
use crate::filter::Filter;
use crate::host::clock;
use crate::host::services::Services;
use crate::kernel::probe::Cost;
use crate::kernel::session::{Session, When};
use crate::ledger::audit::Audit;
use crate::ledger::latency::Lifetimes;
use crate::ledger::reader::{Ledger, Listeners};
use crate::ledger::self_cost::{Own, OwnWatch};
use crate::render::number_table::{NumberColumn, NumberTable, NumberValue, TableFormat};

/// The counters that people are shown: what went into the ring, then what did not go the usual way.
const SHOWN: [u32; 14] = [
    counter::PRODUCED,
    counter::WAKEUPS,
    counter::LOST,
    counter::NO_SOCKET,
    counter::STORAGE_FAILED,
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

/// Those of them after which a number here may be too small.
const FAILURES: [u32; 4] =
    [counter::STORAGE_FAILED, counter::LEDGER_FAILED, counter::NETNS_FAILED, counter::SPANS_FAILED];

/// One reading of all that is shown.
#[derive(Debug)]
pub struct Report {
    taken: Instant,
    unix_ns: i64,
    ledger: Ledger,
    audit: Audit,
    audit_age: Duration,
    counters: [u64; counter::COUNT],
    costs: BTreeMap<&'static str, Cost>,
    repaired: u64,
    lifetimes: Option<Lifetimes>,
    own: Option<Own>,
}

impl Report {
    /// Takes a reading of the ports that pass the filter.
    ///
    /// # Errors
    /// The kernel's maps or sockets cannot be read.
    pub fn take(session: &mut Session, filter: &Filter, audit: When) -> Result<Self, Error> {
        let (mut ledger, audit, audit_age) = session.audited(audit)?;
        ledger.ports.retain(|&(direction, port), _| filter.matches_slot(direction, port));
        ledger.listeners.retain(|&port, _| filter.matches_slot(IN, port));
        let mut lifetimes = session.lifetimes()?;
        if let Some(Lifetimes(ports)) = &mut lifetimes {
            ports.retain(|&(direction, port), _| filter.matches_slot(direction, port));
        }
        Ok(Self {
            taken: Instant::now(),
            unix_ns: clock::unix_now_ns(),
            ledger,
            audit,
            audit_age,
            counters: session.counters.read()?,
            costs: session.probe.costs(),
            repaired: session.repaired(),
            lifetimes,
            own: None,
        })
    }

    /// Adds what conntrace itself costs.
    pub fn add_own(&mut self, watch: &OwnWatch) {
        self.own = Some(watch.look(&self.costs, self.counters[counter::LOST as usize]));
    }

    /// Writes it; with rates since `last`, if there was one. `only_total` leaves the ports out, which have the
    /// names of `services` in a table.
    pub fn write(
        &self,
        format: TableFormat,
        services: &Services,
        only_total: bool,
        last: Option<&Self>,
    ) -> String {
        let table = self.table(only_total, last, |port| NumberValue::port(port, services, format));
        match format {
            TableFormat::Csv => table.csv(),
            TableFormat::Json => format!("{}\n", self.json(&table)),
            TableFormat::Table => {
                let lifetimes =
                    self.lifetimes.as_ref().map_or_else(String::new, |all| all.table(services).text());
                format!("{}{lifetimes}{}", table.text(), self.proof())
            }
        }
    }

    /// The ports by what they opened, then the total.
    fn table(&self, only_total: bool, last: Option<&Self>, name: impl Fn(u16) -> NumberValue) -> NumberTable {
        let mut table = NumberTable::new(&columns(last.is_some()));
        let since = last.map(|last| (&last.ledger, (self.taken - last.taken).as_secs_f64()));
        if !only_total {
            let mut ports: Vec<_> = self.ledger.ports.iter().collect();
            ports.sort_by_key(|&(&key, slot)| (std::cmp::Reverse(slot.opened() + slot.preexisting()), key));
            for (key, slot) in ports {
                let listeners = if key.0 == IN { self.ledger.listeners.get(&key.1).copied() } else { None };
                let head = [name(key.1), NumberValue::Text(direction_name(key.0).into())];
                let rate = since.map(|(then, seconds)| (then.ports.get(key).unwrap_or(&Slot::ZERO), seconds));
                table.rows.push(row(head, slot, listeners, rate));
            }
        }
        let total = self.ledger.total();
        let then = since.map(|(then, seconds)| (then.total(), seconds));
        let head = [NumberValue::Text("total".into()), NumberValue::Text("both".into())];
        table.rows.push(row(
            head,
            &total,
            Some(self.listeners()),
            then.as_ref().map(|(then, seconds)| (then, *seconds)),
        ));
        table
    }

    fn listeners(&self) -> Listeners {
        self.ledger.listeners.values().fold(Listeners::default(), |sum, one| Listeners {
            opened: sum.opened + one.opened,
            preexisting: sum.preexisting + one.preexisting,
            closed: sum.closed + one.closed,
        })
    }

    /// What was lost, missed and repaired, what the audit found, then the identity.
    fn proof(&self) -> String {
        let total = self.ledger.total();
        let troubles = SHOWN
            .map(|at| format!("{} {}", counter::NAMES[at as usize], self.counters[at as usize]))
            .join(", ");
        let missed: Vec<String> =
            self.costs.iter().map(|(name, cost)| format!("{name} {}", cost.missed)).collect();
        let mut lines: Vec<String> = Vec::new();
        if self.ledger.netns.len() > 1 {
            lines.extend(self.ledger.netns.iter().map(|(inode, totals)| {
                format!(
                    "netns {inode}: opened {} + preexisting {} = failed {} + closed {} + open {}",
                    totals.opened,
                    totals.preexisting,
                    totals.failed,
                    totals.closed,
                    totals.open()
                )
            }));
        }
        lines.extend([
            format!("witness: {troubles}, repaired {}", self.repaired),
            format!("skipped by the kernel: {}", missed.join(", ")),
            format!(
                "audit {:.1} s ago: {} open in the kernel; {} ports compared, {} moved meanwhile, {} differ",
                self.audit_age.as_secs_f64(),
                self.audit.kernel_open,
                self.audit.compared,
                self.audit.moved,
                self.audit.differences.len()
            ),
        ]);
        if self.audit.hidden_netns > 0 {
            lines.push(format!(
                "audit: network namespaces with open connections that cannot be entered: {}; nothing was compared",
                self.audit.hidden_netns
            ));
        }
        lines.extend(self.audit.differences.iter().map(|difference| {
            format!(
                "audit: port {} {} {}: {} in the ledger, {} in the kernel",
                difference.port,
                direction_name(difference.direction),
                state::name(difference.state).unwrap_or("-"),
                difference.ledger,
                difference.kernel
            )
        }));
        lines.extend(self.own.iter().flat_map(Own::lines));
        lines.push(format!(
            "opened {} + preexisting {} = failed {} + closed {} + open {}: {}",
            total.opened(),
            total.preexisting(),
            total.failed(),
            total.closed(),
            total.open(),
            self.verdict()
        ));
        lines.join("\n") + "\n"
    }

    /// What the sums and the sockets say together.
    fn verdict(&self) -> &'static str {
        if !self.holds() {
            "DOES NOT HOLD"
        } else if self.audit.hidden_netns > 0 {
            "the sums hold, the sockets could not be compared"
        } else if self.audit.moved > 0 {
            "holds, as far as ports stood still"
        } else {
            "holds"
        }
    }

    /// How many steps were missed or could not be counted, as far as anybody knows.
    pub fn missed(&self) -> u64 {
        let failures: u64 = FAILURES.iter().map(|&at| self.counters[at as usize]).sum();
        failures + self.repaired + self.audit.differences.len() as u64
    }

    /// The identity over the whole ledger, and the audit.
    fn holds(&self) -> bool {
        let total = self.ledger.total();
        let (left, right) = (total.opened() + total.preexisting(), total.failed() + total.closed());
        i128::from(left) == i128::from(right) + i128::from(total.open()) && self.audit.holds()
    }

    fn json(&self, table: &NumberTable) -> Json {
        let mut time = Vec::new();
        clock::rfc3339(self.unix_ns, &mut time);
        let mut ports = table.json();
        let total = ports.as_array_mut().and_then(Vec::pop).unwrap_or_default();
        let total_slot = self.ledger.total();
        let counters: BTreeMap<_, _> = counter::NAMES.iter().zip(self.counters).collect();
        json!({
            "time": String::from_utf8_lossy(&time),
            "ports": ports,
            "total": total,
            "unattributed": self.ledger.unattributed.map(|slot| slot.opened()),
            "listeners": self.ledger.listeners.iter().map(|(port, one)| listeners_json(*port, one)).collect::<Vec<_>>(),
            "netns": self.ledger.netns.iter().map(|(inode, totals)| totals_json(*inode, totals)).collect::<Vec<_>>(),
            "identity": {
                "opened": total_slot.opened(),
                "preexisting": total_slot.preexisting(),
                "failed": total_slot.failed(),
                "closed": total_slot.closed(),
                "open": total_slot.open(),
                "holds": self.holds(),
            },
            "audit": {
                "age_seconds": self.audit_age.as_secs_f64(),
                "kernel_open": self.audit.kernel_open,
                "compared": self.audit.compared,
                "moved": self.audit.moved,
                "hidden_netns": self.audit.hidden_netns,
                "differences": self.audit.differences.iter().map(|one| json!({
                    "direction": direction_name(one.direction),
                    "port": one.port,
                    "state": state::name(one.state).map(str::to_lowercase),
                    "ledger": one.ledger,
                    "kernel": one.kernel,
                })).collect::<Vec<_>>(),
            },
            "witness": counters,
            "programs": self.costs,
            "repaired": self.repaired,
            "lifetimes": self.lifetimes.as_ref().map(Lifetimes::json),
            "self": self.own.as_ref().map(Own::json),
        })
    }
}

fn direction_name(direction: u8) -> &'static str {
    direction::name(direction).unwrap_or("-")
}

fn listeners_json(port: u16, one: &Listeners) -> Json {
    json!({
        "port": port,
        "opened": one.opened,
        "preexisting": one.preexisting,
        "closed": one.closed,
        "open": one.open(),
    })
}

fn totals_json(inode: u32, totals: &Totals) -> Json {
    json!({
        "netns": inode,
        "opened": totals.opened,
        "preexisting": totals.preexisting,
        "failed": totals.failed,
        "closed": totals.closed,
        "open": totals.open(),
    })
}

/// The columns of the ledger. What is rare is left to the machine formats.
fn columns(with_rates: bool) -> Vec<NumberColumn> {
    let mut columns = vec![
        NumberColumn { name: "port", in_text: true },
        NumberColumn { name: "direction", in_text: true },
        NumberColumn { name: "opened", in_text: true },
        NumberColumn { name: "preexisting", in_text: true },
        NumberColumn { name: "established", in_text: true },
        NumberColumn { name: "failed", in_text: true },
        NumberColumn { name: "closed", in_text: true },
        NumberColumn { name: "open", in_text: true },
        NumberColumn { name: "bytes_sent", in_text: true },
        NumberColumn { name: "bytes_received", in_text: true },
        NumberColumn { name: "retransmits", in_text: true },
        NumberColumn { name: "listeners", in_text: true },
    ];
    columns.extend(FAILED.iter().chain(&ENDED).map(|&(_, name)| NumberColumn { name, in_text: false }));
    columns.extend(state::OPEN.map(|state| NumberColumn { name: open_name(state), in_text: false }));
    if with_rates {
        columns.push(NumberColumn { name: "opened_per_s", in_text: true });
        columns.push(NumberColumn { name: "failed_per_s", in_text: true });
        columns.push(NumberColumn { name: "closed_per_s", in_text: true });
    }
    columns
}

/// Columns of failures: connections that were never established.
const FAILED: [(Cause, &str); 8] = [
    (Cause::Refused, "failed_refused"),
    (Cause::TimedOut, "failed_timed_out"),
    (Cause::Unreachable, "failed_unreachable"),
    (Cause::ResetByPeer, "failed_reset_by_peer"),
    (Cause::Abandoned, "failed_abandoned"),
    (Cause::Local, "failed_local"),
    (Cause::Aborted, "failed_aborted"),
    (Cause::Unknown, "failed_unknown"),
];

/// Columns of the other ends.
const ENDED: [(Cause, &str); 9] = [
    (Cause::ClosedByUs, "ended_closed_by_us"),
    (Cause::ClosedByPeer, "ended_closed_by_peer"),
    (Cause::ResetByUs, "ended_reset_by_us"),
    (Cause::ResetByPeer, "ended_reset_by_peer"),
    (Cause::TimedOut, "ended_timed_out"),
    (Cause::Unreachable, "ended_unreachable"),
    (Cause::Aborted, "ended_aborted"),
    (Cause::NotAccepted, "ended_not_accepted"),
    (Cause::Unknown, "ended_unknown"),
];

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

/// One row of the table. `rate` is the slot as it was some seconds ago.
fn row(
    head: [NumberValue; 2],
    slot: &Slot,
    listeners: Option<Listeners>,
    rate: Option<(&Slot, f64)>,
) -> Vec<NumberValue> {
    let mut row = Vec::from(head);
    row.extend([
        slot.opened().into(),
        slot.preexisting().into(),
        slot.established().into(),
        slot.failed().into(),
        slot.closed().into(),
        slot.open().into(),
        slot.bytes_sent().into(),
        slot.bytes_received().into(),
        slot.retransmits().into(),
        listeners.map_or(NumberValue::Unknown, |listeners| listeners.open().into()),
    ]);
    row.extend(FAILED.map(|(cause, _)| NumberValue::from(slot.failed_by(cause))));
    row.extend(ENDED.map(|(cause, _)| NumberValue::from(slot.closed_by(cause))));
    row.extend(state::OPEN.map(|state| NumberValue::from(slot.open_in(state))));
    if let Some((before, seconds)) = rate {
        let per_second = |now: u64, then: u64| NumberValue::Rate(now.saturating_sub(then) as f64 / seconds);
        row.push(per_second(slot.opened(), before.opened()));
        row.push(per_second(slot.failed(), before.failed()));
        row.push(per_second(slot.closed(), before.closed()));
    }
    row
}
