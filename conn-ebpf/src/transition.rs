//! Applies a transition: the kept state, the ledger, and the events that are wanted.

use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use conn_common::cause::{Cause, Ending};
use conn_common::connection::{
    ANNOUNCED, Connection, HELD, IN, LISTENER, LISTENING, OUT, PREEXISTING, TUPLE_KNOWN, UNDIRECTED, WANTED,
    WAS_ESTABLISHED,
};
use conn_common::counter::ADOPTED_LATE;
use conn_common::event::{CLOSED, DESTROY, LISTEN as LISTENS, NEW, NO_CAUSE, UPDATE};
use conn_common::filter::bit;
use conn_common::name::NO_OWNERS;
use conn_common::owner::{CONNECT, KERNEL};
use conn_common::remote::INSTEAD_OF_EVENTS;
use conn_common::state::{CLOSE, LISTEN, SYN_RECV, SYN_SENT, UNSEEN, is_open, is_opening};

use crate::counter::count;
use crate::emit::{EventHeader, emit};
use crate::kernel::Tcp;
use crate::maps::WALKED;
use crate::owner::{self, listener, mptcp};
use crate::socket::Socket;
use crate::storage::{pending_owner, socket_state};
use crate::verifier::opaque;
use crate::{config, filter, ledger, mode, remote, stateless, tuple};

/// Begins a connection or a listener. In its own function, like the next two, so that each program holds it once.
#[inline(never)]
pub(crate) fn open(mut socket: Socket<'_>, state: u8) -> u32 {
    let Some(tcp) = socket.tcp() else { return 0 };
    let connection = socket.connection();
    reset(tcp, connection, state);
    pending_owner::forget(tcp);
    let direction = match state {
        SYN_SENT => OUT,
        LISTEN => UNDIRECTED,
        _ => IN,
    };
    connection.direction = opaque(connection, direction.into()) as u8;
    let state = opaque(connection, state.into()) as u8;
    if connection.direction == OUT {
        connection.set(HELD);
    }
    if connection.direction != IN && config::OWNERS.load() != NO_OWNERS {
        connection.owner = owner::current(CONNECT);
        if connection.owner.flags & KERNEL != 0 {
            mptcp::assign_owner(tcp, &mut connection.owner);
        }
    }
    set_addresses(tcp, connection, state);
    tuple::set_ports(tcp, connection, tcp.num());
    if connection.direction == IN {
        listener::assign_owner(tcp, connection);
    }
    if state == LISTEN {
        connection.set(LISTENER);
    } else {
        ledger::record_open(connection, state);
        // Below 6.15 a child still has the listener's tuple here (`inet_csk_clone_lock()`), with no peer. The port of a
        // socket that connects is chosen later; if a hook sees that, NEW waits for it.
        let is_child = state == SYN_RECV;
        if connection.sport != 0 && (is_child || config::CONNECT_IS_SEEN.load() == 0) {
            announce_new(tcp, connection);
        }
    }
    0
}

/// Begins to keep a socket in the middle of its life.
#[inline(never)]
pub(crate) fn adopt(mut socket: Socket<'_>, state: u8) -> u32 {
    let Some(tcp) = socket.tcp() else { return 0 };
    let connection = socket.connection();
    reset(tcp, connection, state);
    tuple::set_of_existing(tcp, connection, state);
    if !mode::only_counts() {
        connection.attempt_ns = 0;
    }
    set_addresses(tcp, connection, state);
    let is_walked = WALKED.get_ptr(&connection.netns).is_some();
    // Its steps so far were counted without a state.
    let is_counted = state != LISTEN && stateless::are_in(connection.netns);
    if is_counted {
        stateless::remove_one(connection.netns);
    } else if is_walked {
        count(ADOPTED_LATE);
        pending_owner::forget(tcp);
    } else {
        // A pending owner may have been noted before this hook, so it stays.
        connection.set(PREEXISTING);
    }
    if state == LISTEN {
        // It was there before, so its `listen()` did succeed.
        connection.set(LISTENING);
        ledger::record_listener_open(tcp, connection);
        listener::record_adopted(tcp);
        return 0;
    }
    if !is_opening(state) {
        connection.set(WAS_ESTABLISHED);
    }
    connection.set(TUPLE_KNOWN | ANNOUNCED);
    if tcp.is_held() {
        connection.set(HELD);
    }
    if !mode::only_counts() && filter::wants(connection) {
        connection.set(WANTED);
    }
    if is_counted {
        stateless::announce(tcp, connection);
    } else {
        ledger::record_open(connection, state);
    }
    0
}

/// The same as [`apply`], which each program holds a second time: the path of nearly all steps shall have no call.
#[inline(never)]
pub(crate) fn catch_up(socket: Socket<'_>, state: u8) -> u32 {
    apply(socket, state)
}

/// Applies a transition to the kept life: it goes on, or ends.
#[inline(always)]
pub(crate) fn apply(mut socket: Socket<'_>, to: u8) -> u32 {
    let connection = socket.connection();
    let from = connection.state;
    connection.state = to;
    // Of the sockets that hooks see, only listeners have no direction. The flag would say the same, but the verifier
    // would follow 3 % more instructions in `events`.
    if connection.direction == UNDIRECTED {
        if connection.is(LISTENING) {
            if mode::shows_listeners() {
                let header = EventHeader { kind: CLOSED, old_state: LISTEN, cause: NO_CAUSE };
                // The owner may be in the note that the next line removes.
                emit_listener(socket.reborrow(), now(), header);
            }
            listener::record_end(socket.address());
            let Some(tcp) = socket.tcp() else { return 0 };
            ledger::record_listener_end(tcp, socket.connection());
        }
        return 0;
    }
    let now = if mode::only_begins() { 0 } else { now() };
    let Some(tcp) = socket.tcp() else { return 0 };
    let connection = socket.connection();
    let was_held = connection.is(HELD);
    let holds = tcp.is_held();
    if holds {
        connection.set(HELD);
    }
    owner::assign(tcp, connection, was_held);
    // If a hook sees each connect, no tuple before the end means that no SYN was ever sent.
    let mut sent = connection.is(TUPLE_KNOWN);
    if !sent {
        let mut local = tcp.num();
        if local == 0 {
            local = tcp.sport();
            if connection.direction == OUT && local == connection.last_sport {
                local = 0;
            }
        }
        if connection.direction == OUT {
            connection.sport = local;
            // With fast open, the kernel chooses a port and puts off the SYN until there is something to send.
            sent = config::CONNECT_IS_SEEN.load() == 0 && tcp.segments().0 != 0;
        } else {
            // A connection is never in LISTEN.
            set_addresses(tcp, connection, SYN_RECV);
            connection.sport = tcp.dport();
            sent = true;
        }
        // The event of an end must not be the first event of its connection.
        connection.state = from;
        announce_new(tcp, connection);
        connection.state = to;
    }
    if to == CLOSE {
        let held = connection.is(HELD);
        let error = tcp.error();
        let (peer_closed, never_lingers) = (tcp.peer_closed(), tcp.never_lingers());
        let in_repair = tcp.in_repair();
        let cause =
            Cause::of(Ending { from, error, sent, held, holds, peer_closed, never_lingers, in_repair });
        let cause = opaque(connection, (cause as u8).into()) as u8;
        ledger::record_end(tcp, connection, from, cause);
        ledger::record_lifetime(connection, now);
        let kinds = config::WANTED_KINDS.load();
        if kinds == INSTEAD_OF_EVENTS {
            if is_opening(from) {
                remote::record_failed(connection);
            }
            return 0;
        }
        emit_wanted_of(kinds, tcp, connection, now, EventHeader { kind: DESTROY, old_state: from, cause });
        return 0;
    }
    record_step(connection, from, to, now);
    if is_open(to) {
        emit_wanted(tcp, connection, now, EventHeader { kind: UPDATE, old_state: from, cause: NO_CAUSE });
    }
    0
}

/// Records the step of a connection to another open state.
#[inline(always)]
pub(crate) fn record_step(connection: &mut Connection, from: u8, to: u8, now: u64) {
    ledger::record_step(connection, from, to);
    if is_opening(from) && !is_opening(to) {
        if !mode::only_counts() {
            connection.established_ns = now;
        }
        ledger::record_handshake(connection, now);
        connection.set(WAS_ESTABLISHED);
    }
}

/// The whole tuple of a connecting socket is known: sock_ops TCP_CONNECT, after the source port is chosen and before the
/// SYN leaves (`tcp_connect()`).
#[inline(always)]
pub(crate) fn on_connect(mut socket: Socket<'_>) {
    let Some(tcp) = socket.tcp() else { return };
    let connection = socket.connection();
    if connection.is(TUPLE_KNOWN) {
        return;
    }
    if !mode::only_counts() && tcp.opens_fast() {
        connection.attempt_ns = now();
    }
    set_addresses(tcp, connection, SYN_SENT);
    tuple::set_ports(tcp, connection, tcp.num());
    announce_new(tcp, connection);
}

/// `listen()` succeeded and the port is chosen: sock_ops TCP_LISTEN (`__inet_listen_sk()`).
#[inline(always)]
pub(crate) fn on_listen(mut socket: Socket<'_>) {
    let Some(tcp) = socket.tcp() else { return };
    let connection = socket.connection();
    if connection.is(LISTENING) || !connection.is_listener() {
        return;
    }
    tuple::set_ports(tcp, connection, tcp.num());
    connection.set(LISTENING);
    ledger::record_listener_open(tcp, connection);
    listener::record_open(tcp, connection);
    if mode::shows_listeners() {
        let begin = connection.attempt_ns;
        let header = EventHeader { kind: LISTENS, old_state: UNSEEN, cause: NO_CAUSE };
        emit_listener(socket, begin, header);
    }
}

/// Emits an event of a listener, if the run wants it.
#[inline(never)]
fn emit_listener(mut socket: Socket<'_>, now: u64, header: EventHeader) -> u32 {
    let sk = socket.address();
    let Some(tcp) = socket.tcp() else { return 0 };
    let connection = socket.connection();
    listener::complete_owner(sk, &mut connection.owner);
    if filter::wants(connection) {
        connection.set(WANTED);
    }
    emit_wanted(tcp, connection, now, header);
    0
}

/// Sets the addresses, if the state has room for them.
#[inline(always)]
fn set_addresses(tcp: Tcp, connection: &mut Connection, state: u8) {
    if !mode::only_counts() {
        tuple::set_addresses(tcp, connection, state);
    }
}

/// The time, nanoseconds of `CLOCK_BOOTTIME`; 0 in a run that only counts, which needs no times.
#[inline(always)]
pub(crate) fn now() -> u64 {
    if mode::only_counts() {
        return 0;
    }
    // SAFETY: no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// Clears the state for a new life, but keeps the fields that the next attempt on this socket needs.
#[inline(always)]
pub(crate) fn reset(tcp: Tcp, connection: &mut Connection, state: u8) {
    let last_sport = connection.sport;
    socket_state::clear(connection);
    if !mode::only_counts() {
        let now = now();
        // SAFETY: no preconditions.
        connection.id = Connection::id_at(now, unsafe { bpf_get_smp_processor_id() });
        connection.attempt_ns = now;
    }
    connection.netns = tcp.netns();
    connection.state = state;
    connection.last_sport = last_sport;
}

/// The tuple is known: decides whether the run wants the connection, and emits NEW.
#[inline(always)]
fn announce_new(tcp: Tcp, connection: &mut Connection) {
    connection.set(TUPLE_KNOWN);
    let kinds = config::WANTED_KINDS.load();
    if kinds == 0 {
        return;
    }
    if kinds == INSTEAD_OF_EVENTS {
        remote::record_opened(connection);
        return;
    }
    if filter::wants(connection) {
        connection.set(WANTED);
    }
    if !connection.is(ANNOUNCED) {
        connection.set(ANNOUNCED);
        let attempt = connection.attempt_ns;
        emit_wanted(tcp, connection, attempt, EventHeader { kind: NEW, old_state: UNSEEN, cause: NO_CAUSE });
    }
}

/// Emits an event if the run wants it.
#[inline(always)]
pub(crate) fn emit_wanted(tcp: Tcp, connection: &Connection, now: u64, header: EventHeader) {
    emit_wanted_of(config::WANTED_KINDS.load(), tcp, connection, now, header);
}

/// The same where the wanted kinds have been loaded.
#[inline(always)]
fn emit_wanted_of(kinds: u8, tcp: Tcp, connection: &Connection, now: u64, header: EventHeader) {
    if kinds & bit(header.kind) != 0
        && connection.is(WANTED)
        && filter::wants_now(connection)
        && filter::wants_mark_of(tcp)
    {
        emit(tcp, connection, now, header);
    }
}
