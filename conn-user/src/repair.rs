//! Corrections of the ledger: connections that ended without any witness, so that the kernel's own
//! slots still count them as open.

use std::collections::BTreeMap;

use conn_common::ledger::{Cause, Slot};

use crate::audit::Audit;
use crate::ledger::Ledger;

/// Ends that nobody saw, by direction, service port and the state in which the connection was last seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs(BTreeMap<(u8, u16, u8), u64>);

impl Repairs {
    /// Takes the excess that an audit found as ends. True if there was any.
    pub fn learn(&mut self, audit: &Audit) -> bool {
        let mut learned = false;
        for difference in &audit.differences {
            if let Ok(ghosts @ 1..) = u64::try_from(difference.excess()) {
                *self.0.entry((difference.direction, difference.port, difference.state)).or_default() +=
                    ghosts;
                learned = true;
            }
        }
        learned
    }

    /// Counts the ends in a reading of the ledger. Their reason is not known.
    pub fn apply(&self, ledger: &mut Ledger) {
        for (&(direction, port, state), &ghosts) in &self.0 {
            let slot = ledger.ports.entry((direction, port)).or_insert(Slot::ZERO);
            slot.count_ends(state, Cause::Other, ghosts);
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
    use crate::audit::Census;

    #[test]
    fn ghosts_are_laid_once() {
        let mut ledger = Ledger::default();
        let slot = ledger.ports.entry((IN, 22)).or_insert(Slot::ZERO);
        slot.count_opened(SYN_RECV);
        slot.count_opened(SYN_RECV);
        slot.count_step(SYN_RECV, ESTABLISHED);
        let raw = ledger.clone();
        let mut repairs = Repairs::default();
        assert!(repairs.learn(&Audit::compare(&raw, &raw, &Census::default())));
        repairs.apply(&mut ledger);
        let total = ledger.total();
        assert_eq!((repairs.total(), total.open(), total.closed(), total.failed()), (2, 0, 1, 1));
        assert!(!repairs.learn(&Audit::compare(&ledger, &ledger, &Census::default())));
    }
}
