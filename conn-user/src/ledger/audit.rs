//! A comparison of the ledger with the kernel's sockets.
//!
//! The ledger's own sums always balance, so the proof that they are right comes from the kernel's socket tables.
//! A slot that changed while the tables were walked is left out. Any other slot must have as many open connections
//! as the tables, state by state.

use std::collections::BTreeMap;

use conn_common::ledger::Slot;
use conn_common::row::SocketRow;
use conn_common::state;

use crate::ledger::attempts::{self, Queues, Waiting};
use crate::ledger::reader::Ledger;

/// Open sockets by direction, service port and state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketTally {
    open: BTreeMap<(u8, u16, u8), u64>,
    /// The queues of listeners, by port.
    pub queues: BTreeMap<u16, Queues>,
}

impl SocketTally {
    /// Counts one socket, if it is an open connection, and the queues of a listener.
    pub(crate) fn count(&mut self, row: &SocketRow) {
        let connection = &row.connection;
        if connection.is_listener() {
            let queues = self.queues.entry(connection.dport).or_default();
            queues.half_open += u64::from(row.half_open);
            queues.drops += u64::from(row.drops);
        } else if state::is_open(connection.state) {
            *self.open.entry((connection.direction, connection.dport, connection.state)).or_default() += 1;
        }
    }

    /// Open connections in all.
    pub(crate) fn total(&self) -> u64 {
        self.open.values().sum()
    }
}

/// A number of open connections that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Direction of the slot.
    pub direction: u8,
    /// Service port of the slot.
    pub port: u16,
    /// TCP state.
    pub state: u8,
    /// Open connections by the ledger.
    pub ledger: i64,
    /// Open sockets in the kernel.
    pub kernel: u64,
}

impl Difference {
    /// Open connections that the ledger has and the kernel lacks (phantoms); negative for the opposite.
    pub(crate) fn excess(&self) -> i64 {
        self.ledger.saturating_sub_unsigned(self.kernel)
    }
}

/// The findings of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Slots that did not move during the walk and were compared.
    pub compared: u64,
    /// Slots that moved and could not be compared.
    pub moved: u64,
    /// Open sockets in the kernel, moved slots included.
    pub kernel_open: u64,
    /// Namespaces with open connections that cannot be walked: no thread is in them, no file keeps them.
    /// If there are any, nothing is compared.
    pub hidden_netns: u64,
    /// Where the ledger was wrong. Empty if nothing differed.
    pub differences: Vec<Difference>,
    /// The queues of listeners, compared with the ledger, by port.
    pub waiting: BTreeMap<u16, Waiting>,
}

impl Audit {
    /// Compares two readings of the ledger, before and after a walk, with the sockets of the walk.
    pub(crate) fn compare(before: &Ledger, after: &Ledger, tally: &SocketTally) -> Self {
        let waiting = attempts::waiting(before, after, &tally.queues);
        let mut audit = Self { kernel_open: tally.total(), waiting, ..Self::default() };
        let keys: std::collections::BTreeSet<(u8, u16)> = after
            .ports
            .keys()
            .copied()
            .chain(tally.open.keys().map(|&(direction, port, _)| (direction, port)))
            .collect();
        for key in keys {
            let (then, now) = (before.ports.get(&key), after.ports.get(&key));
            if then != now {
                audit.moved += 1;
                continue;
            }
            audit.compared += 1;
            let slot = now.copied().unwrap_or(Slot::ZERO);
            for state in state::OPEN {
                let kernel = tally.open.get(&(key.0, key.1, state)).copied().unwrap_or(0);
                let difference =
                    Difference { direction: key.0, port: key.1, state, ledger: slot.open_in(state), kernel };
                if difference.excess() != 0 {
                    audit.differences.push(difference);
                }
            }
        }
        audit
    }

    /// An audit without a comparison, because `hidden` namespaces with open connections cannot be walked.
    pub(crate) fn incomplete(hidden: usize, before: &Ledger, after: &Ledger, tally: &SocketTally) -> Self {
        let waiting = attempts::waiting(before, after, &tally.queues);
        Self { kernel_open: tally.total(), hidden_netns: hidden as u64, waiting, ..Self::default() }
    }

    /// The differences that `other` has, too.
    pub(crate) fn also_in(&self, other: &Self) -> Vec<Difference> {
        self.differences.iter().filter(|difference| other.differences.contains(difference)).copied().collect()
    }

    /// True if nothing that could be compared differed.
    pub(crate) fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::{Connection, IN, OUT};
    use conn_common::protocol::TCP;
    use conn_common::state::{CLOSE_WAIT, ESTABLISHED, LISTEN};
    use conn_common::traffic::Traffic;

    use super::*;

    fn row(direction: u8, port: u16, state: u8) -> SocketRow {
        SocketRow {
            cookie: 0,
            at_least_jiffies: 0,
            protocol: TCP,
            is_hint: 0,
            mptcp_inode: 0,
            uid: 0,
            reserved: [0; 6],
            traffic: Traffic::NONE,
            connection: Connection { direction, dport: port, state, ..Connection::UNSEEN },
            half_open: 0,
            drops: 0,
        }
    }

    fn ledger(slots: &[(u8, u16, u8)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(direction, port, state) in slots {
            ledger.ports.entry((direction, port)).or_insert(Slot::ZERO).count_preexisting(state);
        }
        ledger
    }

    fn tally(rows: &[(u8, u16, u8)]) -> SocketTally {
        let mut tally = SocketTally::default();
        for &(direction, port, state) in rows {
            tally.count(&row(direction, port, state));
        }
        tally
    }

    #[test]
    fn equal_numbers_hold() {
        let sockets = [(IN, 22, ESTABLISHED), (OUT, 443, CLOSE_WAIT), (OUT, 443, CLOSE_WAIT)];
        let ledger = ledger(&sockets);
        let audit = Audit::compare(&ledger, &ledger, &tally(&sockets));
        assert!(audit.holds());
        assert_eq!((audit.compared, audit.moved, audit.kernel_open), (2, 0, 3));
    }

    #[test]
    fn phantoms_and_unknown_sockets_differ() {
        let phantoms = ledger(&[(IN, 22, ESTABLISHED)]);
        let audit = Audit::compare(&phantoms, &phantoms, &tally(&[(OUT, 80, ESTABLISHED), (IN, 80, LISTEN)]));
        let excess: Vec<_> = audit.differences.iter().map(|d| (d.direction, d.port, d.excess())).collect();
        assert_eq!(excess, [(IN, 22, 1), (OUT, 80, -1)]);
    }

    #[test]
    fn moved_slots_are_left_out() {
        let (before, after) = (ledger(&[]), ledger(&[(IN, 22, ESTABLISHED)]));
        let audit = Audit::compare(&before, &after, &tally(&[]));
        assert!(audit.holds());
        assert_eq!((audit.compared, audit.moved), (0, 1));
    }
}
