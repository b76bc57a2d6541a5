//! What was counted in each minute of the last day: differences between readings of the ledger.
//!
//! Only differences are kept, so a minute without connections takes no room. When they take too much, the oldest minutes
//! become one stretch: the history gets coarser there, and loses no count.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use conn_common::attempt::PortAttempts;
use conn_common::ledger::{Cells as _, listener, preexisting_cell};
use conn_common::state::{ESTABLISHED, OPEN};

use crate::ledger::counts::Counts;
use crate::ledger::reader::{Ledger, Listeners};

/// How long the history reaches back.
pub(crate) const REACH: Duration = Duration::from_secs(24 * 60 * 60);
/// The most cells in all stretches, of about 24 bytes each: 24 MiB.
const MOST_CELLS: usize = 1 << 20;

/// A moment, by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Nanoseconds since the boot.
    pub(crate) boot_ns: u64,
    /// Nanoseconds of Unix time.
    pub(crate) unix_ns: i64,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// Connections, by direction and service port.
    Connections(u8, u16),
    /// Listeners of a port.
    Listeners(u16),
    /// Attempts at a port.
    Attempts(u16),
    /// Connections without a slot.
    Unattributed,
}

/// Counts by what they count; those that are 0 are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sums(BTreeMap<Key, Counts>);

/// What was counted between two readings.
#[derive(Debug)]
struct Stretch {
    end: Moment,
    sums: Sums,
    cells: usize,
}

/// The stretches of the last day, the oldest first.
#[derive(Debug)]
pub(crate) struct History {
    began: Moment,
    stretches: VecDeque<Stretch>,
    last: Sums,
    most_cells: usize,
}

/// The counts of a stretch of one direction and service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    /// When the stretch began, nanoseconds since the boot.
    pub(crate) begin_ns: u64,
    /// When it ended.
    pub(crate) end_ns: u64,
    /// Connections that began.
    pub(crate) opened: u64,
    /// Connections that failed.
    pub(crate) failed: u64,
    /// Open at the end.
    pub(crate) open: i64,
}

impl Sums {
    fn of(ledger: &Ledger) -> Self {
        let mut sums = Self::default();
        for (&(direction, port), counts) in &ledger.ports {
            sums.add(Key::Connections(direction, port), counts);
        }
        for (&port, one) in &ledger.listeners {
            let cells = [
                (listener::OPENED, one.opened),
                (listener::PREEXISTING, one.preexisting),
                (listener::CLOSED, one.closed),
                (listener::DROPPED_BEFORE, one.dropped_before),
                (listener::DROPPED, one.dropped),
            ];
            sums.add(Key::Listeners(port), &Counts::of_cells(&cells));
        }
        for (&port, one) in &ledger.attempts {
            let cells = [(0, one.begun), (1, one.direct), (2, one.refused)];
            sums.add(Key::Attempts(port), &Counts::of_cells(&cells));
        }
        if let Some(counts) = &ledger.unattributed {
            sums.add(Key::Unattributed, counts);
        }
        sums
    }

    fn add(&mut self, key: Key, counts: &Counts) {
        if *counts != Counts::ZERO {
            self.0.entry(key).or_default().add(counts);
        }
    }

    fn add_all(&mut self, other: &Self) {
        for (&key, counts) in &other.0 {
            self.add(key, counts);
        }
    }

    /// What was added since an earlier reading.
    fn since(&self, earlier: &Self) -> Self {
        let new = |(&key, counts): (&Key, &Counts)| {
            let counts = earlier.0.get(&key).map_or_else(|| counts.clone(), |then| counts.minus(then));
            (counts != Counts::ZERO).then_some((key, counts))
        };
        Self(self.0.iter().filter_map(new).collect())
    }

    fn cells(&self) -> usize {
        self.0.values().map(|counts| 4 + counts.used().count()).sum()
    }

    fn open(&self, key: Key) -> i64 {
        self.0.get(&key).map_or(0, Counts::open)
    }
}

impl History {
    /// A history that begins now.
    pub(crate) fn new(ledger: &Ledger, now: Moment) -> Self {
        Self { began: now, stretches: VecDeque::new(), last: Sums::of(ledger), most_cells: MOST_CELLS }
    }

    /// Ends a stretch.
    pub(crate) fn note(&mut self, ledger: &Ledger, now: Moment) {
        let read = Sums::of(ledger);
        let sums = read.since(&self.last);
        self.last = read;
        self.stretches.push_back(Stretch { end: now, cells: sums.cells(), sums });
        let oldest = now.boot_ns.saturating_sub(REACH.as_nanos() as u64);
        while self.stretches.front().is_some_and(|first| first.end.boot_ns <= oldest) {
            if let Some(first) = self.stretches.pop_front() {
                self.began = first.end;
            }
        }
        while self.stretches.len() > 2 && self.cells() > self.most_cells {
            let Some(first) = self.stretches.pop_front() else { return };
            if let Some(second) = self.stretches.front_mut() {
                second.sums.add_all(&first.sums);
                second.cells = second.sums.cells();
            }
        }
    }

    fn cells(&self) -> usize {
        self.stretches.iter().map(|stretch| stretch.cells).sum()
    }

    /// What was counted from the last stretch on that began at least so long ago, and when that was. Connections that were
    /// open then are those from before.
    pub(crate) fn since(&self, asked: Duration, now: Moment, ledger: &Ledger) -> (Moment, Ledger) {
        let wanted = now.boot_ns.saturating_sub(asked.as_nanos() as u64);
        let ends = self.stretches.iter().map(|stretch| stretch.end);
        let from = ends.take_while(|end| end.boot_ns <= wanted).last().unwrap_or(self.began);
        let mut sums = Sums::of(ledger).since(&self.last);
        for stretch in self.stretches.iter().filter(|stretch| stretch.end.boot_ns > from.boot_ns) {
            sums.add_all(&stretch.sums);
        }
        (from, difference(sums, ledger))
    }

    /// The counts of each stretch from a moment on, of these directions and service ports together, and of the time since the
    /// last one.
    pub(crate) fn points(
        &self,
        from: Moment,
        now: Moment,
        ledger: &Ledger,
        ports: &[(u8, u16)],
    ) -> Vec<Point> {
        let keys: Vec<Key> =
            ports.iter().map(|&(direction, port)| Key::Connections(direction, port)).collect();
        let read = Sums::of(ledger);
        let rest = read.since(&self.last);
        let stretches = self.stretches.iter().map(|stretch| (stretch.end, &stretch.sums));
        let all = stretches.chain([(now, &rest)]).filter(|(end, _)| end.boot_ns > from.boot_ns);
        let mut open: i64 = keys.iter().map(|&key| read.open(key)).sum();
        let mut points = Vec::new();
        // Backwards: what is open now, less what was added since.
        for (end, sums) in all.collect::<Vec<_>>().into_iter().rev() {
            let mut point = Point { end_ns: end.boot_ns, open, ..Point::default() };
            for counts in keys.iter().filter_map(|key| sums.0.get(key)) {
                point.opened += counts.opened();
                point.failed += counts.failed();
                open -= counts.open();
            }
            points.push(point);
        }
        points.reverse();
        let mut begin_ns = from.boot_ns;
        for point in &mut points {
            (point.begin_ns, begin_ns) = (begin_ns, point.end_ns);
        }
        points
    }
}

/// The sums as a ledger. What the reading of now has open, and the sums do not, was open before.
fn difference(sums: Sums, now: &Ledger) -> Ledger {
    let mut ledger = Ledger::default();
    for (key, counts) in sums.0 {
        match key {
            Key::Connections(direction, port) => _ = ledger.ports.insert((direction, port), counts),
            Key::Unattributed => ledger.unattributed = Some(counts),
            Key::Listeners(port) => {
                let one = ledger.listeners.entry(port).or_default();
                for (cell, count) in counts.used() {
                    *match cell {
                        listener::OPENED => &mut one.opened,
                        listener::PREEXISTING => &mut one.preexisting,
                        listener::CLOSED => &mut one.closed,
                        listener::DROPPED_BEFORE => &mut one.dropped_before,
                        listener::DROPPED => &mut one.dropped,
                        _ => continue,
                    } = count;
                }
            }
            Key::Attempts(port) => _ = ledger.attempts.insert(port, attempts(&counts)),
        }
    }
    for (&key, counts) in &now.ports {
        let here = ledger.ports.get(&key);
        let before = OPEN.map(|state| counts.open_in(state) - here.map_or(0, |here| here.open_in(state)));
        if before.iter().any(|&count| count != 0) {
            adopt(ledger.ports.entry(key).or_default(), before);
        }
    }
    if let (Some(counts), Some(here)) = (&now.unattributed, &mut ledger.unattributed) {
        let before = OPEN.map(|state| counts.open_in(state) - here.open_in(state));
        adopt(here, before);
    }
    for (&port, one) in &now.listeners {
        let here = ledger.listeners.get(&port).copied().unwrap_or_default();
        let before = (one.open() + here.closed).saturating_sub(here.opened);
        if before != 0 || here != Listeners::default() {
            ledger.listeners.insert(port, Listeners { preexisting: before, ..here });
        }
    }
    ledger
}

/// Counts connections as those from before. A connection that moved between two readings may miss in a state: the sum over
/// the states is right.
fn adopt(counts: &mut Counts, before: [i64; OPEN.len()]) {
    let sum: i64 = before.iter().sum();
    let mut put = |state, count: i64| {
        if let (Some(cell), Ok(count)) = (preexisting_cell(state), u64::try_from(count)) {
            counts.add(&Counts::of_cells(&[(cell, count)]));
        }
    };
    if before.iter().all(|&count| count >= 0) {
        OPEN.into_iter().zip(before).for_each(|(state, count)| put(state, count));
    } else {
        put(ESTABLISHED, sum);
    }
}

fn attempts(counts: &Counts) -> PortAttempts {
    let mut one = PortAttempts::ZERO;
    for (cell, count) in counts.used() {
        *match cell {
            0 => &mut one.begun,
            1 => &mut one.direct,
            _ => &mut one.refused,
        } = count;
    }
    one
}

#[cfg(test)]
mod tests;
