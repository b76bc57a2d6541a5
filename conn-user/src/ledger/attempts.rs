//! Attempts that never become a connection, per local port: what the programs counted, and what a walk over the
//! listeners adds.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use conn_common::attempt::PortAttempts;
use conn_common::connection::IN;
use conn_common::ledger::Cells;
use conn_common::name;
use serde::Serialize;

use crate::kernel::attempt_hooks::Sight;
use crate::kernel::map::MapError;
use crate::kernel::mapped::MappedArray;
use crate::kernel::probe::Probe;
use crate::ledger::reader::Ledger;
use crate::render::number_table::{NumberColumn, NumberValue};

/// Counts of the programs, by local port. Ports without an attempt are left out.
pub(crate) type ByPort = BTreeMap<u16, PortAttempts>;

/// Reads the counts.
#[derive(Debug)]
pub(super) struct AttemptReader(MappedArray<PortAttempts>);

impl AttemptReader {
    /// Opens the map.
    ///
    /// # Errors
    /// The map cannot be opened.
    pub(super) fn new(probe: &Probe) -> Result<Self, MapError> {
        probe.map(name::ATTEMPTS).map(Self)
    }

    /// One reading.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(super) fn read(&self) -> Result<ByPort, MapError> {
        let mut ports = ByPort::new();
        self.0.each(|port, words| {
            if let &[begun, direct, refused] = words
                && (begun | direct | refused) != 0
                && let Ok(port) = u16::try_from(port)
            {
                ports.insert(port, PortAttempts { begun, direct, refused });
            }
        })?;
        Ok(ports)
    }
}

/// The queues of the listeners of one port, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues {
    /// Half-open requests.
    pub half_open: u64,
    /// Packets that the listeners dropped since each began.
    pub drops: u64,
    /// The accept queue of the fullest.
    pub accept: AcceptQueue,
}

/// The accept queue of a listener, or of the fullest one of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub length: u32,
    /// How many may wait.
    pub limit: u32,
}

impl AcceptQueue {
    /// The one of the two that is nearer to its limit.
    pub(crate) fn fuller(self, other: Self) -> Self {
        let product = |one: Self, of: Self| u64::from(one.length) * (u64::from(of.limit) + 1);
        match product(self, other).cmp(&product(other, self)) {
            Ordering::Less => other,
            // Of two that are equally full, the larger one stays, whichever the walk met first.
            Ordering::Equal if other.limit > self.limit => other,
            _ => self,
        }
    }
}

/// The queues at the time of a walk, compared with the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// Half-open requests now.
    pub half_open: u64,
    /// Requests that ended without a child. Exact if the port stands still during the walk, and never too large.
    pub abandoned: u64,
    /// Packets that listeners dropped while conntrace watched. As above.
    pub dropped: u64,
}

/// Compares two readings of the ledger, before and after a walk, with the queues that the walk found. Of two readings,
/// each number takes the one that makes the result smaller.
pub(crate) fn waiting(
    before: &Ledger,
    after: &Ledger,
    queues: &BTreeMap<u16, Queues>,
) -> BTreeMap<u16, Waiting> {
    let ports = queues.keys().chain(before.attempts.keys()).chain(before.listeners.keys());
    let ports: std::collections::BTreeSet<u16> = ports.copied().collect();
    let one = |port: u16| {
        let queues = queues.get(&port).copied().unwrap_or_default();
        let begun = before.attempts.get(&port).map_or(0, |counts| counts.begun);
        let direct = before.attempts.get(&port).map_or(0, |counts| counts.direct);
        let children = after.ports.get(&(IN, port)).map_or(0, Cells::opened);
        let dropped = before.listeners.get(&port).map_or(0, |counts| counts.dropped);
        let dropped_before = after.listeners.get(&port).map_or(0, |counts| counts.dropped_before);
        Waiting {
            half_open: queues.half_open,
            abandoned: begun.saturating_sub(children.saturating_sub(direct)).saturating_sub(queues.half_open),
            dropped: (dropped + queues.drops).saturating_sub(dropped_before),
        }
    };
    ports.into_iter().map(|port| (port, one(port))).filter(|(_, one)| *one != Waiting::default()).collect()
}

/// The attempts of one port, or of all. A number that this host does not show is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AttemptCounts {
    /// Half-open requests that began.
    pub attempts: Option<u64>,
    /// Half-open requests now.
    pub half_open: Option<u64>,
    /// Requests that ended without a connection.
    pub abandoned: Option<u64>,
    /// Packets that listeners dropped because a queue was full.
    pub dropped: Option<u64>,
    /// SYNs that this host refused.
    pub refused_by_us: Option<u64>,
}

impl AttemptCounts {
    /// The counts of one port.
    pub(super) fn new(sight: Sight, counts: PortAttempts, waiting: Waiting) -> Self {
        Self {
            attempts: sight.begun.then_some(counts.begun),
            half_open: sight.half_open.then_some(waiting.half_open),
            abandoned: (sight.begun && sight.half_open).then_some(waiting.abandoned),
            dropped: sight.dropped.then_some(waiting.dropped),
            refused_by_us: sight.refused.then_some(counts.refused),
        }
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        let plus = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
        Self {
            attempts: plus(self.attempts, other.attempts),
            half_open: plus(self.half_open, other.half_open),
            abandoned: plus(self.abandoned, other.abandoned),
            dropped: plus(self.dropped, other.dropped),
            refused_by_us: plus(self.refused_by_us, other.refused_by_us),
        }
    }

    /// In the order of [`NAMES`].
    const fn numbers(&self) -> [Option<u64>; NAMES.len()] {
        [self.attempts, self.half_open, self.abandoned, self.dropped, self.refused_by_us]
    }

    /// The larger number of both, each by itself.
    pub(super) fn largest(self, other: Self) -> Self {
        Self {
            attempts: self.attempts.max(other.attempts),
            half_open: self.half_open.max(other.half_open),
            abandoned: self.abandoned.max(other.abandoned),
            dropped: self.dropped.max(other.dropped),
            refused_by_us: self.refused_by_us.max(other.refused_by_us),
        }
    }

    /// The columns of a table in which these are the largest numbers. Text has those that are not zero everywhere.
    pub(super) fn columns(self) -> impl Iterator<Item = NumberColumn> {
        let is_shown = |number: Option<u64>| number.is_some_and(|number| number != 0);
        let numbers = NAMES.into_iter().zip(self.numbers());
        numbers.map(move |(name, number)| NumberColumn { name, in_text: is_shown(number) })
    }

    /// The values of a row.
    pub(super) fn values(self) -> impl Iterator<Item = NumberValue> {
        self.numbers().into_iter().map(|number| number.map_or(NumberValue::Unknown, NumberValue::from))
    }

    /// True if nothing else than refused SYNs is counted.
    pub(super) fn is_refused_only(self) -> bool {
        self.numbers()[..NAMES.len() - 1].iter().all(|number| number.is_none_or(|number| number == 0))
    }
}

/// The columns of attempts.
const NAMES: [&str; 5] = ["attempts", "half_open", "abandoned", "dropped", "refused_by_us"];

/// The counts of all ports added up.
pub(super) fn sum(ports: &ByPort) -> PortAttempts {
    ports.values().fold(PortAttempts::ZERO, |sum, one| PortAttempts {
        begun: sum.begun + one.begun,
        direct: sum.direct + one.direct,
        refused: sum.refused + one.refused,
    })
}

/// The queues of all ports added up.
pub(super) fn sum_of_queues(ports: &BTreeMap<u16, Waiting>) -> Waiting {
    ports.values().fold(Waiting::default(), |sum, one| Waiting {
        half_open: sum.half_open + one.half_open,
        abandoned: sum.abandoned + one.abandoned,
        dropped: sum.dropped + one.dropped,
    })
}

/// How many ports a line names.
const NAMED_PORTS: usize = 5;

/// Refused SYNs in all: a scan is many ports with few SYNs each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    /// How many SYNs this host refused; none if it does not show that.
    pub refused_by_us: Option<u64>,
    /// How many ports these SYNs asked for.
    pub refused_ports: Option<u64>,
    /// The numbers that this host does not show, and why.
    pub unknown: BTreeMap<&'static str, &'static str>,
    /// The ports with the most refused SYNs.
    #[serde(skip)]
    busiest: Vec<(u16, u64)>,
}

impl Summary {
    /// Sums up what the programs counted.
    pub(super) fn new(sight: Sight, is_audited: bool, ports: &ByPort) -> Self {
        let refused = ports.iter().filter(|(_, counts)| counts.refused != 0);
        let mut busiest: Vec<_> = refused.map(|(&port, counts)| (port, counts.refused)).collect();
        busiest.sort_by_key(|&(port, syns)| (std::cmp::Reverse(syns), port));
        let count = busiest.len() as u64;
        busiest.truncate(NAMED_PORTS);
        Self {
            refused_by_us: sight.refused.then(|| sum(ports).refused),
            refused_ports: sight.refused.then_some(count),
            unknown: unknown(sight, is_audited),
            busiest,
        }
    }

    /// Lines for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let (Some(syns @ 1..), Some(ports)) = (self.refused_by_us, self.refused_ports) {
            let named: Vec<String> =
                self.busiest.iter().map(|(port, syns)| format!("{syns} to {port}")).collect();
            let rest = if ports > named.len() as u64 { ", ..." } else { "" };
            lines.push(format!("refused by us: SYNs {syns}, ports {ports}: {}{rest}", named.join(", ")));
        }
        lines.extend(self.unknown.iter().map(|(name, reason)| format!("not known: {name}: {reason}")));
        lines
    }
}

/// The numbers that this host does not show, and why.
fn unknown(sight: Sight, is_audited: bool) -> BTreeMap<&'static str, &'static str> {
    const NO_SOCK_OPS: &str = "sock_ops is not attached";
    const OLD_RESETS: &str = "before Linux 6.10, the kernel does not show resets without a socket";
    const NO_FIELD: &str = "this kernel's listeners have no such field, or the run has a filter";
    let no_walk = if is_audited { NO_FIELD } else { "no audit was done yet" };
    [
        ("attempts", sight.begun, NO_SOCK_OPS),
        ("half_open", sight.half_open, no_walk),
        ("abandoned", sight.begun && sight.half_open, if sight.begun { no_walk } else { NO_SOCK_OPS }),
        ("dropped", sight.dropped, no_walk),
        ("refused_by_us", sight.refused, OLD_RESETS),
    ]
    .into_iter()
    .filter_map(|(name, seen, reason)| (!seen).then_some((name, reason)))
    .collect()
}

#[cfg(test)]
mod tests {
    use conn_common::ledger::Slot;
    use conn_common::state::SYN_RECV;

    use super::*;
    use crate::ledger::counts::Counts;
    use crate::ledger::reader::Listeners;

    const ALL: Sight = Sight { begun: true, refused: true, half_open: true, dropped: true };

    /// A ledger of port 80.
    fn ledger(begun: u64, direct: u64, children: u64, listeners: Listeners) -> Ledger {
        let mut slot = Slot::ZERO;
        (0..children).for_each(|_| slot.count_opened(SYN_RECV));
        Ledger {
            ports: BTreeMap::from([((IN, 80), Counts::of(&slot))]),
            listeners: BTreeMap::from([(80, listeners)]),
            attempts: ByPort::from([(80, PortAttempts { begun, direct, refused: 0 })]),
            ..Ledger::default()
        }
    }

    fn at_80(before: &Ledger, after: &Ledger, queues: Queues) -> Waiting {
        waiting(before, after, &BTreeMap::from([(80, queues)])).get(&80).copied().unwrap_or_default()
    }

    #[test]
    fn abandoned_is_begun_less_children_less_half_open() {
        let still = ledger(100, 2, 12, Listeners { dropped: 5, dropped_before: 3, ..Listeners::default() });
        let found = at_80(&still, &still, Queues { half_open: 20, drops: 4, ..Queues::default() });
        assert_eq!(found, Waiting { half_open: 20, abandoned: 70, dropped: 6 });
        // A port that has a listener and nothing else.
        let idle = ledger(0, 0, 0, Listeners::default());
        assert_eq!(waiting(&idle, &idle, &BTreeMap::new()), BTreeMap::new());
    }

    #[test]
    fn moving_port_never_counts_too_much() {
        let (before, after) =
            (ledger(100, 0, 10, Listeners::default()), ledger(150, 0, 50, Listeners::default()));
        assert_eq!(
            at_80(&before, &after, Queues { half_open: 30, drops: 0, ..Queues::default() }).abandoned,
            20
        );
        assert_eq!(
            at_80(&before, &after, Queues { half_open: 300, drops: 0, ..Queues::default() }).abandoned,
            0
        );
    }

    #[test]
    fn the_fullest_queue_is_nearest_to_its_limit() {
        let queue = |length, limit| AcceptQueue { length, limit };
        for (one, other, fuller) in [
            (queue(9, 10), queue(100, 4096), queue(9, 10)),
            (queue(0, 10), queue(0, 128), queue(0, 128)),
            (queue(1, 0), queue(5, 10), queue(1, 0)),
        ] {
            assert_eq!((one.fuller(other), other.fuller(one)), (fuller, fuller));
        }
    }

    #[test]
    fn numbers_that_are_not_seen_are_unknown() {
        let counts = PortAttempts { begun: 3, direct: 0, refused: 4 };
        let blind = AttemptCounts::new(Sight { begun: true, ..Sight::default() }, counts, Waiting::default());
        assert_eq!(blind, AttemptCounts { attempts: Some(3), ..AttemptCounts::default() });
        let summary = Summary::new(Sight { refused: false, ..ALL }, true, &ByPort::from([(80, counts)]));
        assert_eq!((summary.refused_by_us, summary.refused_ports), (None, None));
        insta::assert_snapshot!(summary.lines().join("\n"), @"not known: refused_by_us: before Linux 6.10, the kernel does not show resets without a socket");
    }

    #[test]
    fn refused_syns_are_summed_up_with_the_busiest_ports() {
        let refused = |ports: &[(u16, u64)]| -> ByPort {
            ports
                .iter()
                .map(|&(port, refused)| (port, PortAttempts { refused, ..PortAttempts::ZERO }))
                .collect()
        };
        let few = Summary::new(ALL, true, &refused(&[(22, 3), (80, 0), (23, 7)]));
        assert_eq!(few.lines(), ["refused by us: SYNs 10, ports 2: 7 to 23, 3 to 22"]);
        let scanned: Vec<(u16, u64)> = (1..=1_000).map(|port| (port, 1)).collect();
        let scan = Summary::new(ALL, true, &refused(&scanned));
        assert_eq!((scan.refused_by_us, scan.refused_ports), (Some(1_000), Some(1_000)));
        assert_eq!(
            scan.lines(),
            ["refused by us: SYNs 1000, ports 1000: 1 to 1, 1 to 2, 1 to 3, 1 to 4, 1 to 5, ..."]
        );
        assert_eq!(Summary::new(ALL, true, &ByPort::new()).lines(), [""; 0]);
    }
}
