//! The ledger: per (direction, service port) how often each step between TCP states was taken.
//!
//! A step is one atomic addition to one cell. All reported numbers (opened, established, failed, closed, open now, per
//! state) are sums of cells. A step has no second addition, so no reader sees half a step. The identity
//! `opened + preexisting = failed + closed + open` holds at every read.

use crate::assoc_table;
use crate::cause::Cause;
use crate::connection::Connection;
use crate::protocol;
use crate::state::{self, NO_SLOT};

/// Columns of the step matrix: the open states.
const COLUMNS: usize = state::OPEN.len();
/// Row of connections that began while the programs ran.
const OPENED: usize = COLUMNS;
/// Row of connections that existed before.
const PREEXISTING: usize = COLUMNS + 1;
/// Row of sums over connections that ended. Its last five cells are reserved.
const TRAFFIC: usize = COLUMNS + 2;
/// First row of the ends: one row per cause, by the state they ended in. From an opening state it is a
/// failure, from any other a close.
const ENDS: usize = COLUMNS + 3;
/// Rows behind those of all causes that are reserved for more causes.
const RESERVED_ROWS: usize = 0;

/// The first cell of [`BYTES_SENT`] and the other sums.
pub const TRAFFIC_CELL: usize = TRAFFIC * COLUMNS;
/// The first cell of the ends.
pub const ENDS_CELL: usize = ENDS * COLUMNS;
/// Payload bytes sent by connections that ended.
pub const BYTES_SENT: usize = TRAFFIC_CELL;
/// Payload bytes received by connections that ended.
pub const BYTES_RECEIVED: usize = TRAFFIC_CELL + 1;
/// Segments retransmitted by connections that ended.
pub const RETRANSMITS: usize = TRAFFIC_CELL + 2;
/// Cells of one slot that have a meaning.
pub const USED_CELLS: usize = (ENDS + Cause::COUNT) * COLUMNS;
/// Cells of one slot, the reserved ones included.
pub const CELLS: usize = USED_CELLS + RESERVED_ROWS * COLUMNS;

/// The cell of a connection that begins in `state`, or `None` if that is no open state.
#[inline(always)]
pub const fn opened_cell(state: u8) -> Option<usize> {
    cell(OPENED, state)
}

/// The cell of a connection that existed before and is in `state`.
#[inline(always)]
pub const fn preexisting_cell(state: u8) -> Option<usize> {
    cell(PREEXISTING, state)
}

/// The cell of the step between two open states.
#[inline(always)]
pub const fn step_cell(from: u8, to: u8) -> Option<usize> {
    let row = state::slot(from);
    if row == NO_SLOT { None } else { cell(row as usize, to) }
}

/// The cell of an end for `cause`: closed if `from` follows a handshake, else failed.
#[inline(always)]
pub const fn end_cell(from: u8, cause: Cause) -> Option<usize> {
    end_cell_of(from, cause as u8)
}

/// As [`end_cell`], for the number of a cause.
#[inline(always)]
pub const fn end_cell_of(from: u8, cause: u8) -> Option<usize> {
    if (cause as usize) < Cause::COUNT { cell(ENDS + cause as usize, from) } else { None }
}

#[inline(always)]
const fn cell(row: usize, state: u8) -> Option<usize> {
    let column = state::slot(state);
    if column == NO_SLOT { None } else { Some(row * COLUMNS + column as usize) }
}

/// The lowest bit of the direction in a slot's id, above the service port.
const DIRECTION_BIT: u32 = 16;
/// The bit of a listener in a slot's id.
const LISTENER_BIT: u32 = 18;
/// The lowest bit of the protocol in a slot's id, see [`protocol::index`].
const PROTOCOL_BIT: u32 = 24;
/// The lowest bit of the shard in a key, above the id.
const SHARD_BIT: u32 = 26;

/// The id of a connection's slot: protocol, role, direction and service port.
#[inline(always)]
pub const fn slot_id(protocol: u8, connection: &Connection) -> u32 {
    (protocol::index(protocol) as u32) << PROTOCOL_BIT
        | (connection.is_listener() as u32) << LISTENER_BIT
        | ((connection.direction & 3) as u32) << DIRECTION_BIT
        | connection.dport as u32
}

/// The fields of a slot's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotId {
    /// Index of the protocol, see [`protocol::from_index`].
    pub protocol: u8,
    /// True if the slot counts listeners.
    pub is_listener: bool,
    /// See [`Connection::direction`].
    pub direction: u8,
    /// The service port.
    pub port: u16,
}

impl SlotId {
    /// From [`slot_id`], or a key.
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            protocol: (bits >> PROTOCOL_BIT & 3) as u8,
            is_listener: bits >> LISTENER_BIT & 1 != 0,
            direction: (bits >> DIRECTION_BIT & 3) as u8,
            port: bits as u16,
        }
    }
}

/// Key of a slot. Shards keep CPUs from writing to the same cache lines; a reader adds them up. There are at most 64.
#[inline(always)]
pub const fn key(shard: u32, slot_id: u32) -> u32 {
    shard << SHARD_BIT | slot_id
}

/// Keys of one shard: incoming and outgoing connections and listeners of each port. A map with this many entries cannot
/// fill up.
pub const KEYS: u32 = 3 << 16;

/// Whole slots behind the table, for each shard: 2 MiB.
pub const WHOLE_SLOTS: u32 = 1 << 10;

/// Small slots that belong to one namespace: 12 MiB.
pub const SMALL_SLOTS: u32 = 1 << 16;

/// Histograms, for each shard: 4 MiB.
pub const HISTOGRAMS: u32 = 1 << 10;

/// The index of the durations of all ports of a direction that have no histogram.
#[inline(always)]
pub const fn rest_index(shard: u32, direction: u8) -> u32 {
    shard << 2 | (direction & 3) as u32
}

/// The direction of an index, see [`rest_index`].
pub const fn rest_direction(index: u32) -> u8 {
    (index & 3) as u8
}

/// Each shard has `1 << TABLE_BITS` slots of the table, see [`way`].
pub const TABLE_BITS: u32 = 8;

/// The key of a slot in the table: a network namespace and a slot's id. The first key that acquires a way keeps it. A
/// slot in the table counts for the port and for the namespace's [`Totals`].
#[inline(always)]
pub const fn slot_key(netns: u32, slot_id: u32) -> u64 {
    (netns as u64) << 32 | 1 << 31 | slot_id as u64
}

/// The bits of a slot's id in a slot key.
pub const ID_BITS: u32 = (1 << SHARD_BIT) - 1;

/// Namespace and slot of a slot key, or `None` for the key of a free slot.
#[inline(always)]
pub const fn from_slot_key(key: u64) -> Option<(u32, SlotId)> {
    if key == assoc_table::FREE { None } else { Some(((key >> 32) as u32, SlotId::from_bits(key as u32))) }
}

/// The index of the only way that a slot key has in a shard.
#[inline(always)]
pub const fn way(shard: u32, key: u64) -> u32 {
    shard << TABLE_BITS | assoc_table::first_way(key as u32 ^ (key >> 32) as u32, TABLE_BITS)
}

/// The cells of one (direction, service port), or a sum of such.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Slot {
    /// The functions below define the meaning of each cell.
    pub cells: [u64; CELLS],
}

impl Slot {
    /// All counts are 0.
    pub const ZERO: Self = Self { cells: [0; CELLS] };

    /// Adds another slot's cells.
    pub fn add(&mut self, other: &Self) {
        for (sum, cell) in self.cells.iter_mut().zip(&other.cells) {
            *sum = sum.wrapping_add(*cell);
        }
    }

    /// Counts a beginning in `state`.
    pub fn count_opened(&mut self, state: u8) {
        self.count(opened_cell(state));
    }

    /// Counts a connection found in `state`.
    pub fn count_preexisting(&mut self, state: u8) {
        self.count(preexisting_cell(state));
    }

    /// Counts a step.
    pub fn count_step(&mut self, from: u8, to: u8) {
        self.count(step_cell(from, to));
    }

    /// Counts an end in `from`.
    pub fn count_end(&mut self, from: u8, cause: Cause) {
        self.count_ends(from, cause, 1);
    }

    /// Counts several ends in `from`.
    pub fn count_ends(&mut self, from: u8, cause: Cause, ends: u64) {
        if let Some(cell) = end_cell(from, cause) {
            self.cells[cell] += ends;
        }
    }

    fn count(&mut self, cell: Option<usize>) {
        if let Some(cell) = cell {
            self.cells[cell] += 1;
        }
    }
}

/// The sums over the cells of a slot, however the cells are stored.
pub trait Cells {
    /// The cells that are not 0: the number of each, and its count.
    fn used(&self) -> impl Iterator<Item = (usize, u64)>;

    /// The sum of the cells whose row and column are wanted.
    fn sum(&self, is_wanted: impl Fn(usize, usize) -> bool) -> u64 {
        let wanted = self.used().filter(|(cell, _)| is_wanted(cell / COLUMNS, cell % COLUMNS));
        wanted.fold(0, |sum, (_, count)| sum.wrapping_add(count))
    }

    /// Connections attempted (out) or born by a handshake (in) while conntrace watched.
    fn opened(&self) -> u64 {
        self.sum(|row, _| row == OPENED)
    }

    /// Connections that were there before.
    fn preexisting(&self) -> u64 {
        self.sum(|row, _| row == PREEXISTING)
    }

    /// Connections that ended after they were established.
    fn closed(&self) -> u64 {
        self.sum(|row, column| is_end(row) && !is_opening(column))
    }

    /// Closed for one cause.
    fn closed_by(&self, cause: Cause) -> u64 {
        self.sum(|row, column| row == ENDS + cause as usize && !is_opening(column))
    }

    /// Connections that ended without ever being established.
    fn failed(&self) -> u64 {
        self.sum(|row, column| is_end(row) && is_opening(column))
    }

    /// Failed for one cause.
    fn failed_by(&self, cause: Cause) -> u64 {
        self.sum(|row, column| row == ENDS + cause as usize && is_opening(column))
    }

    /// Handshakes completed while conntrace watched.
    fn established(&self) -> u64 {
        self.sum(|row, column| row < COLUMNS && is_opening(row) && !is_opening(column))
    }

    /// Connections open now in `state`: entries less exits. A negative sum means that the cells of one connection were
    /// read at different moments; then the caller reads again.
    fn open_in(&self, state: u8) -> i64 {
        self.entered(state).wrapping_sub(self.left(state)).cast_signed()
    }

    /// How often a connection entered `state`: it began there, was found there, or came from another state.
    fn entered(&self, state: u8) -> u64 {
        let Some(entered) = cell(0, state) else { return 0 };
        self.sum(|row, column| row <= PREEXISTING && column == entered)
    }

    /// How often a connection left `state`: for another state, or by its end.
    fn left(&self, state: u8) -> u64 {
        let Some(left) = cell(0, state) else { return 0 };
        self.sum(|row, column| row == left || is_end(row) && column == left)
    }

    /// Entries and exits of all open states, in the order of [`state::OPEN`]: [`Cells::entered`] and [`Cells::left`] in one
    /// walk over the cells.
    fn passages(&self) -> ([u64; COLUMNS], [u64; COLUMNS]) {
        let (mut entered, mut left) = ([0; COLUMNS], [0; COLUMNS]);
        let add = |to: &mut u64, count| *to = u64::wrapping_add(*to, count);
        for (cell, count) in self.used() {
            let (row, column) = (cell / COLUMNS, cell % COLUMNS);
            if row <= PREEXISTING {
                add(&mut entered[column], count);
            }
            if row < COLUMNS {
                add(&mut left[row], count);
            } else if is_end(row) {
                add(&mut left[column], count);
            }
        }
        (entered, left)
    }

    /// Connections open now.
    fn open(&self) -> i64 {
        let (entered, left) = self.passages();
        let sum = |all: [u64; COLUMNS]| all.into_iter().fold(0, u64::wrapping_add);
        sum(entered).wrapping_sub(sum(left)).cast_signed()
    }

    /// Payload bytes sent by connections that ended, retransmissions not counted twice.
    fn bytes_sent(&self) -> u64 {
        self.sum(|row, column| row * COLUMNS + column == BYTES_SENT)
    }

    /// Payload bytes received in order by connections that ended.
    fn bytes_received(&self) -> u64 {
        self.sum(|row, column| row * COLUMNS + column == BYTES_RECEIVED)
    }

    /// Segments retransmitted by connections that ended.
    fn retransmits(&self) -> u64 {
        self.sum(|row, column| row * COLUMNS + column == RETRANSMITS)
    }
}

/// True of a row of ends.
const fn is_end(row: usize) -> bool {
    row >= ENDS && row < ENDS + Cause::COUNT
}

/// True of the column, or of the row of steps, of a state before the handshake is complete.
const fn is_opening(column: usize) -> bool {
    state::is_opening(state::OPEN[column])
}

impl Cells for Slot {
    fn used(&self) -> impl Iterator<Item = (usize, u64)> {
        self.cells.iter().copied().enumerate().filter(|&(_, count)| count != 0)
    }
}

/// Totals of one network namespace, without the slots in the table, see [`slot_key`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Totals {
    /// As [`Cells::opened`].
    pub opened: u64,
    /// As [`Cells::preexisting`].
    pub preexisting: u64,
    /// As [`Cells::failed`].
    pub failed: u64,
    /// As [`Cells::closed`].
    pub closed: u64,
}

impl Totals {
    /// All counts are 0.
    pub const ZERO: Self = Self { opened: 0, preexisting: 0, failed: 0, closed: 0 };

    /// The counts of a slot, for the totals of its namespace.
    pub fn of(slot: &impl Cells) -> Self {
        Self {
            opened: slot.opened(),
            preexisting: slot.preexisting(),
            failed: slot.failed(),
            closed: slot.closed(),
        }
    }

    /// Adds another's.
    pub const fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.preexisting += other.preexisting;
        self.failed += other.failed;
        self.closed += other.closed;
    }

    /// Connections open now.
    pub const fn open(&self) -> i64 {
        (self.opened + self.preexisting).wrapping_sub(self.failed + self.closed).cast_signed()
    }
}

/// The key of the map of repairs: ends that no hook saw and an audit found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct RepairKey {
    /// Inode number of the network namespace; 0 if it is not known.
    pub netns: u32,
    /// The service port.
    pub port: u16,
    /// See [`crate::protocol`].
    pub protocol: u8,
    /// See [`crate::connection::Connection::direction`].
    pub direction: u8,
    /// The state in which the connection was last seen.
    pub state: u8,
    /// Explicit padding.
    pub reserved: [u8; 3],
}

const _: () = assert!(size_of::<RepairKey>() == 12);

/// The cells of a listener's slot: opened and closed listeners.
pub mod listener {
    /// Listeners that began to listen, or were there before.
    pub const OPENED: usize = 0;
    /// Listeners that were there before conntrace.
    pub const PREEXISTING: usize = 1;
    /// Listeners that ended.
    pub const CLOSED: usize = 2;
    /// Packets that listeners had dropped before they were adopted.
    pub const DROPPED_BEFORE: usize = 3;
    /// Packets that listeners had dropped when they ended.
    pub const DROPPED: usize = 4;
}

#[cfg(test)]
mod tests;
