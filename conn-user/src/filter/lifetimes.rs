//! A filter of ended connections by their lifetime.

use std::time::Duration;

use crate::event::Event;
use crate::event::kind::Kind;

/// Bounds of a lifetime, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LifetimeFilter {
    /// The shortest lifetime that passes.
    pub min: Option<Duration>,
    /// The longest lifetime that passes.
    pub max: Option<Duration>,
}

impl LifetimeFilter {
    /// True if an event is an end whose lifetime passes. A connection from before the start has a lower bound only:
    /// the bound must reach `min` and must not exceed `max`.
    pub fn matches(&self, event: &Event) -> bool {
        let known = event.lifetime_ns();
        let at_least = known.or(event.at_least_ns).map_or(0, u128::from);
        event.kind == Kind::Destroy
            && self.min.is_none_or(|min| at_least >= min.as_nanos())
            && self.max.is_none_or(|max| at_least <= max.as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{closed, established, failed, preexisting};

    #[test]
    fn lifetimes_outside_the_bounds_do_not_pass() {
        let between = |min, max| LifetimeFilter {
            min: Some(Duration::from_secs(min)),
            max: Some(Duration::from_secs(max)),
        };
        assert!(between(60, 62).matches(&closed()) && between(60, 62).matches(&preexisting()));
        assert!(!between(62, 63).matches(&closed()) && !between(62, 63).matches(&preexisting()));
        assert!(!between(0, 60).matches(&closed()));
        assert!(LifetimeFilter::default().matches(&failed(111, 5)));
        assert!(!LifetimeFilter::default().matches(&established()));
    }
}
