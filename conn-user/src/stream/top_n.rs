//! The largest of many ended connections, for `conntrace life --top`.

use std::cmp::Ordering;

use crate::event::Event;
use crate::event::sort_key::LifeKey;

/// The largest lives so far.
#[derive(Debug)]
pub struct Top {
    limit: usize,
    key: LifeKey,
    /// At most twice the limit, so that sorting is rare.
    lives: Vec<Event>,
    /// How many were not large enough.
    others: u64,
}

impl Top {
    /// Keeps `limit` lives.
    pub const fn new(limit: usize, key: LifeKey) -> Self {
        Self { limit, key, lives: Vec::new(), others: 0 }
    }

    /// Takes another life.
    pub fn push(&mut self, event: Event) {
        self.lives.push(event);
        if self.lives.len() >= self.limit.saturating_mul(2).max(64) {
            self.cut();
        }
    }

    /// How many were taken.
    pub const fn len(&self) -> u64 {
        self.lives.len() as u64 + self.others
    }

    /// True if none was taken.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The largest, the largest first, of equals the one that ended first; and how many others there were.
    pub fn sorted(mut self) -> (Vec<Event>, u64) {
        self.cut();
        (self.lives, self.others)
    }

    fn cut(&mut self) {
        let key = self.key;
        let larger = |one: &Event, other: &Event| -> Ordering {
            key.of(other).cmp(&key.of(one)).then(one.time_ns.cmp(&other.time_ns))
        };
        self.lives.sort_by(larger);
        self.others += self.lives.len().saturating_sub(self.limit) as u64;
        self.lives.truncate(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{closed, failed, preexisting};

    fn lasting(seconds: u64) -> Event {
        let mut event = closed();
        event.time_ns = event.connection.attempt_ns + seconds * 1_000_000_000;
        event
    }

    #[test]
    fn the_largest_remain() {
        let mut top = Top::new(3, LifeKey::Lifetime);
        for seconds in (0..500).chain([7, 1_000, 3]) {
            top.push(lasting(seconds));
        }
        let (lives, others) = top.sorted();
        let lifetimes: Vec<_> = lives.iter().filter_map(Event::lifetime_ns).collect();
        assert_eq!(others, 500);
        assert_eq!(lifetimes, [1_000_000_000_000, 499_000_000_000, 498_000_000_000]);
        assert!(Top::new(0, LifeKey::Rtt).sorted().0.is_empty());
    }

    #[test]
    fn what_is_not_known_comes_last() {
        let mut top = Top::new(2, LifeKey::Handshake);
        for event in [failed(111, 5), closed(), preexisting()] {
            top.push(event);
        }
        assert_eq!(top.sorted().0[0].handshake_ns(), Some(1_500_000));
    }
}
