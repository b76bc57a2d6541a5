//! Counters of the programs' work and failures, under the names of `conn_common::counter`.

use crate::maps::COUNTERS;

/// Adds one to the counter `at`.
#[inline(always)]
pub(crate) fn count(at: u32) {
    count_amount(at, 1);
}

/// Adds to the counter `at`.
#[inline(always)]
pub(crate) fn count_amount(at: u32, amount: u64) {
    if let Some(counters) = COUNTERS.get_ptr_mut(0) {
        // SAFETY: a map value of this CPU; `at` is one of the constants of `conn_common::counter`.
        add(unsafe { counters.cast::<u64>().add(at as usize) }, amount);
    }
}

/// Adds to a cell that other CPUs, or an interrupt on this one, may add to at the same moment.
#[inline(always)]
pub(crate) fn add(cell: *mut u64, amount: u64) {
    // SAFETY: callers pass pointers to aligned 8-byte cells of map values. An instruction of its own,
    // because core has no read-modify-write atomics for this target.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({cell} + 0) += {amount}",
            cell = in(reg) cell,
            amount = in(reg) amount,
            options(nostack),
        );
    }
}
