//! Handshakes and lifetimes into histograms.

use conn_common::connection::{Connection, WAS_ESTABLISHED};
use conn_common::counter::{SPANS_FAILED, SPANS_SHARED};
use conn_common::histogram::{self, BUCKETS, Durations};
use conn_common::ledger::rest_index;

use super::{get_or_insert, key, shard};
use crate::counter::{add, count};
use crate::maps::{SPANS, SPANS_REST};
use crate::mode;
use crate::verifier::opaque;

/// Empty histograms; too large for the programs' stack.
#[unsafe(no_mangle)]
static NO_DURATIONS: Durations = Durations::ZERO;

/// The handshake of a connection was complete at `now`.
#[inline(always)]
pub(crate) fn record_handshake(connection: &mut Connection, now: u64) {
    if mode::has_histograms()
        && connection.attempt_ns != 0
        && let Some(durations) = durations(connection)
    {
        // SAFETY: a field of a map value.
        let counts = unsafe { (&raw mut (*durations).handshake).cast() };
        count_duration(connection, counts, now);
    }
}

/// A connection ended at `now`.
#[inline(always)]
pub(crate) fn record_lifetime(connection: &mut Connection, now: u64) {
    if mode::has_histograms()
        && connection.is(WAS_ESTABLISHED)
        && connection.attempt_ns != 0
        && let Some(durations) = durations(connection)
    {
        // SAFETY: a field of a map value.
        let counts = unsafe { (&raw mut (*durations).lifetime).cast() };
        count_duration(connection, counts, now);
    }
}

/// Counts the time since the attempt in a histogram.
#[inline(always)]
fn count_duration(connection: &mut Connection, counts: *mut u64, now: u64) {
    let position = histogram::position(now - connection.attempt_ns);
    let at = histogram::bucket_at(opaque(connection, position));
    if at < BUCKETS {
        // SAFETY: inside the histogram.
        add(unsafe { counts.add(at) }, 1);
    }
}

/// The histograms of a connection's port, or of all ports that found no room.
#[inline(always)]
fn durations(connection: &Connection) -> Option<*mut Durations> {
    let key = key(connection);
    if let Some(durations) = get_or_insert(&SPANS, &key, &NO_DURATIONS) {
        return Some(durations);
    }
    let rest = SPANS_REST.get_ptr_mut(rest_index(shard(), connection.direction));
    count(if rest.is_some() { SPANS_SHARED } else { SPANS_FAILED });
    rest
}
