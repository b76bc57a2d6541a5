//! Columns for people, shown on demand: readable forms of other columns, and facts that cost a look-up.

use super::{Cell, Column, END_AND_NOW, NO_ATTEMPT, PLAIN, Type};
use crate::event::enriched::Enriched;
use crate::host::clock::WallClock;

/// The defaults of these columns.
const HUMAN: Column = Column { native: false, ..PLAIN };

pub(super) static COLUMNS: [Column; 11] = [
    Column {
        id: "local",
        title: "LOCAL",
        width: 21,
        kind: Type::Endpoint,
        help: "address and port of this host's end",
        get: |event, _| end(event, event.is_src_ours()),
        ..HUMAN
    },
    Column {
        id: "peer",
        title: "PEER",
        width: 21,
        kind: Type::Endpoint,
        help: "address and port of the peer",
        get: |event, _| end(event, !event.is_src_ours()),
        ..HUMAN
    },
    Column {
        id: "started",
        title: "STARTED",
        width: 19,
        kind: Type::Time,
        help: "date and time of the attempt",
        unknown: NO_ATTEMPT,
        get: |event, clock| event.attempt_ns().map_or(Cell::Unknown, |ns| Cell::Date(clock.to_unix_ns(ns))),
        ..HUMAN
    },
    Column {
        id: "handshake",
        title: "HANDSHAKE",
        width: 9,
        kind: Type::Duration,
        help: "time from the attempt to the end of the handshake",
        unknown: "attempt_ns or established_ns is unknown",
        get: |event, _| Cell::duration(event.handshake_ns(), None),
        ..HUMAN
    },
    Column {
        id: "lifetime",
        title: "LIFETIME",
        width: 9,
        kind: Type::Duration,
        help: "time from the attempt to the end, or until now; a lower bound (>=) if the connection is older than \
               conntrace",
        unknown: "no lower bound is known",
        kinds: END_AND_NOW,
        get: lifetime,
        ..HUMAN
    },
    Column {
        id: "age",
        title: "AGE",
        width: 9,
        kind: Type::Duration,
        help: "the same as lifetime, under the name for open connections",
        unknown: "no lower bound is known",
        kinds: END_AND_NOW,
        get: lifetime,
        ..HUMAN
    },
    Column {
        id: "idle",
        title: "IDLE",
        width: 9,
        kind: Type::Duration,
        help: "time since the last payload, as idle_ns",
        unknown: "never established",
        kinds: END_AND_NOW,
        get: |event, _| Cell::duration(event.idle_ns, None),
        ..HUMAN
    },
    Column {
        id: "slice",
        title: "SLICE",
        width: 16,
        kind: Type::Text,
        help: "the innermost slice above the owner's unit, as in _SYSTEMD_SLICE of the journal",
        unknown: "not in a slice, or unknown",
        get: |event, _| Cell::unit(event.workload.as_ref().and_then(|workload| workload.slice.as_deref())),
        ..HUMAN
    },
    Column {
        id: "user_slice",
        title: "USER_SLICE",
        width: 16,
        kind: Type::Text,
        help: "the innermost slice above the owner's user_unit, as in _SYSTEMD_USER_SLICE of the journal",
        unknown: "not in a unit of a user's service manager, or unknown",
        get: |event, _| {
            Cell::unit(event.workload.as_ref().and_then(|workload| workload.user_slice.as_deref()))
        },
        ..HUMAN
    },
    Column {
        id: "processes",
        title: "PROCESSES",
        width: 15,
        kind: Type::Processes,
        help: "name and id of each process that has the socket open; in events those of the owner",
        unknown: "owner unknown",
        get: |event, _| match event.processes() {
            [] => Cell::Unknown,
            processes => Cell::Processes(processes),
        },
        ..HUMAN
    },
    Column {
        id: "cmdline",
        title: "CMDLINE",
        width: 24,
        kind: Type::Text,
        help: "command line of the owner's process, read from /proc when the process is first seen",
        unknown: "owner unknown, the process ended before it was read, or the process has no command line",
        get: |event, _| Cell::name(event.command_line.as_deref()),
        ..HUMAN
    },
];

fn lifetime<'a>(event: &'a Enriched, _: &WallClock) -> Cell<'a> {
    Cell::duration(event.lifetime_ns().or(event.age_ns()), event.at_least_ns)
}

fn end(event: &Enriched, is_initiator: bool) -> Cell<'_> {
    let (socket, name, is_service) = if is_initiator {
        (event.initiator(), &event.src_name, false)
    } else {
        (event.responder(), &event.dst_name, event.is_directed())
    };
    Cell::Endpoint { socket, name: name.as_deref(), scope: event.scope(socket.ip()), is_service }
}
