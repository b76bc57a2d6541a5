//! Which lives of connections `conntrace life` tells, and in which order.

use std::cmp::Ordering;
use std::time::Duration;

use crate::event::Event;
use crate::event::kind::Kind;

/// What lives are sorted by: the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Order {
    /// From the attempt to the end.
    #[default]
    Lifetime,
    /// From the attempt to the end of the handshake.
    Handshake,
    /// Bytes both ways.
    Bytes,
    /// Smoothed round trip time.
    Rtt,
    /// Segments retransmitted.
    Retransmits,
}

impl Order {
    /// What a life has of it; `None` if that is not known.
    fn of(self, event: &Event) -> Option<u64> {
        let traffic = &event.traffic;
        match self {
            Self::Lifetime => event.lifetime_ns().or(event.at_least_ns),
            Self::Handshake => event.handshake_ns(),
            Self::Bytes => Some(traffic.bytes_sent.saturating_add(traffic.bytes_received)),
            Self::Rtt => Some(traffic.srtt_us.into()).filter(|&us: &u64| us != 0),
            Self::Retransmits => Some(traffic.retransmits.into()),
        }
    }
}

/// Which lives are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Not shorter than this.
    pub min: Option<Duration>,
    /// Not longer than this.
    pub max: Option<Duration>,
    /// Only so many, the largest, at the end instead of all as they end.
    pub top: Option<(usize, Order)>,
}

impl Selection {
    /// True if a life is told. Of one that began before conntrace only a least length is known: it is told
    /// if it is certainly long enough, and if it may be short enough.
    pub fn keeps(&self, event: &Event) -> bool {
        let known = event.lifetime_ns();
        let at_least = known.or(event.at_least_ns).map_or(0, u128::from);
        event.kind == Kind::Destroy
            && self.min.is_none_or(|min| at_least >= min.as_nanos())
            && self.max.is_none_or(|max| at_least <= max.as_nanos())
    }
}

/// The largest lives so far.
#[derive(Debug)]
pub struct Top {
    limit: usize,
    order: Order,
    /// At most twice the limit, so that sorting is rare.
    lives: Vec<Event>,
    /// How many were not large enough.
    others: u64,
}

impl Top {
    /// Keeps `limit` lives.
    pub const fn new(limit: usize, order: Order) -> Self {
        Self { limit, order, lives: Vec::new(), others: 0 }
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
        let order = self.order;
        let larger = |one: &Event, other: &Event| -> Ordering {
            order.of(other).cmp(&order.of(one)).then(one.time_ns.cmp(&other.time_ns))
        };
        self.lives.sort_by(larger);
        self.others += self.lives.len().saturating_sub(self.limit) as u64;
        self.lives.truncate(self.limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{closed, established, failed, preexisting};

    fn lasting(seconds: u64) -> Event {
        let mut event = closed();
        event.time_ns = event.connection.attempt_ns + seconds * 1_000_000_000;
        event
    }

    #[test]
    fn lives_are_chosen_by_their_length() {
        let between = |min, max| Selection {
            min: Some(Duration::from_secs(min)),
            max: Some(Duration::from_secs(max)),
            top: None,
        };
        assert!(between(60, 62).keeps(&closed()) && between(60, 62).keeps(&preexisting()));
        assert!(!between(62, 63).keeps(&closed()) && !between(62, 63).keeps(&preexisting()));
        assert!(!between(0, 60).keeps(&closed()));
        assert!(Selection::default().keeps(&failed(111, 5)));
        assert!(!Selection::default().keeps(&established()));
    }

    #[test]
    fn the_largest_remain() {
        let mut top = Top::new(3, Order::Lifetime);
        for seconds in (0..500).chain([7, 1_000, 3]) {
            top.push(lasting(seconds));
        }
        let (lives, others) = top.sorted();
        let lifetimes: Vec<_> = lives.iter().filter_map(Event::lifetime_ns).collect();
        assert_eq!(others, 500);
        assert_eq!(lifetimes, [1_000_000_000_000, 499_000_000_000, 498_000_000_000]);
        assert!(Top::new(0, Order::Rtt).sorted().0.is_empty());
    }

    #[test]
    fn what_is_not_known_comes_last() {
        let mut top = Top::new(2, Order::Handshake);
        for event in [failed(111, 5), closed(), preexisting()] {
            top.push(event);
        }
        assert_eq!(top.sorted().0[0].handshake_ns(), Some(1_500_000));
    }
}
