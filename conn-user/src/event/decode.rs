//! Bytes of the kernel programs into plain values. Only this file and `decode/` turn bytes into types. Decoding is pure: it
//! asks neither the host nor a clock. Any bytes give a value or an error, never a panic.

#![expect(unsafe_code, reason = "a record is copied into its type as a whole")]

pub mod netlink;
pub mod unix_diag;

use std::mem::MaybeUninit;

use bytes::Buf as _;
use conn_common::attempt::Attempt;
use conn_common::cause::Cause;
use conn_common::connection::{
    Connection, IN, LISTENER, OUT, PREEXISTING, QUIC, UNDIRECTED, WAS_ESTABLISHED,
};
use conn_common::event::{EventRecord, VERSION};
use conn_common::flow::Flow;
use conn_common::owner::{COMM, Owner, SHARED, SOURCES, UNKNOWN};
use conn_common::protocol::{self, UDP};
use conn_common::reset::Reset;
use conn_common::row::{DROPS, HALF_OPEN, HolderRow, NamespaceRow, SocketRow};
use conn_common::state::{self, LISTEN, NEW_SYN_RECV, SYN_RECV, UNSEEN};
use conn_common::traffic::Traffic;

use crate::event::Event;
use crate::event::kind::Kind;
use crate::event::process::until_zero;
use crate::event::tracked::Tracked;
use crate::host::ticks::TickRate;

/// Why bytes are no record. The error is counted and logged, not fatal: the next record may be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes have not the length of a record.
    #[error("a record of {is} bytes instead of {expected}")]
    Length {
        /// The number of bytes.
        is: usize,
        /// The length of a record.
        expected: usize,
    },
    /// The event kind has no meaning.
    #[error("unknown event kind {0}")]
    Kind(u8),
    /// The outcome of an attempt has no meaning.
    #[error("unknown outcome {0} of an attempt")]
    Attempt(u8),
    /// The TCP state has no meaning.
    #[error("unknown TCP state {0}")]
    State(u8),
    /// The direction is neither in nor out, or not that of a listener in an event of one.
    #[error("unknown direction {0}")]
    Direction(u8),
    /// Programs of another version wrote the record.
    #[error("a record of version {0}")]
    Version(u8),
    /// The layer-4 protocol is not one that hooks watch.
    #[error("unknown protocol {0}")]
    Protocol(u8),
    /// The address family is neither IPv4 nor IPv6.
    #[error("unknown address family {0}")]
    Family(u8),
}

/// A `repr(C)` record of the kernel programs, for which any bytes are valid.
///
/// # Safety
/// All fields are integers, or arrays of integers.
unsafe trait Record: Copy {}

// SAFETY: integers.
unsafe impl Record for EventRecord {}
// SAFETY: as above.
unsafe impl Record for SocketRow {}
// SAFETY: as above.
unsafe impl Record for HolderRow {}
// SAFETY: as above.
unsafe impl Record for NamespaceRow {}

/// Reads a record as a whole.
fn read<T: Record>(mut bytes: &[u8]) -> Result<T, DecodeError> {
    let (is, expected) = (bytes.len(), size_of::<T>());
    let mut record = MaybeUninit::<T>::zeroed();
    // SAFETY: the slice covers the record, all of whose bytes are initialised.
    let whole = unsafe { std::slice::from_raw_parts_mut(record.as_mut_ptr().cast::<u8>(), expected) };
    if is != expected || bytes.try_copy_to_slice(whole).is_err() {
        return Err(DecodeError::Length { is, expected });
    }
    // SAFETY: any bytes are valid for a `Record`.
    Ok(unsafe { record.assume_init() })
}

/// Decodes a record of the ring. Coarse times of the record are ticks of `rate`.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8], rate: TickRate) -> Result<Event, DecodeError> {
    let record: EventRecord = read(bytes)?;
    let kind = check(&record)?;
    let EventRecord {
        time_ns,
        error,
        kind: _,
        old_state,
        cause,
        reset,
        version: _,
        protocol,
        traffic,
        connection,
    } = record;
    let mut event = Event {
        time_ns,
        kind,
        protocol,
        old_state,
        traffic: Traffic::NONE,
        error: 0,
        end: None,
        reset: None,
        attempt: if kind == Kind::Attempt { Attempt::from_number(cause) } else { None },
        idle_ns: None,
        at_least_ns: None,
        half_open: None,
        dropped: None,
        tracked: Tracked::NONE,
        connection: plain(&connection, protocol),
    };
    if kind == Kind::Destroy {
        if protocol == UDP {
            return Ok(flow_ended(&event, &traffic, cause));
        }
        event.traffic = Traffic { receive_queue: 0, send_queue: 0, idle_jiffies: 0, ..traffic };
        event.error = error;
        event.end = Cause::from_number(cause);
        event.reset = (event.end == Some(Cause::ResetByUs))
            .then(|| Reset::of(old_state, reset, traffic.receive_queue))
            .flatten();
        event.idle_ns = idle_ns(&connection, &traffic, rate);
        event.at_least_ns =
            connection.is(PREEXISTING).then(|| time_ns.saturating_sub(connection.first_seen_ns()));
    } else {
        // Before the end, the state says the same.
        event.connection.flags &= !WAS_ESTABLISHED;
    }
    Ok(event)
}

/// The event of a flow that ended, with its traffic and the number of its cause.
fn flow_ended(event: &Event, traffic: &Traffic, cause: u8) -> Event {
    let Traffic { bytes_sent, bytes_received, .. } = *traffic;
    let at_least_ns = event.connection.is(PREEXISTING);
    Event {
        traffic: Traffic { bytes_sent, bytes_received, ..Traffic::NONE },
        end: Cause::from_number(cause),
        at_least_ns: at_least_ns.then(|| event.time_ns.saturating_sub(event.connection.first_seen_ns())),
        tracked: Tracked { packets: Some(traffic.packets()), ..Tracked::NONE },
        ..*event
    }
}

/// The end of a flow that user space ended.
pub fn flow_end(flow: &Flow, old_state: u8, cause: Cause, time_ns: u64) -> Event {
    let event = Event {
        time_ns,
        kind: Kind::Destroy,
        protocol: UDP,
        old_state,
        traffic: Traffic::NONE,
        error: 0,
        end: None,
        reset: None,
        attempt: None,
        idle_ns: None,
        at_least_ns: None,
        half_open: None,
        dropped: None,
        tracked: Tracked::NONE,
        connection: plain(&flow.connection, UDP),
    };
    flow_ended(&event, &Traffic::of_packets(flow.packets, flow.bytes), cause as u8)
}

/// The mark of the socket of a record, if the run asks the programs for marks. For bytes that [`decode`] accepts.
pub fn mark(bytes: &[u8]) -> Option<u32> {
    read::<EventRecord>(bytes).ok().map(|record| record.traffic.send_queue)
}

/// When the event of a record happened, nanoseconds of `CLOCK_BOOTTIME`; `None` for bytes that are no record. Faster
/// than decoding the record.
pub fn time_ns(bytes: &[u8]) -> Option<u64> {
    const { assert!(std::mem::offset_of!(EventRecord, time_ns) == 0) };
    let mut head = bytes;
    head.try_get_u64_ne().ok().filter(|_| bytes.len() == size_of::<EventRecord>())
}

/// The event that stands for an open connection: `row` as the walk found it at `time_ns`, with the connection that
/// stands for it in lists.
pub fn open(row: &SocketRow, connection: &Connection, time_ns: u64, rate: TickRate) -> Event {
    let at_least = Some(row.at_least_jiffies).filter(|&ticks| ticks > 0);
    Event {
        time_ns,
        kind: Kind::Open,
        protocol: row.protocol,
        old_state: connection.state,
        traffic: Traffic { idle_jiffies: 0, ..row.traffic },
        error: 0,
        end: None,
        reset: None,
        attempt: None,
        idle_ns: idle_ns(connection, &row.traffic, rate),
        at_least_ns: at_least.and_then(|ticks| rate.at_least_ns(ticks)),
        half_open: (row.known & HALF_OPEN != 0).then_some(row.half_open),
        dropped: (row.known & DROPS != 0).then_some(row.drops),
        tracked: Tracked::NONE,
        connection: plain(connection, row.protocol),
    }
}

/// The time without payload, if the connection was established.
fn idle_ns(connection: &Connection, traffic: &Traffic, rate: TickRate) -> Option<u64> {
    connection.is(WAS_ESTABLISHED).then(|| rate.ns(traffic.idle_jiffies)).flatten()
}

/// A connection without what only the kernel programs need, and without the bytes behind the end of an address or a
/// name.
fn plain(connection: &Connection, protocol: u8) -> Connection {
    let of_flow = if protocol == UDP { QUIC } else { 0 };
    let mut plain = Connection {
        flags: connection.flags & (PREEXISTING | WAS_ESTABLISHED | LISTENER | of_flow),
        owner: owner(&connection.owner),
        ..*connection
    };
    if plain.family == 4 {
        plain.src[4..].fill(0);
        plain.dst[4..].fill(0);
    }
    plain
}

/// An owner without flags of the kernel programs. Of several owners, only the way of knowing them remains.
fn owner(owner: &Owner) -> Owner {
    let source = owner.source;
    if usize::from(source) >= SOURCES.len() || source == UNKNOWN {
        Owner::NONE
    } else if owner.is_known() {
        Owner { flags: 0, comm: name(&owner.comm), thread: name(&owner.thread), ..*owner }
    } else {
        Owner { source, flags: SHARED, holders: owner.holders, ..Owner::NONE }
    }
}

/// A name with zeros behind its end.
fn name(bytes: &[u8; COMM]) -> [u8; COMM] {
    let mut name = [0; COMM];
    let text = until_zero(bytes);
    name[..text.len()].copy_from_slice(text);
    name
}

/// Decodes a row of the socket iterator.
///
/// # Errors
/// See [`DecodeError`].
pub fn socket_row(bytes: &[u8]) -> Result<SocketRow, DecodeError> {
    let row: SocketRow = read(bytes)?;
    let Connection { direction, family, state, .. } = row.connection;
    if !matches!(direction, IN | OUT | UNDIRECTED) {
        return Err(DecodeError::Direction(direction));
    }
    let state = if state == NEW_SYN_RECV { SYN_RECV } else { state };
    check_tuple(row.protocol, family, state)?;
    Ok(row)
}

/// Decodes a row of the file iterator.
///
/// # Errors
/// [`DecodeError::Length`].
pub fn holder_row(bytes: &[u8]) -> Result<HolderRow, DecodeError> {
    read(bytes)
}

/// Decodes a row of the namespace iterator.
///
/// # Errors
/// [`DecodeError::Length`].
pub fn namespace_row(bytes: &[u8]) -> Result<NamespaceRow, DecodeError> {
    read(bytes)
}

fn check(record: &EventRecord) -> Result<Kind, DecodeError> {
    if record.version != VERSION {
        return Err(DecodeError::Version(record.version));
    }
    let kind = Kind::from_record(record.kind).ok_or(DecodeError::Kind(record.kind))?;
    let Connection { direction, family, state, .. } = record.connection;
    let fits = if kind.is_of_listeners() { direction == UNDIRECTED } else { matches!(direction, IN | OUT) };
    if !fits || record.connection.is_listener() != kind.is_of_listeners() {
        return Err(DecodeError::Direction(direction));
    }
    check_tuple(record.protocol, family, state)?;
    if kind == Kind::Attempt && Attempt::from_number(record.cause).is_none() {
        return Err(DecodeError::Attempt(record.cause));
    }
    let is_known = match kind {
        Kind::Listen => record.old_state == UNSEEN,
        Kind::Closed => record.old_state == LISTEN,
        Kind::New | Kind::Attempt if record.old_state == UNSEEN => true,
        _ => state::name_in(record.protocol, record.old_state).is_some(),
    };
    if !is_known {
        return Err(DecodeError::State(record.old_state));
    }
    Ok(kind)
}

/// Checks protocol, family and state.
fn check_tuple(protocol: u8, family: u8, state: u8) -> Result<(), DecodeError> {
    if protocol::name(protocol).is_none() {
        return Err(DecodeError::Protocol(protocol));
    }
    if !matches!(family, 4 | 6) {
        return Err(DecodeError::Family(family));
    }
    if state::name_in(protocol, state).is_none() {
        return Err(DecodeError::State(state));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use conn_common::event::{DESTROY, NEW, UPDATE};

    use super::*;

    const RATE: TickRate = TickRate::of_tick(4_000_000);

    fn record() -> Vec<u8> {
        let mut bytes = vec![0_u8; size_of::<EventRecord>()];
        bytes[..8].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[std::mem::offset_of!(EventRecord, kind)] = NEW;
        bytes[std::mem::offset_of!(EventRecord, version)] = VERSION;
        bytes[std::mem::offset_of!(EventRecord, protocol)] = protocol::TCP;
        let connection = std::mem::offset_of!(EventRecord, connection);
        let at = |offset: usize| connection + offset;
        bytes[at(std::mem::offset_of!(Connection, dport))..][..2].copy_from_slice(&443_u16.to_ne_bytes());
        bytes[at(std::mem::offset_of!(Connection, family))] = 4;
        bytes[at(std::mem::offset_of!(Connection, direction))] = OUT;
        bytes[at(std::mem::offset_of!(Connection, state))] = state::SYN_SENT;
        bytes
    }

    #[test]
    fn fields_are_read_at_their_offsets() -> Result<(), DecodeError> {
        let event = decode(&record(), RATE)?;
        assert_eq!((event.time_ns, event.connection.dport), (7, 443));
        assert_eq!((event.connection.direction, event.connection.state), (OUT, state::SYN_SENT));
        Ok(())
    }

    #[test]
    fn errors_name_the_field_that_is_wrong() {
        assert_eq!(decode(&[], RATE).err(), Some(DecodeError::Length { is: 0, expected: 200 }));
        let with = |offset: usize, value: u8| {
            let mut bytes = record();
            bytes[offset] = value;
            decode(&bytes, RATE).err()
        };
        let connection = std::mem::offset_of!(EventRecord, connection);
        assert_eq!(with(std::mem::offset_of!(EventRecord, kind), 9), Some(DecodeError::Kind(9)));
        assert_eq!(with(std::mem::offset_of!(EventRecord, version), 0), Some(DecodeError::Version(0)));
        assert_eq!(with(std::mem::offset_of!(EventRecord, protocol), 99), Some(DecodeError::Protocol(99)));
        assert_eq!(
            with(connection + std::mem::offset_of!(Connection, flags), LISTENER),
            Some(DecodeError::Direction(OUT))
        );
        assert_eq!(
            with(connection + std::mem::offset_of!(Connection, family), 9),
            Some(DecodeError::Family(9))
        );
        assert_eq!(
            with(connection + std::mem::offset_of!(Connection, direction), 2),
            Some(DecodeError::Direction(2))
        );
        assert_eq!(
            with(connection + std::mem::offset_of!(Connection, state), 99),
            Some(DecodeError::State(99))
        );
    }

    #[test]
    fn decoding_clears_what_only_the_kernel_programs_need() -> Result<(), DecodeError> {
        let mut bytes = record();
        let set = |bytes: &mut [u8], offset: usize, value: u8| {
            bytes[std::mem::offset_of!(EventRecord, connection) + offset] = value;
        };
        let owner = std::mem::offset_of!(Connection, owner);
        let plain = decode(&bytes, RATE)?;
        set(&mut bytes, std::mem::offset_of!(Connection, flags), !(PREEXISTING | WAS_ESTABLISHED | LISTENER));
        set(&mut bytes, std::mem::offset_of!(Connection, src) + 4, 1);
        set(&mut bytes, owner + std::mem::offset_of!(Owner, flags), 1);
        set(&mut bytes, owner + std::mem::offset_of!(Owner, comm) + 1, b'x');
        assert_eq!(decode(&bytes, RATE)?, plain);
        Ok(())
    }

    #[test]
    fn only_ends_have_traffic_causes_and_errors() -> Result<(), DecodeError> {
        let kind = std::mem::offset_of!(EventRecord, kind);
        let mut bytes = record();
        bytes[std::mem::offset_of!(EventRecord, traffic)] = 7;
        bytes[std::mem::offset_of!(EventRecord, error)] = 104;
        bytes[std::mem::offset_of!(EventRecord, old_state)] = state::ESTABLISHED;
        for number in [NEW, UPDATE, DESTROY] {
            bytes[kind] = number;
            let event = decode(&bytes, RATE)?;
            let known = (event.traffic != Traffic::NONE, event.error != 0, event.end.is_some());
            assert_eq!(known, (number == DESTROY, number == DESTROY, number == DESTROY));
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes, RATE);
            let _ = socket_row(&bytes);
            let _ = holder_row(&bytes);
            let _ = namespace_row(&bytes);
        }

        #[test]
        fn any_bytes_of_the_right_length_decode_or_fail(
            bytes in prop::collection::vec(any::<u8>(), size_of::<EventRecord>()),
            row in prop::collection::vec(any::<u8>(), size_of::<SocketRow>()),
        ) {
            let of_bytes = |error: &DecodeError| !matches!(error, DecodeError::Length { .. });
            match decode(&bytes[..size_of::<EventRecord>()], RATE) {
                Ok(event) => prop_assert!(state::name(event.connection.state).is_some()),
                Err(error) => prop_assert!(of_bytes(&error)),
            }
            prop_assert!(socket_row(&row).as_ref().err().is_none_or(of_bytes));
        }
    }
}
