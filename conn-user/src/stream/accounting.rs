//! The accounting of every event that the programs made.

use std::fmt;

use crate::kernel::counters::Failures;

/// The accounting of a run. Each number is counted where it happens; none is derived from the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventAccounting {
    /// Made by the programs: written into the ring, or lost.
    pub produced: u64,
    /// Handed to the consumer.
    pub shown: u64,
    /// Rejected by a filter that only user space can decide.
    pub filtered: u64,
    /// Found the ring full.
    pub lost: u64,
    /// Dropped, since standard output took nothing.
    pub unwritten: u64,
    /// Could not be decoded: a bug in conntrace.
    pub undecoded: u64,
    /// Still in the ring when conntrace ended.
    pub unread: u64,
    /// Failures of the programs: events or owners that may be missing, although no event was lost.
    pub failures: Failures,
}

impl EventAccounting {
    /// True if every event has become something.
    pub(crate) const fn holds(&self) -> bool {
        self.produced
            == self.shown + self.filtered + self.lost + self.unwritten + self.undecoded + self.unread
    }

    /// The number of events that should be in the output and are not.
    pub(crate) const fn missing(&self) -> u64 {
        self.lost + self.unwritten + self.undecoded
    }
}

impl fmt::Display for EventAccounting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "produced {} = shown {} + filtered {} + lost {}",
            self.produced, self.shown, self.filtered, self.lost
        )?;
        let rest = [("unwritten", self.unwritten), ("undecoded", self.undecoded), ("unread", self.unread)];
        for (name, number) in rest {
            if number > 0 {
                write!(f, " + {name} {number}")?;
            }
        }
        match (self.holds(), self.failures.total()) {
            (true, 0) => f.write_str(": holds"),
            (true, _) => write!(f, ": adds up, but the programs failed: {}", self.failures),
            (false, 0) => f.write_str(": DOES NOT HOLD"),
            (false, _) => write!(f, ": DOES NOT HOLD, and the programs failed: {}", self.failures),
        }
    }
}

#[cfg(test)]
mod tests {
    use conn_common::counter;

    use super::*;

    #[test]
    fn line_accounts_for_all_events() {
        let accounting = EventAccounting { produced: 82, shown: 10, lost: 72, ..EventAccounting::default() };
        assert_eq!(accounting.to_string(), "produced 82 = shown 10 + filtered 0 + lost 72: holds");
        let accounting = EventAccounting { unread: 3, ..accounting };
        assert_eq!(
            accounting.to_string(),
            "produced 82 = shown 10 + filtered 0 + lost 72 + unread 3: DOES NOT HOLD"
        );
        let accounting = EventAccounting { produced: 90, unwritten: 5, ..accounting };
        assert_eq!(
            accounting.to_string(),
            "produced 90 = shown 10 + filtered 0 + lost 72 + unwritten 5 + unread 3: holds"
        );
    }

    #[test]
    fn line_never_holds_beside_a_failure() {
        let mut counters = [0; counter::COUNT];
        counters[counter::STORAGE_FAILED as usize] = 4;
        let accounting = EventAccounting {
            produced: 10,
            shown: 10,
            failures: Failures::of(&counters),
            ..EventAccounting::default()
        };
        assert_eq!(
            accounting.to_string(),
            "produced 10 = shown 10 + filtered 0 + lost 0: adds up, but the programs failed: storage_failed 4"
        );
        assert_eq!(
            EventAccounting { shown: 9, ..accounting }.to_string(),
            "produced 10 = shown 9 + filtered 0 + lost 0: DOES NOT HOLD, and the programs failed: storage_failed 4"
        );
    }
}
