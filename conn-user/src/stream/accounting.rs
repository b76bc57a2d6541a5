//! What became of every event that the programs made.

use std::fmt;

/// The balance of a run. Each number is counted where it happens; none is derived from the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Made by the programs: written into the ring, or lost.
    pub produced: u64,
    /// Printed.
    pub shown: u64,
    /// Left out by a filter that only user space can decide.
    pub filtered: u64,
    /// Found no room.
    pub lost: u64,
    /// Could not be read: an error in conntrace.
    pub undecoded: u64,
    /// Still in the ring when conntrace ended.
    pub unread: u64,
}

impl Balance {
    /// True if every event has become something.
    pub const fn holds(&self) -> bool {
        self.produced == self.shown + self.filtered + self.lost + self.undecoded + self.unread
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "produced {} = shown {} + filtered {} + lost {}",
            self.produced, self.shown, self.filtered, self.lost
        )?;
        for (name, number) in [("undecoded", self.undecoded), ("unread", self.unread)] {
            if number > 0 {
                write!(f, " + {name} {number}")?;
            }
        }
        f.write_str(if self.holds() { ": holds" } else { ": DOES NOT HOLD" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_became_of_all() {
        let balance = Balance { produced: 82, shown: 10, lost: 72, ..Balance::default() };
        assert_eq!(balance.to_string(), "produced 82 = shown 10 + filtered 0 + lost 72: holds");
        let balance = Balance { unread: 3, ..balance };
        assert_eq!(
            balance.to_string(),
            "produced 82 = shown 10 + filtered 0 + lost 72 + unread 3: DOES NOT HOLD"
        );
    }
}
