//! Bytes of the ring into events. The only place where bytes become types; any bytes give an event
//! or an error, never a panic.

use std::mem::MaybeUninit;

use bytes::Buf as _;
use conn_common::cause::Cause;
use conn_common::connection::{Connection, IN, OUT, PREEXISTING, UNDIRECTED, WAS_ESTABLISHED};
use conn_common::event::{EventRecord, NEW};
use conn_common::reset::Reset;
use conn_common::row::{HolderRow, NamespaceRow, SocketRow};
use conn_common::state::{self, NEW_SYN_RECV, UNSEEN};
use conn_common::traffic::Traffic;

use crate::event::Event;
use crate::event::kind::Kind;
use crate::host::ticks::TickRate;

/// Why bytes are no event. Counted and told, not fatal: the next record may be good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the length of a record.
    #[error("a record of {is} bytes instead of {expected}")]
    Length {
        /// What there is.
        is: usize,
        /// What it must be.
        expected: usize,
    },
    /// No such event kind.
    #[error("unknown event kind {0}")]
    Kind(u8),
    /// No such TCP state.
    #[error("unknown TCP state {0}")]
    State(u8),
    /// Neither in nor out.
    #[error("unknown direction {0}")]
    Direction(u8),
    /// Neither IPv4 nor IPv6.
    #[error("unknown address family {0}")]
    Family(u8),
}

/// A record of the kernel programs, `repr(C)`: any bytes are one.
///
/// # Safety
/// All fields are integers, or arrays of them.
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
    // SAFETY: the bytes of the record, all of which are set.
    let whole = unsafe { std::slice::from_raw_parts_mut(record.as_mut_ptr().cast::<u8>(), expected) };
    if is != expected || bytes.try_copy_to_slice(whole).is_err() {
        return Err(DecodeError::Length { is, expected });
    }
    // SAFETY: any bytes are a record.
    Ok(unsafe { record.assume_init() })
}

/// Decodes one record.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    let EventRecord { time_ns, error, kind, old_state, cause, reset, reserved: _, traffic, connection } =
        read(bytes)?;
    let kind = check(kind, old_state, &connection)?;
    Ok(Event {
        time_ns,
        kind,
        old_state,
        traffic,
        error,
        end: Cause::from_number(cause),
        reset: (cause == Cause::ResetByUs as u8)
            .then(|| Reset::of(old_state, reset, traffic.receive_queue))
            .flatten(),
        idle_ns: (kind == Kind::Destroy).then(|| idle_ns(&connection, &traffic)).flatten(),
        place: None,
        process: None,
        src_name: None,
        dst_name: None,
        at_least_ns: connection.is(PREEXISTING).then(|| time_ns.saturating_sub(connection.first_seen_ns())),
        connection,
    })
}

/// For how long no payload was sent or received, if the connection was established.
pub fn idle_ns(connection: &Connection, traffic: &Traffic) -> Option<u64> {
    connection.is(WAS_ESTABLISHED).then(|| TickRate::probe()?.ns(traffic.idle_jiffies)).flatten()
}

/// Decodes a row of the socket iterator.
///
/// # Errors
/// See [`DecodeError`].
pub fn socket_row(bytes: &[u8]) -> Result<SocketRow, DecodeError> {
    let row: SocketRow = read(bytes)?;
    let Connection { direction, family, state, .. } = row.connection;
    if direction > UNDIRECTED {
        return Err(DecodeError::Direction(direction));
    }
    if state != NEW_SYN_RECV {
        check_state(state)?;
    }
    check_family(family)?;
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

fn check(kind: u8, old_state: u8, connection: &Connection) -> Result<Kind, DecodeError> {
    check_connection(connection)?;
    if state::name(old_state).is_none() && !(kind == NEW && old_state == UNSEEN) {
        return Err(DecodeError::State(old_state));
    }
    Kind::from_record(kind).ok_or(DecodeError::Kind(kind))
}

fn check_connection(connection: &Connection) -> Result<(), DecodeError> {
    if !matches!(connection.direction, IN | OUT) {
        return Err(DecodeError::Direction(connection.direction));
    }
    check_family(connection.family)?;
    check_state(connection.state)
}

fn check_family(family: u8) -> Result<(), DecodeError> {
    if matches!(family, 4 | 6) { Ok(()) } else { Err(DecodeError::Family(family)) }
}

fn check_state(state: u8) -> Result<(), DecodeError> {
    if state::name(state).is_some() { Ok(()) } else { Err(DecodeError::State(state)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record() -> Vec<u8> {
        let mut bytes = vec![0_u8; size_of::<EventRecord>()];
        bytes[..8].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[std::mem::offset_of!(EventRecord, kind)] = NEW;
        let connection = std::mem::offset_of!(EventRecord, connection);
        let at = |offset: usize| connection + offset;
        bytes[at(std::mem::offset_of!(Connection, dport))..][..2].copy_from_slice(&443_u16.to_ne_bytes());
        bytes[at(std::mem::offset_of!(Connection, family))] = 4;
        bytes[at(std::mem::offset_of!(Connection, direction))] = OUT;
        bytes[at(std::mem::offset_of!(Connection, state))] = state::SYN_SENT;
        bytes
    }

    #[test]
    fn reads_fields_where_the_record_has_them() -> Result<(), DecodeError> {
        let event = decode(&record())?;
        assert_eq!((event.time_ns, event.connection.dport), (7, 443));
        assert_eq!((event.connection.direction, event.connection.state), (OUT, state::SYN_SENT));
        Ok(())
    }

    #[test]
    fn names_what_is_wrong() {
        assert_eq!(decode(&[]).err(), Some(DecodeError::Length { is: 0, expected: 200 }));
        let with = |offset: usize, value: u8| {
            let mut bytes = record();
            bytes[offset] = value;
            decode(&bytes).err()
        };
        let connection = std::mem::offset_of!(EventRecord, connection);
        assert_eq!(with(std::mem::offset_of!(EventRecord, kind), 9), Some(DecodeError::State(0)));
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

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
            let _ = socket_row(&bytes);
            let _ = holder_row(&bytes);
            let _ = namespace_row(&bytes);
        }

        #[test]
        fn any_bytes_of_the_right_length_decode_or_fail(
            bytes in prop::collection::vec(any::<u8>(), size_of::<EventRecord>()),
        ) {
            let of_bytes = |error: &DecodeError| !matches!(error, DecodeError::Length { .. });
            match decode(&bytes) {
                Ok(event) => prop_assert!(state::name(event.connection.state).is_some()),
                Err(error) => prop_assert!(of_bytes(&error)),
            }
            prop_assert!(socket_row(&bytes).as_ref().err().is_none_or(of_bytes));
        }
    }
}
