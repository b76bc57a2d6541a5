//! Where events go.

use crate::enrich::Enricher;
use crate::error::Error;
use crate::event::enriched::Enriched;
use crate::event::lost::Lost;
use crate::host::clock::WallClock;
use crate::kernel::pin::Mark;
use crate::output::stdout::Written;
use crate::stream::notice::Notice;

/// The result of a consumer for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The consumer has it.
    Shown,
    /// The consumer had no room for it.
    Dropped,
}

/// The accounting of the events that a consumer took, at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finished {
    /// The number of events that the consumer does not show.
    pub filtered: u64,
    /// The number of events that the output had no room for.
    pub unwritten: u64,
}

/// Where the output of a stream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Lines of events and losses.
    pub lines: u64,
    /// Events without room that no line reports yet.
    pub unreported: u64,
    /// The last line that reports a loss.
    pub mark: Mark,
    /// How many such lines there were.
    pub marked: u64,
}

/// Takes events in their order, and losses in their places.
pub(crate) trait Consumer: Send {
    /// Takes an event.
    fn event(&mut self, event: &Enriched, clock: &WallClock) -> Taken;

    /// True if it has room for another event.
    fn has_room(&mut self) -> bool {
        true
    }
    /// Takes a loss.
    fn lost(&mut self, lost: &Lost, clock: &WallClock);

    /// Takes a notice.
    fn notice(&mut self, notice: &Notice);

    /// Hands on the events that the consumer has, without waiting.
    ///
    /// # Errors
    /// The output failed.
    fn flush(&mut self) -> Result<Written, Error>;

    /// Where its output stands. Only a consumer of lines has a position.
    fn position(&self) -> Position {
        Position::default()
    }

    /// Shows what it kept for the end; `enricher` completes that.
    fn finish(&mut self, enricher: &mut Enricher, clock: &WallClock) -> Finished;
}
