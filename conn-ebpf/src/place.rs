//! Places in tables, as several processors use them at once.

use core::arch::asm;

use conn_common::place::Place;

/// True if it is this owner's. Another CPU may put another owner there at any time, where owners leave.
#[inline(always)]
pub fn is_of<T>(place: *mut Place<T>, owner: u64) -> bool {
    // SAFETY: the first word of a map value.
    unsafe { (&raw mut (*place).owner).read_volatile() == owner }
}

/// The value in it.
#[inline(always)]
pub fn value<T>(place: *mut Place<T>) -> *mut T {
    // SAFETY: the rest of a map value.
    unsafe { &raw mut (*place).value }
}

/// Puts the owner `new` in place of `old`; false if it was somebody else's. A full barrier.
#[inline(always)]
pub fn take<T>(place: *mut Place<T>, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: the first word of a map value. An instruction of its own, as in `counter::add`.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({place} + 0, r0, {new})",
            place = in(reg) place,
            new = in(reg) new,
            inlateout("r0") old => found,
            options(nostack),
        );
    }
    found == old
}
