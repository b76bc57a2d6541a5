//! The inverse of `-o json`: a line becomes the event, or the loss, that it was written from.
//!
//! The line says all that an event holds. Its times are unix time, so a reader needs the clock of the writer to have
//! the same event, or [`WallClock::with_offset`] 0 to have an event whose times are unix time. A command line is a
//! column on demand and no part of the line.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use conn_common::attempt::Attempt;
use conn_common::cause::Cause;
use conn_common::connection::{
    Connection, FORWARD, IN, LISTENER, OUT, PERHAPS_IN, PREEXISTING, QUIC, UNDIRECTED, WAS_ESTABLISHED,
    interface_halves,
};
use conn_common::owner::{COMM, Owner, SHARED, SOURCES, UNKNOWN};
use conn_common::protocol::UDP;
use conn_common::quic;
use conn_common::reset::Reset;
use conn_common::state::{LISTEN, UNSEEN};
use conn_common::traffic::Traffic;
use serde::Deserialize;

use crate::event::direction::LISTEN as LISTENS;
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::event::lost::{Lost, LostGroup};
use crate::event::tracked::Tracked;
use crate::event::workload::{Container, ContainerNames, Workload};
use crate::event::{Event, errno, state_name};
use crate::host::clock::WallClock;
use crate::render::json::SCHEMA;

mod tracked;

use tracked::TrackedFields;

/// The source of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// An event.
    Event(Box<Enriched>),
    /// A loss.
    Lost(Lost),
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The line is no JSON object, or lacks a field.
    #[error("this is not a line of -o json: {0}")]
    Json(#[from] serde_json::Error),
    /// The line is of a version that this reader does not know.
    #[error("the line has schema {0}, and conntrace knows schema {SCHEMA} only")]
    Schema(u64),
    /// A field has a value without a meaning.
    #[error("{key} has no meaning: {value:?}")]
    Value {
        /// The key of the field.
        key: &'static str,
        /// The value.
        value: String,
    },
}

/// The fields that every line has.
#[derive(Deserialize)]
struct Head<'a> {
    schema: u64,
    #[serde(borrow)]
    event: Cow<'a, str>,
}

/// The fields of a loss.
#[derive(Deserialize)]
struct LostFields {
    lost: u64,
    since_ns: i64,
    until_ns: i64,
    #[serde(default)]
    lost_event: Option<String>,
    #[serde(default)]
    netns: Option<u32>,
}

/// The fields of an event. A field without a meaning for its kind is absent.
#[derive(Deserialize)]
struct Fields {
    time_ns: i64,
    id: Option<u64>,
    direction: Option<String>,
    local_end: Option<String>,
    protocol: Option<String>,
    state: Option<String>,
    old_state: Option<String>,
    src: IpAddr,
    sport: u16,
    dst: IpAddr,
    dport: u16,
    src_name: Option<String>,
    dst_name: Option<String>,
    #[serde(flatten)]
    owner: OwnerFields,
    container: Option<String>,
    container_name: Option<String>,
    container_user: Option<u32>,
    pod: Option<String>,
    pod_namespace: Option<String>,
    unit: Option<String>,
    user_unit: Option<String>,
    netns: u32,
    interface: Option<String>,
    interface_index: Option<u32>,
    preexisting: bool,
    attempt_ns: Option<i64>,
    established_ns: Option<i64>,
    at_least_ns: Option<u64>,
    half_open: Option<u32>,
    dropped: Option<u32>,
    reason: Option<String>,
    reset: Option<String>,
    attempt: Option<String>,
    error: Option<String>,
    idle_ns: Option<u64>,
    #[serde(default)]
    app: Option<String>,
    #[serde(flatten)]
    tracked: TrackedFields,
    #[serde(flatten)]
    traffic: TrafficFields,
}

#[derive(Deserialize)]
struct OwnerFields {
    pid: Option<u32>,
    tid: Option<u32>,
    uid: Option<u32>,
    comm: Option<String>,
    thread: Option<String>,
    owner: String,
    #[serde(default)]
    holders: Option<u16>,
    cgroup: Option<u64>,
    comm_hex: Option<String>,
    thread_hex: Option<String>,
    process_start_ns: Option<i64>,
}

#[derive(Deserialize)]
struct TrafficFields {
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    segments_sent: Option<u64>,
    segments_received: Option<u64>,
    retransmits: Option<u32>,
    srtt_us: Option<u32>,
    min_rtt_us: Option<u32>,
    receive_queue: Option<u32>,
    send_queue: Option<u32>,
}

/// Reads a line, with or without its end. `clock` is the clock that the line was written with.
///
/// # Errors
/// See [`ReadError`].
pub fn read(line: &[u8], clock: &WallClock) -> Result<Line, ReadError> {
    let head: Head = serde_json::from_slice(line)?;
    if head.schema != SCHEMA {
        return Err(ReadError::Schema(head.schema));
    }
    if head.event == "lost" {
        let LostFields { lost: count, since_ns, until_ns, lost_event, netns } = serde_json::from_slice(line)?;
        let kind =
            lost_event.as_deref().map(|name| Kind::from_name(name).ok_or_else(|| value("lost_event", name)));
        let of = kind.transpose()?.zip(netns).map(|(kind, netns)| LostGroup { kind, netns });
        let boot_ns = |key, ns| boot_ns(clock, key, ns);
        let (since_ns, until_ns) = (boot_ns("since_ns", since_ns)?, boot_ns("until_ns", until_ns)?);
        return Ok(Line::Lost(Lost { count, since_ns, until_ns, of }));
    }
    let kind = Kind::from_name(&head.event).ok_or_else(|| value("event", &head.event))?;
    event(kind, serde_json::from_slice(line)?, clock).map(|event| Line::Event(Box::new(event)))
}

fn event(kind: Kind, fields: Fields, clock: &WallClock) -> Result<Enriched, ReadError> {
    let protocol = fields.tracked.protocol(fields.protocol.as_deref())?;
    let connection = connection(&fields, clock)?;
    let old_state = match (kind, &fields.old_state) {
        (Kind::Open, _) => connection.state,
        (Kind::Closed, _) => LISTEN,
        (_, None) => UNSEEN,
        (_, Some(name)) => state("old_state", name)?,
    };
    let is_flow = protocol == UDP || fields.tracked.is_entry();
    let packets = fields.traffic.segments_sent.zip(fields.traffic.segments_received);
    let packets = packets.map(<[u64; 2]>::from).filter(|_| is_flow);
    let ends = [(fields.src, fields.sport), (fields.dst, fields.dport)].map(SocketAddr::from);
    let tracked = Tracked { packets, ..fields.tracked.tracked(ends)? };
    let event = Event {
        time_ns: boot_ns(clock, "time_ns", fields.time_ns)?,
        kind,
        protocol,
        old_state,
        traffic: fields.traffic.traffic(is_flow),
        error: optional("error", fields.error.as_deref(), error)?.unwrap_or(0),
        end: optional("reason", fields.reason.as_deref(), |name| Cause::from_name_in(protocol, name))?,
        reset: optional("reset", fields.reset.as_deref(), |name| {
            Reset::ALL.into_iter().find(|reset| reset.name() == name)
        })?,
        attempt: optional("attempt", fields.attempt.as_deref(), |name| {
            Attempt::ALL.into_iter().find(|attempt| attempt.name() == name)
        })?,
        idle_ns: fields.idle_ns,
        at_least_ns: fields.at_least_ns,
        half_open: fields.half_open,
        dropped: fields.dropped,
        tracked,
        connection,
    };
    let names =
        ContainerNames { name: fields.container_name, pod: fields.pod, namespace: fields.pod_namespace };
    let container = fields.container.map(|id| Container { id, user: fields.container_user, names });
    let (unit, user_unit) = (fields.unit, fields.user_unit);
    let workload = Workload { container, unit, user_unit, ..Workload::default() };
    Ok(Enriched {
        all_holders: None,
        event,
        workload: Some(workload).filter(|workload| !workload.is_empty()).map(Arc::new),
        command_line: None,
        src_name: fields.src_name.map(Into::into),
        dst_name: fields.dst_name.map(Into::into),
        interface: fields.interface.map(Into::into),
    })
}

fn connection(fields: &Fields, clock: &WallClock) -> Result<Connection, ReadError> {
    let moment = |key, unix_ns: Option<i64>| unix_ns.map_or(Ok(0), |unix_ns| boot_ns(clock, key, unix_ns));
    let direction = match fields.direction.as_deref() {
        None => match fields.local_end.as_deref() {
            None | Some("src") => UNDIRECTED,
            Some("dst") => PERHAPS_IN,
            Some(word) => return Err(value("local_end", word)),
        },
        Some("in") => IN,
        Some("out") => OUT,
        Some("forward") => FORWARD,
        Some(LISTENS) => UNDIRECTED,
        Some(word) => return Err(value("direction", word)),
    };
    // The idle time is known of connections that were established, see `decode`.
    let established = if fields.idle_ns.is_some() { WAS_ESTABLISHED } else { 0 };
    let role = if fields.direction.as_deref() == Some(LISTENS) { LISTENER } else { 0 };
    let preexisting = if fields.preexisting { PREEXISTING } else { 0 };
    let app = match fields.app.as_deref() {
        None => 0,
        Some(quic::NAME) => QUIC,
        Some(word) => return Err(value("app", word)),
    };
    let [last_sport, scratch] = interface_halves(fields.interface_index.unwrap_or(0));
    Ok(Connection {
        netns: fields.netns,
        last_sport,
        scratch,
        sport: fields.sport,
        dport: fields.dport,
        family: if fields.src.is_ipv6() { 6 } else { 4 },
        direction,
        state: fields.state.as_deref().map_or(Ok(UNSEEN), |name| state("state", name))?,
        flags: established | preexisting | role | app,
        id: fields.id.unwrap_or(0),
        attempt_ns: moment("attempt_ns", fields.attempt_ns)?,
        established_ns: moment("established_ns", fields.established_ns)?,
        src: address(fields.src),
        dst: address(fields.dst),
        owner: owner(&fields.owner, clock)?,
    })
}

fn owner(fields: &OwnerFields, clock: &WallClock) -> Result<Owner, ReadError> {
    let source = SOURCES.iter().position(|name| *name == fields.owner);
    let source = source.ok_or_else(|| value("owner", &fields.owner))? as u8;
    let (Some(pid), true) = (fields.pid, source != UNKNOWN) else {
        let flags = if source == UNKNOWN { 0 } else { SHARED };
        let holders = if flags == 0 { 0 } else { fields.holders.unwrap_or(0) };
        return Ok(Owner { source, flags, holders, ..Owner::NONE });
    };
    let start_ns = fields.process_start_ns;
    Ok(Owner {
        cgroup: fields.cgroup.unwrap_or(0),
        start_ns: start_ns.map_or(Ok(0), |ns| boot_ns(clock, "process_start_ns", ns))?,
        pid,
        tid: fields.tid.unwrap_or(0),
        uid: fields.uid.unwrap_or(0),
        source,
        flags: 0,
        holders: fields.holders.unwrap_or(0),
        comm: name("comm", fields.comm.as_deref(), fields.comm_hex.as_deref())?,
        thread: name("thread", fields.thread.as_deref(), fields.thread_hex.as_deref())?,
    })
}

impl TrafficFields {
    /// The traffic of a connection, or of a flow, whose packets are elsewhere.
    fn traffic(&self, is_flow: bool) -> Traffic {
        let fields = self;
        let segments = |number: Option<u64>| if is_flow { 0 } else { number.unwrap_or(0) as u32 };
        Traffic {
            bytes_sent: fields.bytes_sent.unwrap_or(0),
            bytes_received: fields.bytes_received.unwrap_or(0),
            segments_sent: segments(fields.segments_sent),
            segments_received: segments(fields.segments_received),
            retransmits: fields.retransmits.unwrap_or(0),
            srtt_us: fields.srtt_us.unwrap_or(0),
            min_rtt_us: fields.min_rtt_us.unwrap_or(0),
            receive_queue: fields.receive_queue.unwrap_or(0),
            send_queue: fields.send_queue.unwrap_or(0),
            idle_jiffies: 0,
        }
    }
}

fn value(key: &'static str, value: &str) -> ReadError {
    ReadError::Value { key, value: value.to_owned() }
}

fn boot_ns(clock: &WallClock, key: &'static str, unix_ns: i64) -> Result<u64, ReadError> {
    clock.to_boot_ns(unix_ns).ok_or_else(|| value(key, &unix_ns.to_string()))
}

fn optional<T>(
    key: &'static str,
    word: Option<&str>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ReadError> {
    word.map(|word| parse(word).ok_or_else(|| value(key, word))).transpose()
}

fn state(key: &'static str, name: &str) -> Result<u8, ReadError> {
    state_name::from_name(name).ok_or_else(|| value(key, name))
}

/// The number of an error: by its name, or of `errno 999`.
fn error(text: &str) -> Option<u16> {
    text.strip_prefix("errno ").map_or_else(|| errno::from_name(text), |number| number.parse().ok())
}

fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// The bytes of a name: by its digits if it has some, since a text cannot hold all bytes.
fn name(key: &'static str, text: Option<&str>, hex: Option<&str>) -> Result<[u8; COMM], ReadError> {
    let bytes = match hex {
        None => text.unwrap_or_default().as_bytes().to_vec(),
        Some(digits) => {
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            let bytes: Option<Vec<u8>> = digits.as_bytes().chunks(2).map(byte).collect();
            bytes.ok_or_else(|| value(key, digits))?
        }
    };
    let mut name = [0; COMM];
    let room = name.get_mut(..bytes.len()).ok_or_else(|| value(key, text.unwrap_or_default()))?;
    room.copy_from_slice(&bytes);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use std::slice;

    use proptest::prelude::*;

    use super::*;
    use crate::event::entry::tests::any_entry_event;
    use crate::event::tests::{any_event, closed, listening, nasty, open};
    use crate::render::Format;
    use crate::render::tests::{CLOCK, lines, loss};

    fn back(event: &Enriched) -> Line {
        read(lines(Format::Json, slice::from_ref(event)).as_bytes(), &CLOCK).unwrap()
    }

    #[test]
    fn samples_read_back() {
        for event in [closed(), nasty(), listening()] {
            assert_eq!(back(&event), Line::Event(Box::new(event)));
        }
        // The sample has a command line and slices, which are columns on demand.
        let mut open = Enriched { command_line: None, ..open() };
        let workload = Arc::make_mut(open.workload.as_mut().unwrap());
        (workload.slice, workload.user_slice) = (None, None);
        assert_eq!(back(&open), Line::Event(Box::new(open)));
        let lost = Lost { count: 72, since_ns: 1_000_000_000, until_ns: 1_012_345_678, of: None };
        assert_eq!(read(loss(Format::Json).as_bytes(), &CLOCK).unwrap(), Line::Lost(lost));
        let of = Some(LostGroup { kind: Kind::Destroy, netns: 7 });
        let mut line = Vec::new();
        crate::render::json::lost(&Lost { of, ..lost }, &CLOCK, &mut line);
        assert_eq!(read(&line, &CLOCK).unwrap(), Line::Lost(Lost { of, ..lost }));
    }

    #[test]
    fn a_line_without_a_meaning_is_an_error_that_names_the_field() {
        let line = lines(Format::Json, &[closed()]);
        let error = |from: &str, to: &str| {
            assert!(line.contains(from), "{line}");
            read(line.replace(from, to).as_bytes(), &CLOCK).unwrap_err().to_string()
        };
        assert_eq!(
            error("\"schema\":1", "\"schema\":2"),
            "the line has schema 2, and conntrace knows schema 1 only"
        );
        assert_eq!(error("\"destroy\"", "\"gone\""), "event has no meaning: \"gone\"");
        assert_eq!(error("\"close\"", "\"shut\""), "state has no meaning: \"shut\"");
        assert_eq!(error("\"closed_by_us\"", "\"x\""), "reason has no meaning: \"x\"");
        assert!(error("\"sport\"", "\"port\"").contains("sport"));
        assert!(read(b"7", &CLOCK).is_err());
    }

    proptest! {
        #[test]
        fn any_event_reads_back_as_the_same_event(event in prop_oneof![any_event(), any_entry_event().prop_map(Enriched::from)]) {
            prop_assert_eq!(back(&event), Line::Event(Box::new(event)));
        }

        #[test]
        fn any_bytes_read_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes, &CLOCK);
        }
    }
}
