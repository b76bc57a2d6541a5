//! Totals by network namespace: of each that exists, and of all that are gone together. A host that makes namespaces all the
//! time has seen very many.

use conn_common::ledger::Totals;
use serde::Serialize;

use crate::ledger::audit::Audit;
use crate::ledger::reader::Ledger;

/// The totals of one network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct NetnsTotals {
    /// Its inode number.
    pub netns: u32,
    /// Its counts.
    #[serde(flatten)]
    pub sums: Sums,
}

/// The totals of all network namespaces that are gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct GoneNetns {
    /// How many there were; of an inode number that was used again, one.
    pub namespaces: u64,
    /// Their counts.
    #[serde(flatten)]
    pub sums: Sums,
}

/// Counts of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Sums {
    /// As [`conn_common::ledger::Cells::opened`], and so on.
    pub opened: u64,
    /// Existed before.
    pub preexisting: u64,
    /// Never established.
    pub failed: u64,
    /// Ended after they were established.
    pub closed: u64,
    /// Open now.
    pub open: i64,
}

impl Sums {
    fn of(totals: &Totals) -> Self {
        let &Totals { opened, preexisting, failed, closed } = totals;
        Self { opened, preexisting, failed, closed, open: totals.open() }
    }
}

/// The totals of the namespaces that exist, and the sum of all others. A namespace exists if the audit could enter it, or
/// if something is open there.
pub(super) fn of(ledger: &Ledger, audit: &Audit) -> (Vec<NetnsTotals>, Option<GoneNetns>) {
    let exists = |(netns, totals): &(&u32, &Totals)| audit.walked.contains(netns) || totals.open() != 0;
    let (there, gone): (Vec<_>, Vec<_>) = ledger.netns.iter().partition(exists);
    let mut sum = Totals::ZERO;
    for (_, totals) in &gone {
        sum.add(totals);
    }
    let there = there.into_iter().map(|(&netns, totals)| NetnsTotals { netns, sums: Sums::of(totals) });
    let gone = GoneNetns { namespaces: gone.len() as u64, sums: Sums::of(&sum) };
    (there.collect(), Some(gone).filter(|gone| gone.namespaces > 0))
}
