//! Up to when no event is missing without a record that says so. The back keeps it for the next export.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::host::clock;
use crate::serve::otlp::events::batch::Gap;

/// An event is read at the latest so long after it happened, unless many are read. Events come in order but for so long.
const LAG: Duration = Duration::from_secs(1);

/// How far an export came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Up to then, all events have arrived or are reported as missing. Nanoseconds of Unix time; none if it is not known.
    pub(crate) complete_ns: Option<u64>,
}

/// How far this export came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// What arrived; none before the first stream of a first export.
    arrived: Option<State>,
    /// What was read.
    read_ns: Option<u64>,
    is_open: bool,
    /// When the last line was read, or the stream began.
    last: Instant,
}

impl Progress {
    /// Behind what an earlier export knows.
    pub(crate) fn after(state: Option<State>) -> Self {
        let read_ns = state.and_then(|state| state.complete_ns);
        Self { arrived: state, read_ns, is_open: false, last: Instant::now() }
    }

    /// There should be a stream, and there is none.
    pub(crate) fn lack(&mut self, now_ns: u64) {
        if self.arrived.is_none() {
            self.arrived = Some(State { complete_ns: Some(now_ns) });
            self.read_ns = Some(now_ns);
        }
    }

    /// A stream begins. Returns what may be missing before; none if this is the first one.
    pub(crate) fn open(&mut self, now_ns: u64) -> Option<Gap> {
        let gap = self.arrived.map(|_| Gap { since_ns: self.read_ns, until_ns: now_ns });
        self.arrived.get_or_insert(State { complete_ns: Some(now_ns) });
        self.is_open = true;
        self.read_ns = Some(now_ns);
        self.last = Instant::now();
        gap
    }

    /// An event was read.
    pub(crate) fn read(&mut self, time_ns: u64) {
        self.read_ns = self.read_ns.max(Some(before(time_ns)));
        self.last = Instant::now();
    }

    /// No line waits to be read: without one for so long, none is on its way.
    pub(crate) fn rest(&mut self) {
        if self.is_open && self.last.elapsed() >= LAG {
            self.read_ns = self.read_ns.max(Some(before(now_ns())));
        }
    }

    /// The stream has ended.
    pub(crate) const fn end(&mut self) {
        self.is_open = false;
    }

    /// Up to when all events were read.
    pub(crate) const fn read_ns(&self) -> Option<u64> {
        self.read_ns
    }

    /// What was read up to then has arrived.
    pub(crate) fn arrive(&mut self, complete_ns: Option<u64>) {
        if let Some(arrived) = &mut self.arrived {
            arrived.complete_ns = arrived.complete_ns.max(complete_ns);
        }
    }

    /// What the next export should know.
    pub(crate) const fn state(&self) -> Option<State> {
        self.arrived
    }
}

/// The time of day.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(clock::unix_now_ns()).unwrap_or_default()
}

fn before(time_ns: u64) -> u64 {
    time_ns.saturating_sub(LAG.as_nanos() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_gap_begins_where_the_events_end() {
        let mut first = Progress::after(None);
        assert_eq!(first.open(5 * SECOND), None);
        first.read(9 * SECOND);
        first.end();
        let gap = |since_ns, until_ns| Some(Gap { since_ns, until_ns });
        assert_eq!(first.open(20 * SECOND), gap(Some(8 * SECOND), 20 * SECOND));
        // What has not arrived is missing for the next export.
        assert_eq!(first.state(), Some(State { complete_ns: Some(5 * SECOND) }));
        first.arrive(Some(7 * SECOND));
        let mut next = Progress::after(first.state());
        assert_eq!(next.open(30 * SECOND), gap(Some(7 * SECOND), 30 * SECOND));
        let mut late = Progress::after(None);
        late.lack(3 * SECOND);
        late.lack(4 * SECOND);
        assert_eq!(late.open(9 * SECOND), gap(Some(3 * SECOND), 9 * SECOND));
        let mut unknown = Progress::after(Some(State::default()));
        assert_eq!(unknown.open(SECOND), gap(None, SECOND));
    }

    #[test]
    fn a_quiet_stream_is_complete() {
        let mut quiet = Progress::after(None);
        quiet.open(SECOND);
        quiet.rest();
        assert_eq!(quiet.read_ns(), Some(SECOND));
        let Some(last) = Instant::now().checked_sub(LAG) else { return };
        quiet.last = last;
        quiet.rest();
        let end = quiet.read_ns();
        assert!(end > Some(now_ns() - 2 * SECOND), "{end:?}");
        quiet.end();
        quiet.last = last;
        quiet.rest();
        assert_eq!(quiet.read_ns(), end);
    }
}
