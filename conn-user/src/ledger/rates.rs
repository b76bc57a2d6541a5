//! Changes per second, and what they need of the last report.

use std::collections::BTreeMap;

use conn_common::attempt::PortAttempts;
use conn_common::connection::IN;
use conn_common::ledger::Cells;

use crate::ledger::attempts;
use crate::ledger::counts::Counts;
use crate::ledger::reader::Ledger;

/// Connections and attempts per second.
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
    /// Between two readings that are so many seconds apart.
    pub(super) fn new(now: Begun, then: Begun, seconds: f64) -> Self {
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        Self {
            opened: per_second(now.opened, then.opened),
            failed: per_second(now.failed, then.failed),
            closed: per_second(now.closed, then.closed),
            attempts: per_second(now.attempts, then.attempts),
            refused_by_us: per_second(now.refused, then.refused),
        }
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            opened: self.opened + other.opened,
            failed: self.failed + other.failed,
            closed: self.closed + other.closed,
            attempts: self.attempts + other.attempts,
            refused_by_us: self.refused_by_us + other.refused_by_us,
        }
    }
}

/// The counts of a port that have rates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Begun {
    opened: u64,
    failed: u64,
    closed: u64,
    attempts: u64,
    refused: u64,
}

impl Begun {
    /// Of a slot, and of the attempts at the same port.
    pub(super) fn of(slot: &Counts, tried: PortAttempts) -> Self {
        Self {
            opened: slot.opened(),
            failed: slot.failed(),
            closed: slot.closed(),
            attempts: tried.begun,
            refused: tried.refused,
        }
    }
}

/// What rates need of the last report.
#[derive(Clone, Debug, Default)]
pub(super) struct Baseline {
    ports: BTreeMap<(u8, u16), Begun>,
    /// All ports together.
    pub(super) total: Begun,
}

impl Baseline {
    /// Of a reading of the ledger.
    pub(super) fn of(ledger: &Ledger) -> Self {
        let tried = |&(direction, port): &(u8, u16)| {
            ledger.attempts.get(&port).filter(|_| direction == IN).copied().unwrap_or_default()
        };
        let mut ports: BTreeMap<_, _> =
            ledger.ports.iter().map(|(key, slot)| (*key, Begun::of(slot, tried(key)))).collect();
        for (&port, &tried) in &ledger.attempts {
            ports.entry((IN, port)).or_insert_with(|| Begun::of(&Counts::ZERO, tried));
        }
        Self { ports, total: Begun::of(&ledger.total(), attempts::sum(&ledger.attempts)) }
    }

    /// Of one direction and port.
    pub(super) fn port(&self, key: (u8, u16)) -> Begun {
        self.ports.get(&key).copied().unwrap_or_default()
    }
}
