//! The run mode: the needs of this run, from frozen globals. The verifier removes the branches that a run does not
//! need.

use conn_common::event::NEW;
use conn_common::filter::{LISTENER_KINDS, bit};
use conn_common::lifecycle::is_of_listener;
use conn_common::remote::BESIDE_COUNTS;
use conn_common::state::{LISTEN, is_open, is_opening};

use crate::config;
use crate::gate::Step;

/// True if the run keeps a ledger.
#[inline(always)]
pub(crate) fn has_ledger() -> bool {
    config::COUNTS_ON.load() != 0
}

/// True if the run counts remote addresses.
#[inline(always)]
pub(crate) fn counts_remotes() -> bool {
    config::COUNTS_ON.load() == BESIDE_COUNTS
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
    sole_kinds() == bit(NEW)
}

/// True if the run has events of listeners.
#[inline(always)]
pub(crate) fn shows_listeners() -> bool {
    config::WANTED_KINDS.load() & LISTENER_KINDS != 0
}

/// The bit of NEW, or those of listeners, if the run needs nothing else; 0 for any other run.
#[inline(always)]
fn sole_kinds() -> u8 {
    let kinds = config::WANTED_KINDS.load();
    let is_sole = kinds == bit(NEW) || kinds == LISTENER_KINDS;
    if is_sole && !has_ledger() && !has_histograms() { kinds } else { 0 }
}

/// True if the run skips steps of a socket in `state`: the handshake is over, and the run needs only beginnings; or the
/// socket does not listen, and the run needs only listeners. The socket may then have no state, or one that is still
/// established.
#[inline(always)]
pub(crate) fn skips(state: u8) -> bool {
    match sole_kinds() {
        0 => false,
        LISTENER_KINDS => state != LISTEN,
        _ => is_open(state) && !is_opening(state),
    }
}

/// True if the run skips this step, which is asked for only if the run skips any.
#[inline(always)]
pub(crate) fn skips_step(step: impl Fn() -> Step) -> bool {
    match sole_kinds() {
        0 => false,
        LISTENER_KINDS => {
            let Step { old, new } = step();
            !is_of_listener(old, new)
        }
        _ => {
            let Step { old, .. } = step();
            is_open(old) && !is_opening(old)
        }
    }
}
