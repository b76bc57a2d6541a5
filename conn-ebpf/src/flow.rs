//! What packets, closes and refusals do to flows of UDP. No lock protects a flow: counters change by atomic addition, state and
//! tag by compare-and-exchange, and only the CPU that made a change shows it.

mod count;
mod record;

use core::ptr;

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns};
use conn_common::cause::Cause;
use conn_common::connection::{IN, WANTED};
use conn_common::counter::{BYTES_UNTRACKED, CLOSES_UNNOTED, PACKETS_UNTRACKED};
use conn_common::event::{DESTROY, NEW, NO_CAUSE, UPDATE};
use conn_common::filter::bit;
use conn_common::flow::{
    ASSURED, Flow, FlowSocket, REPLIED, SENT, UNREPLIED, direction_of, end_cause, socket_index, state_of,
    state_word,
};
use conn_common::flow_table::{CLOSED, EXPIRED, OPEN, key_of, phase_of};
use conn_common::name::NO_OWNERS;
use conn_common::owner::SEND;
use conn_common::state::{CLOSE, UNSEEN};

use crate::counter::{add, count, count_amount};
use crate::datagram::Datagram;
use crate::emit::{EventHeader, emit_flow};
use crate::maps::{FLOW_CLOSED, FLOW_SOCKETS};
use crate::owner::{self, socket_owner};
use crate::skb::Skb;
use crate::storage::assoc_table::compare_exchange;
use crate::storage::flow_table::{Ways, add_packet, exchange_tag, flow_at, tag_at};
use crate::{config, filter};

pub(crate) use count::dropped;

/// The kernel's tick count.
#[inline(always)]
fn jiffies() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_jiffies64() }
}

/// The time, nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// A socket sent or received a packet.
#[inline(always)]
pub(crate) fn on_datagram(skb: Skb, packet: &Datagram) {
    if let Some(flow) = Ways::new(packet).find_open() {
        let tick = jiffies();
        // SAFETY: words of a map value. The tick of another CPU's packet may be the later one.
        unsafe {
            let word = (&raw const (*flow).state).read_volatile();
            let idle = tick.wrapping_sub((&raw const (*flow).last).read_volatile()).cast_signed();
            if (*flow).check != packet.hashes[1] {
                untracked(skb, packet);
                return;
            }
            if idle <= timeout(word) {
                (&raw mut (*flow).last).write_volatile(tick);
                add_packet(flow, packet);
                // The state is read after the addition: the CPU that announces the flow writes the state, and then looks at
                // the counters.
                let word = (&raw const (*flow).state).read_volatile();
                if next_state(word, packet, tick.wrapping_sub((*flow).begun)) != state_of(word) {
                    step(skb, packet, flow);
                }
                return;
            }
        }
        expire(flow);
    }
    let begun = begin(skb, packet);
    if !begun.is_null() {
        announce(skb, packet, begun);
    }
}

/// The idle time of a flow, in ticks.
#[inline(always)]
fn timeout(word: u64) -> i64 {
    let ticks = if state_of(word) == ASSURED {
        config::FLOW_STREAM_TIMEOUT.load()
    } else {
        config::FLOW_TIMEOUT.load()
    };
    i64::from(ticks)
}

/// The state of a flow after a packet, so many ticks after its first one.
#[inline(always)]
fn next_state(word: u64, packet: &Datagram, age: u64) -> u8 {
    match state_of(word) {
        // A packet that the side sent which did not begin the flow.
        UNREPLIED if is_reply(direction_of(word), packet.way) => REPLIED,
        REPLIED if age.cast_signed() > config::FLOW_STREAM_AFTER.load().into() => ASSURED,
        state => state,
    }
}

/// True if a packet goes against the direction of its flow.
#[inline(always)]
const fn is_reply(direction: u8, way: u8) -> bool {
    (direction == IN) == (way as usize == SENT)
}

/// The table has no room for the flow of a packet.
#[inline(always)]
fn untracked(skb: Skb, packet: &Datagram) {
    count::untracked(skb, packet);
    count_amount(PACKETS_UNTRACKED, packet.segments.into());
    count_amount(BYTES_UNTRACKED, packet.payload);
}

/// Begins a flow, unless another CPU has just begun it, or the socket is closed. The flow, or NULL. In its own function, like
/// most below: the stacks of functions that call each other add up, and the verifier allows 512 bytes.
#[inline(never)]
fn begin(skb: Skb, packet: &Datagram) -> *mut Flow {
    if !skb.is_of_udp_socket() {
        return ptr::null_mut();
    }
    let ways = Ways::new(packet);
    if let Some(flow) = ways.find_closed() {
        add_packet(flow, packet);
        return ptr::null_mut();
    }
    let Some(flow) = ways.acquire(jiffies()) else {
        untracked(skb, packet);
        return ptr::null_mut();
    };
    record::fill(skb, packet, flow);
    if !ways.publish(flow) {
        // SAFETY: a word of a map value. The slot may be used again after a while.
        unsafe { (&raw mut (*flow).ended).write_volatile(jiffies()) };
        return ptr::null_mut();
    }
    count::begun(flow);
    note_socket(flow);
    flow
}

/// Shows a flow that has begun, and from then on its steps.
#[inline(never)]
fn announce(skb: Skb, packet: &Datagram, flow: *mut Flow) -> u32 {
    // SAFETY: a map value that no other CPU changes but for its counters, before the state is written.
    unsafe {
        let connection = &mut (*flow).connection;
        if config::WANTED_KINDS.load() != 0
            && filter::wants(connection)
            && filter::wants_mark_number(skb.mark())
        {
            connection.set(WANTED);
        }
        let header = EventHeader { kind: NEW, old_state: UNSEEN, cause: NO_CAUSE };
        emit_wanted(flow, connection.first_seen_ns(), header);
        let word = state_word(UNREPLIED, connection.direction);
        compare_exchange(&raw mut (*flow).state, 0, word);
        let other = usize::from(packet.way) ^ 1;
        let replies =
            if other == SENT { &raw const (*flow).packets[0] } else { &raw const (*flow).packets[1] };
        if replies.read_volatile() != 0
            && compare_exchange(&raw mut (*flow).state, word, state_word(REPLIED, connection.direction))
                == word
        {
            // A reply came before NEW was written.
            show_step(flow, UNREPLIED, REPLIED);
        }
    }
    0
}

/// A packet changes the state of its flow.
#[inline(never)]
fn step(skb: Skb, packet: &Datagram, flow: *mut Flow) -> u32 {
    // SAFETY: a map value; only the CPU whose exchange succeeds writes the owner.
    unsafe {
        let word = (&raw const (*flow).state).read_volatile();
        let (direction, old) = (direction_of(word), state_of(word));
        let new = next_state(word, packet, jiffies().wrapping_sub((*flow).begun));
        if new == old || compare_exchange(&raw mut (*flow).state, word, state_word(new, direction)) != word {
            return 0;
        }
        if new == REPLIED && direction == IN && config::OWNERS.load() != NO_OWNERS {
            let owner = &raw mut (*flow).connection.owner;
            owner.write(owner::current(SEND));
            let sk = skb.socket();
            if !sk.is_null() {
                socket_owner::replace(sk.cast(), &*owner);
            }
        }
        show_step(flow, old, new);
    }
    0
}

/// Shows a step of a flow.
///
/// # Safety
/// The flow is a map value, and this CPU has made the step.
#[inline(always)]
unsafe fn show_step(flow: *mut Flow, old_state: u8, new: u8) {
    // SAFETY: see above.
    unsafe { (*flow).connection.state = new };
    count::stepped(flow, new);
    emit_wanted(flow, now(), EventHeader { kind: UPDATE, old_state, cause: NO_CAUSE });
}

/// The flow of a packet was idle for its idle time, and ended then.
#[inline(never)]
fn expire(flow: *mut Flow) -> u32 {
    // SAFETY: words of a map value.
    unsafe {
        let ticks =
            (*flow).last.wrapping_sub((*flow).begun).wrapping_add(timeout((*flow).state).cast_unsigned());
        let end_ns = (*flow).connection.first_seen_ns() + ticks * u64::from(config::FLOW_TICK_NS.load());
        end(flow, (*flow).cookie, EXPIRED, Cause::TimedOut, end_ns);
    }
    0
}

/// Ends the flow in a slot, if the flow is open and of this socket.
#[inline(always)]
fn end(flow: *mut Flow, cookie: u64, phase: u64, cause: Cause, end_ns: u64) {
    // SAFETY: words of map values; only the CPU whose exchange succeeds writes the end.
    unsafe {
        let index = (&raw const (*flow).index).read_volatile();
        let Some(word) = tag_at(index) else { return };
        let tag = word.read_volatile();
        if phase_of(tag) != OPEN || (*flow).cookie != cookie || !exchange_tag(index, tag, key_of(tag) | phase)
        {
            return;
        }
        let old_state = state_of((*flow).state);
        let cause = end_cause(cause, old_state, (*flow).refused) as u8;
        (*flow).cause = cause.into();
        (*flow).end_ns = end_ns;
        (*flow).connection.state = CLOSE;
        emit_wanted(flow, end_ns, EventHeader { kind: DESTROY, old_state, cause });
        count::ended(flow, cause);
        // From now on the slot may be used again after a while.
        (&raw mut (*flow).ended).write_volatile(jiffies());
    }
}

/// The last descriptor of a socket is closed: its flows end. Those of a socket with several are left to the sweep.
#[inline(always)]
pub(crate) fn on_close(cookie: u64) {
    let Some(socket) = FLOW_SOCKETS.get_ptr_mut(socket_index(cookie)) else { return };
    // SAFETY: words of a map value.
    unsafe {
        let known = (&raw const (*socket).cookie).read_volatile();
        if known == cookie {
            if (*socket).flows == 1 && close_first((*socket).first as u32, cookie) == 0 {
                release_socket(socket);
            } else {
                (&raw mut (*socket).closed_ns).write_volatile(now());
            }
        } else if (&raw const (*socket).crowded).read_volatile() != 0
            && FLOW_CLOSED.insert(&cookie, &now(), 0).is_err()
        {
            count(CLOSES_UNNOTED);
        }
    }
}

/// Ends the only flow of a socket. Not 0 if another CPU has yet to show its NEW: then the sweep ends the flow.
#[inline(never)]
fn close_first(index: u32, cookie: u64) -> u32 {
    if let Some(flow) = flow_at(index) {
        // SAFETY: words of a map value.
        if unsafe { (*flow).cookie == cookie && (&raw const (*flow).state).read_volatile() == 0 } {
            return 1;
        }
        end(flow, cookie, CLOSED, Cause::ClosedByUs, now());
    }
    0
}

/// Notes that a socket has a flow.
#[inline(always)]
fn note_socket(flow: *mut Flow) {
    // SAFETY: words of a map value.
    let (cookie, index) = unsafe { ((*flow).cookie, (*flow).index) };
    let Some(socket) = FLOW_SOCKETS.get_ptr_mut(socket_index(cookie)) else { return };
    // SAFETY: words of a map value.
    unsafe {
        let word = &raw mut (*socket).cookie;
        let known = word.read_volatile();
        if known == 0 && compare_exchange(word, 0, cookie) == 0 {
            (&raw mut (*socket).first).write_volatile(index.into());
            add(&raw mut (*socket).flows, 1);
        } else if word.read_volatile() == cookie {
            add(&raw mut (*socket).flows, 1);
        } else {
            (&raw mut (*socket).crowded).write_volatile(1);
        }
    }
}

/// Frees the entry of a socket.
///
/// # Safety
/// The entry is a map value, and the socket's.
#[inline(always)]
unsafe fn release_socket(socket: *mut FlowSocket) {
    // SAFETY: see above. The cookie comes last: then another socket may have the entry.
    unsafe {
        (&raw mut (*socket).flows).write_volatile(0);
        (&raw mut (*socket).closed_ns).write_volatile(0);
        (&raw mut (*socket).cookie).write_volatile(0);
    }
}

/// The peer's host refused a packet of a connected socket.
#[inline(always)]
pub(crate) fn on_refusal(packet: &Datagram) {
    if let Some(flow) = Ways::new(packet).find_open() {
        // SAFETY: a word of a map value.
        unsafe { (&raw mut (*flow).refused).write_volatile(1) };
    }
}

/// Emits an event of a flow, if the run wants it.
#[inline(always)]
fn emit_wanted(flow: *mut Flow, now: u64, header: EventHeader) {
    // SAFETY: a map value.
    let connection = unsafe { &(*flow).connection };
    if config::WANTED_KINDS.load() & bit(header.kind) != 0
        && connection.is(WANTED)
        && filter::wants_now(connection)
    {
        emit_flow(flow, now, header);
    }
}
