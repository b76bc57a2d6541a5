//! Slots of ports that have none in the table: small ones at first, whole ones for ports with many steps.

use core::ptr;

use conn_common::counter::{LEDGER_FAILED, LEDGER_OVERFLOWED, NETNS_FAILED};
use conn_common::ledger::{self, Slot, SlotId, TRAFFIC_CELL, Totals};
use conn_common::small_slot::{self, FREE, HOT, SUMS, SmallSlot, WORDS, word};

use super::{TABLE, add_to, add_to_known, get_or_insert, shard};
use crate::config;
use crate::counter::{add, count};
use crate::kernel::Tcp;
use crate::maps::{LEDGER, NETNS, SHARED_SLOTS, SMALL_SLOTS, UNATTRIBUTED};
use crate::storage::assoc_table::{compare_exchange, value};

/// An empty slot; too large for the programs' stack.
#[unsafe(no_mangle)]
static EMPTY_SLOT: Slot = Slot::ZERO;

/// An empty small slot, likewise.
#[unsafe(no_mangle)]
static EMPTY_SMALL: SmallSlot = SmallSlot::ZERO;

/// The total of a namespace that a step changes: its place in [`Totals`].
#[derive(Clone, Copy)]
pub(super) enum Total {
    Opened = 0,
    Preexisting = 1,
    Failed = 2,
    Closed = 3,
    None = 4,
}

const _: () = assert!(
    core::mem::offset_of!(Totals, preexisting) == 8
        && core::mem::offset_of!(Totals, failed) == 16
        && core::mem::offset_of!(Totals, closed) == 24
);

/// Where a step is counted.
#[derive(Clone, Copy)]
enum Place {
    /// A slot for this port alone.
    Whole(*mut Slot),
    /// A slot in which several CPUs count.
    Small(*mut SmallSlot),
}

/// A step that finds no slot in the table.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// See [`ledger::slot_key`].
    pub key: u64,
    /// The cell that counts the step.
    pub cell: usize,
    /// The total that the step changes.
    pub total: Total,
}

/// Adds one to a cell, and to a [`Total`] of the namespace.
#[inline(always)]
pub(super) fn count_step(step: Step) {
    count_behind_table(step.key, what(step, 0), 0, 0);
}

/// The same for an end, with the traffic of the connection.
#[inline(always)]
pub(super) fn count_end(tcp: Tcp, step: Step) {
    count_behind_table(step.key, what(step, tcp.retransmits()), tcp.bytes_sent(), tcp.bytes_received());
}

/// Adds an amount to a cell.
#[inline(always)]
pub(super) fn add_amount(step: Step, amount: u32) {
    count_behind_table(step.key, what(step, amount) | IS_AMOUNT, 0, 0);
}

/// The upper half of [`what`] is the amount of the cell, not of the retransmits.
const IS_AMOUNT: u64 = 1 << 16;

/// Cell, total and retransmits in one word: [`count_behind_table`] takes words only.
#[inline(always)]
fn what(step: Step, retransmits: u32) -> u64 {
    u64::from(retransmits) << 32 | (step.total as u64) << 8 | step.cell as u64
}

/// A function of numbers only, and with a name of its own: so the verifier follows it once, not once for each call
/// (`btf_check_subprog_call()`, 5.6).
#[unsafe(no_mangle)]
#[inline(never)]
pub(super) extern "C" fn count_behind_table(slot_key: u64, what: u64, sent: u64, received: u64) -> u64 {
    let (cell, total) = (what & 0xff, what >> 8 & 0xff);
    let (amount, retransmits) = if what & IS_AMOUNT == 0 { (1, what >> 32) } else { (what >> 32, 0) };
    let (place, is_of_netns) = place(slot_key);
    let sums = [sent, received, retransmits];
    let is_counted = match place {
        Some(Place::Small(small)) => {
            for (at, amount) in sums.into_iter().enumerate() {
                if amount != 0 {
                    // SAFETY: a word of a map value.
                    add(unsafe { (&raw mut (*small).sums).cast::<u64>().add(at) }, amount);
                }
            }
            add_small(small, slot_key, cell, amount) != 0 && is_of_netns
        }
        Some(Place::Whole(slot)) => {
            add_to(slot, cell as usize, amount);
            add_sums(slot, sums);
            is_of_netns
        }
        None => {
            if let Some(slot) = whole_or_unattributed(slot_key) {
                add_to(slot, cell as usize, amount);
                add_sums(slot, sums);
            }
            false
        }
    };
    if !is_counted && total < Total::None as u64 {
        count_total((slot_key >> 32) as u32, total as usize);
    }
    0
}

#[inline(always)]
fn add_sums(slot: *mut Slot, sums: [u64; SUMS]) {
    for (at, amount) in sums.into_iter().enumerate() {
        if amount != 0 {
            add_to_known(slot, TRAFFIC_CELL + at, amount);
        }
    }
}

/// The whole slot of a port, or that of all ports without one.
#[inline(never)]
fn whole_or_unattributed(slot_key: u64) -> Option<*mut Slot> {
    whole(key(slot_key)).or_else(|| {
        count(LEDGER_FAILED);
        UNATTRIBUTED.get_ptr_mut(u32::from(SlotId::from_bits(slot_key as u32).direction))
    })
}

/// Adds to the word of a cell, which is claimed if there is none. 0 if all words are those of other cells, so that a
/// whole slot counts the step. Words are claimed in their order, so a CPU that finds a free word has passed all others,
/// and a cell has one word.
#[inline(never)]
fn add_small(small: *mut SmallSlot, slot_key: u64, cell: u64, amount: u64) -> u32 {
    for at in 0..WORDS {
        // SAFETY: a word of a map value.
        let place = unsafe { (&raw mut (*small).words).cast::<u64>().add(at) };
        // SAFETY: likewise.
        let mut found = unsafe { place.read_volatile() };
        if found == FREE {
            // SAFETY: likewise.
            found = unsafe { compare_exchange(place, FREE, word(cell as usize, amount)) };
            if found == FREE {
                return 1;
            }
        }
        if small_slot::is_of(found, cell as usize) {
            add(place, amount);
            return 1;
        }
    }
    if let Some(slot) = whole_or_unattributed(slot_key) {
        add_to(slot, cell as usize, amount);
    }
    0
}

/// The place of a port without a slot in the table, and whether the place belongs to one namespace.
#[inline(always)]
fn place(slot_key: u64) -> (Option<Place>, bool) {
    let key = key(slot_key);
    if let Some(slot) = LEDGER.get_ptr_mut(&key) {
        note_overflow();
        return (Some(Place::Whole(slot)), false);
    }
    if config::HAS_EXCHANGE.load() == 0 {
        return (None, false);
    }
    let (small, is_of_netns) = small(slot_key);
    if small.is_null() {
        return (None, false);
    }
    if !is_hot(small) {
        return (Some(Place::Small(small)), is_of_netns);
    }
    if config::LEDGER_HAS_TABLE.load() != 0
        && let Some(slot) = TABLE.acquire_at(ledger::way(shard(), slot_key), slot_key)
    {
        return (Some(Place::Whole(value(slot))), true);
    }
    note_overflow();
    match whole(key) {
        Some(slot) => (Some(Place::Whole(slot)), false),
        None => (Some(Place::Small(small)), is_of_netns),
    }
}

/// The key of the whole slot on this CPU's shard.
#[inline(always)]
fn key(slot_key: u64) -> u32 {
    ledger::key(shard(), slot_id(slot_key))
}

#[inline(always)]
fn slot_id(slot_key: u64) -> u32 {
    slot_key as u32 & ledger::ID_BITS
}

/// The table had no way for a port with many steps.
#[inline(always)]
fn note_overflow() {
    if config::LEDGER_HAS_TABLE.load() != 0 {
        count(LEDGER_OVERFLOWED);
    }
}

/// True if a port has had many steps.
#[inline(always)]
fn is_hot(small: *mut SmallSlot) -> bool {
    // SAFETY: a word of a map value, and only a hint: a lost addition makes the slot hot one step later.
    unsafe {
        let uses = &raw mut (*small).uses;
        let before = uses.read_volatile();
        if before >= HOT {
            return true;
        }
        uses.write_volatile(before + 1);
    }
    false
}

/// The small slot of a port, and whether it belongs to one namespace.
#[inline(always)]
fn small(key: u64) -> (*mut SmallSlot, bool) {
    let small = small_of_netns(key);
    if !small.is_null() {
        return (small, true);
    }
    note_overflow();
    (shared(slot_id(key)), false)
}

/// The small slot of a port in one namespace; NULL if there is no room for it. In its own function, like the next: the
/// verifier then follows what comes after once, not once for each lookup.
#[inline(never)]
fn small_of_netns(key: u64) -> *mut SmallSlot {
    get_or_insert(&SMALL_SLOTS, &key, &EMPTY_SMALL).unwrap_or(ptr::null_mut())
}

/// The small slot of a port in all other namespaces; NULL if there is no memory for it.
#[inline(never)]
fn shared(id: u32) -> *mut SmallSlot {
    get_or_insert(&SHARED_SLOTS, &id, &EMPTY_SMALL).unwrap_or(ptr::null_mut())
}

/// The whole slot of a key, which all namespaces share. `None` if there is no room for it.
#[inline(always)]
fn whole(key: u32) -> Option<*mut Slot> {
    get_or_insert(&LEDGER, &key, &EMPTY_SLOT)
}

/// Counts a begin or an end for a namespace.
#[inline(always)]
fn count_total(netns: u32, total: usize) {
    if let Some(totals) = totals(netns) {
        // SAFETY: a field of a map value.
        add(unsafe { totals.cast::<u64>().add(total) }, 1);
    }
}

/// The totals of a namespace. `None` if there is no room for them.
#[inline(always)]
fn totals(netns: u32) -> Option<*mut Totals> {
    let totals = get_or_insert(&NETNS, &netns, &Totals::ZERO);
    if totals.is_none() {
        count(NETNS_FAILED);
    }
    totals
}
