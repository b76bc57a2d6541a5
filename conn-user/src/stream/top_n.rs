//! The largest of many ended connections, for `conntrace life --top`.

use std::cmp::Ordering;

use crate::enrich::Enricher;
use crate::error::Error;
use crate::event::Event;
use crate::event::enriched::Enriched;
use crate::event::lost::Lost;
use crate::event::sort_key::LifeKey;
use crate::host::clock::WallClock;
use crate::output::stdout::{Sink, Written};
use crate::stream::consumer::{Consumer, Finished, Taken};
use crate::stream::notice::Notice;
use crate::stream::text::Text;

/// Keeps the largest connections, and prints them at the end.
pub(crate) struct TopN<S> {
    text: Text<S>,
    largest: Largest,
}

impl<S: Sink> TopN<S> {
    /// Keeps the `limit` largest by `key`, to be printed by `text`.
    pub(crate) const fn new(limit: usize, key: LifeKey, text: Text<S>) -> Self {
        Self { text, largest: Largest::new(limit, key) }
    }
}

impl<S: Sink> Consumer for TopN<S> {
    fn event(&mut self, event: &Enriched, _: &WallClock) -> Taken {
        self.largest.push(event.clone());
        Taken::Shown
    }

    fn lost(&mut self, lost: &Lost, clock: &WallClock) {
        self.text.lost(lost, clock);
    }

    fn notice(&mut self, notice: &Notice) {
        self.text.notice(notice);
    }

    fn flush(&mut self) -> Result<Written, Error> {
        self.text.flush()
    }

    fn finish(&mut self, enricher: &mut Enricher, clock: &WallClock) -> Finished {
        let filtered = self.largest.cut();
        let mut events = std::mem::take(&mut self.largest.events);
        enricher.complete(&mut events);
        let unwritten = self.text.print_all(&events, clock);
        self.text.finish(enricher, clock);
        Finished { filtered, unwritten }
    }
}

/// The largest connections so far.
#[derive(Debug)]
struct Largest {
    limit: usize,
    key: LifeKey,
    /// At most twice the limit, so that sorting is rare.
    events: Vec<Enriched>,
    /// How many were not large enough.
    others: u64,
}

impl Largest {
    const fn new(limit: usize, key: LifeKey) -> Self {
        Self { limit, key, events: Vec::new(), others: 0 }
    }

    fn push(&mut self, event: Enriched) {
        self.events.push(event);
        if self.events.len() >= self.limit.saturating_mul(2).max(64) {
            self.cut();
        }
    }

    /// Sorts the largest, the largest first, of equals the one that ended first. Returns how many others there were.
    fn cut(&mut self) -> u64 {
        let key = self.key;
        let larger = |one: &Event, other: &Event| -> Ordering {
            key.of(other).cmp(&key.of(one)).then(one.time_ns.cmp(&other.time_ns))
        };
        self.events.sort_by(|one, other| larger(one, other));
        self.others += self.events.len().saturating_sub(self.limit) as u64;
        self.events.truncate(self.limit);
        self.others
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{closed, failed, preexisting};

    fn lasting(seconds: u64) -> Enriched {
        let mut event = closed();
        event.time_ns = event.connection.attempt_ns + seconds * 1_000_000_000;
        event
    }

    #[test]
    fn the_largest_remain() {
        let mut largest = Largest::new(3, LifeKey::Lifetime);
        for seconds in (0..500).chain([7, 1_000, 3]) {
            largest.push(lasting(seconds));
        }
        assert_eq!(largest.cut(), 500);
        let lifetimes: Vec<_> = largest.events.iter().filter_map(|event| event.lifetime_ns()).collect();
        assert_eq!(lifetimes, [1_000_000_000_000, 499_000_000_000, 498_000_000_000]);
        let mut none = Largest::new(0, LifeKey::Rtt);
        none.push(closed());
        assert_eq!((none.cut(), none.events.len()), (1, 0));
    }

    #[test]
    fn unknown_values_come_last() {
        let mut largest = Largest::new(2, LifeKey::Handshake);
        for event in [failed(111, 5), closed(), preexisting()] {
            largest.push(event);
        }
        largest.cut();
        assert_eq!(largest.events[0].handshake_ns(), Some(1_500_000));
    }
}
