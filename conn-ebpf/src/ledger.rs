//! Steps into the ledger: one atomic addition each. The usual step finds its slot in the table, without a call.

mod behind_table;
mod durations;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use conn_common::assoc_table::{AssocTable, TableSlot};
use conn_common::connection::{Connection, PREEXISTING};
use conn_common::ledger::{self, BYTES_RECEIVED, BYTES_SENT, RETRANSMITS, Slot, USED_CELLS, listener};
use conn_common::protocol::TCP;
use conn_common::state;

use crate::counter::add;
use crate::kernel::Tcp;
use crate::maps::LEDGER_SLOTS;
use crate::storage::assoc_table::{ArrayWords, SlotArray, value};
use crate::{config, mode};

use behind_table::{Step, Total};
pub(crate) use durations::{record_handshake, record_lifetime};

/// The table of slots, by namespace, direction and port.
const TABLE: AssocTable<ArrayWords<Slots>> = AssocTable(ArrayWords(Slots));

struct Slots;

impl SlotArray for Slots {
    type Value = Slot;

    #[inline(always)]
    fn slot_at(&self, index: u32) -> Option<*mut TableSlot<Slot>> {
        LEDGER_SLOTS.get_ptr_mut(index)
    }
}

/// A connection begins in `state`, or is found in it.
#[inline(always)]
pub(crate) fn record_open(connection: &Connection, state: u8) {
    let found = connection.is(PREEXISTING);
    let cell = if found { ledger::preexisting_cell(state) } else { ledger::opened_cell(state) };
    count_step(connection, cell, if found { Total::Preexisting } else { Total::Opened });
}

/// A connection goes from one open state to another.
#[inline(always)]
pub(crate) fn record_step(connection: &Connection, from: u8, to: u8) {
    count_step(connection, ledger::step_cell(from, to), Total::None);
}

/// A connection ends in `from`, for the cause with this number.
#[inline(always)]
pub(crate) fn record_end(tcp: Tcp, connection: &Connection, from: u8, cause: u8) {
    let Some(cell) = ledger::end_cell_of(from, cause) else { return };
    if let Some(slot) = slot_in_table(connection) {
        add_to(slot, cell, 1);
        add_to_known(slot, BYTES_SENT, tcp.bytes_sent());
        add_to_known(slot, BYTES_RECEIVED, tcp.bytes_received());
        let retransmits = tcp.retransmits();
        if retransmits != 0 {
            add_to_known(slot, RETRANSMITS, u64::from(retransmits));
        }
    } else if mode::has_ledger() {
        let total = if state::is_opening(from) { Total::Failed } else { Total::Closed };
        behind_table::count_end(tcp, Step { key: slot_key(connection), cell, total });
    }
}

/// A listener listens.
#[inline(always)]
pub(crate) fn record_listener_open(tcp: Tcp, connection: &Connection) {
    let cell = if connection.is(PREEXISTING) { listener::PREEXISTING } else { listener::OPENED };
    count_step(connection, Some(cell), Total::None);
    // A socket that is new may have listened before, too.
    add_drops(tcp, connection, listener::DROPPED_BEFORE);
}

/// A listener that did listen ends.
#[inline(always)]
pub(crate) fn record_listener_end(tcp: Tcp, connection: &Connection) {
    count_step(connection, Some(listener::CLOSED), Total::None);
    add_drops(tcp, connection, listener::DROPPED);
}

#[inline(always)]
fn add_drops(tcp: Tcp, connection: &Connection, cell: usize) {
    let drops = tcp.drops().unwrap_or(0);
    if drops == 0 {
        return;
    }
    if let Some(slot) = slot_in_table(connection) {
        add_to_known(slot, cell, drops.into());
    } else if mode::has_ledger() {
        behind_table::add_amount(Step { key: slot_key(connection), cell, total: Total::None }, drops);
    }
}

#[inline(always)]
fn count_step(connection: &Connection, cell: Option<usize>, total: Total) {
    let Some(cell) = cell else { return };
    if let Some(slot) = slot_in_table(connection) {
        add_to(slot, cell, 1);
    } else if mode::has_ledger() {
        behind_table::count_step(Step { key: slot_key(connection), cell, total });
    }
}

/// The slot of a connection's direction and service port on this CPU's shard, if the slot is in the table. It belongs to
/// one namespace, and counts for the totals of the namespace.
#[inline(always)]
fn slot_in_table(connection: &Connection) -> Option<*mut Slot> {
    if config::LEDGER_HAS_TABLE.load() == 0 {
        return None;
    }
    let key = slot_key(connection);
    TABLE.find_first(ledger::way(shard(), key), key).map(value)
}

#[inline(always)]
fn slot_key(connection: &Connection) -> u64 {
    ledger::slot_key(connection.netns, ledger::slot_id(TCP, connection))
}

/// The shard that this CPU writes to.
#[inline(always)]
fn shard() -> u32 {
    // SAFETY: no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    cpu & config::SHARD_MASK.load()
}

#[inline(always)]
fn key(connection: &Connection) -> u32 {
    ledger::key(shard(), ledger::slot_id(TCP, connection))
}

/// The value of a key, which is made if there is none. `None` if there is no room.
#[inline(always)]
fn get_or_insert<K, V, const M: usize, const F: usize>(
    map: &HashMap<K, V, M, F>,
    key: &K,
    empty: &V,
) -> Option<*mut V> {
    if let Some(value) = map.get_ptr_mut(key) {
        return Some(value);
    }
    // Another CPU may have inserted the value first; then the second lookup finds that value.
    let _ = map.insert(key, empty, BPF_NOEXIST.into());
    map.get_ptr_mut(key)
}

/// Adds to a cell of the slot that the compiler knows.
#[inline(always)]
fn add_to_known(slot: *mut Slot, cell: usize, amount: u64) {
    // SAFETY: a cell of the slot, a map value.
    add(unsafe { slot.cast::<u64>().add(cell) }, amount);
}

/// Adds to a cell of the slot that the compiler does not know. A cell beyond the used ones does not occur.
///
/// The check and the address are instructions of their own. LLVM may check a register and then read the cell from the
/// stack again, and the verifier of 6.1 does not know that both are one number (`find_equal_scalars()`, no spilled ones).
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn add_to(slot: *mut Slot, cell: usize, amount: u64) {
    // SAFETY: inside the slot, a map value: the last used cell is checked first.
    unsafe {
        core::arch::asm!(
            "if {cell} >= {cells} goto +3",
            "{cell} <<= 3",
            "{slot} += {cell}",
            "lock *(u64 *)({slot} + 0) += {amount}",
            cell = inout(reg) cell => _,
            slot = inout(reg) slot => _,
            amount = in(reg) amount,
            cells = const USED_CELLS,
            options(nostack),
        );
    }
}

/// The same for clippy, which may have no BPF target.
#[cfg(not(target_arch = "bpf"))]
fn add_to(slot: *mut Slot, cell: usize, amount: u64) {
    if cell < USED_CELLS {
        add_to_known(slot, cell, amount);
    }
}
