//! Sockets without a state, since there is no memory for one.
//!
//! A hook knows the old and the new state of a step, and the socket shows its ports, addresses and traffic. So the step is
//! counted, and its event is written. What only a kept state knows is unknown: the connection's id, its times, and an owner
//! that no hook has just noted.
//!
//! Several hooks see each step, and no state says which of them was first. So only the first program on the state
//! tracepoint works here. A listener is not counted: no hook could say later whether its `listen()` succeeded.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_NOEXIST;
use conn_common::connection::{Connection, HELD, IN, OUT, TUPLE_KNOWN};
use conn_common::counter::{STEP_STATELESS, STORAGE_FAILED};
use conn_common::event::{NEW, NO_CAUSE};
use conn_common::lifecycle::opens;
use conn_common::state::{CLOSE, CLOSE_WAIT, ESTABLISHED, LISTEN, SYN_SENT, UNSEEN, is_opening};

use crate::counter::{add, count};
use crate::emit::EventHeader;
use crate::kernel::Tcp;
use crate::maps::STATELESS;
use crate::socket::{Socket, full_socket};
use crate::storage::overflow::displaced;
use crate::storage::pending_owner;
use crate::storage::socket_state::{borrow, clear, give_up};
use crate::{ledger, mode, transition, tuple};

/// True if connections of this namespace were counted and have no kept state. Then a socket without a state is taken for
/// one of them, else for one whose beginning no hook saw.
#[inline(always)]
pub(crate) fn are_in(netns: u32) -> bool {
    are_there()
        // SAFETY: a map value.
        && STATELESS.get_ptr(&netns).is_some_and(|connections| unsafe { connections.read_volatile() } != 0)
}

/// True if there are such connections in any namespace.
#[inline(always)]
pub(crate) fn are_there() -> bool {
    // SAFETY: a word of a map value.
    displaced().is_some_and(|displaced| unsafe { (&raw mut (*displaced).stateless).read_volatile() != 0 })
}

/// A connection of this namespace without a kept state was counted.
#[inline(always)]
fn add_one(netns: u32) {
    let _ = STATELESS.insert(&netns, &0, BPF_NOEXIST.into());
    change(netns, 1);
}

/// A connection of this namespace without a kept state has ended, or has a kept state from now on.
#[inline(always)]
pub(crate) fn remove_one(netns: u32) {
    change(netns, u64::MAX);
}

#[inline(always)]
fn change(netns: u32, amount: u64) {
    if let (Some(connections), Some(displaced)) = (STATELESS.get_ptr_mut(&netns), displaced()) {
        add(connections, amount);
        // SAFETY: a word of a map value.
        add(unsafe { &raw mut (*displaced).stateless }, amount);
    }
}

/// A hook saw the socket go from `old` to `new`.
#[inline(never)]
pub(crate) fn on_step(sk: *mut c_void, old: u8, new: u8) -> u32 {
    if old == LISTEN && new == CLOSE || new == LISTEN {
        return 0;
    }
    with_scratch(sk, |tcp, state| {
        count(STEP_STATELESS);
        if opens(old, new) {
            open(tcp, state, new);
            return;
        }
        adopt(sk, state, old);
        transition::catch_up(Socket::with_scratch(sk, state), new);
        if new == CLOSE || mode::skips(new) {
            remove_one(tcp.netns());
        }
    })
}

/// The walk of the start, or an audit, found the socket in `state`.
#[inline(never)]
pub(crate) fn on_found(sk: *mut c_void, state: u8) -> u32 {
    if state == LISTEN {
        return 0;
    }
    with_scratch(sk, |tcp, scratch| {
        transition::adopt(Socket::with_scratch(sk, scratch), state);
        add_one(tcp.netns());
    })
}

/// Works with the state of a TCP socket in a scratch slot.
#[inline(always)]
fn with_scratch(sk: *mut c_void, work: impl FnOnce(Tcp, *mut Connection)) -> u32 {
    let Some(tcp) = full_socket(sk) else { return 0 };
    let scratch = borrow();
    if scratch.is_null() {
        count(STORAGE_FAILED);
        return 0;
    }
    clear(scratch);
    work(tcp, scratch);
    give_up(scratch);
    0
}

/// A connection begins in `state`. NEW comes with its next step: its tuple may not be known yet, and no state would say
/// whether NEW was written.
#[inline(always)]
fn open(tcp: Tcp, state: *mut Connection, new: u8) {
    // SAFETY: a scratch slot that only this hook uses, of which a run that only counts uses the first bytes.
    let connection = unsafe { &mut *state };
    transition::reset(tcp, connection, new);
    pending_owner::forget(tcp);
    connection.direction = if new == SYN_SENT { OUT } else { IN };
    tuple::set_ports(tcp, connection, tcp.num());
    ledger::record_open(connection, new);
    add_one(connection.netns);
}

/// Makes the state of a connection in `old` again.
#[inline(always)]
fn adopt(sk: *mut c_void, state: *mut Connection, old: u8) {
    transition::adopt(Socket::with_scratch(sk, state), old);
    // SAFETY: as in `open`.
    let connection = unsafe { &mut *state };
    add_one(connection.netns);
    if !mode::only_counts() {
        connection.id = 0;
    }
}

/// Makes NEW of a connection whose steps so far were counted without a state, and notes what its state shows.
#[inline(always)]
pub(crate) fn announce(tcp: Tcp, connection: &mut Connection) {
    if is_opening(connection.state) {
        // If a hook sees each connect, no segment before the end means that no SYN was ever sent.
        if connection.direction == OUT && tcp.segments().0 == 0 {
            connection.flags &= !TUPLE_KNOWN;
        }
        let header = EventHeader { kind: NEW, old_state: UNSEEN, cause: NO_CAUSE };
        transition::emit_wanted(tcp, connection, transition::now(), header);
    } else if connection.state != ESTABLISHED && connection.state != CLOSE_WAIT {
        // Only a process that has the socket leads here, by `close()` or `shutdown()`.
        connection.set(HELD);
    }
}
