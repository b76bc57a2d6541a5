//! The run mode: the needs of this run, from frozen globals. The verifier removes the branches that a run does not
//! need.

use conn_common::event::NEW;
use conn_common::filter::bit;
use conn_common::state::{is_open, is_opening};

use crate::config;

/// True if the run keeps a ledger.
#[inline(always)]
pub(crate) fn has_ledger() -> bool {
    config::COUNTS_ON.load() != 0
}

/// True if the run has histograms.
#[inline(always)]
pub(crate) fn has_histograms() -> bool {
    config::SPANS_ON.load() != 0
}

/// True if the run only counts: it needs no events, owners or times, and a socket state holds only what a count takes.
#[inline(always)]
pub(crate) fn only_counts() -> bool {
    config::WANTED_KINDS.load() == 0 && !has_histograms()
}

/// True if the run needs only the beginnings of connections.
#[inline(always)]
pub(crate) fn only_begins() -> bool {
    config::WANTED_KINDS.load() == bit(NEW) && !has_ledger() && !has_histograms()
}

/// True if the run skips steps of a connection in `state`: the handshake is over, and the run needs only beginnings. The
/// socket may then have no state, or one that is still established.
#[inline(always)]
pub(crate) fn skips(state: u8) -> bool {
    only_begins() && is_open(state) && !is_opening(state)
}
