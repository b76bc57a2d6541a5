//! Events from the stream to the collector.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::output::stdout;
use crate::serve::otlp::delivery::{Delivery, Done, Nouns};
use crate::serve::otlp::events::batch::{Batch, Loss, Missing, Note};
use crate::serve::otlp::events::counts::{Count, Counts};
use crate::serve::otlp::events::progress::{Progress, State, now_ns};
use crate::serve::otlp::events::record;
use crate::serve::otlp::events::stream::{self, Piece};
use crate::settings::otlp::Events;

/// How many pieces of the stream wait here. Then the stream waits.
const PIECES: usize = 16;
/// How often the export looks whether the stream is quiet.
const TICK: Duration = Duration::from_secs(2);
/// How often the back gets the progress of the export.
const KEEP: Duration = Duration::from_secs(10);
/// The shortest time between two lines of the log about dropped events.
const SAY: Duration = Duration::from_secs(10);

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
    /// What the next request reports as missing.
    pending: Missing,
    /// The collector did not want the last request: none is made only to report that.
    is_refused: bool,
    progress: Progress,
    /// What the back knows of it.
    kept: Option<State>,
    kept_at: Instant,
    /// Dropped events that the log does not have yet, and when it got the last ones.
    unsaid: u64,
    said_at: Option<Instant>,
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
            pending: Missing::default(),
            is_refused: false,
            progress: Progress::after(state),
            kept: state,
            kept_at: Instant::now(),
            unsaid: 0,
            said_at: None,
        }
    }

    /// Reads and sends for ever. Reading never waits for the collector.
    pub(crate) async fn run(mut self, socket: &Path) {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let query = self.settings.query.clone();
        let reading = stream::run(socket, &query, sender);
        let exporting = async {
            let mut ticks = interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                // While requests wait, only full ones join them.
                let due = self.due.filter(|_| self.delivery.queue().len() == 0);
                tokio::select! {
                    Some(piece) = pieces.recv() => self.take(piece),
                    done = self.delivery.next() => self.judge(&done),
                    () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.close(),
                    // The stream is read first, so what waits to be read is in pieces.
                    _ = ticks.tick() => self.tick(pieces.is_empty()),
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
            Piece::Lacking => self.progress.lack(now_ns()),
            Piece::Opened => {
                if let Some(gap) = self.progress.open(now_ns()) {
                    self.count(Count::Gaps, 1);
                    self.pending.add_gap(gap);
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
                if let Some(loss) = read.loss {
                    self.count(Count::Lost, loss.count);
                } else {
                    self.count(Count::Read, 1);
                    self.progress.read(read.record.time_unix_nano);
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

    /// Makes a request of the batch and of the report of missing events.
    fn close(&mut self) {
        self.due = None;
        let (batch, missing) = (std::mem::take(&mut self.batch), std::mem::take(&mut self.pending));
        if batch.is_empty() && missing.is_empty() {
            return;
        }
        let (request, note) = batch.close(missing, self.progress.read_ns(), &self.resource);
        for note in self.delivery.push(request.into(), note) {
            self.drop(&note);
        }
    }

    /// Counts a request that never arrives, for the next one to report.
    fn drop(&mut self, note: &Note) {
        self.pending.take_back(note);
        let dropped = note.events.map_or(0, |events| events.count);
        self.count(Count::Dropped, dropped);
        self.unsaid += dropped;
        self.say();
    }

    /// Logs how many events were dropped, now and then.
    fn say(&mut self) {
        if self.unsaid == 0 || self.said_at.is_some_and(|at| at.elapsed() < SAY) {
            return;
        }
        log::warn!(
            "{} does not take events: {} dropped, {} in all",
            self.delivery.url(),
            self.unsaid,
            self.counts.get().of(Count::Dropped)
        );
        self.unsaid = 0;
        self.said_at = Some(Instant::now());
    }

    /// Acts on a request that is done.
    fn judge(&mut self, done: &Done<Note>) {
        match done {
            Done::Arrived { note, rejected } => {
                self.is_refused = false;
                let events = note.events.map_or(0, |events| events.count);
                // Records of losses may be among the rejected ones, and are no events.
                let rejected = events.min(*rejected);
                self.count(Count::Rejected, rejected);
                self.count(Count::Exported, events - rejected);
                if !self.is_untold() {
                    self.progress.arrive(note.complete_ns);
                }
            }
            Done::Refused(note) => {
                self.is_refused = true;
                self.drop(note);
            }
        }
        if !self.pending.is_empty() && !self.is_refused {
            self.wait();
        }
    }

    /// True if the collector does not know yet that events are missing.
    fn is_untold(&self) -> bool {
        let mut notes = self.delivery.queue().notes();
        !self.pending.is_empty() || self.batch.reports() || notes.any(|note| !note.missing.is_empty())
    }

    /// `is_idle`: nothing waits to be read.
    fn tick(&mut self, is_idle: bool) {
        self.say();
        if is_idle {
            self.progress.rest();
            if self.delivery.queue().len() == 0 && self.batch.is_empty() && self.pending.is_empty() {
                self.progress.arrive(self.progress.read_ns());
            }
        }
        if self.kept_at.elapsed() >= KEEP {
            self.keep();
        }
    }

    /// Tells the back how far the export came.
    fn keep(&mut self) {
        self.kept_at = Instant::now();
        let state = self.progress.state();
        if state == self.kept {
            return;
        }
        self.kept = state;
        if let Some(line) = state.and_then(|state| serde_json::to_string(&state).ok()) {
            // Without the back, this process ends.
            let _ = stdout::print_part((line + "\n").as_bytes());
        }
    }
}
