//! Corrections of the ledger: connections that ended without any witness, so that the kernel's own
//! slots still count them as open.

use std::collections::BTreeMap;

use conn_common::cause::Cause;
use conn_common::ledger::Slot;

use crate::ledger::audit::Difference;
use crate::ledger::reader::Ledger;

/// Ends that nobody saw, by direction, service port and the state in which the connection was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs(BTreeMap<(u8, u16, u8), u64>);

impl Repairs {
    /// Takes connections that the kernel does not have as ended.
    pub fn learn(&mut self, differences: &[Difference]) {
        for difference in differences {
            let key = (difference.direction, difference.port, difference.state);
            let excess = difference.excess();
            let ended = self.0.entry(key).or_default();
            // An end that was taken for granted and came after all is given back first.
            let back = (*ended).min(excess.min(0).unsigned_abs());
            *ended = *ended - back + excess.max(0).cast_unsigned();
        }
    }

    /// Counts the ends in a reading of the ledger. Their reason is not known.
    pub fn apply(&self, ledger: &mut Ledger) {
        for (&(direction, port, state), &phantoms) in &self.0 {
            let slot = ledger.ports.entry((direction, port)).or_insert(Slot::ZERO);
            slot.count_ends(state, Cause::Unknown, phantoms);
        }
    }

    /// All ends that nobody saw.
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
