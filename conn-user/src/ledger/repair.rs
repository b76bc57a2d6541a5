//! Corrections of the ledger: ends that no hook saw, so that the kernel's slots still count the connections as open.
//!
//! Repairs are kept in a map of the kernel, so that they live as long as the counts that they correct.

use std::collections::BTreeMap;

use conn_common::cause::Cause;
use conn_common::ledger::{RepairKey, Totals};
use conn_common::{name, protocol};

use crate::kernel::map::{HashMap, MapError};
use crate::kernel::probe::Probe;
use crate::ledger::audit::Difference;
use crate::ledger::counts::Counts;
use crate::ledger::passages::Passages;
use crate::ledger::reader::{Ledger, SHARED};

/// The map of repairs. No program touches it, and one process writes it.
#[derive(Debug)]
pub(crate) struct RepairMap {
    map: HashMap<RepairKey, u64>,
    /// The content of the map.
    repairs: Repairs,
}

impl RepairMap {
    /// Opens the map, and reads the repairs that it holds.
    ///
    /// # Errors
    /// The map cannot be opened or read.
    pub(crate) fn new(probe: &Probe) -> Result<Self, MapError> {
        let map: HashMap<RepairKey, u64> = probe.map(name::REPAIRS)?;
        let repairs = Repairs(map.entries()?);
        Ok(Self { map, repairs })
    }

    /// The repairs so far.
    pub(crate) const fn repairs(&self) -> &Repairs {
        &self.repairs
    }

    /// Counts phantoms as ended, see [`Repairs::learn`]. A repair without room in the map is not made; the next audit
    /// finds the difference again.
    pub(crate) fn learn(&mut self, differences: &[Difference], phantoms: &BTreeMap<u32, i64>) {
        let mut repairs = self.repairs.clone();
        repairs.learn(differences, phantoms);
        for (key, ends) in repairs.0 {
            if self.repairs.0.get(&key) == Some(&ends) {
                continue;
            }
            match self.map.insert(key, ends) {
                Ok(()) => _ = self.repairs.0.insert(key, ends),
                Err(error) => log::warn!("an end cannot be repaired in the ledger: {error}"),
            }
        }
    }
}

/// Ends that no hook saw: how many, by what is known of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repairs(BTreeMap<RepairKey, u64>);

impl Repairs {
    /// Counts phantoms as ended: connections that the ledger has and the kernel lacks. `phantoms` says how many each
    /// namespace has.
    fn learn(&mut self, differences: &[Difference], phantoms: &BTreeMap<u32, i64>) {
        let mut phantoms = phantoms.clone();
        let (shared, own): (Vec<&Difference>, Vec<_>) =
            differences.iter().partition(|one| one.netns == SHARED);
        for difference in own.into_iter().chain(shared) {
            let excess = difference.excess();
            let mut rest = excess.max(0).unsigned_abs();
            // Which namespace had the connection at a shared port is not known, but how many each of them had.
            let candidates =
                phantoms.iter_mut().filter(|(netns, _)| [SHARED, **netns].contains(&difference.netns));
            for (&netns, left) in candidates {
                let ends = rest.min((*left).max(0).unsigned_abs());
                *left = left.saturating_sub_unsigned(ends);
                rest -= ends;
                self.add(key(netns, difference), ends);
            }
            self.add(key(difference.netns, difference), rest);
            self.undo(difference, excess.min(0).unsigned_abs());
        }
    }

    fn add(&mut self, key: RepairKey, ends: u64) {
        if ends > 0 {
            *self.0.entry(key).or_default() += ends;
        }
    }

    /// A hook saw ends that were repaired before: so many repairs are undone, if there are so many.
    fn undo(&mut self, difference: &Difference, ends: u64) {
        let mut rest = ends;
        for (one, repaired) in &mut self.0 {
            let belongs = one.netns == SHARED || [SHARED, one.netns].contains(&difference.netns);
            if belongs && *one == key(one.netns, difference) {
                let back = rest.min(*repaired);
                *repaired -= back;
                rest -= back;
            }
        }
    }

    /// Counts the ends in a reading of the ledger, with an unknown cause.
    pub(crate) fn apply(&self, ledger: &mut Ledger) {
        for (key, &ends) in &self.0 {
            let slot = ledger.ports.entry((key.direction, key.port)).or_insert(Counts::ZERO);
            slot.count_ends(key.state, Cause::Unknown, ends);
            let mut ended = Counts::ZERO;
            ended.count_ends(key.state, Cause::Unknown, ends);
            ledger.parts.entry((key.netns, key.direction, key.port)).or_default().add(&Passages::of(&ended));
            if key.netns != SHARED {
                ledger.netns.entry(key.netns).or_default().add(&Totals::of(&ended));
            }
        }
    }

    /// How many ends no hook saw.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// The key of a repair in a namespace, which is [`SHARED`] if it is not known.
const fn key(netns: u32, difference: &Difference) -> RepairKey {
    RepairKey {
        netns,
        port: difference.port,
        protocol: protocol::TCP,
        direction: difference.direction,
        state: difference.state,
        reserved: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use conn_common::connection::IN;
    use conn_common::ledger::{Cells as _, Slot};
    use conn_common::state::{ESTABLISHED, SYN_RECV};

    use super::*;
    use crate::ledger::audit::{Audit, SocketTally};

    /// Two connections, one established and one not, that are counted in the part of `part` and belong to `netns`.
    fn ledger(part: u32, netns: u32) -> Ledger {
        let mut slot = Slot::ZERO;
        slot.count_opened(SYN_RECV);
        slot.count_opened(SYN_RECV);
        slot.count_step(SYN_RECV, ESTABLISHED);
        let mut ledger = Ledger::default();
        ledger.ports.insert((IN, 22), Counts::of(&slot));
        ledger.parts.insert((part, IN, 22), Passages::of(&slot));
        ledger.netns.insert(netns, Totals::of(&slot));
        if part == SHARED {
            ledger.sharing.insert(netns);
        }
        ledger
    }

    fn audit(ledger: &Ledger) -> Audit {
        Audit::compare(ledger, ledger, &SocketTally::default(), BTreeSet::from([7]))
    }

    #[test]
    fn repair_is_applied_once() {
        for part in [7, SHARED] {
            let mut ledger = ledger(part, 7);
            let found = audit(&ledger);
            let mut repairs = Repairs::default();
            repairs.learn(&found.differences, &found.phantoms);
            repairs.apply(&mut ledger);
            let total = ledger.total();
            assert_eq!((repairs.total(), total.open(), total.closed(), total.failed()), (2, 0, 1, 1));
            // Once the namespace is gone, it must have nothing open.
            assert_eq!(ledger.netns[&7], Totals { opened: 2, preexisting: 0, failed: 1, closed: 1 });
            let gone = Audit::compare(&ledger, &ledger, &SocketTally::default(), BTreeSet::new());
            assert!(audit(&ledger).holds() && gone.hidden.is_empty(), "{gone:?}");
        }
    }

    #[test]
    fn late_end_undoes_its_repair() {
        for netns in [7, SHARED] {
            let difference = |ledger, kernel| Difference {
                netns,
                direction: IN,
                port: 22,
                state: ESTABLISHED,
                ledger,
                kernel,
                moved: false,
            };
            let phantoms = |open| BTreeMap::from([(6, 0), (7, open)]);
            let mut repairs = Repairs::default();
            repairs.learn(&[difference(3, 1)], &phantoms(2));
            assert_eq!(repairs.total(), 2);
            repairs.learn(&[difference(0, 1)], &phantoms(0));
            assert_eq!(repairs.total(), 1);
            repairs.learn(&[difference(0, 5)], &phantoms(0));
            assert_eq!(repairs.total(), 0);
        }
    }

    #[test]
    fn phantoms_without_a_known_namespace_are_repaired_in_the_sum() {
        let mut repairs = Repairs::default();
        let difference = Difference {
            netns: SHARED,
            direction: IN,
            port: 22,
            state: ESTABLISHED,
            ledger: 3,
            kernel: 0,
            moved: true,
        };
        repairs.learn(&[difference], &BTreeMap::from([(7, 1)]));
        let netns: Vec<_> = repairs.0.iter().map(|(key, &ends)| (key.netns, ends)).collect();
        assert_eq!(netns, [(SHARED, 2), (7, 1)]);
    }
}
