//! Events from the stream to the collector.

use std::cell::Cell;
use std::io::{self, Write as _};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::serve::otlp::delivery::{Delivery, Done, Nouns};
use crate::serve::otlp::events::batch::{Batch, Gap, Loss, Note, Told};
use crate::serve::otlp::events::counts::{Count, Counts};
use crate::serve::otlp::events::progress::{Progress, State, now_ns};
use crate::serve::otlp::events::record;
use crate::serve::otlp::events::stream::{self, Piece};
use crate::settings::otlp::Events;

/// How many pieces of the stream wait here. Then the stream waits.
const PIECES: usize = 16;
/// How often the back is told how far the export came.
const KEEP: Duration = Duration::from_secs(10);

/// The export.
#[derive(Debug)]
pub(crate) struct EventExport {
    settings: Events,
    resource: Resource,
    counts: Rc<Cell<Counts>>,
    delivery: Delivery<Note>,
    batch: Batch,
    /// When the batch has waited for long enough.
    due: Option<Instant>,
    /// What the next request tells.
    pending: Told,
    /// The collector did not want the last request: none is made only to tell that.
    is_refused: bool,
    progress: Progress,
    /// What the back knows of it.
    kept: Option<State>,
}

impl EventExport {
    /// `state`: how far an earlier export came, if there was one.
    pub(crate) fn new(
        settings: Events,
        resource: Resource,
        counts: Rc<Cell<Counts>>,
        state: Option<State>,
    ) -> Self {
        let nouns = Nouns { all: "events", parts: "events" };
        Self {
            delivery: Delivery::new(settings.target.clone(), nouns),
            settings,
            resource,
            counts,
            batch: Batch::default(),
            due: None,
            pending: Told::default(),
            is_refused: false,
            progress: Progress::after(state),
            kept: state,
        }
    }

    /// Reads and sends for ever. Reading never waits for the collector.
    pub(crate) async fn run(mut self, socket: &Path) {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let query = self.settings.query.clone();
        let reading = stream::run(socket, &query, sender);
        let exporting = async {
            let mut ticks = interval(KEEP);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                // While requests wait, only full ones join them.
                let due = self.due.filter(|_| self.delivery.queue().len() == 0);
                tokio::select! {
                    Some(piece) = pieces.recv() => self.take(piece),
                    done = self.delivery.next() => self.judge(done),
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.close(),
                    _ = ticks.tick() => self.keep(),
                }
            }
        };
        tokio::join!(reading, exporting);
    }

    fn count(&self, which: Count, number: u64) {
        let mut counts = self.counts.get();
        counts.add(which, number);
        self.counts.set(counts);
    }

    fn take(&mut self, piece: Piece) {
        match piece {
            Piece::Opened => {
                let until_ns = now_ns();
                if let Some(since_ns) = self.progress.open(until_ns) {
                    self.count(Count::Gaps, 1);
                    self.pending.add_gap(Gap { since_ns, until_ns });
                    self.wait();
                    log::warn!("the export of events has a gap, since there was no stream of events");
                }
                log::info!("the stream of events has begun");
                self.keep();
            }
            Piece::Lines(lines) => {
                let observed_ns = now_ns();
                for line in lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
                    self.add(line, observed_ns);
                }
            }
            Piece::Ended(why) => {
                self.progress.end();
                log::warn!("the stream of events has ended ({why}), and is opened again");
            }
        }
    }

    fn add(&mut self, line: &[u8], observed_ns: u64) {
        match record::read(line, observed_ns) {
            Ok(read) => {
                match read.loss {
                    Some(loss) => self.count(Count::Lost, loss.count),
                    None => {
                        self.count(Count::Read, 1);
                        self.progress.read(read.record.time_unix_nano);
                    }
                }
                self.batch.add(read.record, read.loss);
            }
            Err(error) => {
                log::warn!("a line of the stream is no event ({error}): it is lost");
                self.count(Count::Lost, 1);
                self.pending.lose(Loss { count: 1, since_ns: 0, until_ns: observed_ns });
            }
        }
        self.is_refused = false;
        self.wait();
        if self.batch.is_full(self.settings.batch) {
            self.close();
        }
    }

    /// The batch waits for other events.
    fn wait(&mut self) {
        let delay = self.settings.delay;
        self.due.get_or_insert_with(|| Instant::now() + delay);
    }

    /// Makes a request of the batch and of what is to be told.
    fn close(&mut self) {
        self.due = None;
        let (batch, told) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.pending));
        if batch.is_empty() && told.is_empty() {
            return;
        }
        let (request, note) = batch.close(told, self.progress.complete_ns(), &self.resource);
        for note in self.delivery.push(request.into(), note) {
            self.drop(&note, "away for too long");
        }
    }

    /// Counts a request that never arrives, for the next one to tell.
    fn drop(&mut self, note: &Note, why: &str) {
        self.pending.take_back(note);
        let dropped = note.events.map_or(0, |events| events.count);
        if dropped > 0 {
            self.count(Count::Dropped, dropped);
            log::warn!(
                "{dropped} events dropped, {} in all: {} is {why}",
                self.counts.get().of(Count::Dropped),
                self.delivery.url()
            );
        }
    }

    /// Acts on a request that is done.
    fn judge(&mut self, done: Done<Note>) {
        match done {
            Done::Arrived { note, rejected } => {
                self.is_refused = false;
                let events = note.events.map_or(0, |events| events.count);
                // A collector that does not want a record of a loss does not make events of it.
                let rejected = rejected.min(events);
                self.count(Count::Rejected, rejected);
                self.count(Count::Exported, events - rejected);
                if !self.is_untold() {
                    self.progress.arrive(note.complete_ns);
                }
            }
            Done::Refused(note) => {
                self.is_refused = true;
                self.drop(&note, "refusing them");
            }
        }
        if !self.pending.is_empty() && !self.is_refused {
            self.wait();
        }
    }

    /// True if the collector does not know yet that events are missing.
    fn is_untold(&self) -> bool {
        let mut notes = self.delivery.queue().notes();
        !self.pending.is_empty() || self.batch.tells() || notes.any(|note| !note.told.is_empty())
    }

    /// Tells the back how far the export came.
    fn keep(&mut self) {
        if self.delivery.queue().len() == 0 && self.batch.is_empty() && self.pending.is_empty() {
            self.progress.arrive(self.progress.complete_ns());
        }
        let state = self.progress.state();
        if state == self.kept {
            return;
        }
        self.kept = state;
        if let Some(line) = state.and_then(|state| serde_json::to_string(&state).ok()) {
            let mut out = io::stdout().lock();
            // Without the back, this process ends.
            let _ = out.write_all((line + "\n").as_bytes()).and_then(|()| out.flush());
        }
    }
}
