//! The words of an associative table in a BPF array. The algorithm is `conn_common::assoc_table`.

#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use conn_common::assoc_table::{TableSlot, Words};

/// A BPF array of table slots.
pub(crate) trait SlotArray {
    /// The value of a slot.
    type Value;

    /// The slot at `index`, or `None` behind the end of the array.
    fn slot_at(&self, index: u32) -> Option<*mut TableSlot<Self::Value>>;
}

/// The words of the slots of an array.
pub(crate) struct ArrayWords<A>(pub A);

impl<A: SlotArray> Words for ArrayWords<A> {
    type Slot = *mut TableSlot<A::Value>;

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Self::Slot> {
        self.0.slot_at(index)
    }

    #[inline(always)]
    fn load(&self, slot: Self::Slot) -> u64 {
        // SAFETY: the first word of a map value.
        unsafe { (&raw mut (*slot).key).read_volatile() }
    }

    #[inline(always)]
    fn compare_exchange(&self, slot: Self::Slot, old: u64, new: u64) -> bool {
        // SAFETY: the first word of a map value.
        unsafe { compare_exchange(slot.cast(), old, new) == old }
    }

    #[inline(always)]
    fn store(&self, slot: Self::Slot, new: u64) {
        // SAFETY: the first word of a map value.
        unsafe { (&raw mut (*slot).key).write_volatile(new) };
    }
}

/// Replaces a word by `new` if it is `old`, and returns what it was. An instruction of its own, as in `counter::add`.
///
/// # Safety
/// The word is an aligned cell of a map value.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    let found: u64;
    // SAFETY: see above.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inlateout("r0") old => found,
            options(nostack),
        );
    }
    found
}

/// The same for clippy, which may have no BPF target and does not know its registers.
#[cfg(not(target_arch = "bpf"))]
pub(crate) unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> u64 {
    // SAFETY: see above.
    let found = unsafe { AtomicU64::from_ptr(word) }.compare_exchange(old, new, SeqCst, SeqCst);
    found.unwrap_or_else(|found| found)
}

/// Takes what is in a word and leaves 0.
///
/// # Safety
/// The word is an aligned cell of a map value.
#[cfg(target_arch = "bpf")]
#[inline(always)]
pub(crate) unsafe fn take(word: *mut u64) -> u64 {
    let found: u64;
    // SAFETY: see above.
    unsafe {
        core::arch::asm!(
            "{new} = xchg_64({word} + 0, {new})",
            word = in(reg) word,
            new = inout(reg) 0_u64 => found,
            options(nostack),
        );
    }
    found
}

/// The same for clippy.
#[cfg(not(target_arch = "bpf"))]
pub(crate) unsafe fn take(word: *mut u64) -> u64 {
    // SAFETY: see above.
    unsafe { AtomicU64::from_ptr(word) }.swap(0, SeqCst)
}

/// The value of a slot.
#[inline(always)]
pub(crate) fn value<V>(slot: *mut TableSlot<V>) -> *mut V {
    // SAFETY: the rest of a map value.
    unsafe { &raw mut (*slot).value }
}

/// The slot of a value.
#[inline(always)]
pub(crate) fn slot_of<V>(value: *mut V) -> *mut TableSlot<V> {
    // SAFETY: the key is the word before the value.
    unsafe { value.cast::<u64>().sub(1).cast() }
}

/// Reads each cache line of a slot, so that the CPU fetches them while it waits for other memory.
#[inline(always)]
pub(crate) fn prefetch<V>(slot: *mut TableSlot<V>) {
    const LINE: usize = 64 / size_of::<u64>();
    let words = slot.cast::<u64>();
    let last = size_of::<TableSlot<V>>() / size_of::<u64>() - 1;
    let mut at = 0;
    while at < last {
        // SAFETY: before the last word of a map value.
        unsafe { words.add(at).read_volatile() };
        at += LINE;
    }
    // SAFETY: the last word.
    unsafe { words.add(last).read_volatile() };
}
