//! A lock-free associative table: a program finds a value by a 64-bit key without a hash lookup.
//!
//! The table is a cache, not a limit: if all ways of a key are taken, the caller keeps the value elsewhere. The
//! algorithm runs over [`Words`]. The kernel programs supply BPF instructions, the model test supplies a memory whose
//! accesses interleave at every step.
//!
//! | instance | writers of one key | guarantees |
//! | --- | --- | --- |
//! | socket states | one at a time: the socket's lock | no twin; a value has one user |
//! | scratch slots | one at a time: the slot is BUSY | a value has one user |
//! | pending owners | any CPU, without a lock | no torn value, no lost value; one value of each writer |
//! | ledger slots | any CPU, without a lock; never freed | no twin; one key of a slot for good; cells are atomic |
//!
//! Twins of pending owners: an accept and a walk over open files may note the same socket at the same moment, each in a
//! way of its own. [`AssocTable::release`] frees both, and each is taken once. A table whose values must be unique
//! without a lock (flows) looks for twins between [`AssocTable::acquire_busy`] and [`AssocTable::publish`], and once more after.

/// A slot of a table: one array element.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TableSlot<V> {
    /// [`FREE`], [`BUSY`], or the key.
    pub key: u64,
    /// Valid while `key` is a key.
    pub value: V,
}

/// The key of a free slot.
pub const FREE: u64 = 0;
/// The key of a slot that one CPU fills, empties or borrows. Other CPUs treat BUSY as a miss, so no CPU reads a torn
/// value and no CPU spins.
pub const BUSY: u64 = 1;

/// How many slots a key may use.
pub const WAYS: u32 = 4;

/// How many scratch slots each CPU has, behind all others.
pub const SCRATCH_SLOTS: u32 = 4;

/// The index of the first way of `number` in a table of `1 << bits` slots. `bits` is 1 to 31.
#[inline(always)]
pub const fn first_way(number: u32, bits: u32) -> u32 {
    // The golden ratio spreads numbers that are near each other (Knuth, multiplicative hashing).
    number.wrapping_mul(0x9E37_79B1) >> (u32::BITS - bits)
}

/// The index of way `number`, from the index of the first way. The ways are neighbours in a table of at least
/// [`WAYS`] slots.
#[inline(always)]
pub const fn way(first: u32, number: u32) -> u32 {
    first ^ number
}

/// The words that the algorithm reads and writes: the keys of slots.
pub trait Words {
    /// A slot of the table.
    type Slot: Copy;
    /// The slot at `index`, or `None` behind the end of the table.
    fn slot(&self, index: u32) -> Option<Self::Slot>;
    /// Reads the key.
    fn load(&self, slot: Self::Slot) -> u64;
    /// Replaces the key `old` by `new`, and returns whether the key was `old`. A full barrier.
    fn compare_exchange(&self, slot: Self::Slot, old: u64, new: u64) -> bool;
    /// Writes the key. Without a barrier.
    fn store(&self, slot: Self::Slot, new: u64);
}

/// The table over its words.
#[derive(Clone, Copy, Debug)]
pub struct AssocTable<W>(pub W);

impl<W: Words> AssocTable<W> {
    /// The slot of `key`, if it is the first way.
    #[inline(always)]
    pub fn find_first(&self, first: u32, key: u64) -> Option<W::Slot> {
        self.0.slot(first).filter(|&slot| self.0.load(slot) == key)
    }

    /// The slot of `key`.
    #[inline(always)]
    pub fn find(&self, first: u32, key: u64) -> Option<W::Slot> {
        self.first_that(first, |slot| self.0.load(slot) == key)
    }

    /// Gives a free way to `key`. `None` if all ways are taken. The value is that of an earlier key, so the caller
    /// must be the only user of `key`.
    #[inline(always)]
    pub fn acquire(&self, first: u32, key: u64) -> Option<W::Slot> {
        self.first_that(first, |slot| self.0.load(slot) == FREE && self.0.compare_exchange(slot, FREE, key))
    }

    /// Frees all ways of `key`. A way that is BUSY stays with its user. True if there was one.
    #[inline(always)]
    pub fn release(&self, first: u32, key: u64) -> bool {
        let mut is_freed = false;
        for number in 0..WAYS {
            if let Some(slot) = self.0.slot(way(first, number))
                && self.0.load(slot) == key
            {
                is_freed |= self.0.compare_exchange(slot, key, FREE);
            }
        }
        is_freed
    }

    /// Marks a free way BUSY. `None` if all ways are taken. The caller writes the value, then calls
    /// [`Self::publish`].
    #[inline(always)]
    pub fn acquire_busy(&self, first: u32) -> Option<W::Slot> {
        self.acquire(first, BUSY)
    }

    /// Ends [`Self::acquire_busy`]: the slot is that of `key` from now on.
    #[inline(always)]
    pub fn publish(&self, slot: W::Slot, key: u64) {
        self.0.compare_exchange(slot, BUSY, key);
    }

    /// Replaces the value of `key`. False if there is none, or if another CPU uses the slot.
    #[inline(always)]
    pub fn update(&self, first: u32, key: u64, write: impl FnOnce(W::Slot)) -> bool {
        self.lock(first, key, write, key)
    }

    /// Moves the value of `key` out and frees its slot. False if there is none, or if another CPU uses the slot.
    #[inline(always)]
    pub fn take(&self, first: u32, key: u64, read: impl FnOnce(W::Slot)) -> bool {
        self.lock(first, key, read, FREE)
    }

    /// Keeps the slot of `key` BUSY during `work`. The slot has the key `after` from then on.
    #[inline(always)]
    fn lock(&self, first: u32, key: u64, work: impl FnOnce(W::Slot), after: u64) -> bool {
        if let Some(slot) = self.find(first, key)
            && self.0.compare_exchange(slot, key, BUSY)
        {
            work(slot);
            self.0.compare_exchange(slot, BUSY, after);
            return true;
        }
        false
    }

    /// The slot at `index`, if it is the slot of `key` or becomes it now. For a table of one way whose slots are never
    /// freed.
    #[inline(always)]
    pub fn acquire_at(&self, index: u32, key: u64) -> Option<W::Slot> {
        let is_ours = |slot: &W::Slot| {
            self.0.load(*slot) == key
                || self.0.compare_exchange(*slot, FREE, key)
                // Another CPU may have been faster, with the same key.
                || self.0.load(*slot) == key
        };
        self.0.slot(index).filter(is_ours)
    }

    /// Borrows the scratch slot at `index`. `None` if another program borrows it.
    #[inline(always)]
    pub fn borrow(&self, index: u32) -> Option<W::Slot> {
        self.0.slot(index).filter(|&slot| self.0.compare_exchange(slot, FREE, BUSY))
    }

    /// Gives a scratch slot back. Only programs of the same CPU borrow it, so no barrier is needed.
    #[inline(always)]
    pub fn give_back(&self, slot: W::Slot) {
        self.0.store(slot, FREE);
    }

    /// The first way that `is_right`.
    #[inline(always)]
    fn first_that(&self, first: u32, is_right: impl Fn(W::Slot) -> bool) -> Option<W::Slot> {
        for number in 0..WAYS {
            if let Some(slot) = self.0.slot(way(first, number))
                && is_right(slot)
            {
                return Some(slot);
            }
        }
        None
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
