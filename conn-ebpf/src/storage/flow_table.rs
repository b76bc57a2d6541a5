//! The slots of flows in BPF arrays. The algorithm is `conn_common::flow_table`.

use conn_common::flow::{Flow, SENT};
use conn_common::flow_table::{
    BUCKET, BUSY, CLOSED, FREE, OPEN, Slots, TENTATIVE, WAYS, buckets, contend, first_way, gather, has_key,
    is_over, is_used, key, settle, try_open,
};

use crate::config;
use crate::counter::add;
use crate::datagram::Datagram;
use crate::maps::{FLOW_TAGS, FLOWS};
use crate::storage::assoc_table::{compare_exchange, take};

/// The ways of the flow of a packet.
pub(crate) struct Ways<'a> {
    packet: &'a Datagram,
    key: u64,
    buckets: [u32; 2],
}

/// The slot at an index.
#[inline(always)]
pub(crate) fn flow_at(index: u32) -> Option<*mut Flow> {
    FLOWS.get_ptr_mut(index)
}

/// The word of the tag of a slot.
#[inline(always)]
pub(crate) fn tag_at(index: u32) -> Option<*mut u64> {
    let bucket = FLOW_TAGS.get_ptr_mut(index / BUCKET)?;
    // SAFETY: a word of the bucket.
    Some(unsafe { bucket.cast::<u64>().add((index % BUCKET) as usize) })
}

/// Replaces the tag of a slot, if it is `old`.
#[inline(always)]
pub(crate) fn exchange_tag(index: u32, old: u64, new: u64) -> bool {
    // SAFETY: a word of a map value.
    tag_at(index).is_some_and(|tag| unsafe { compare_exchange(tag, old, new) } == old)
}

/// Adds a packet to a flow.
#[inline(always)]
pub(crate) fn add_packet(flow: *mut Flow, packet: &Datagram) {
    // SAFETY: cells of a map value.
    unsafe {
        let (packets, bytes) = if packet.way as usize == SENT {
            (&raw mut (*flow).packets[0], &raw mut (*flow).bytes[0])
        } else {
            (&raw mut (*flow).packets[1], &raw mut (*flow).bytes[1])
        };
        add(packets, packet.segments.into());
        add(bytes, packet.payload);
        if packet.segments > 1 {
            let merged = if packet.way as usize == SENT {
                &raw mut (*flow).merged[0]
            } else {
                &raw mut (*flow).merged[1]
            };
            add(merged, u64::from(packet.segments) - 1);
        }
    }
}

impl<'a> Ways<'a> {
    #[inline(always)]
    pub(crate) fn new(packet: &'a Datagram) -> Self {
        Self { packet, key: key(packet.hashes[0]), buckets: buckets(packet.hashes, config::FLOW_BITS.load()) }
    }

    /// The flow, if it is open. The usual packet needs no more.
    #[inline(always)]
    pub(crate) fn find_open(&self) -> Option<*mut Flow> {
        self.find(self.key | OPEN)
    }

    /// The flow, if its socket is closed.
    #[inline(always)]
    pub(crate) fn find_closed(&self) -> Option<*mut Flow> {
        self.find(self.key | CLOSED)
    }

    #[inline(always)]
    fn find(&self, wanted: u64) -> Option<*mut Flow> {
        let [first, second] = self.buckets;
        find_in(first, wanted).or_else(|| find_in(second, wanted))
    }

    /// The index of a way.
    #[inline(always)]
    fn index(&self, way: u32) -> u32 {
        let bucket = if way < BUCKET { self.buckets[0] } else { self.buckets[1] };
        bucket * BUCKET + way % BUCKET
    }

    /// Marks a way BUSY: a free one, or else one whose flow ended a while ago. Its slot, with the way in [`Flow::scratch`]; `None`
    /// if there is none.
    #[inline(always)]
    pub(crate) fn acquire(&self, now: u64) -> Option<*mut Flow> {
        let start = first_way(self.buckets.map(|bucket| sum_of(bucket, is_used)));
        let mut nth = 0;
        while nth < WAYS {
            let way = nth ^ start;
            nth += 1;
            if self.tag(way) == FREE
                && let Some(flow) = self.take(way, FREE)
            {
                return Some(flow);
            }
        }
        // Only now: tags are in the cache, and slots are not.
        let mut nth = 0;
        while nth < WAYS {
            let way = nth ^ start;
            nth += 1;
            let tag = self.tag(way);
            if is_over(tag) {
                // SAFETY: a word of a map value.
                let ended = unsafe { (&raw const (*flow_at(self.index(way))?).ended).read_volatile() };
                if ended != 0
                    && now.wrapping_sub(ended) > config::FLOW_GRACE.load().into()
                    && let Some(flow) = self.take(way, tag)
                {
                    return Some(flow);
                }
            }
        }
        None
    }

    /// Marks a way with this tag BUSY, if it still has it.
    #[inline(always)]
    fn take(&self, way: u32, tag: u64) -> Option<*mut Flow> {
        let index = self.index(way);
        let flow = flow_at(index)?;
        if !self.exchange(way, tag, BUSY) {
            return None;
        }
        // SAFETY: words of a map value; once the tag is BUSY, no other CPU writes to the slot.
        unsafe {
            (&raw mut (*flow).index).write_volatile(index);
            (&raw mut (*flow).scratch).write_volatile(way);
        }
        Some(flow)
    }

    /// Publishes a filled slot that [`Self::acquire`] returned, and counts the packet. True if the flow begins with it, false
    /// if another slot has the flow.
    #[inline(always)]
    pub(crate) fn publish(&self, flow: *mut Flow) -> bool {
        // From memory: of a number that it knows, the verifier would follow what comes next for each way.
        // SAFETY: a word of a map value.
        let way = unsafe { (&raw const (*flow).scratch).read_volatile() } % WAYS;
        self.exchange(way, BUSY, self.key | TENTATIVE);
        settle(self, way, self.key)
    }
}

/// The sum of a number of each tag of a bucket.
#[inline(always)]
fn sum_of(bucket: u32, number: impl Fn(u64) -> u32) -> u32 {
    let Some(tags) = FLOW_TAGS.get_ptr(bucket) else { return BUCKET };
    let (mut way, mut sum) = (0, 0);
    while way < BUCKET {
        // SAFETY: a word of the bucket.
        sum += number(unsafe { tags.cast::<u64>().add(way as usize).read_volatile() });
        way += 1;
    }
    sum
}

/// [`try_open`] for a way.
#[inline(never)]
fn try_open_at(ways: &Ways<'_>, mine: u32) -> u32 {
    try_open(ways, mine % WAYS, ways.key)
}

/// [`contend`] for a way.
#[inline(never)]
fn contend_for(ways: &Ways<'_>, mine: u32) -> bool {
    contend(ways, mine % WAYS, ways.key)
}

/// [`gather`] for a way.
#[inline(never)]
fn gather_into(ways: &Ways<'_>, mine: u32) -> u32 {
    gather(ways, mine % WAYS, ways.key);
    0
}

/// The flow with a tag in a bucket.
#[inline(always)]
fn find_in(bucket: u32, wanted: u64) -> Option<*mut Flow> {
    let tags = FLOW_TAGS.get_ptr(bucket)?;
    let mut way = 0;
    while way < BUCKET {
        // SAFETY: a word of the bucket.
        if unsafe { tags.cast::<u64>().add(way as usize).read_volatile() } == wanted {
            return flow_at(bucket * BUCKET + way);
        }
        way += 1;
    }
    None
}

/// Moves the counters of one flow to another.
#[inline(never)]
fn move_counts(from: *mut Flow, to: *mut Flow) -> u32 {
    // SAFETY: cells of map values.
    unsafe {
        add(&raw mut (*to).packets[0], take(&raw mut (*from).packets[0]));
        add(&raw mut (*to).packets[1], take(&raw mut (*from).packets[1]));
        add(&raw mut (*to).bytes[0], take(&raw mut (*from).bytes[0]));
        add(&raw mut (*to).bytes[1], take(&raw mut (*from).bytes[1]));
        add(&raw mut (*to).merged[0], take(&raw mut (*from).merged[0]));
        add(&raw mut (*to).merged[1], take(&raw mut (*from).merged[1]));
    }
    0
}

impl Slots for Ways<'_> {
    #[inline(always)]
    fn tag(&self, way: u32) -> u64 {
        // SAFETY: a word of a map value. There is no bucket behind the end of the table.
        tag_at(self.index(way)).map_or(BUSY, |tag| unsafe { tag.read_volatile() })
    }

    #[inline(always)]
    fn exchange(&self, way: u32, old: u64, new: u64) -> bool {
        exchange_tag(self.index(way), old, new)
    }

    #[inline(always)]
    fn count(&self, way: u32) {
        if let Some(flow) = flow_at(self.index(way)) {
            add_packet(flow, self.packet);
        }
    }

    #[inline(always)]
    fn move_counts(&self, from: u32, to: u32) {
        if let (Some(from), Some(to)) = (flow_at(self.index(from)), flow_at(self.index(to))) {
            move_counts(from, to);
        }
    }

    #[inline(always)]
    fn ways_with(&self, key: u64) -> u32 {
        let [first, second] = self.buckets.map(|bucket| sum_of(bucket, |tag| has_key(tag, key)));
        first + second
    }

    #[inline(always)]
    fn try_open(&self, mine: u32, _: u64) -> u32 {
        try_open_at(self, mine)
    }

    #[inline(always)]
    fn contend(&self, mine: u32, _: u64) -> bool {
        contend_for(self, mine)
    }

    #[inline(always)]
    fn gather(&self, mine: u32, _: u64) {
        gather_into(self, mine);
    }
}
