//! Steps into the ledger: one atomic addition each.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use conn_common::assoc_table::{AssocTable, TableSlot};
use conn_common::connection::{Connection, PREEXISTING, WAS_ESTABLISHED};
use conn_common::counter::{LEDGER_FAILED, NETNS_FAILED, SPANS_FAILED};
use conn_common::histogram::{self, BUCKETS, Durations};
use conn_common::ledger::{
    self, BYTES_RECEIVED, BYTES_SENT, RETRANSMITS, Slot, Totals, USED_CELLS, listener,
};
use conn_common::protocol::TCP;
use conn_common::state;

use crate::counter::{add, count};
use crate::kernel::Tcp;
use crate::maps::{LEDGER, LEDGER_SLOTS, NETNS, SPANS, UNATTRIBUTED};
use crate::storage::assoc_table::{ArrayWords, SlotArray, value};
use crate::verifier::opaque;
use crate::{config, mode};

/// An empty slot; too large for the programs' stack.
#[unsafe(no_mangle)]
static EMPTY_SLOT: Slot = Slot::ZERO;

/// Empty histograms; too large for the programs' stack.
#[unsafe(no_mangle)]
static NO_DURATIONS: Durations = Durations::ZERO;

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
    let (slot, counts_for_netns) = slot(connection);
    if let Some(slot) = slot {
        bump(slot, cell);
    }
    if !counts_for_netns && let Some(totals) = totals(connection.netns) {
        // SAFETY: fields of a map value.
        unsafe { add(if found { &raw mut (*totals).preexisting } else { &raw mut (*totals).opened }, 1) };
    }
}

/// A connection goes from one open state to another.
#[inline(always)]
pub(crate) fn record_step(connection: &Connection, from: u8, to: u8) {
    if let Some(slot) = slot(connection).0 {
        bump(slot, ledger::step_cell(from, to));
    }
}

/// A connection ends in `from`, for the cause with this number.
#[inline(always)]
pub(crate) fn record_end(tcp: Tcp, connection: &Connection, from: u8, cause: u8) {
    let (slot, counts_for_netns) = slot(connection);
    if let Some(slot) = slot {
        bump(slot, ledger::end_cell_of(from, cause));
        add_to(slot, BYTES_SENT, tcp.bytes_sent());
        add_to(slot, BYTES_RECEIVED, tcp.bytes_received());
        let retransmits = tcp.retransmits();
        if retransmits != 0 {
            add_to(slot, RETRANSMITS, u64::from(retransmits));
        }
    }
    if !counts_for_netns && let Some(totals) = totals(connection.netns) {
        // SAFETY: fields of a map value.
        unsafe {
            add(
                if state::is_opening(from) { &raw mut (*totals).failed } else { &raw mut (*totals).closed },
                1,
            );
        }
    }
}

/// The handshake of a connection was complete at `now`.
#[inline(always)]
pub(crate) fn record_handshake(connection: &mut Connection, now: u64) {
    if mode::has_histograms()
        && connection.attempt_ns != 0
        && let Some(durations) = durations(connection)
    {
        // SAFETY: a field of a map value.
        let counts = unsafe { (&raw mut (*durations).handshake).cast() };
        count_duration(connection, counts, now);
    }
}

/// A connection ended at `now`.
#[inline(always)]
pub(crate) fn record_lifetime(connection: &mut Connection, now: u64) {
    if mode::has_histograms()
        && connection.is(WAS_ESTABLISHED)
        && connection.attempt_ns != 0
        && let Some(durations) = durations(connection)
    {
        // SAFETY: a field of a map value.
        let counts = unsafe { (&raw mut (*durations).lifetime).cast() };
        count_duration(connection, counts, now);
    }
}

/// Counts the time since the attempt in a histogram.
#[inline(always)]
fn count_duration(connection: &mut Connection, counts: *mut u64, now: u64) {
    let position = histogram::position(now - connection.attempt_ns);
    let at = histogram::bucket_at(opaque(connection, position));
    if at < BUCKETS {
        // SAFETY: inside the histogram.
        add(unsafe { counts.add(at) }, 1);
    }
}

/// The histograms of a connection, or `None` if the map has no room for them.
#[inline(always)]
fn durations(connection: &Connection) -> Option<*mut Durations> {
    let key = key(connection);
    if let Some(durations) = SPANS.get_ptr_mut(&key) {
        return Some(durations);
    }
    let _ = SPANS.insert(&key, &NO_DURATIONS, BPF_NOEXIST.into());
    let durations = SPANS.get_ptr_mut(&key);
    if durations.is_none() {
        count(SPANS_FAILED);
    }
    durations
}

/// A listener listens.
#[inline(always)]
pub(crate) fn record_listener_open(tcp: Tcp, connection: &Connection) {
    if let Some(slot) = slot(connection).0 {
        add_to(slot, if connection.is(PREEXISTING) { listener::PREEXISTING } else { listener::OPENED }, 1);
        // A socket that is new may have listened before, too.
        add_to(slot, listener::DROPPED_BEFORE, tcp.drops().into());
    }
}

/// A listener that did listen ends.
#[inline(always)]
pub(crate) fn record_listener_end(tcp: Tcp, connection: &Connection) {
    if let Some(slot) = slot(connection).0 {
        add_to(slot, listener::CLOSED, 1);
        add_to(slot, listener::DROPPED, tcp.drops().into());
    }
}

/// The slot of a connection's direction and service port on this CPU's shard, `None` in a run without a ledger. True if
/// the slot also counts for the connection's namespace.
#[inline(always)]
fn slot(connection: &Connection) -> (Option<*mut Slot>, bool) {
    match slot_in_table(connection) {
        Some(slot) => (Some(slot), true),
        None => (slot_by_key(connection), false),
    }
}

/// The slot in the table, which belongs to one namespace. `None` if another slot key has the way.
#[inline(always)]
fn slot_in_table(connection: &Connection) -> Option<*mut Slot> {
    if config::LEDGER_HAS_TABLE.load() == 0 {
        return None;
    }
    let key = ledger::slot_key(connection.netns, ledger::slot_id(TCP, connection));
    TABLE.acquire_at(ledger::way(shard(), key), key).map(value)
}

/// The slot in the hash map, which all namespaces share.
#[inline(always)]
fn slot_by_key(connection: &Connection) -> Option<*mut Slot> {
    if !mode::has_ledger() {
        return None;
    }
    let key = key(connection);
    if let Some(slot) = LEDGER.get_ptr_mut(&key) {
        return Some(slot);
    }
    // Another CPU may have inserted the slot first; then the second lookup finds that slot.
    let _ = LEDGER.insert(&key, &EMPTY_SLOT, BPF_NOEXIST.into());
    if let Some(slot) = LEDGER.get_ptr_mut(&key) {
        return Some(slot);
    }
    count(LEDGER_FAILED);
    UNATTRIBUTED.get_ptr_mut(u32::from(connection.direction & 3))
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

/// The totals of a namespace. `None` in a run without a ledger, or if there is no room for them.
#[inline(always)]
fn totals(netns: u32) -> Option<*mut Totals> {
    if !mode::has_ledger() {
        return None;
    }
    if let Some(totals) = NETNS.get_ptr_mut(&netns) {
        return Some(totals);
    }
    let _ = NETNS.insert(&netns, &Totals::ZERO, BPF_NOEXIST.into());
    let totals = NETNS.get_ptr_mut(&netns);
    if totals.is_none() {
        count(NETNS_FAILED);
    }
    totals
}

#[inline(always)]
fn bump(slot: *mut Slot, cell: Option<usize>) {
    if let Some(cell) = cell {
        add_to(slot, cell, 1);
    }
}

#[inline(always)]
fn add_to(slot: *mut Slot, cell: usize, amount: u64) {
    // All cells would be too many: LLVM knows that no cell is beyond them and removes the check, which the verifier
    // needs.
    if cell < USED_CELLS {
        // SAFETY: inside the slot, a map value.
        add(unsafe { slot.cast::<u64>().add(cell) }, amount);
    }
}
