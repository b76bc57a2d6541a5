//! The run mode: what this run needs, as the frozen globals say. The verifier removes what it does not.

use conn_common::event::NEW;
use conn_common::filter::bit;
use conn_common::state::{is_open, is_opening};

use crate::config;

/// True if the run keeps a ledger.
#[inline(always)]
pub fn has_ledger() -> bool {
    config::COUNTS_ON.load() != 0
}

/// True if the run has histograms.
#[inline(always)]
pub fn has_histograms() -> bool {
    config::SPANS_ON.load() != 0
}

/// True if nobody will look at events, owners or times: the run only counts, and sockets remember no more than
/// that takes.
#[inline(always)]
pub fn only_counts() -> bool {
    config::WANTED_KINDS.load() == 0 && !has_histograms()
}

/// True if nobody asks what becomes of a connection that has begun.
#[inline(always)]
pub fn only_begins() -> bool {
    config::WANTED_KINDS.load() == bit(NEW) && !has_ledger() && !has_histograms()
}

/// True if nobody asks for what becomes of a connection that is in `state`: its handshake is over, and the run
/// wants beginnings only. Its socket may have no memory, or one that says it is still established.
#[inline(always)]
pub fn skips(state: u8) -> bool {
    only_begins() && is_open(state) && !is_opening(state)
}
