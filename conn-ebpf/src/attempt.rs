//! Attempts that never become a connection: counts per local port.

use conn_common::attempt::PortAttempts;

use crate::counter::add;
use crate::gate::is_enabled;
use crate::maps::ATTEMPTS;
use crate::mode;

/// A half-open request begins on a port.
#[inline(always)]
pub(crate) fn record_begun(port: u32) {
    if let Some(counts) = counts(port) {
        // SAFETY: a field of a map value.
        add(unsafe { &raw mut (*counts).begun }, 1);
    }
}

/// A child is born on a port, and was no request in the queue.
#[inline(always)]
pub(crate) fn record_direct(port: u32) {
    if let Some(counts) = counts(port) {
        // SAFETY: as above.
        add(unsafe { &raw mut (*counts).direct }, 1);
    }
}

/// This host refuses a SYN to a port.
#[inline(always)]
pub(crate) fn record_refused(port: u32) {
    if let Some(counts) = counts(port) {
        // SAFETY: as above.
        add(unsafe { &raw mut (*counts).refused }, 1);
    }
}

/// The counts of a port. `None` before the programs are enabled, and in a run that does not count.
#[inline(always)]
fn counts(port: u32) -> Option<*mut PortAttempts> {
    if mode::has_ledger() && is_enabled() { ATTEMPTS.get_ptr_mut(port) } else { None }
}
