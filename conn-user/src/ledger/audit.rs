//! The ledger held against the sockets themselves.
//!
//! The ledger's own sums always balance, so the proof that they are right must come from elsewhere:
//! the kernel's socket tables. Slots that moved while the tables were walked are left out; those that
//! did not must show the same number of open connections, state by state.

use std::collections::BTreeMap;

use conn_common::ledger::Slot;
use conn_common::row::SocketRow;
use conn_common::state;

use crate::ledger::reader::Ledger;

/// Open sockets by direction, service port and state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census(BTreeMap<(u8, u16, u8), u64>);

impl Census {
    /// Counts one socket, if it is an open connection.
    pub fn count(&mut self, row: &SocketRow) {
        let connection = &row.connection;
        if state::is_open(connection.state) {
            *self.0.entry((connection.direction, connection.dport, connection.state)).or_default() += 1;
        }
    }

    /// Open connections in all.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// A number that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
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
    /// Connections that the ledger believes open and the kernel does not have; negative for the opposite.
    pub fn excess(&self) -> i64 {
        self.ledger.saturating_sub_unsigned(self.kernel)
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Slots that did not move during the walk and were compared.
    pub compared: u64,
    /// Slots that moved and could not be compared.
    pub moved: u64,
    /// Open sockets in the kernel, moved slots included.
    pub kernel_open: u64,
    /// Namespaces with open connections that cannot be walked: no thread is in them, no file keeps
    /// them. Nothing is compared then.
    pub hidden_netns: u64,
    /// Where the ledger was wrong.
    pub differences: Vec<Difference>,
}

impl Audit {
    /// Compares the ledger as it was before and after a walk with what the walk saw.
    pub fn compare(before: &Ledger, after: &Ledger, census: &Census) -> Self {
        let mut audit = Self { kernel_open: census.total(), ..Self::default() };
        let keys: std::collections::BTreeSet<(u8, u16)> = after
            .ports
            .keys()
            .copied()
            .chain(census.0.keys().map(|&(direction, port, _)| (direction, port)))
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
                let kernel = census.0.get(&(key.0, key.1, state)).copied().unwrap_or(0);
                let difference =
                    Difference { direction: key.0, port: key.1, state, ledger: slot.open_in(state), kernel };
                if difference.excess() != 0 {
                    audit.differences.push(difference);
                }
            }
        }
        audit
    }

    /// An audit that compares nothing, because `hidden` namespaces with open connections cannot be walked.
    pub fn of_part(hidden: usize, census: &Census) -> Self {
        Self { kernel_open: census.total(), hidden_netns: hidden as u64, ..Self::default() }
    }

    /// The differences that another audit found, too.
    pub fn also_in(&self, other: &Self) -> Vec<Difference> {
        self.differences.iter().filter(|difference| other.differences.contains(difference)).copied().collect()
    }

    /// True if nothing that could be compared differed.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use conn_common::connection::{Connection, IN, OUT};
    use conn_common::state::{CLOSE_WAIT, ESTABLISHED, LISTEN};

    use conn_common::traffic::Traffic;

    use super::*;

    fn row(direction: u8, port: u16, state: u8) -> SocketRow {
        SocketRow {
            cookie: 0,
            at_least_jiffies: 0,
            reserved: 0,
            traffic: Traffic::NONE,
            connection: Connection { direction, dport: port, state, ..Connection::UNSEEN },
        }
    }

    fn ledger(slots: &[(u8, u16, u8)]) -> Ledger {
        let mut ledger = Ledger::default();
        for &(direction, port, state) in slots {
            ledger.ports.entry((direction, port)).or_insert(Slot::ZERO).count_preexisting(state);
        }
        ledger
    }

    fn census(rows: &[(u8, u16, u8)]) -> Census {
        let mut census = Census::default();
        for &(direction, port, state) in rows {
            census.count(&row(direction, port, state));
        }
        census
    }

    #[test]
    fn equal_is_equal() {
        let sockets = [(IN, 22, ESTABLISHED), (OUT, 443, CLOSE_WAIT), (OUT, 443, CLOSE_WAIT)];
        let ledger = ledger(&sockets);
        let audit = Audit::compare(&ledger, &ledger, &census(&sockets));
        assert!(audit.holds());
        assert_eq!((audit.compared, audit.moved, audit.kernel_open), (2, 0, 3));
    }

    #[test]
    fn tells_ghosts_and_strangers() {
        let ghosts = ledger(&[(IN, 22, ESTABLISHED)]);
        let audit = Audit::compare(&ghosts, &ghosts, &census(&[(OUT, 80, ESTABLISHED), (IN, 80, LISTEN)]));
        let excess: Vec<_> = audit.differences.iter().map(|d| (d.direction, d.port, d.excess())).collect();
        assert_eq!(excess, [(IN, 22, 1), (OUT, 80, -1)]);
    }

    #[test]
    fn leaves_out_what_moved() {
        let (before, after) = (ledger(&[]), ledger(&[(IN, 22, ESTABLISHED)]));
        let audit = Audit::compare(&before, &after, &census(&[]));
        assert!(audit.holds());
        assert_eq!((audit.compared, audit.moved), (0, 1));
    }
}
