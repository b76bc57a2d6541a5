//! A small ledger slot: the first counts of a port, in 128 bytes where a [`Slot`](crate::ledger::Slot) takes 1.5 KiB.
//!
//! A slot has 192 cells, and most ports use less than ten. A word of a small slot holds the number of a cell and its count,
//! and the first step that needs the cell claims the word. So each step still is one addition to one word. A port that
//! passes [`HOT`], or needs more cells, gets a whole slot beside the small one. A reader adds both up.

use crate::ledger::{BYTES_RECEIVED, BYTES_SENT, CELLS, RETRANSMITS, TRAFFIC_CELL};

/// Words for cells. An incoming port whose connections end in all common ways uses 12.
pub const WORDS: usize = 12;
/// Sums over connections that ended: those of the cells from [`TRAFFIC_CELL`] on.
pub const SUMS: usize = 3;
/// Bits of a count.
const COUNT_BITS: u32 = 56;
/// After how many steps a port gets a whole slot.
pub const HOT: u64 = 256;

/// A word that no cell has claimed.
pub const FREE: u64 = 0;

/// The counts of one port, of all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SmallSlot {
    /// How many steps asked for the slot, up to [`HOT`]. A hint: CPUs may overwrite each other's additions.
    pub uses: u64,
    /// Bytes sent, bytes received, and retransmits.
    pub sums: [u64; SUMS],
    /// See [`word`].
    pub words: [u64; WORDS],
}

const _: () =
    assert!([BYTES_SENT, BYTES_RECEIVED, RETRANSMITS][2] == TRAFFIC_CELL + 2 && BYTES_SENT == TRAFFIC_CELL);
const _: () = assert!(size_of::<SmallSlot>() == 128 && CELLS < 255);

impl SmallSlot {
    /// All counts are 0.
    pub const ZERO: Self = Self { uses: 0, sums: [0; SUMS], words: [FREE; WORDS] };

    /// Cells and sums that are in use: the number of each cell, and its count.
    pub fn used(&self) -> impl Iterator<Item = (usize, u64)> {
        let sums = self.sums.into_iter().enumerate().map(|(at, sum)| (TRAFFIC_CELL + at, sum));
        // Cells count from 1 here, so that no word of a cell is `FREE`.
        let cells = self.words.into_iter().filter_map(|word| {
            let cell = (word >> COUNT_BITS) as usize;
            (1..=CELLS).contains(&cell).then(|| (cell - 1, word & ((1 << COUNT_BITS) - 1)))
        });
        cells.chain(sums).filter(|&(_, count)| count != 0)
    }
}

/// The word of a cell with this count. A count never reaches the bits of the cell: it is one of steps.
#[inline(always)]
pub const fn word(cell: usize, count: u64) -> u64 {
    (cell as u64 + 1) << COUNT_BITS | count
}

/// True if the word counts the cell.
#[inline(always)]
pub const fn is_of(word: u64, cell: usize) -> bool {
    word >> COUNT_BITS == cell as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Slot, opened_cell, step_cell};
    use crate::state::{ESTABLISHED, SYN_RECV};

    fn whole(small: &SmallSlot) -> Slot {
        let mut slot = Slot::ZERO;
        small.used().for_each(|(cell, count)| slot.cells[cell] += count);
        slot
    }

    /// As the kernel programs do it, one CPU at a time.
    fn add(slot: &mut SmallSlot, cell: usize, amount: u64) -> bool {
        for at in &mut slot.words {
            if *at == FREE {
                *at = word(cell, amount);
                return true;
            }
            if is_of(*at, cell) {
                *at += amount;
                return true;
            }
        }
        false
    }

    #[test]
    fn small_slot_reads_as_the_slot_of_the_same_steps() {
        let opened = opened_cell(SYN_RECV).unwrap();
        let established = step_cell(SYN_RECV, ESTABLISHED).unwrap();
        let (mut small, mut slot) = (SmallSlot::ZERO, Slot::ZERO);
        for (cell, amount) in [(opened, 1), (established, 1), (opened, 1), (0, 3), (CELLS - 1, 9)] {
            assert!(add(&mut small, cell, amount));
            slot.cells[cell] += amount;
        }
        small.sums = [7, u64::MAX, 9];
        slot.cells[BYTES_SENT] = 7;
        slot.cells[BYTES_RECEIVED] = u64::MAX;
        slot.cells[RETRANSMITS] = 9;
        assert_eq!(whole(&small), slot);
    }

    #[test]
    fn full_small_slot_takes_no_other_cell() {
        let mut small = SmallSlot::ZERO;
        assert!((0..WORDS).all(|cell| add(&mut small, cell, 1)));
        assert!(!add(&mut small, WORDS, 1) && add(&mut small, 0, 1));
        assert_eq!(whole(&small).cells[..=WORDS].iter().sum::<u64>(), WORDS as u64 + 1);
    }
}
