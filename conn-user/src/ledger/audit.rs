//! A comparison of the ledger with the kernel's sockets.
//!
//! The ledger's own sums always balance, so the proof that they are right comes from the kernel's socket tables. They are
//! compared by namespace, direction, service port and state, and together where namespaces share a part of the ledger.
//! A part that stood still while the tables were walked must have as many open connections as the tables; a part that
//! moved must have them between bounds. Namespaces that cannot be walked are left out.

use std::collections::{BTreeMap, BTreeSet};

use conn_common::ledger::Totals;
use conn_common::row::SocketRow;
use conn_common::state;

use crate::ledger::attempts::{self, AcceptQueue, Queues, Waiting};
use crate::ledger::kernel_counters::SecondAudit;
use crate::ledger::passages::{Part, Parts, Passages, STATES, bounds};
use crate::ledger::reader::{Ledger, SHARED};

/// Open sockets by namespace, direction, service port and state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SocketTally {
    open: BTreeMap<Part, [u64; STATES]>,
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
            let (length, limit) = (row.traffic.receive_queue, row.traffic.send_queue);
            queues.accept = queues.accept.fuller(AcceptQueue { length, limit });
        } else if state::is_open(connection.state) {
            let part = (connection.netns, connection.direction, connection.dport);
            self.open.entry(part).or_default()[usize::from(state::slot(connection.state))] += 1;
        }
    }

    /// Open connections in all.
    pub(crate) fn total(&self) -> u64 {
        self.open.values().flatten().sum()
    }

    /// Open connections in a namespace.
    fn in_netns(&self, netns: u32) -> u64 {
        self.open.range((netns, 0, 0)..=(netns, u8::MAX, u16::MAX)).flat_map(|(_, states)| states).sum()
    }
}

/// A number of open connections that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    /// Inode number of the network namespace; 0 for several that share a part of the ledger.
    pub netns: u32,
    /// Direction of the part.
    pub direction: u8,
    /// Service port of the part.
    pub port: u16,
    /// TCP state.
    pub state: u8,
    /// Open connections by the ledger: of a part that moved, the nearest number that it may have had.
    pub ledger: i64,
    /// Open sockets in the kernel.
    pub kernel: u64,
    /// True if the part moved, so that the difference may be larger.
    pub moved: bool,
}

impl Difference {
    /// Open connections that the ledger has and the kernel lacks (phantoms); negative for the opposite.
    pub(crate) fn excess(&self) -> i64 {
        self.ledger.saturating_sub_unsigned(self.kernel)
    }

    /// The difference that both passes found: of parts that stood still the same one, of others the smaller one.
    fn confirmed_by(&self, other: &Self) -> Option<Self> {
        let place = |one: &Self| (one.netns, one.direction, one.port, one.state, one.excess() > 0);
        if place(self) != place(other) {
            return None;
        }
        if !self.moved && !other.moved {
            return (self == other).then_some(*self);
        }
        Some(if self.excess().abs() <= other.excess().abs() { *self } else { *other })
    }
}

/// A namespace with open connections that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Hidden {
    /// Inode number.
    pub netns: u32,
    /// Open connections by the ledger.
    pub open: i64,
    /// Open sockets that a process has a descriptor of.
    pub seen: u64,
}

/// The findings of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Parts that stood still during the walk and were compared to the unit.
    pub compared: u64,
    /// Parts that moved and were compared between bounds.
    pub moved: u64,
    /// Open sockets in the kernel.
    pub kernel_open: u64,
    /// Namespaces with open connections that cannot be walked: no thread is in them, no file keeps them. They are left
    /// out, unless processes have all of their sockets open.
    pub hidden: Vec<Hidden>,
    /// The namespaces that were walked.
    pub walked: BTreeSet<u32>,
    /// Where the ledger was wrong. Empty if nothing differed.
    pub differences: Vec<Difference>,
    /// How many phantoms each of the walked namespaces has at the least, at the ports taken together.
    pub phantoms: BTreeMap<u32, i64>,
    /// The queues of listeners, compared with the ledger, by port.
    pub waiting: BTreeMap<u16, Waiting>,
    /// The accept queues of listeners, by port.
    pub accept_queues: BTreeMap<u16, AcceptQueue>,
    /// The comparison with the kernel's counters.
    pub kernel: SecondAudit,
}

impl Audit {
    /// Compares two readings of the ledger, before and after a walk, with the sockets of the walk. `tally` also has the
    /// sockets that were seen in namespaces that were not walked.
    pub(crate) fn compare(
        before: &Ledger,
        after: &Ledger,
        tally: &SocketTally,
        walked: BTreeSet<u32>,
    ) -> Self {
        let hidden = hidden(before, after, tally, &walked);
        let is_shown = |netns: u32| hidden.iter().all(|hidden| hidden.netns != netns);
        let group = |part| if after.is_shared(part) { (SHARED, part.1, part.2) } else { part };
        let grouped = |parts: &Parts| {
            let mut groups = Parts::new();
            for (&part, passages) in parts {
                let group = group(part);
                // A shared part has the hidden ones, too.
                if group.0 == SHARED || is_shown(group.0) {
                    groups.entry(group).or_default().add(passages);
                }
            }
            groups
        };
        let (then, now) = (grouped(&before.parts), grouped(&after.parts));
        let mut sockets: BTreeMap<Part, [u64; STATES]> = BTreeMap::new();
        for (&part, states) in tally.open.iter().filter(|((netns, ..), _)| is_shown(*netns)) {
            let sum = sockets.entry(group(part)).or_default();
            sum.iter_mut().zip(states).for_each(|(sum, number)| *sum += number);
        }
        let waiting = attempts::waiting(before, after, &tally.queues);
        let accept_queues = tally.queues.iter().map(|(&port, queues)| (port, queues.accept)).collect();
        let mut audit = Self { kernel_open: tally.total(), waiting, accept_queues, ..Self::default() };
        let keys: BTreeSet<&Part> = now.keys().chain(sockets.keys()).collect();
        for &(netns, direction, port) in keys {
            let key = (netns, direction, port);
            // A hidden namespace may have any of its connections in a part that it shares.
            let may_share = |hidden: &&Hidden| {
                after.sharing.contains(&hidden.netns)
                    || after.parts.contains_key(&(hidden.netns, direction, port))
            };
            let slack = match netns {
                SHARED => hidden.iter().filter(may_share).map(|hidden| hidden.open.max(0)).sum(),
                _ => 0,
            };
            let of = |parts: &Parts| parts.get(&key).copied().unwrap_or_default();
            audit.compare_part(
                key,
                (&of(&then), &of(&now)),
                slack,
                &sockets.get(&key).copied().unwrap_or_default(),
            );
        }
        audit.phantoms = phantoms(before, after, tally, &walked);
        Self { hidden, walked, ..audit }
    }

    fn compare_part(
        &mut self,
        (netns, direction, port): Part,
        (then, now): (&Passages, &Passages),
        slack: i64,
        sockets: &[u64; STATES],
    ) {
        let moved = then != now || slack > 0;
        *if moved { &mut self.moved } else { &mut self.compared } += 1;
        for (at, (&state, &kernel)) in state::OPEN.iter().zip(sockets).enumerate() {
            let (least, most) = bounds(then, now, at);
            let least = least.saturating_sub(slack);
            let found = kernel.cast_signed();
            let ledger = if found < least {
                least
            } else if found > most {
                most
            } else {
                continue;
            };
            self.differences.push(Difference { netns, direction, port, state, ledger, kernel, moved });
        }
    }

    /// The differences that `other` has, too.
    pub(crate) fn also_in(&self, other: &Self) -> Vec<Difference> {
        let confirmed = |one: &Difference| other.differences.iter().find_map(|two| one.confirmed_by(two));
        self.differences.iter().filter_map(confirmed).collect()
    }

    /// True if nothing that could be compared differed.
    pub(crate) fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// The namespaces that were not walked and have open connections, without those whose connections are all seen.
fn hidden(before: &Ledger, after: &Ledger, tally: &SocketTally, walked: &BTreeSet<u32>) -> Vec<Hidden> {
    // A namespace that began after the search has nothing in the first reading.
    let is_open = |ledger: &Ledger, netns| ledger.netns.get(netns).is_some_and(|totals| totals.open() != 0);
    let counted = after.netns.keys().filter(|netns| is_open(before, netns) && is_open(after, netns)).copied();
    let seen = tally.open.keys().map(|&(netns, ..)| netns);
    let unwalked: BTreeSet<u32> = counted.chain(seen).filter(|netns| !walked.contains(netns)).collect();
    let hidden = unwalked.into_iter().filter(|&netns| !is_all_seen(before, after, tally, netns));
    let open = |netns| after.netns.get(&netns).map_or(0, Totals::open);
    hidden.map(|netns| Hidden { netns, open: open(netns), seen: tally.in_netns(netns) }).collect()
}

/// True if the ledger has all open connections of a namespace in parts of its own, and each of them was seen.
fn is_all_seen(before: &Ledger, after: &Ledger, tally: &SocketTally, netns: u32) -> bool {
    let range = || (netns, 0, 0)..=(netns, u8::MAX, u16::MAX);
    let mut parts = after
        .parts
        .range(range())
        .map(|(part, _)| part)
        .chain(tally.open.range(range()).map(|(part, _)| part));
    !after.sharing.contains(&netns)
        && parts.all(|part| {
            let of = |parts: &Parts| parts.get(part).copied().unwrap_or_default();
            let (then, now) = (of(&before.parts), of(&after.parts));
            let sockets = tally.open.get(part).copied().unwrap_or_default();
            let agrees = |at: usize| {
                let (least, most) = bounds(&then, &now, at);
                (least..=most).contains(&sockets[at].cast_signed())
            };
            !after.is_shared(*part) && (0..STATES).all(agrees)
        })
}

/// The walked namespaces with phantoms, and how many each of them has at the least.
fn phantoms(
    before: &Ledger,
    after: &Ledger,
    tally: &SocketTally,
    walked: &BTreeSet<u32>,
) -> BTreeMap<u32, i64> {
    let excess = |netns: u32| {
        let begun = before.netns.get(&netns).map_or(0, |totals| totals.opened + totals.preexisting);
        let ended = after.netns.get(&netns).map_or(0, |totals| totals.failed + totals.closed);
        begun.wrapping_sub(ended).cast_signed().saturating_sub_unsigned(tally.in_netns(netns))
    };
    let counted = walked.iter().filter(|netns| after.netns.contains_key(netns));
    counted.map(|&netns| (netns, excess(netns))).filter(|&(_, excess)| excess > 0).collect()
}

#[cfg(test)]
mod tests;
