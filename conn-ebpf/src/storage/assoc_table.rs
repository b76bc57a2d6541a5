//! Places in tables, as several processors use them at once.

use core::arch::asm;

use conn_common::assoc_table::{TableSlot, WAYS, way};

/// True if it is this owner's. Another CPU may put another owner there at any time, where owners leave.
#[inline(always)]
pub fn is_of<T>(place: *mut TableSlot<T>, owner: u64) -> bool {
    // SAFETY: the first word of a map value.
    unsafe { (&raw mut (*place).key).read_volatile() == owner }
}

/// The value in it.
#[inline(always)]
pub fn value<T>(place: *mut TableSlot<T>) -> *mut T {
    // SAFETY: the rest of a map value.
    unsafe { &raw mut (*place).value }
}

/// Touches all of its cache lines, so that the processor waits for them at the same time as for other memory.
#[inline(always)]
pub fn touch<T>(place: *mut TableSlot<T>) {
    const LINE: usize = 64 / size_of::<u64>();
    let words = place.cast::<u64>();
    let last = size_of::<TableSlot<T>>() / size_of::<u64>() - 1;
    let mut at = 0;
    while at < last {
        // SAFETY: before the last word of a map value.
        unsafe { words.add(at).read_volatile() };
        at += LINE;
    }
    // SAFETY: its last word.
    unsafe { words.add(last).read_volatile() };
}

/// Of the places that an owner may have, the first that `is_right`; that with the number `first` is looked at before all
/// others.
#[inline(always)]
fn first_that<T>(
    first: u32,
    place_at: impl Fn(u32) -> Option<*mut TableSlot<T>>,
    is_right: impl Fn(*mut TableSlot<T>) -> bool,
) -> Option<*mut TableSlot<T>> {
    for number in 0..WAYS {
        if let Some(place) = place_at(way(first, number))
            && is_right(place)
        {
            return Some(place);
        }
    }
    None
}

/// The owner's place, in a table where it may have any of several.
#[inline(always)]
pub fn find<T>(
    first: u32,
    owner: u64,
    place_at: impl Fn(u32) -> Option<*mut TableSlot<T>>,
) -> Option<*mut TableSlot<T>> {
    first_that(first, place_at, |place| is_of(place, owner))
}

/// Frees all places of this owner.
#[inline(always)]
pub fn leave<T>(first: u32, owner: u64, place_at: impl Fn(u32) -> Option<*mut TableSlot<T>>) {
    first_that(first, place_at, |place| {
        if is_of(place, owner) {
            take(place, owner, 0);
        }
        false
    });
}

/// Puts the owner `new` into one of these places that is free. `None` if none is.
#[inline(always)]
pub fn take_free<T>(
    first: u32,
    new: u64,
    place_at: impl Fn(u32) -> Option<*mut TableSlot<T>>,
) -> Option<*mut TableSlot<T>> {
    first_that(first, place_at, |place| is_of(place, 0) && take(place, 0, new))
}

/// Puts the owner `new` in place of `old`; false if it was somebody else's. A full barrier.
#[inline(always)]
pub fn take<T>(place: *mut TableSlot<T>, old: u64, new: u64) -> bool {
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
