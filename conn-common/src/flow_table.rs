//! The table of flows: lock-free, and no flow has two slots that count, though several CPUs send its first packet at once.
//!
//! A flow has [`WAYS`] ways, in two buckets of [`BUCKET`]. The tags of a bucket fill one cache line. A tag is [`FREE`],
//! [`BUSY`], or a key with a phase. The algorithm runs over [`Slots`]: the kernel programs supply BPF instructions, the model
//! test supplies a memory whose accesses interleave at every step.
//!
//! A CPU that finds no slot of its flow fills one, marks it [`TENTATIVE`], and then looks at all ways. Of two CPUs, one at least
//! sees the other's mark, since both mark before they look. The lower way wins among tentative ones, and an open one wins
//! always. The winner revokes the loser's mark, so a loser that has not seen the winner cannot open. The loser hands the count
//! of its packet to the winner.
//!
//! | from | to | by |
//! | --- | --- | --- |
//! | [`FREE`] | [`BUSY`] | the CPU that fills the slot |
//! | a phase of an end, after a while | [`BUSY`] | the same |
//! | [`BUSY`] | [`TENTATIVE`] | the same |
//! | [`TENTATIVE`] | [`OPEN`] | the same, if no other CPU has the flow |
//! | [`TENTATIVE`] | [`RESIGNED`] | the same, or the winner |
//! | [`OPEN`] | [`CLOSED`] | the end of the socket |
//! | [`OPEN`] | [`EXPIRED`] | the sweep, or the next packet after the idle time |
//! | a phase of an end, after a while | [`FREE`] | the sweep |

/// Slots of a bucket.
pub const BUCKET: u32 = 8;
/// Ways of a flow: those of its two buckets.
pub const WAYS: u32 = 2 * BUCKET;

/// The tag of a slot that no flow has.
pub const FREE: u64 = 0;
/// The tag of a slot that a CPU fills.
pub const BUSY: u64 = 1;
/// The slot is filled; whether it counts is not decided.
pub const TENTATIVE: u64 = 2;
/// The flow is alive.
pub const OPEN: u64 = 3;
/// Another slot has the flow.
pub const RESIGNED: u64 = 4;
/// The socket is closed. Packets that were under way still count here.
pub const CLOSED: u64 = 5;
/// The flow was idle for its idle time. Its next packet begins another flow.
pub const EXPIRED: u64 = 6;

/// The bits of a tag that hold the phase.
const PHASE: u64 = 7;

/// The key of a flow, from a hash of its identity: no phase, and never 0.
#[inline(always)]
pub const fn key(hash: u64) -> u64 {
    hash & !PHASE | 1 << 63
}

/// The key of a tag.
#[inline(always)]
pub const fn key_of(tag: u64) -> u64 {
    tag & !PHASE
}

/// The phase of a tag; [`FREE`] or [`BUSY`] for a tag without a key.
#[inline(always)]
pub const fn phase_of(tag: u64) -> u64 {
    tag & PHASE
}

/// True if the flow of the tag has ended, or another slot has it.
#[inline(always)]
pub const fn is_over(tag: u64) -> bool {
    phase_of(tag) >= RESIGNED
}

/// 1 if a CPU fills the slot of the tag, or has filled it with a flow that has not ended; else 0. A branch for each way of a
/// bucket would be too many paths for the verifier. Slots of ended flows do not count: they have room again within
/// [`crate::flow::GRACE_MS`], and a choice by live flows keeps the buckets of a full table equal.
#[inline(always)]
pub const fn is_used(tag: u64) -> u32 {
    (1 << BUSY | 1 << TENTATIVE | 1 << OPEN) >> phase_of(tag) & 1
}

/// The way at which a new flow begins to look for room: the first one of either bucket, of which so many ways are used. The
/// usual flow is found in its first bucket. A bucket that is half full leaves its room to flows whose other bucket is fuller.
#[inline(always)]
pub const fn first_way(used: [u32; 2]) -> u32 {
    if used[0] < BUCKET / 2 || used[0] <= used[1] { 0 } else { BUCKET }
}

/// The two buckets of a flow in a table of `1 << bits` buckets, from both hashes of its identity. `bits` is 1 to 29.
#[inline(always)]
pub const fn buckets(hashes: [u64; 2], bits: u32) -> [u32; 2] {
    let mask = (1 << bits) - 1;
    let first = (hashes[0] >> 8) as u32 & mask;
    [first, first ^ ((hashes[1] >> 8) as u32 & mask | 1)]
}

/// The slots that a flow may have, by way.
pub trait Slots {
    /// The tag of a way.
    fn tag(&self, way: u32) -> u64;
    /// Replaces the tag `old` by `new`, and returns whether the tag was `old`. A full barrier.
    fn exchange(&self, way: u32, old: u64, new: u64) -> bool;
    /// Adds this packet to the counters of a way. A full barrier.
    fn count(&self, way: u32);
    /// Moves the counters of one way to another: takes each and leaves 0, then adds.
    fn move_counts(&self, from: u32, to: u32);
    /// How many ways have this key.
    fn ways_with(&self, key: u64) -> u32;
    /// Calls [`try_open`], in a function of its own, as the next two: the stacks of functions that call each other add up.
    fn try_open(&self, mine: u32, key: u64) -> u32;
    /// Calls [`contend`].
    fn contend(&self, mine: u32, key: u64) -> bool;
    /// Calls [`gather`].
    fn gather(&self, mine: u32, key: u64);
}

/// 1 if a tag has this key, whatever its phase; else 0. Without a branch, see [`is_used`].
#[inline(always)]
pub const fn has_key(tag: u64, key: u64) -> u32 {
    (((tag ^ key) >> PHASE.count_ones()).wrapping_sub(1) >> 63) as u32
}

/// The slot is open, and no other way has its key.
pub const ALONE: u32 = 0;
/// The slot is open. Another way has its key, and perhaps packets of the flow.
pub const SHARED: u32 = 1;
/// Other CPUs may begin the flow, too: the slot is not open yet.
pub const CONTENDED: u32 = 2;

/// Opens the slot at way `mine`, whose tag is `key | TENTATIVE`, unless another slot has the flow, and counts this packet
/// where the flow is counted. True if the slot is open.
#[inline(always)]
pub fn settle(slots: &impl Slots, mine: u32, key: u64) -> bool {
    match slots.try_open(mine, key) {
        ALONE => return true,
        CONTENDED if !slots.contend(mine, key) => return false,
        _ => {}
    }
    slots.gather(mine, key);
    true
}

/// Opens the slot and counts this packet there, if no other way has the key: the usual case. [`ALONE`], [`SHARED`] or
/// [`CONTENDED`].
#[inline(always)]
pub fn try_open(slots: &impl Slots, mine: u32, key: u64) -> u32 {
    if slots.ways_with(key) != 1 || !slots.exchange(mine, key | TENTATIVE, key | OPEN) {
        return CONTENDED;
    }
    slots.count(mine);
    if slots.ways_with(key) == 1 { ALONE } else { SHARED }
}

/// Opens the slot if no other CPU has the flow, and counts this packet. If another slot has the flow, the packets of this one
/// move there.
#[inline(always)]
pub fn contend(slots: &impl Slots, mine: u32, key: u64) -> bool {
    let is_open = open(slots, mine, key);
    slots.count(mine);
    let mut way = 0;
    while way < WAYS {
        let tag = slots.tag(way);
        if !is_open && way != mine && (tag == key | OPEN || tag == key | CLOSED) {
            slots.move_counts(mine, way);
        }
        way += 1;
    }
    is_open
}

/// Moves the counters of ways that gave the flow up to the open way `mine`: their CPUs may have counted before they could see
/// it open.
#[inline(always)]
pub fn gather(slots: &impl Slots, mine: u32, key: u64) {
    let mut way = 0;
    while way < WAYS {
        if way != mine && slots.tag(way) == key | RESIGNED {
            slots.move_counts(way, mine);
        }
        way += 1;
    }
}

/// Opens the slot at way `mine`, unless another slot has the flow: then the slot is [`RESIGNED`].
#[inline(always)]
fn open(slots: &impl Slots, mine: u32, key: u64) -> bool {
    let mut is_alone = true;
    let mut way = 0;
    while way < WAYS {
        if way != mine && is_alone {
            let tag = slots.tag(way);
            if tag == key | OPEN || tag == key | CLOSED {
                is_alone = false;
            } else if tag == key | TENTATIVE {
                // If the exchange fails, its CPU was faster: it has opened or resigned.
                is_alone = way > mine
                    && (slots.exchange(way, key | TENTATIVE, key | RESIGNED) || slots.tag(way) != key | OPEN);
            }
        }
        way += 1;
    }
    if is_alone && slots.exchange(mine, key | TENTATIVE, key | OPEN) {
        return true;
    }
    // If the exchange fails, the winner has revoked the mark.
    slots.exchange(mine, key | TENTATIVE, key | RESIGNED);
    false
}

#[cfg(test)]
mod model;
