//! The ring of the running programs as a source: records, and losses in their places.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use conn_common::counter::{self, LEDGER_OVERFLOWED, LOST, STATE_OVERFLOWED};

use crate::error::Error;
use crate::event::decode;
use crate::host::clock::boot_now_ns;
use crate::kernel::counters::Counters;
use crate::kernel::session::Session;
use crate::stream::flow_sweep::FlowSweep;
use crate::stream::losses::LossWatch;
use crate::stream::notice::Notice;
use crate::stream::ring::RingReader;
use crate::stream::source::{Batch, Item, Source, Take};

/// How long a batch may take. Under a flood the ring never is empty, and signals and deadlines wait for the batch.
const MAX_BATCH: Duration = Duration::from_millis(50);
/// How long the sweep waits if there is no room for the event of another end.
const FOR_ROOM: Duration = Duration::from_millis(10);
/// So many states or steps that found no room in a table are worth a notice: a few may share their ways by chance.
const MANY: u64 = 1_000;
/// After how many records the clock is read. An event may wait 20 ms for what files say.
const LOOK_EVERY: u32 = 8;

/// The ring, and the counter of events that found it full.
pub(crate) struct LiveSource {
    ring: RingReader,
    counters: Arc<Counters>,
    losses: LossWatch,
    overflow: Overflow,
    /// The sweep over flows, in a run that has them.
    flows: Option<FlowSweep>,
}

/// What found no room in the tables.
#[derive(Debug, Default)]
struct Overflow {
    states: u64,
    steps: u64,
    is_noted: bool,
}

impl LiveSource {
    /// Takes the ring of a session, which has `ring_bytes`. Needs a tokio runtime.
    ///
    /// # Errors
    /// The ring cannot be polled.
    pub(crate) fn new(session: &Session, ring_bytes: u32) -> Result<Self, Error> {
        Ok(Self {
            ring: RingReader::new(&session.probe, ring_bytes)?,
            counters: Arc::clone(&session.counters),
            losses: LossWatch::new(ring_bytes, boot_now_ns()),
            overflow: Overflow::default(),
            flows: None,
        })
    }

    /// The same with a sweep over flows.
    #[must_use]
    pub(crate) fn sweeping(self, flows: Option<FlowSweep>) -> Self {
        Self { flows, ..self }
    }

    /// The same behind an earlier process, which has reported so many losses.
    #[must_use]
    pub(crate) fn behind(self, reported: u64) -> Self {
        Self { losses: self.losses.behind(reported), ..self }
    }

    /// Events that the sweep made, beside those of the ring.
    pub(crate) fn swept(&self) -> u64 {
        self.flows.as_ref().map_or(0, |flows| flows.emitted)
    }

    /// A notice that a table is full, once.
    pub(crate) fn take_notice(&mut self) -> Option<Notice> {
        let Overflow { states, steps, is_noted } = &mut self.overflow;
        let is_due = !*is_noted && (*states).max(*steps) >= MANY;
        *is_noted |= is_due;
        is_due.then_some(Notice::Overflowed { states: *states, steps: *steps })
    }

    /// Waits until another batch is worthwhile. `quiet` if the last batch was idle.
    ///
    /// # Errors
    /// The ring cannot be polled any more.
    pub(crate) async fn wait(&mut self, quiet: bool) -> Result<(), Error> {
        let Some(flows) = &self.flows else { return self.ring.wait(quiet).await };
        match timeout(flows.due_in(), self.ring.wait(quiet)).await {
            Ok(waited) => waited,
            Err(_elapsed) => Ok(()),
        }
    }
}

impl Source for LiveSource {
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error> {
        let Self { ring, counters, losses, overflow, flows } = self;
        let (mut failed, mut taken_records) = (None, 0_u32);
        let begin = Instant::now();
        let records = ring.drain(|record| {
            let taken = take(Item::Record(record));
            taken_records += 1;
            let is_over = taken_records % LOOK_EVERY == 0 && begin.elapsed() >= MAX_BATCH;
            if decode::time_ns(record).is_some_and(|time_ns| losses.taken(record.len(), time_ns)) {
                match found(losses, overflow, counters) {
                    Ok(Some(item)) => _ = take(item),
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            }
            taken.is_continue() && !is_over
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(item) = found(losses, overflow, counters)?
            && let ControlFlow::Break(()) = take(item)
        {
            return Ok(Batch::Items);
        }
        // A flow that the sweep ends began long before: its other events are out of the ring.
        if records == 0
            && let Some(flows) = flows
            && flows.due_in().is_zero()
        {
            let (before, is_patient) = (flows.emitted, flows.is_patient());
            flows.run(boot_now_ns(), |event| {
                if take(Item::Event(event)).is_break() && is_patient {
                    ControlFlow::Break(FOR_ROOM)
                } else if begin.elapsed() >= MAX_BATCH {
                    ControlFlow::Break(Duration::ZERO)
                } else {
                    ControlFlow::Continue(())
                }
            })?;
            if flows.emitted > before {
                return Ok(Batch::Items);
            }
        }
        Ok(if records == 0 { Batch::Idle } else { Batch::Items })
    }
}

/// Losses that the kernel has counted since the last look.
fn found(
    losses: &mut LossWatch,
    overflow: &mut Overflow,
    counters: &Counters,
) -> Result<Option<Item<'static>>, Error> {
    let counts: [u64; counter::COUNT] = counters.read()?;
    overflow.states = counts[STATE_OVERFLOWED as usize];
    overflow.steps = counts[LEDGER_OVERFLOWED as usize];
    Ok(losses.look(counts[LOST as usize], boot_now_ns()).map(Item::Lost))
}
