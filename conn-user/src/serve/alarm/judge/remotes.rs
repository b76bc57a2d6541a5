//! Rules about remote addresses: new connections of each in a second.

use std::collections::BTreeMap;

use crate::serve::alarm::judge::{Edge, Judge, Measured, Subject};
use crate::serve::alarm::reading::{Remote, Stats};
use crate::settings::rule::{Condition, Limits, number};

/// The connections of each direction and address at a time, in nanoseconds since the boot.
type Past = (u64, BTreeMap<(String, String), u64>);

/// What a rule about remote addresses has seen.
#[derive(Debug, Default)]
pub(super) struct Remotes {
    /// The last reading of all connections: nanoseconds since the boot, and how many had begun.
    sum: Option<(u64, u64)>,
    /// The last reading of addresses.
    past: Option<Past>,
}

impl Judge {
    /// True if the addresses must be read. While all connections together begin more slowly than the limit, no address is
    /// over it.
    pub(crate) fn wants_remotes(&mut self, stats: &Stats, now_ns: u64) -> bool {
        let Condition::Remote { limits, .. } = self.rule.condition else { return false };
        let opened = stats.ports.iter().map(|port| port.opened).sum();
        let before = self.remotes.sum.replace((now_ns, opened));
        let is_quiet = before.is_none_or(|(then_ns, then)| {
            rate(opened, then, now_ns.saturating_sub(then_ns)).is_none_or(|rate| rate <= limits.above)
        });
        if is_quiet && self.memory.standing.is_empty() {
            self.remotes.past = None;
            return false;
        }
        true
    }

    /// What a reading of addresses says.
    pub(crate) fn look_at_remotes(&mut self, limits: Limits, rows: &[Remote], now_ns: u64) -> Vec<Edge> {
        let Some(measured) = self.measure_remotes(rows, now_ns) else { return Vec::new() };
        self.judge(measured, limits, now_ns)
    }

    /// The addresses with new connections since the last reading; none before a second one.
    pub(crate) fn measure_remotes(&mut self, rows: &[Remote], now_ns: u64) -> Option<Vec<Measured>> {
        let covered = rows.iter().filter(|row| {
            let direction = self.rule.direction;
            direction.is_none() || row.way().is_none() || row.way() == direction
        });
        let key = |row: &Remote| (row.direction.clone(), row.address.clone());
        let counts: BTreeMap<_, _> = covered.map(|row| (key(row), row.opened)).collect();
        let (then_ns, before) = self.remotes.past.replace((now_ns, counts.clone()))?;
        let age_ns = now_ns.saturating_sub(then_ns);
        let measured = rows.iter().filter_map(|row| {
            let opened = *counts.get(&key(row))?;
            let then = before.get(&key(row)).copied().unwrap_or_default();
            let rate = rate(opened, then, age_ns).filter(|&rate| rate > 0)?;
            let who = if row.way().is_none() { "all remote addresses without a row" } else { &row.address };
            let text = format!("{who} has {} new connections a second", number(rate));
            let subject = Subject { way: row.way(), remote: Some(row.address.clone()), ..Subject::default() };
            Some(Measured { subject, value: Some(rate), text })
        });
        Some(measured.collect())
    }
}

/// New connections in a second, in thousandths; none without a time, or if an epoch that began anew counts from zero.
fn rate(now: u64, then: u64, age_ns: u64) -> Option<u64> {
    let new = u128::from(now.checked_sub(then)?);
    let rate = (new * 1_000_000_000_000).checked_div(age_ns.into())?;
    Some(u64::try_from(rate).unwrap_or(u64::MAX))
}
