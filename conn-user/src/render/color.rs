//! Colours of a terminal.

use crate::event::enriched::Enriched;
use crate::event::kind::Kind;

/// A header.
pub(super) const HEADER: &[u8] = b"\x1b[1m";
/// A loss.
pub(super) const LOST: &[u8] = b"\x1b[1;37;41m";
/// A failure.
pub(super) const FAILED: &[u8] = b"\x1b[1;31m";
const NEW: &[u8] = b"\x1b[32m";
const UPDATE: &[u8] = b"\x1b[36m";
const DESTROY: &[u8] = b"\x1b[33m";
const NONE: &[u8] = b"\x1b[0m";

/// The colour of a kind of event.
pub(super) fn kind(event: &Enriched) -> &'static [u8] {
    match event.kind {
        Kind::New | Kind::Listen => NEW,
        Kind::Update | Kind::Open | Kind::Attempt => UPDATE,
        Kind::Destroy if event.is_failed() => FAILED,
        Kind::Destroy | Kind::Closed => DESTROY,
    }
}

/// Writes in a colour if `on`.
pub(super) fn painted(on: bool, color: &[u8], out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    if !on {
        return write(out);
    }
    out.extend_from_slice(color);
    write(out);
    out.extend_from_slice(NONE);
}
