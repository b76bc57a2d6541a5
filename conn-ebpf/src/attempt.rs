//! Attempts that never become a connection: counts per local port, and events if the run wants them.

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use conn_common::attempt::{Attempt, PortAttempts};
use conn_common::connection::{Connection, IN};
use conn_common::state::SYN_RECV;

use crate::counter::add;
use crate::emit::emit_attempt;
use crate::gate::is_enabled;
use crate::maps::ATTEMPTS;
use crate::{config, filter, mode};

/// A half-open request begins on a port. True if it is counted.
#[inline(always)]
pub(crate) fn record_begun(port: u32) -> bool {
    let counts = counts(port);
    if let Some(counts) = counts {
        // SAFETY: a field of a map value.
        add(unsafe { &raw mut (*counts).begun }, 1);
    }
    counts.is_some()
}

/// A child is born on a port, and was no request in the queue.
#[inline(always)]
pub(crate) fn record_direct(port: u32) {
    if let Some(counts) = counts(port) {
        // SAFETY: as above.
        add(unsafe { &raw mut (*counts).direct }, 1);
    }
}

/// This host refuses a SYN to a port. True if it is counted.
#[inline(always)]
pub(crate) fn record_refused(port: u32) -> bool {
    let counts = counts(port);
    if let Some(counts) = counts {
        // SAFETY: as above.
        add(unsafe { &raw mut (*counts).refused }, 1);
    }
    counts.is_some()
}

/// True if the run wants an event of each attempt.
#[inline(always)]
pub(crate) fn is_wanted() -> bool {
    config::ATTEMPTS_WANTED.load() != 0
}

/// Emits an attempt whose tuple and namespace are set, if the run wants it.
#[inline(always)]
pub(crate) fn emit_wanted(connection: &mut Connection, outcome: Attempt) {
    // SAFETY: no preconditions.
    let (now, cpu) = unsafe { (bpf_ktime_get_boot_ns(), bpf_get_smp_processor_id()) };
    connection.id = Connection::id_at(now, cpu);
    connection.attempt_ns = now;
    connection.direction = IN;
    connection.state = SYN_RECV;
    if filter::wants(connection) && filter::wants_now(connection) {
        emit_attempt(connection, outcome as u8);
    }
}

/// The counts of a port. `None` before the programs are enabled, and in a run that does not count.
#[inline(always)]
fn counts(port: u32) -> Option<*mut PortAttempts> {
    if mode::has_ledger() && is_enabled() { ATTEMPTS.get_ptr_mut(port) } else { None }
}
