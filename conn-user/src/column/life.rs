//! Columns of times, durations, and reasons of ends.

use conn_common::attempt::Attempt;
use conn_common::cause::{CLOSED, Cause};
use conn_common::reset::Reset;

use super::{ATTEMPT, Cell, Column, ConventionNames, END, END_AND_NOW, NO_ATTEMPT, NOW, PLAIN, Type, Unit};

const CAUSES: [&str; Cause::COUNT + 1] = {
    let mut names = [CLOSED; Cause::COUNT + 1];
    let mut at = 0;
    while at < Cause::COUNT {
        names[at] = Cause::ALL[at].name();
        at += 1;
    }
    names
};

const RESETS: [&str; Reset::ALL.len()] = {
    let mut names = [""; Reset::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Reset::ALL[at].name();
        at += 1;
    }
    names
};

const ATTEMPTS: [&str; Attempt::ALL.len()] = {
    let mut names = [""; Attempt::ALL.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = Attempt::ALL[at].name();
        at += 1;
    }
    names
};

pub(super) static COLUMNS: [Column; 11] = [
    Column {
        id: "attempt_ns",
        title: "ATTEMPT_NS",
        width: 19,
        unit: Unit::UnixNanoseconds,
        help: "time of the attempt; of a listener, when it began to listen",
        unknown: NO_ATTEMPT,
        names: ConventionNames { otel: "conntrace.connection.attempt", ecs: "" },
        get: |event, clock| Cell::unix_ns(event.attempt_ns().map(|ns| clock.to_unix_ns(ns))),
        ..PLAIN
    },
    Column {
        id: "established_ns",
        title: "ESTABLISHED_NS",
        width: 19,
        unit: Unit::UnixNanoseconds,
        help: "time at which the handshake was complete",
        unknown: "not established, or not seen",
        names: ConventionNames {
            otel: "conntrace.connection.established",
            ecs: "conntrace.connection.established_ns",
        },
        get: |event, clock| Cell::unix_ns(event.established_ns().map(|ns| clock.to_unix_ns(ns))),
        ..PLAIN
    },
    Column {
        id: "handshake_ns",
        title: "HANDSHAKE_NS",
        width: 12,
        unit: Unit::Nanoseconds,
        help: "time from the attempt to the end of the handshake",
        unknown: "attempt_ns or established_ns is unknown",
        names: ConventionNames {
            otel: "conntrace.connection.handshake_duration",
            ecs: "conntrace.connection.handshake_ns",
        },
        get: |event, _| Cell::number(event.handshake_ns()),
        ..PLAIN
    },
    Column {
        id: "lifetime_ns",
        title: "LIFETIME_NS",
        width: 13,
        unit: Unit::Nanoseconds,
        help: "time from the attempt to the end, without TIME_WAIT",
        unknown: NO_ATTEMPT,
        kinds: END,
        names: ConventionNames { otel: "conntrace.connection.duration", ecs: "event.duration" },
        get: |event, _| Cell::number(event.lifetime_ns()),
        ..PLAIN
    },
    Column {
        id: "age_ns",
        title: "AGE_NS",
        width: 13,
        unit: Unit::Nanoseconds,
        help: "time from the attempt until now",
        unknown: NO_ATTEMPT,
        kinds: NOW,
        names: ConventionNames { otel: "conntrace.connection.age", ecs: "conntrace.connection.age_ns" },
        get: |event, _| Cell::number(event.age_ns()),
        ..PLAIN
    },
    Column {
        id: "at_least_ns",
        title: "AT_LEAST_NS",
        width: 13,
        unit: Unit::Nanoseconds,
        help: "lower bound of the lifetime or age of a connection that is older than conntrace",
        unknown: "the connection is not preexisting",
        kinds: END_AND_NOW,
        names: ConventionNames {
            otel: "conntrace.connection.duration_at_least",
            ecs: "conntrace.connection.duration_at_least_ns",
        },
        get: |event, _| Cell::number(event.at_least_ns),
        ..PLAIN
    },
    Column {
        id: "failed",
        title: "FAILED",
        width: 6,
        kind: Type::Boolean,
        help: "true if the connection was never established",
        unknown: "a flow of connection tracking, which does not say it",
        kinds: END,
        names: ConventionNames { otel: "conntrace.connection.failed", ecs: "conntrace.connection.failed" },
        get: |event, _| if event.is_entry() { Cell::Unknown } else { Cell::Boolean(event.is_failed()) },
        ..PLAIN
    },
    Column {
        id: "reason",
        title: "REASON",
        width: 14,
        kind: Type::Word(&CAUSES),
        help: "why the connection ended or failed",
        unknown: "a flow of connection tracking, which does not say it",
        kinds: END,
        names: ConventionNames { otel: "conntrace.reason", ecs: "event.reason" },
        get: |event, _| Cell::word(event.end_name()),
        ..PLAIN
    },
    Column {
        id: "reset",
        title: "RESET",
        width: 11,
        kind: Type::Word(&RESETS),
        help: "why this host reset the connection (reason reset_by_us): closed with data unread, with SO_LINGER 0, \
               or in FIN_WAIT2 with TCP_LINGER2 below 0; or disconnected",
        unknown: "this host did not reset it, or more than one cause qualifies",
        kinds: END,
        names: ConventionNames {
            otel: "conntrace.connection.reset_reason",
            ecs: "conntrace.connection.reset_reason",
        },
        get: |event, _| Cell::word(event.reset.map(Reset::name)),
        ..PLAIN
    },
    Column {
        id: "error",
        title: "ERROR",
        width: 12,
        kind: Type::Text,
        help: "error of the socket at the end, by name (ECONNREFUSED), or as errno 999 if it has no name",
        unknown: "no error",
        kinds: END,
        names: ConventionNames { otel: "error.type", ecs: "error.code" },
        get: |event, _| if event.error == 0 { Cell::Unknown } else { Cell::Errno(event.error) },
        ..PLAIN
    },
    Column {
        id: "attempt",
        title: "ATTEMPT",
        width: 9,
        kind: Type::Word(&ATTEMPTS),
        help: "the outcome of a SYN that has made no connection yet: a listener took it (half_open), this host answered \
               with a reset because no socket listens (refused), or the accept queue was full (dropped)",
        kinds: ATTEMPT,
        names: ConventionNames { otel: "conntrace.attempt.outcome", ecs: "conntrace.attempt.outcome" },
        get: |event, _| Cell::word(event.attempt.map(Attempt::name)),
        ..PLAIN
    },
];
