//! Corrections of the ledger: ends that no hook saw, so that the kernel's slots still count the connections as open.

use std::collections::BTreeMap;

use conn_common::cause::Cause;
use conn_common::ledger::Slot;

use crate::ledger::audit::Difference;
use crate::ledger::reader::Ledger;

/// Ends that no hook saw, by direction, service port and the last state that the ledger has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs(BTreeMap<(u8, u16, u8), u64>);

impl Repairs {
    /// Counts phantoms as ended: connections that the ledger has and the kernel lacks.
    pub fn learn(&mut self, differences: &[Difference]) {
        for difference in differences {
            let key = (difference.direction, difference.port, difference.state);
            let excess = difference.excess();
            let ended = self.0.entry(key).or_default();
            // A hook saw an end that was repaired before: the repair is undone first.
            let back = (*ended).min(excess.min(0).unsigned_abs());
            *ended = *ended - back + excess.max(0).cast_unsigned();
        }
    }

    /// Counts the ends in a reading of the ledger, with an unknown cause.
    pub fn apply(&self, ledger: &mut Ledger) {
        for (&(direction, port, state), &phantoms) in &self.0 {
            let slot = ledger.ports.entry((direction, port)).or_insert(Slot::ZERO);
            slot.count_ends(state, Cause::Unknown, phantoms);
        }
    }

    /// How many ends no hook saw.
    pub fn total(&self) -> u64 {
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
