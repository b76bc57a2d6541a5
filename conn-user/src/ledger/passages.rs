//! Steps into and out of the open states, by the part of the ledger that counts them.

use std::collections::BTreeMap;

use conn_common::ledger::Cells;
use conn_common::state;

/// The number of open states.
pub(super) const STATES: usize = state::OPEN.len();

/// A part of the ledger: network namespace (0 if several share the part), direction and service port.
pub(super) type Part = (u32, u8, u16);

/// How often connections entered and left each open state, in the order of [`state::OPEN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passages {
    /// Entries, beginnings included.
    pub(super) entered: [u64; STATES],
    /// Exits, ends included.
    pub(super) left: [u64; STATES],
}

/// The passages of all parts.
pub(super) type Parts = BTreeMap<Part, Passages>;

impl Passages {
    /// The passages that a slot has counted.
    pub(super) fn of(slot: &impl Cells) -> Self {
        let (entered, left) = slot.passages();
        Self { entered, left }
    }

    /// Adds another part's.
    pub(super) fn add(&mut self, other: &Self) {
        for (sum, number) in
            self.entered.iter_mut().chain(&mut self.left).zip(other.entered.iter().chain(&other.left))
        {
            *sum = sum.wrapping_add(*number);
        }
    }
}

/// How many connections were in one state for the whole time between two readings, at least, and how many were in it at
/// some moment, at most.
///
/// A connection that entered before the first reading and had not left at the second one was in the state all the time.
/// A connection that was in it at any moment had entered by the second reading, and had not left before the first one. So
/// it does not matter that the cells of one reading are read one after the other.
pub(super) fn bounds(before: &Passages, after: &Passages, at: usize) -> (i64, i64) {
    (
        before.entered[at].wrapping_sub(after.left[at]).cast_signed(),
        after.entered[at].wrapping_sub(before.left[at]).cast_signed(),
    )
}

#[cfg(test)]
mod tests {
    use conn_common::ledger::Slot;
    use conn_common::state::{ESTABLISHED, SYN_SENT};

    use super::*;

    #[test]
    fn bounds_are_as_wide_as_the_traffic_between_two_readings() {
        let mut slot = Slot::ZERO;
        let step = |slot: &mut Slot| {
            slot.count_opened(SYN_SENT);
            slot.count_step(SYN_SENT, ESTABLISHED);
        };
        (0..5).for_each(|_| step(&mut slot));
        let before = Passages::of(&slot);
        let at = usize::from(state::slot(ESTABLISHED));
        assert_eq!(bounds(&before, &before, at), (5, 5));
        (0..2).for_each(|_| step(&mut slot));
        slot.count_end(ESTABLISHED, conn_common::cause::Cause::ClosedByUs);
        let after = Passages::of(&slot);
        // One of the five may have ended, and two came.
        assert_eq!(bounds(&before, &after, at), (4, 7));
        // Each of the two newcomers passed through.
        assert_eq!(bounds(&before, &after, usize::from(state::slot(SYN_SENT))), (-2, 2));
    }
}
