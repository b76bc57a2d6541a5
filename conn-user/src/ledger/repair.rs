//! Corrections of the ledger: ends that no hook saw, so that the kernel's slots still count the connections as open.
//!
//! Repairs are kept in a map of the kernel, so that they live as long as the counts that they correct.

use std::collections::BTreeMap;

use conn_common::cause::Cause;
use conn_common::ledger::{RepairKey, Slot};
use conn_common::{name, protocol};

use crate::kernel::map::{HashMap, MapError};
use crate::kernel::probe::Probe;
use crate::ledger::audit::Difference;
use crate::ledger::reader::Ledger;

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

    /// Counts phantoms as ended. A repair without room in the map is not made; the next audit finds the difference
    /// again.
    pub(crate) fn learn(&mut self, phantoms: &[Difference]) {
        let mut repairs = self.repairs.clone();
        repairs.learn(phantoms);
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
    /// Counts phantoms as ended: connections that the ledger has and the kernel lacks.
    fn learn(&mut self, differences: &[Difference]) {
        for difference in differences {
            let key = RepairKey {
                // An audit compares all namespaces together.
                netns: 0,
                port: difference.port,
                protocol: protocol::TCP,
                direction: difference.direction,
                state: difference.state,
                reserved: [0; 3],
            };
            let excess = difference.excess();
            let ended = self.0.entry(key).or_default();
            // A hook saw an end that was repaired before: the repair is undone first.
            let back = (*ended).min(excess.min(0).unsigned_abs());
            *ended = *ended - back + excess.max(0).cast_unsigned();
        }
    }

    /// Counts the ends in a reading of the ledger, with an unknown cause.
    pub(crate) fn apply(&self, ledger: &mut Ledger) {
        for (key, &ends) in &self.0 {
            let slot = ledger.ports.entry((key.direction, key.port)).or_insert(Slot::ZERO);
            slot.count_ends(key.state, Cause::Unknown, ends);
        }
    }

    /// How many ends no hook saw.
    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::IN;
    use conn_common::state::{ESTABLISHED, SYN_RECV};

    use super::*;
    use crate::ledger::audit::{Audit, SocketTally};

    #[test]
    fn repair_is_applied_once() {
        let mut ledger = Ledger::default();
        let slot = ledger.ports.entry((IN, 22)).or_insert(Slot::ZERO);
        slot.count_opened(SYN_RECV);
        slot.count_opened(SYN_RECV);
        slot.count_step(SYN_RECV, ESTABLISHED);
        let raw = ledger.clone();
        let mut repairs = Repairs::default();
        repairs.learn(&Audit::compare(&raw, &raw, &SocketTally::default()).differences);
        repairs.apply(&mut ledger);
        let total = ledger.total();
        assert_eq!((repairs.total(), total.open(), total.closed(), total.failed()), (2, 0, 1, 1));
        assert!(Audit::compare(&ledger, &ledger, &SocketTally::default()).holds());
    }

    #[test]
    fn late_end_undoes_its_repair() {
        let difference =
            |ledger, kernel| Difference { direction: IN, port: 22, state: ESTABLISHED, ledger, kernel };
        let mut repairs = Repairs::default();
        repairs.learn(&[difference(3, 1)]);
        assert_eq!(repairs.total(), 2);
        repairs.learn(&[difference(0, 1)]);
        assert_eq!(repairs.total(), 1);
        repairs.learn(&[difference(0, 5)]);
        assert_eq!(repairs.total(), 0);
    }
}
