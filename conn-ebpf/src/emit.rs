//! Events into the ring, written in place.

use aya_ebpf::bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use conn_common::cause::Cause;
use conn_common::connection::Connection;
use conn_common::counter::{LOST, PRODUCED, WAKEUPS};
use conn_common::event::{DESTROY, EventRecord};
use conn_common::traffic::Traffic;

use crate::counter::count;
use crate::kernel::Tcp;
use crate::maps::{EVENTS, READER_SLEEPS};
use crate::traffic::{now_jiffies, traffic};

/// What happened. Passed by value in one register.
#[derive(Clone, Copy)]
pub struct What {
    pub kind: u8,
    pub old_state: u8,
    /// Number of the cause of an end, or `NO_CAUSE`.
    pub cause: u8,
}

/// Writes one event. In its own function, so that each program holds it once.
#[inline(never)]
pub fn emit(tcp: Tcp, connection: &Connection, now: u64, what: What) -> u32 {
    let What { kind, old_state, cause } = what;
    let Some(mut entry) = EVENTS.reserve(0) else {
        count(LOST);
        return 0;
    };
    let ends = kind == DESTROY;
    entry.write(EventRecord {
        time_ns: now,
        error: if ends { tcp.error() } else { 0 },
        kind,
        old_state,
        cause,
        reset: if cause == Cause::ResetByUs as u8 { tcp.reset_flags() } else { 0 },
        reserved: 0,
        traffic: if ends { traffic(tcp, false, now_jiffies()) } else { Traffic::NONE },
        connection: *connection,
    });
    let wake = reader_sleeps();
    entry.submit(u64::from(if wake { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP }));
    count(PRODUCED);
    if wake {
        count(WAKEUPS);
    }
    0
}

/// True if the reader sleeps and this event is to wake it. A wake-up costs more than all else an
/// event does, so a reader that is awake looks by itself, on a timer. Two CPUs may both wake it:
/// one wake-up too many.
#[inline(always)]
fn reader_sleeps() -> bool {
    let Some(sleeps) = READER_SLEEPS.get_ptr_mut(0) else { return true };
    // SAFETY: an aligned map value; a race only repeats a wake-up.
    unsafe {
        if sleeps.read_volatile() == 0 {
            return false;
        }
        sleeps.write_volatile(0);
    }
    true
}
