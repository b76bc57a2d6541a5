//! A report as a table for people, CSV, or JSON.

use conn_common::counter;
use conn_common::state;
use serde::{Serialize as _, Serializer};
use serde_json::json;

use crate::host::services::Services;
use crate::ledger::report::{ENDED, FAILED, PortCounts, Report, direction_name};
use crate::ledger::self_cost::SelfCost;
use crate::render::number_table::{Column, Table, TableFormat, Value};

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

impl Report {
    /// The report in one of the formats. A table has the ports' names of `services`.
    pub fn write(&self, format: TableFormat, services: &Services) -> String {
        let table =
            || table(self.ports.iter().chain([&self.total]), |port| Value::port(port, services, format));
        match format {
            TableFormat::Csv => table().csv(),
            // By way of a value, whose fields are sorted.
            TableFormat::Json => format!("{}\n", json!(self)),
            TableFormat::Table => {
                let lifetimes =
                    self.lifetimes.as_ref().map_or_else(String::new, |all| all.table(services).text());
                format!("{}{lifetimes}{}", table().text(), self.proof())
            }
        }
    }

    /// Lines of what was lost, missed and repaired, of what the audit found, and of the identity.
    fn proof(&self) -> String {
        let audit = &self.audit.found;
        let mut lines = self.netns_lines();
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
                state::name(difference.state).unwrap_or("-"),
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

    /// What the sums and the sockets say together.
    fn verdict(&self) -> &'static str {
        if !self.identity.holds {
            "DOES NOT HOLD"
        } else if self.audit.found.hidden_netns > 0 {
            "the sums hold, the sockets could not be compared"
        } else if self.audit.found.moved > 0 {
            "holds, as far as ports stood still"
        } else {
            "holds"
        }
    }
}

/// The rows of a report as objects.
pub(super) fn port_rows<S: Serializer>(ports: &[PortCounts], serializer: S) -> Result<S::Ok, S::Error> {
    table(ports, Value::from).json().serialize(serializer)
}

/// One row of a report as an object.
pub(super) fn port_row<S: Serializer>(port: &PortCounts, serializer: S) -> Result<S::Ok, S::Error> {
    table([port], Value::from).json()[0].serialize(serializer)
}

/// The rows under the ledger's columns. `name` makes a value of a port.
fn table<'a>(rows: impl IntoIterator<Item = &'a PortCounts>, name: impl Fn(u16) -> Value) -> Table {
    let mut rows = rows.into_iter().peekable();
    let has_rates = rows.peek().is_some_and(|row| row.rates.is_some());
    let mut table = Table::new(&columns(has_rates));
    table.rows.extend(rows.map(|counts| row(counts, &name)));
    table
}

/// The columns of the ledger. Only the machine formats have the rare ones.
fn columns(has_rates: bool) -> Vec<Column> {
    let in_text = |name| Column { name, in_text: true };
    let mut columns: Vec<Column> = [
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
    columns.extend(FAILED.iter().chain(&ENDED).map(|&(_, name)| Column { name, in_text: false }));
    columns.extend(state::OPEN.map(|state| Column { name: open_name(state), in_text: false }));
    if has_rates {
        columns.extend(["opened_per_s", "failed_per_s", "closed_per_s"].map(in_text));
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
fn row(counts: &PortCounts, name: impl Fn(u16) -> Value) -> Vec<Value> {
    let PortCounts { key, slot, listeners, rates } = counts;
    let mut row = match *key {
        Some((direction, port)) => vec![name(port), Value::Text(direction_name(direction).into())],
        None => vec![Value::Text("total".into()), Value::Text("both".into())],
    };
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
        listeners.map_or(Value::Unknown, |listeners| listeners.open().into()),
    ]);
    row.extend(FAILED.map(|(cause, _)| Value::from(slot.failed_by(cause))));
    row.extend(ENDED.map(|(cause, _)| Value::from(slot.closed_by(cause))));
    row.extend(state::OPEN.map(|state| Value::from(slot.open_in(state))));
    if let Some(rates) = rates {
        row.extend([rates.opened, rates.failed, rates.closed].map(Value::Rate));
    }
    row
}
