//! Columns of traffic and queues.

use conn_common::protocol::TCP;
use conn_common::traffic::Traffic;

use super::{Cell, Column, ConventionNames, END_AND_NOW, NOW, PLAIN, Unit};
use crate::event::enriched::Enriched;

/// The defaults of these columns.
const COUNT: Column = Column { kinds: END_AND_NOW, ..PLAIN };
const NOT_MEASURED: &str = "the kernel has not measured it";
const NO_DROPS: &str = "neither a listener nor of UDP, or the kernel does not show it";
const NO_LISTENER: &str = "not a listener, or the kernel does not show it";
const NO_COUNTERS: &str = "in TIME_WAIT, before the handshake is complete, or in a list of UDP sockets";
const NO_QUEUES: &str = "in TIME_WAIT, or before the handshake is complete";

/// Bytes; of a listener, connections.
fn queue<'a>(event: &Enriched, part: fn(&Traffic) -> u32) -> Cell<'a> {
    let length = event.queue_of(part);
    if event.connection.is_listener() && event.protocol == TCP {
        Cell::number(length)
    } else {
        Cell::bytes(length)
    }
}

pub(super) static COLUMNS: [Column; 12] = [
    Column {
        id: "bytes_sent",
        title: "SENT",
        width: 7,
        unit: Unit::Bytes,
        help: "payload sent, without retransmissions",
        names: ConventionNames { otel: "conntrace.bytes_sent", ecs: "" },
        unknown: NO_COUNTERS,
        get: |event, _| Cell::bytes(event.traffic_of(|traffic| traffic.bytes_sent)),
        ..COUNT
    },
    Column {
        id: "bytes_received",
        title: "RECEIVED",
        width: 8,
        unit: Unit::Bytes,
        help: "payload received, in order",
        names: ConventionNames { otel: "conntrace.bytes_received", ecs: "" },
        unknown: NO_COUNTERS,
        get: |event, _| Cell::bytes(event.traffic_of(|traffic| traffic.bytes_received)),
        ..COUNT
    },
    Column {
        id: "segments_sent",
        title: "SEGS_SENT",
        width: 9,
        unit: Unit::Segments,
        help: "segments sent, with retransmissions and segments without payload; of UDP, packets",
        names: ConventionNames { otel: "conntrace.segments_sent", ecs: "" },
        unknown: NO_COUNTERS,
        get: |event, _| Cell::number(event.packets_sent()),
        ..COUNT
    },
    Column {
        id: "segments_received",
        title: "SEGS_RCVD",
        width: 9,
        unit: Unit::Segments,
        help: "segments received; of UDP, packets",
        names: ConventionNames { otel: "conntrace.segments_received", ecs: "" },
        unknown: NO_COUNTERS,
        get: |event, _| Cell::number(event.packets_received()),
        ..COUNT
    },
    Column {
        id: "retransmits",
        title: "RETRANS",
        unit: Unit::Segments,
        help: "segments retransmitted",
        names: ConventionNames { otel: "conntrace.retransmits", ecs: "conntrace.retransmits" },
        unknown: NO_COUNTERS,
        get: |event, _| Cell::number(event.tcp_traffic_of(|traffic| traffic.retransmits)),
        ..COUNT
    },
    Column {
        id: "srtt_us",
        title: "SRTT_US",
        unit: Unit::Microseconds,
        help: "smoothed round trip time",
        unknown: NOT_MEASURED,
        names: ConventionNames { otel: "conntrace.srtt", ecs: "conntrace.srtt_us" },
        get: |event, _| Cell::number(Some(event.traffic.srtt_us).filter(|&us| us != 0)),
        ..COUNT
    },
    Column {
        id: "min_rtt_us",
        title: "MIN_RTT_US",
        width: 10,
        unit: Unit::Microseconds,
        help: "shortest round trip time of the last minutes",
        unknown: NOT_MEASURED,
        names: ConventionNames { otel: "conntrace.min_rtt", ecs: "conntrace.min_rtt_us" },
        get: |event, _| Cell::number(Some(event.traffic.min_rtt_us).filter(|&us| us != 0)),
        ..COUNT
    },
    Column {
        id: "idle_ns",
        title: "IDLE_NS",
        width: 13,
        unit: Unit::Nanoseconds,
        help: "time since the last payload in either direction, or since the handshake, until the end or now. One \
               tick of the kernel (1 to 10 ms) more or less",
        unknown: "never established",
        names: ConventionNames { otel: "conntrace.connection.idle", ecs: "conntrace.connection.idle_ns" },
        get: |event, _| Cell::number(event.idle_ns),
        ..COUNT
    },
    Column {
        id: "receive_queue",
        title: "RECV-Q",
        width: 6,
        unit: Unit::Bytes,
        help: "bytes received that the process has not read; of a listener, connections that wait to be accepted; of UDP with the \
               overhead of the kernel",
        kinds: NOW,
        names: ConventionNames { otel: "conntrace.receive_queue", ecs: "conntrace.receive_queue" },
        unknown: NO_QUEUES,
        get: |event, _| queue(event, |traffic| traffic.receive_queue),
        ..COUNT
    },
    Column {
        id: "send_queue",
        title: "SEND-Q",
        width: 6,
        unit: Unit::Bytes,
        help: "bytes not sent yet or not acknowledged; of a listener, how many connections may wait; of UDP with the overhead of \
               the kernel",
        kinds: NOW,
        names: ConventionNames { otel: "conntrace.send_queue", ecs: "conntrace.send_queue" },
        unknown: NO_QUEUES,
        get: |event, _| queue(event, |traffic| traffic.send_queue),
        ..COUNT
    },
    Column {
        id: "half_open",
        title: "HALF_OPEN",
        width: 9,
        help: "of a listener, half-open requests now: SYNs that it took, whose handshakes are not complete",
        kinds: NOW,
        names: ConventionNames { otel: "conntrace.half_open", ecs: "conntrace.half_open" },
        unknown: NO_LISTENER,
        get: |event, _| Cell::number(event.half_open),
        ..COUNT
    },
    Column {
        id: "dropped",
        title: "DROPPED",
        help: "of a listener or a UDP socket, packets that it has dropped since it was made, such as SYNs and last ACKs that find \
               a queue full",
        kinds: NOW,
        names: ConventionNames { otel: "conntrace.dropped", ecs: "conntrace.dropped" },
        unknown: NO_DROPS,
        get: |event, _| Cell::number(event.dropped),
        ..COUNT
    },
];
