//! One reading of the ledger with all that proves it, as data. [`Report::write`] makes text, CSV and JSON of it.

use std::collections::BTreeMap;
use std::time::Duration;

use conn_common::attempt::PortAttempts;
use conn_common::cause::Cause;
use conn_common::connection::IN;
use conn_common::counter;
use conn_common::ledger::Slot;
use conn_common::state;
use serde::{Serialize, Serializer};

use crate::event::direction;
use crate::host::clock;
use crate::kernel::attempt_hooks::Sight;
use crate::kernel::counters::Failures;
use crate::kernel::program_stats::Cost;
use crate::ledger::attempts::{self, AttemptCounts};
use crate::ledger::audit::{Audit, Difference};
use crate::ledger::latency::Lifetimes;
use crate::ledger::reader::{Ledger, Listeners};
use crate::ledger::report_text;
use crate::ledger::self_cost::SelfCost;

/// The parts of a report.
#[derive(Debug)]
pub(super) struct Gathered<'a> {
    pub unix_ns: i64,
    pub ledger: &'a Ledger,
    pub sight: Sight,
    pub audit: Audit,
    pub audit_age: Duration,
    pub counters: [u64; counter::COUNT],
    pub costs: BTreeMap<&'static str, Cost>,
    pub repaired: u64,
    pub lifetimes: Option<Lifetimes>,
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
    /// Totals by network namespace.
    pub netns: Vec<NetnsTotals>,
    /// The sums that must agree.
    pub identity: Identity,
    /// The comparison with the sockets.
    #[serde(serialize_with = "audit")]
    pub audit: AgedAudit,
    /// The programs' counters of themselves, by name.
    #[serde(rename = "witness", serialize_with = "named_counters")]
    pub counters: [u64; counter::COUNT],
    /// The kernel's counts of the programs, by name.
    pub programs: BTreeMap<&'static str, Cost>,
    /// Connections that an audit counted as ended.
    pub repaired: u64,
    /// Histograms of handshakes and lifetimes, if the run asked for them.
    pub lifetimes: Option<Lifetimes>,
    /// The self cost of conntrace, if the run asked for it.
    #[serde(rename = "self")]
    pub self_cost: Option<SelfCost>,
}

/// The counts of one direction and service port, or of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PortCounts {
    /// Direction and port; none for the total.
    pub key: Option<(u8, u16)>,
    /// The cells of the ledger.
    pub slot: Slot,
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
        self.key.is_some()
            && self.slot == Slot::ZERO
            && self.listeners.is_none()
            && self.attempts.is_some_and(AttemptCounts::is_refused_only)
    }
}

/// Connections per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rates {
    /// Attempts and accepts.
    pub opened: f64,
    /// Ends of connections that were never established.
    pub failed: f64,
    /// Ends of established connections.
    pub closed: f64,
    /// Half-open requests that began.
    pub attempts: f64,
    /// SYNs that this host refused.
    pub refused_by_us: f64,
}

impl Rates {
    fn new(now: (&Slot, PortAttempts), then: (&Slot, PortAttempts), seconds: f64) -> Self {
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Self {
            opened: per_second(now.0.opened(), then.0.opened()),
            failed: per_second(now.0.failed(), then.0.failed()),
            closed: per_second(now.0.closed(), then.0.closed()),
            attempts: per_second(now.1.begun, then.1.begun),
            refused_by_us: per_second(now.1.refused, then.1.refused),
        }
    }
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

/// Totals of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NetnsTotals {
    /// Its inode number.
    pub netns: u32,
    /// As [`Slot::opened`].
    pub opened: u64,
    /// As [`Slot::preexisting`].
    pub preexisting: u64,
    /// As [`Slot::failed`].
    pub failed: u64,
    /// As [`Slot::closed`].
    pub closed: u64,
    /// As [`Slot::open`].
    pub open: i64,
}

/// `opened + preexisting = failed + closed + open`, over the whole ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Identity {
    /// As [`Slot::opened`].
    pub opened: u64,
    /// As [`Slot::preexisting`].
    pub preexisting: u64,
    /// As [`Slot::failed`].
    pub failed: u64,
    /// As [`Slot::closed`].
    pub closed: u64,
    /// As [`Slot::open`].
    pub open: i64,
    /// Both sides are equal, the audit found no difference, and the programs had no failure.
    pub holds: bool,
}

/// An audit and its age.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AgedAudit {
    /// The findings of the audit.
    pub found: Audit,
    /// How old the audit is.
    pub age: Duration,
}

impl Report {
    /// Makes a report. `since` is the ledger of the last report, and how many seconds old it is.
    pub(super) fn new(gathered: Gathered<'_>, since: Option<(&Ledger, f64)>) -> Self {
        let Gathered {
            unix_ns,
            ledger,
            sight,
            audit,
            audit_age,
            counters,
            costs,
            repaired,
            lifetimes,
            self_cost,
        } = gathered;
        let total = ledger.total();
        let (left, right) = (total.opened() + total.preexisting(), total.failed() + total.closed());
        let is_equal = i128::from(left) == i128::from(right) + i128::from(total.open());
        let mut time = Vec::new();
        clock::rfc3339(unix_ns, &mut time);
        Self {
            time: String::from_utf8_lossy(&time).into_owned(),
            ports: ports(ledger, sight, &audit, since),
            total: PortCounts {
                key: None,
                slot: total,
                listeners: Some(all_listeners(ledger)),
                attempts: Some(all_attempts(ledger, sight, &audit)),
                rates: since.map(|(then, seconds)| {
                    let sum = |ledger: &Ledger| attempts::sum(&ledger.attempts);
                    Rates::new((&total, sum(ledger)), (&then.total(), sum(then)), seconds)
                }),
            },
            unattributed: ledger.unattributed.map(|slot| slot.opened()),
            tries: attempts::Summary::new(sight, &ledger.attempts),
            listeners: ledger.listeners.iter().map(listener_counts).collect(),
            netns: ledger
                .netns
                .iter()
                .map(|(&netns, totals)| NetnsTotals {
                    netns,
                    opened: totals.opened,
                    preexisting: totals.preexisting,
                    failed: totals.failed,
                    closed: totals.closed,
                    open: totals.open(),
                })
                .collect(),
            identity: Identity {
                opened: total.opened(),
                preexisting: total.preexisting(),
                failed: total.failed(),
                closed: total.closed(),
                open: total.open(),
                holds: is_equal && audit.holds() && Failures::of(&counters).total() == 0,
            },
            audit: AgedAudit { found: audit, age: audit_age },
            counters,
            programs: costs,
            repaired,
            lifetimes,
            self_cost,
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
fn ports(ledger: &Ledger, sight: Sight, audit: &Audit, since: Option<(&Ledger, f64)>) -> Vec<PortCounts> {
    let tried = ledger.attempts.keys().chain(audit.waiting.keys()).map(|&port| ((IN, port), Slot::ZERO));
    let mut ports: BTreeMap<(u8, u16), Slot> = tried.collect();
    ports.extend(ledger.ports.iter().map(|(&key, &slot)| (key, slot)));
    let mut ports: Vec<_> = ports.into_iter().collect();
    ports.sort_by_key(|&(key, slot)| (std::cmp::Reverse(slot.opened() + slot.preexisting()), key));
    let counts = ports.into_iter().map(|(key, slot)| {
        let (direction, port) = key;
        let tried = |ledger: &Ledger| {
            if direction == IN {
                ledger.attempts.get(&port).copied().unwrap_or_default()
            } else {
                PortAttempts::ZERO
            }
        };
        PortCounts {
            key: Some(key),
            slot,
            listeners: if direction == IN { ledger.listeners.get(&port).copied() } else { None },
            attempts: (direction == IN).then(|| {
                AttemptCounts::new(
                    sight,
                    tried(ledger),
                    audit.waiting.get(&port).copied().unwrap_or_default(),
                )
            }),
            rates: since.map(|(then, seconds)| {
                let slot_then = then.ports.get(&key).unwrap_or(&Slot::ZERO);
                Rates::new((&slot, tried(ledger)), (slot_then, tried(then)), seconds)
            }),
        }
    });
    counts.collect()
}

/// The attempts of all ports.
fn all_attempts(ledger: &Ledger, sight: Sight, audit: &Audit) -> AttemptCounts {
    AttemptCounts::new(sight, attempts::sum(&ledger.attempts), attempts::sum_of_queues(&audit.waiting))
}

fn all_listeners(ledger: &Ledger) -> Listeners {
    ledger.listeners.values().fold(Listeners::default(), |sum, one| Listeners {
        opened: sum.opened + one.opened,
        preexisting: sum.preexisting + one.preexisting,
        closed: sum.closed + one.closed,
        dropped_before: sum.dropped_before + one.dropped_before,
        dropped: sum.dropped + one.dropped,
    })
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
        direction: &'static str,
        port: u16,
        state: Option<String>,
        ledger: i64,
        kernel: u64,
    }

    /// An audit as JSON has it.
    #[derive(Serialize)]
    struct Fields {
        age_seconds: f64,
        kernel_open: u64,
        compared: u64,
        moved: u64,
        hidden_netns: u64,
        differences: Vec<Named>,
    }

    let AgedAudit { found, age } = audit;
    let named = |&Difference { direction, port, state, ledger, kernel }: &Difference| Named {
        direction: direction_name(direction),
        port,
        state: state::name(state).map(str::to_lowercase),
        ledger,
        kernel,
    };
    let fields = Fields {
        age_seconds: age.as_secs_f64(),
        kernel_open: found.kernel_open,
        compared: found.compared,
        moved: found.moved,
        hidden_netns: found.hidden_netns,
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
pub(super) const ENDED: [(Cause, &str); 9] = [
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
