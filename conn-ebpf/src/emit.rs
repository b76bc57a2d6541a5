//! Events into the ring, written in place.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::maps::ring_buf::RingBufEntry;
use conn_common::cause::Cause;
use conn_common::connection::{Connection, interface_halves};
use conn_common::counter::{LOST, PRODUCED, WAKEUPS};
use conn_common::event::{ATTEMPT, DESTROY, EventRecord, VERSION};
use conn_common::flow::Flow;
use conn_common::protocol::{TCP, UDP};
use conn_common::state::UNSEEN;
use conn_common::traffic::Traffic;

use crate::counter::count;
use crate::filter;
use crate::kernel::Tcp;
use crate::maps::{EVENTS, READER_SLEEPS};
use crate::traffic::{now_jiffies, traffic};

/// The header of an event. Passed by value in one register.
#[derive(Clone, Copy)]
pub(crate) struct EventHeader {
    pub kind: u8,
    pub old_state: u8,
    /// Number of the cause of an end, or `NO_CAUSE`.
    pub cause: u8,
}

/// Writes an attempt that has made no connection yet, with the number of its outcome.
#[inline(never)]
pub(crate) fn emit_attempt(connection: &Connection, outcome: u8) -> u32 {
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(LOST);
        return 0;
    };
    entry.write(EventRecord {
        time_ns: connection.attempt_ns,
        error: 0,
        kind: ATTEMPT,
        old_state: UNSEEN,
        cause: outcome,
        reset: 0,
        version: VERSION,
        protocol: TCP,
        traffic: Traffic::NONE,
        connection: *connection,
    });
    submit(entry);
    0
}

/// Writes one event. In its own function, so that each program holds it once.
#[inline(never)]
pub(crate) fn emit(tcp: Tcp, connection: &Connection, now: u64, header: EventHeader) -> u32 {
    let EventHeader { kind, old_state, cause } = header;
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(LOST);
        return 0;
    };
    let ends = kind == DESTROY;
    let mut traffic = if ends { traffic(tcp, false, now_jiffies()) } else { Traffic::NONE };
    if filter::shows_mark() {
        traffic.send_queue = tcp.mark();
    }
    let [last_sport, scratch] = interface_halves(tcp.interface());
    entry.write(EventRecord {
        time_ns: now,
        error: if ends { tcp.error() } else { 0 },
        kind,
        old_state,
        cause,
        reset: if cause == Cause::ResetByUs as u8 { tcp.reset_flags() } else { 0 },
        version: VERSION,
        protocol: TCP,
        traffic,
        connection: Connection { last_sport, scratch, ..*connection },
    });
    submit(entry);
    0
}

/// Writes one event of a flow.
#[inline(never)]
pub(crate) fn emit_flow(flow: *const Flow, now: u64, header: EventHeader) -> u32 {
    let EventHeader { kind, old_state, cause } = header;
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(LOST);
        return 0;
    };
    // SAFETY: a map value that only this CPU changes, but for its counters.
    let Flow { packets, bytes, ref connection, .. } = unsafe { *flow };
    entry.write(EventRecord {
        time_ns: now,
        error: 0,
        kind,
        old_state,
        cause,
        reset: 0,
        version: VERSION,
        protocol: UDP,
        traffic: if kind == DESTROY { Traffic::of_packets(packets, bytes) } else { Traffic::NONE },
        connection: *connection,
    });
    submit(entry);
    0
}

/// Hands a written record to the reader, and wakes the reader if it sleeps.
#[inline(always)]
fn submit(entry: RingBufEntry<EventRecord>) {
    let mark = READER_SLEEPS.get_ptr_mut(0);
    let mut wakes = clear_mark(mark);
    entry.submit(u64::from(if wakes { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }));
    count(PRODUCED);
    // The reader sets the mark, and then looks into the ring once more. To submit is a full barrier (`xchg()` in
    // `bpf_ringbuf_commit()`, 5.8). So either that look finds the record, or the mark is seen here.
    if !wakes
        && clear_mark(mark)
        && let Some(empty) = EVENTS.reserve_untyped::<u64>(0)
    {
        // Only a commit can wake the reader. The reader skips a discarded record.
        empty.discard(BPF_RB_FORCE_WAKEUP.into());
        wakes = true;
    }
    if wakes {
        count(WAKEUPS);
    }
}

/// Clears the mark of a sleeping reader. True if the mark was set, so that this event wakes the reader. A wake-up
/// costs more than all else of an event, so events do not wake a reader that is awake.
#[inline(always)]
fn clear_mark(mark: Option<*mut u32>) -> bool {
    let Some(mark) = mark else { return false };
    // A plain read and write: if two CPUs both find the mark, one wake-up is too many, and none is missing.
    // SAFETY: an aligned map value.
    unsafe {
        if mark.read_volatile() == 0 {
            return false;
        }
        mark.write_volatile(0);
    }
    true
}
