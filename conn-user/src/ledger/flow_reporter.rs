//! Gathers the parts of a report of UDP flows, and remembers what rates and the audit need.

use std::time::{Duration, Instant};

use conn_common::connection::OUT;
use conn_common::flow_counts::{BEGUN, FlowCounts};
use conn_common::protocol::UDP;

use crate::filter::Filter;
use crate::host::clock;
use crate::kernel::counters::Counters;
use crate::kernel::flow_counts::{FlowCountReader, FlowTally, Packets, Ports, add_packets, total};
use crate::kernel::session::Session;
use crate::kernel::sockets;
use crate::ledger::auditor::{AuditError, When};
use crate::ledger::flow_audit::{self, FlowAudit, Start};
use crate::ledger::flow_report::{FlowReport, FlowRow};
use crate::ledger::report::RowKey;

/// Time between two comparisons with the kernel's counters.
const AUDIT_EVERY: Duration = Duration::from_secs(10);
/// A comparison is tried again so often while it finds a difference: the kernel counts a packet just after the programs do.
const TRIES: usize = 20;
/// Time between these tries.
const PAUSE: Duration = Duration::from_millis(5);

/// The counts that the sweep over the table made, and the packets that are in the table.
pub(crate) trait Swept {
    /// The flows that the sweep ended, and their packets.
    fn tally(&self) -> &FlowTally;
    /// Packets of flows in the table, by network namespace.
    fn in_table(&self) -> Packets;
}

/// Makes reports.
#[derive(Debug)]
pub(crate) struct FlowReporter<'a> {
    session: &'a Session,
    filter: &'a Filter,
    reader: FlowCountReader,
    counters: Counters,
    start: Start,
    audit: Option<(Instant, FlowAudit)>,
    last: Option<(Instant, Ports)>,
}

impl<'a> FlowReporter<'a> {
    /// Makes reports of the ports that pass the filter, and reads the kernel's counters at the start.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(crate) fn new(
        session: &'a Session,
        filter: &'a Filter,
        swept: &impl Swept,
    ) -> Result<Self, AuditError> {
        let mut reporter = Self {
            session,
            filter,
            reader: FlowCountReader::new(&session.probe)?,
            counters: Counters::new(&session.probe)?,
            start: Start::default(),
            audit: None,
            last: None,
        };
        let found = sockets::all_namespaces(&session.probe)?;
        let before = reporter.least(swept)?;
        let first = flow_audit::read_first(&found.namespaces);
        let after = reporter.most(swept)?;
        reporter.start = Start::new(&found, before, first, after);
        Ok(reporter)
    }

    /// Packets that were counted, at the least: a flow may end between the two readings, and is in neither.
    fn least(&self, swept: &impl Swept) -> Result<Packets, AuditError> {
        let mut packets = self.reader.packets()?;
        add_packets(&mut packets, &swept.tally().netns);
        add_packets(&mut packets, &swept.in_table());
        Ok(packets)
    }

    /// Packets that were counted, at the most: a flow may end between the two readings, and is in both.
    fn most(&self, swept: &impl Swept) -> Result<Packets, AuditError> {
        let mut packets = swept.in_table();
        add_packets(&mut packets, &swept.tally().netns);
        add_packets(&mut packets, &self.reader.packets()?);
        Ok(packets)
    }

    /// Compares with the kernel's counters.
    fn audit(&self, swept: &impl Swept) -> Result<FlowAudit, AuditError> {
        let found = sockets::all_namespaces(&self.session.probe)?;
        let mut audit = FlowAudit::default();
        for nth in 0..TRIES {
            if nth > 0 {
                std::thread::sleep(PAUSE);
            }
            let before = self.least(swept)?;
            let counters = flow_audit::read(&found.namespaces);
            let after = self.most(swept)?;
            audit = self.start.compare(&before, &counters, &after);
            if audit.holds() {
                break;
            }
        }
        Ok(audit)
    }

    /// One report, with rates since the last one.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(crate) fn report(&mut self, when: When, swept: &impl Swept) -> Result<FlowReport, AuditError> {
        let is_due = self.audit.as_ref().is_none_or(|(at, _)| at.elapsed() >= AUDIT_EVERY);
        if is_due || when == When::Now {
            self.audit = Some((Instant::now(), self.audit(swept)?));
        }
        let taken = Instant::now();
        let mut passed = self.reader.ports(&swept.tally().ports)?;
        passed.retain(|&(direction, port), _| self.filter.matches_slot_of(UDP, direction, port));
        let mut time = Vec::new();
        clock::rfc3339(clock::unix_now_ns(), &mut time);
        let since = self.last.as_ref().map(|(then, last)| (last, (taken - *then).as_secs_f64()));
        let row = |key, counts: &FlowCounts, then: Option<FlowCounts>| FlowRow {
            key,
            counts: *counts,
            sees_drops: self.session.flow_drops,
            rates: since.map(|(_, seconds)| rates(counts, &then.unwrap_or_default(), seconds)),
        };
        let mut ports: Vec<FlowRow> = passed
            .iter()
            .map(|(key, counts)| {
                let then = since.and_then(|(last, _)| last.get(key).copied());
                row(RowKey::Port(key.0, key.1), counts, then)
            })
            .collect();
        ports.sort_by_key(|row| {
            let begun = row.counts.ended() + row.counts.open().max(0).cast_unsigned();
            let RowKey::Port(direction, port) = row.key else { return (0, OUT, 0) };
            (u64::MAX - begun, direction, port)
        });
        let sum = total(&passed);
        let report = FlowReport::new(
            String::from_utf8_lossy(&time).into_owned(),
            ports,
            row(RowKey::Total, &sum, since.map(|(last, _)| total(last))),
            self.audit.as_ref().map(|(_, audit)| audit.clone()),
            &self.counters.read()?,
        );
        self.last = Some((taken, passed));
        Ok(report)
    }
}

/// Flows that began and that ended, per second.
fn rates(now: &FlowCounts, then: &FlowCounts, seconds: f64) -> (f64, f64) {
    let begun = |counts: &FlowCounts| counts.cells[BEGUN];
    let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
    (per_second(begun(now), begun(then)), per_second(now.ended(), then.ended()))
}
