//! The counts of one direction and service port in memory. A user can have connections on all ports, and most ports use
//! less than ten of the 192 cells of a [`Slot`](conn_common::ledger::Slot), which takes 1.5 KiB.

use conn_common::cause::Cause;
use conn_common::ledger::{Cells, end_cell};
use conn_common::small_slot::SmallSlot;

/// The cells of a slot that are not 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(
    /// By the number of the cell.
    Vec<(u8, u64)>,
);

const _: () = assert!(conn_common::ledger::CELLS <= 1 << u8::BITS);

impl Counts {
    /// No counts.
    pub const ZERO: Self = Self(Vec::new());

    /// The counts of a slot.
    pub fn of(slot: &impl Cells) -> Self {
        let mut counts = Self::ZERO;
        counts.add(slot);
        counts
    }

    /// The counts of a small slot.
    pub(super) fn of_small(slot: &SmallSlot) -> Self {
        let mut counts = Self::ZERO;
        slot.used().for_each(|(cell, count)| counts.add_to(cell, count));
        counts
    }

    /// The counts of some cells, by their numbers.
    pub(super) fn of_cells(cells: &[(usize, u64)]) -> Self {
        let mut counts = Self::ZERO;
        for &(cell, count) in cells {
            counts.add_to(cell, count);
        }
        counts
    }

    /// What these have beyond an earlier reading of the same slots.
    pub(super) fn minus(&self, earlier: &Self) -> Self {
        let mut counts = self.clone();
        earlier.0.iter().for_each(|&(cell, count)| counts.add_to(usize::from(cell), count.wrapping_neg()));
        counts.0.retain(|&(_, count)| count != 0);
        counts
    }

    /// Adds another slot's cells.
    pub fn add(&mut self, other: &impl Cells) {
        other.used().for_each(|(cell, count)| self.add_to(cell, count));
    }

    /// Counts several ends in `from`.
    pub(super) fn count_ends(&mut self, from: u8, cause: Cause, ends: u64) {
        if let Some(cell) = end_cell(from, cause) {
            self.add_to(cell, ends);
        }
    }

    fn add_to(&mut self, cell: usize, count: u64) {
        let cell = cell as u8;
        match self.0.binary_search_by_key(&cell, |&(cell, _)| cell) {
            Ok(at) => self.0[at].1 = self.0[at].1.wrapping_add(count),
            Err(at) if count != 0 => self.0.insert(at, (cell, count)),
            Err(_) => {}
        }
    }
}

impl Cells for Counts {
    fn used(&self) -> impl Iterator<Item = (usize, u64)> {
        self.0.iter().map(|&(cell, count)| (usize::from(cell), count))
    }
}

#[cfg(test)]
mod tests {
    use conn_common::ledger::{CELLS, Slot};
    use conn_common::state;

    use super::*;

    #[test]
    fn counts_have_the_sums_of_the_slots() {
        let mut slot = Slot::ZERO;
        for (at, cell) in slot.cells.iter_mut().enumerate() {
            // Some cells stay 0.
            *cell = (at as u64 * 7 + 3) % 11;
        }
        let counts = Counts::of(&slot);
        assert_eq!(Slot { cells: cells(&counts) }, slot);
        let numbers = |of: &dyn Fn(u8) -> u64| state::OPEN.map(of);
        assert_eq!(
            counts.passages(),
            (numbers(&|state| slot.entered(state)), numbers(&|state| slot.left(state)))
        );
        assert_eq!((counts.opened(), counts.established()), (slot.opened(), slot.established()));
        assert_eq!(
            (counts.failed(), counts.closed(), counts.open()),
            (slot.failed(), slot.closed(), slot.open())
        );
        let mut twice = counts.clone();
        twice.add(&counts);
        assert_eq!(cells(&twice), slot.cells.map(|cell| 2 * cell));
    }

    #[test]
    fn zero_takes_no_cell() {
        let mut counts = Counts::of(&Slot::ZERO);
        counts.count_ends(state::ESTABLISHED, Cause::Unknown, 0);
        assert_eq!(counts, Counts::ZERO);
    }

    fn cells(counts: &Counts) -> [u64; CELLS] {
        let mut cells = [0; CELLS];
        counts.used().for_each(|(cell, count)| cells[cell] = count);
        cells
    }
}
