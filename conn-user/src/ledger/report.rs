//! One reading of the ledger with all that proves it, as data. [`Report::write`] makes text, CSV and JSON of it.

use std::collections::{BTreeMap, BTreeSet};

use conn_common::cause::Cause;
use conn_common::connection::IN;
use conn_common::counter;
use conn_common::ledger::Cells;
use conn_common::state;
use serde::{Serialize, Serializer};

use crate::event::direction;
use crate::host::clock;
use crate::kernel::attempt_hooks::Sight;
use crate::kernel::counters::Failures;
use crate::kernel::program_stats::Cost;
use crate::ledger::attempts::{self, AttemptCounts};
use crate::ledger::audit::{Audit, Difference, Hidden};
use crate::ledger::auditor::AgedAudit;
use crate::ledger::counts::Counts;
use crate::ledger::kernel_counters::SecondAudit;
use crate::ledger::latency::Lifetimes;
use crate::ledger::netns_totals::{self, GoneNetns, NetnsTotals};
use crate::ledger::rates::{Baseline, Begun, Rates};
use crate::ledger::reader::{Ledger, Listeners, SHARED};
use crate::ledger::report_text;
use crate::ledger::self_cost::SelfCost;
use crate::ledger::sources::Sources;

/// How many namespaces that were left out a report names.
pub(super) const MAX_HIDDEN: usize = 16;

/// The parts of a report.
#[derive(Debug)]
pub(super) struct Gathered<'a> {
    pub unix_ns: i64,
    pub ledger: &'a Ledger,
    pub sight: Sight,
    pub audit: AgedAudit,
    pub counters: [u64; counter::COUNT],
    pub costs: BTreeMap<&'static str, Cost>,
    pub repaired: u64,
    pub lifetimes: Option<Lifetimes>,
    pub sources: Option<Sources>,
    pub self_cost: Option<SelfCost>,
}

/// One reading of all that is shown. As JSON, the field names are part of the interface (docs/json.md).
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Wall-clock time (RFC 3339).
    pub time: String,
    /// By direction and service port, the most used first.
    #[serde(serialize_with = "report_text::port_rows")]
    pub ports: Vec<PortCounts>,
    /// All ports and directions added up.
    #[serde(serialize_with = "report_text::port_row")]
    pub total: PortCounts,
    /// Connections that were counted without a port; none if there was a slot for each.
    pub unattributed: Option<u64>,
    /// Refused SYNs in all, and the numbers that this host does not show.
    #[serde(rename = "attempts")]
    pub tries: attempts::Summary,
    /// Listeners by port.
    pub listeners: Vec<ListenerCounts>,
    /// Totals by network namespace, of those that exist.
    pub netns: Vec<NetnsTotals>,
    /// Totals of the network namespaces that are gone; none if there are none.
    pub netns_gone: Option<GoneNetns>,
    /// The sums that must agree.
    pub identity: Identity,
    /// The comparison with the sockets.
    #[serde(serialize_with = "audit")]
    pub audit: AgedAudit,
    /// The comparison with the kernel's counters, by namespace.
    #[serde(rename = "kernel")]
    pub second: SecondAudit,
    /// The programs' counters of themselves, by name.
    #[serde(rename = "witness", serialize_with = "named_counters")]
    pub counters: [u64; counter::COUNT],
    /// The kernel's counts of the programs, by name.
    pub programs: BTreeMap<&'static str, Cost>,
    /// Connections that an audit counted as ended.
    pub repaired: u64,
    /// Histograms of handshakes and lifetimes, if the run asked for them.
    pub lifetimes: Option<Lifetimes>,
    /// The remote addresses with the largest counts, if the run asked for them.
    pub sources: Option<Sources>,
    /// The self cost of conntrace, if the run asked for it.
    #[serde(rename = "self")]
    pub self_cost: Option<SelfCost>,
}

/// The counts of one direction and service port, or of all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PortCounts {
    /// What is counted.
    pub key: RowKey,
    /// The cells of the ledger.
    pub slot: Counts,
    /// Sockets that listen on the port; none for outgoing connections.
    pub listeners: Option<Listeners>,
    /// Attempts that never became a connection; none for outgoing connections.
    pub attempts: Option<AttemptCounts>,
    /// Changes since the last report; none in the first one.
    pub rates: Option<Rates>,
}

impl PortCounts {
    /// True of a port that has refused SYNs and nothing else.
    pub(super) fn is_refused_only(&self) -> bool {
        matches!(self.key, RowKey::Port(..))
            && self.slot == Counts::ZERO
            && self.listeners.is_none()
            && self.attempts.is_some_and(AttemptCounts::is_refused_only)
    }

    /// The sum of rows; none if there are none.
    pub(super) fn sum(rows: &[&Self]) -> Option<Self> {
        let (first, others) = rows.split_first()?;
        let mut sum = Self { key: RowKey::Others(rows.len()), ..(*first).clone() };
        for row in others {
            sum.slot.add(&row.slot);
            sum.listeners = joined(sum.listeners, row.listeners, Listeners::plus);
            sum.attempts = joined(sum.attempts, row.attempts, AttemptCounts::plus);
            sum.rates = joined(sum.rates, row.rates, Rates::plus);
        }
        Some(sum)
    }
}

/// Both together, or the one that there is.
fn joined<T>(one: Option<T>, other: Option<T>, plus: impl Fn(T, T) -> T) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(plus(one, other)),
        (one, other) => one.or(other),
    }
}

/// What a row of a report counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowKey {
    /// A direction and service port.
    Port(u8, u16),
    /// So many others together.
    Others(usize),
    /// All of them.
    Total,
}

/// Listeners of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ListenerCounts {
    /// The port.
    pub port: u16,
    /// Listeners that began while conntrace ran.
    pub opened: u64,
    /// Listeners that existed before.
    pub preexisting: u64,
    /// Listeners that ended.
    pub closed: u64,
    /// Listeners that exist now.
    pub open: u64,
}

/// `opened + preexisting = failed + closed + open`, over the whole ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    /// As [`Cells::opened`].
    pub opened: u64,
    /// As [`Cells::preexisting`].
    pub preexisting: u64,
    /// As [`Cells::failed`].
    pub failed: u64,
    /// As [`Cells::closed`].
    pub closed: u64,
    /// As [`Cells::open`].
    pub open: i64,
    /// Both sides are equal, the audit found no difference, and the programs had no failure.
    pub holds: bool,
}

impl Report {
    /// Makes a report. `since` is what rates need of the last report, and how many seconds old it is.
    pub(super) fn new(gathered: Gathered<'_>, since: Option<(&Baseline, f64)>) -> Self {
        let Gathered { unix_ns, ledger, sight, audit, counters, costs, repaired, .. } = gathered;
        let total = ledger.total();
        let (left, right) = (total.opened() + total.preexisting(), total.failed() + total.closed());
        let is_equal = i128::from(left) == i128::from(right) + i128::from(total.open());
        let second = audit.found.kernel.clone();
        // Before the first audit, the queues are not known.
        let is_audited = audit.age.is_some();
        let sight = if is_audited { sight } else { Sight { half_open: false, dropped: false, ..sight } };
        let (netns, netns_gone) = netns_totals::of(ledger, &audit.found);
        let mut time = Vec::new();
        clock::rfc3339(unix_ns, &mut time);
        Self {
            time: String::from_utf8_lossy(&time).into_owned(),
            ports: ports(ledger, sight, &audit.found, since),
            total: PortCounts {
                key: RowKey::Total,
                slot: total.clone(),
                listeners: Some(all_listeners(ledger)),
                attempts: Some(all_attempts(ledger, sight, &audit.found)),
                rates: since.map(|(then, seconds)| {
                    Rates::new(Begun::of(&total, attempts::sum(&ledger.attempts)), then.total, seconds)
                }),
            },
            unattributed: ledger.unattributed.as_ref().map(Cells::opened),
            tries: attempts::Summary::new(sight, is_audited, &ledger.attempts),
            listeners: ledger.listeners.iter().map(listener_counts).collect(),
            netns,
            netns_gone,
            identity: Identity {
                opened: total.opened(),
                preexisting: total.preexisting(),
                failed: total.failed(),
                closed: total.closed(),
                open: total.open(),
                holds: is_equal && audit.found.holds() && Failures::of(&counters).total() == 0,
            },
            audit,
            second,
            counters,
            programs: costs,
            repaired,
            lifetimes: gathered.lifetimes,
            sources: gathered.sources,
            self_cost: gathered.self_cost,
        }
    }

    /// Failures of the programs, after which a number of the report may be wrong.
    pub(super) fn failures(&self) -> Failures {
        Failures::of(&self.counters)
    }

    /// How many steps were missed or could not be counted, as far as known.
    pub(crate) fn missed(&self) -> u64 {
        self.failures().total() + self.repaired + self.audit.found.differences.len() as u64
    }
}

/// The ports by how many connections they had, then by direction and number. A port without a connection has a row if it
/// had attempts.
fn ports(ledger: &Ledger, sight: Sight, audit: &Audit, since: Option<(&Baseline, f64)>) -> Vec<PortCounts> {
    let tried = ledger.attempts.keys().chain(audit.waiting.keys()).map(|&port| (IN, port));
    let keys: BTreeSet<(u8, u16)> = tried.chain(ledger.ports.keys().copied()).collect();
    let none = Counts::ZERO;
    let slot = |key: (u8, u16)| ledger.ports.get(&key).unwrap_or(&none);
    let mut keys: Vec<_> = keys.into_iter().collect();
    keys.sort_by_cached_key(|&key| (std::cmp::Reverse(slot(key).opened() + slot(key).preexisting()), key));
    let counts = keys.into_iter().map(|key| {
        let (direction, port) = key;
        let slot = slot(key);
        let tried = ledger.attempts.get(&port).filter(|_| direction == IN).copied().unwrap_or_default();
        PortCounts {
            key: RowKey::Port(direction, port),
            slot: slot.clone(),
            listeners: if direction == IN { ledger.listeners.get(&port).copied() } else { None },
            attempts: (direction == IN).then(|| {
                AttemptCounts::new(sight, tried, audit.waiting.get(&port).copied().unwrap_or_default())
            }),
            rates: since.map(|(then, seconds)| Rates::new(Begun::of(slot, tried), then.port(key), seconds)),
        }
    });
    counts.collect()
}

/// The attempts of all ports.
fn all_attempts(ledger: &Ledger, sight: Sight, audit: &Audit) -> AttemptCounts {
    AttemptCounts::new(sight, attempts::sum(&ledger.attempts), attempts::sum_of_queues(&audit.waiting))
}

fn all_listeners(ledger: &Ledger) -> Listeners {
    ledger.listeners.values().fold(Listeners::default(), |sum, &one| sum.plus(one))
}

fn listener_counts((&port, one): (&u16, &Listeners)) -> ListenerCounts {
    let &Listeners { opened, preexisting, closed, .. } = one;
    ListenerCounts { port, opened, preexisting, closed, open: one.open() }
}

/// The name of a direction of the ledger.
pub(super) fn direction_name(direction: u8) -> &'static str {
    direction::name(direction).unwrap_or("-")
}

fn named_counters<S: Serializer>(counters: &[u64; counter::COUNT], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counter::NAMES.iter().zip(counters))
}

fn audit<S: Serializer>(audit: &AgedAudit, serializer: S) -> Result<S::Ok, S::Error> {
    /// A difference by the names of its direction and state.
    #[derive(Serialize)]
    struct Named {
        netns: Option<u32>,
        direction: &'static str,
        port: u16,
        state: Option<String>,
        ledger: i64,
        kernel: u64,
    }

    /// An audit as JSON has it.
    #[derive(Serialize)]
    struct Fields<'a> {
        age_seconds: Option<f64>,
        error: Option<&'a str>,
        kernel_open: u64,
        compared: u64,
        moved: u64,
        hidden_netns: usize,
        hidden: &'a [Hidden],
        differences: Vec<Named>,
    }

    let AgedAudit { found, age, failure } = audit;
    let named = |&Difference { netns, direction, port, state, ledger, kernel, .. }: &Difference| Named {
        netns: Some(netns).filter(|&netns| netns != SHARED),
        direction: direction_name(direction),
        port,
        state: state::name(state).map(str::to_lowercase),
        ledger,
        kernel,
    };
    let fields = Fields {
        age_seconds: age.map(|age| age.as_secs_f64()),
        error: failure.as_deref(),
        kernel_open: found.kernel_open,
        compared: found.compared,
        moved: found.moved,
        hidden_netns: found.hidden.len(),
        hidden: &found.hidden[..found.hidden.len().min(MAX_HIDDEN)],
        differences: found.differences.iter().map(named).collect(),
    };
    fields.serialize(serializer)
}

/// Columns of failures: connections that were never established.
pub(super) const FAILED: [(Cause, &str); 8] = [
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
pub(super) const ENDED: [(Cause, &str); 10] = [
    (Cause::ClosedByUs, "ended_closed_by_us"),
    (Cause::ClosedByPeer, "ended_closed_by_peer"),
    (Cause::ResetByUs, "ended_reset_by_us"),
    (Cause::ResetByPeer, "ended_reset_by_peer"),
    (Cause::TimedOut, "ended_timed_out"),
    (Cause::Unreachable, "ended_unreachable"),
    (Cause::Aborted, "ended_aborted"),
    (Cause::NotAccepted, "ended_not_accepted"),
    (Cause::LateReset, "ended_late_reset"),
    (Cause::Unknown, "ended_unknown"),
];
