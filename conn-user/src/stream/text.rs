//! The consumer that prints: lines to standard output, notices to standard error.

use crate::enrich::Enricher;
use crate::error::Error;
use crate::event::enriched::Enriched;
use crate::event::lost::Lost;
use crate::host::clock::WallClock;
use crate::kernel::pin::Mark;
use crate::output::stderr;
use crate::output::stdout::{Sink, Written};
use crate::render::Renderer;
use crate::stream::consumer::{Consumer, Finished, Position, Taken};
use crate::stream::notice::Notice;

/// Lines are handed to the output when there are so many bytes: the text of very many connections never is in memory
/// as a whole.
const CHUNK: usize = 1 << 16;

/// Prints events as they come.
pub(crate) struct Text<S> {
    renderer: Renderer,
    sink: S,
    /// Lines that were not handed to the output yet.
    batch: Vec<u8>,
    /// Where in the batch events end.
    ends: Vec<usize>,
    /// Events that the output had no room for, and when they happened.
    dropped: Option<Lost>,
    position: Position,
    /// The answer of the output, until [`Consumer::flush`] returns it.
    written: Result<Written, Error>,
}

impl<S: Sink> Text<S> {
    /// Prints with `renderer` to `sink`. Nothing stands before the first event, see [`Text::begin`].
    pub(crate) fn new(renderer: Renderer, sink: S) -> Self {
        let (batch, ends, position) = (Vec::new(), Vec::new(), Position::default());
        Self { renderer, sink, batch, ends, dropped: None, position, written: Ok(Written::All) }
    }

    /// Goes on behind lines of an earlier process, which began the output.
    pub(crate) const fn go_on(&mut self, lines: u64) {
        self.position.lines = lines;
    }

    /// Prints the header, first of all.
    pub(crate) fn begin(&mut self) {
        self.renderer.begin(&mut self.batch);
        self.position.lines += self.batch.split(|&byte| byte == b'\n').skip(1).count() as u64;
    }

    /// Prints all events of an output, in a table whose columns are as wide as they need. Returns how many of them the
    /// output had no room for.
    pub(crate) fn print_all(&mut self, events: &[Enriched], clock: &WallClock) -> u64 {
        self.renderer.measure(events, clock);
        self.begin();
        let mut dropped = 0;
        for event in events {
            // A reader that left wants no more lines.
            if !self.is_open() {
                break;
            }
            dropped += u64::from(self.event(event, clock) == Taken::Dropped);
        }
        dropped
    }

    /// True if the output takes lines.
    const fn is_open(&self) -> bool {
        matches!(self.written, Ok(Written::All))
    }

    fn hand_on(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        if self.is_open() {
            self.written = self.sink.push(&mut self.batch, &mut self.ends);
        }
        self.batch.clear();
        self.ends.clear();
    }

    /// Marks the place of dropped events, once there is room again.
    fn mark_dropped(&mut self, clock: &WallClock) {
        if let Some(dropped) = self.dropped.take() {
            self.position.unreported = 0;
            self.lost(&dropped, clock);
            self.notice(&Notice::Unwritten(dropped.count));
        }
    }
}

impl<S: Sink> Consumer for Text<S> {
    fn event(&mut self, event: &Enriched, clock: &WallClock) -> Taken {
        if !self.sink.has_room(self.batch.len()) {
            let dropped = self.dropped.get_or_insert(Lost {
                count: 0,
                since_ns: event.time_ns,
                until_ns: event.time_ns,
                of: None,
            });
            dropped.count += 1;
            self.position.unreported = dropped.count;
            dropped.since_ns = dropped.since_ns.min(event.time_ns);
            dropped.until_ns = dropped.until_ns.max(event.time_ns);
            return Taken::Dropped;
        }
        self.mark_dropped(clock);
        self.renderer.event(event, clock, &mut self.batch);
        self.position.lines += 1;
        self.ends.push(self.batch.len());
        if self.batch.len() >= CHUNK {
            self.hand_on();
        }
        Taken::Shown
    }

    fn has_room(&mut self) -> bool {
        self.sink.has_room(self.batch.len())
    }

    fn lost(&mut self, lost: &Lost, clock: &WallClock) {
        if self.renderer.lost(lost, clock, &mut self.batch) {
            self.position.lines += 1;
            self.position.mark = Mark { line: self.position.lines, lost: lost.count };
            self.position.marked += 1;
        }
    }

    fn position(&self) -> Position {
        self.position
    }

    fn notice(&mut self, notice: &Notice) {
        stderr::print(notice);
    }

    fn flush(&mut self) -> Result<Written, Error> {
        self.hand_on();
        std::mem::replace(&mut self.written, Ok(Written::All))
    }

    fn finish(&mut self, _: &mut Enricher, clock: &WallClock) -> Finished {
        self.mark_dropped(clock);
        self.renderer.end(&mut self.batch);
        Finished::default()
    }
}
