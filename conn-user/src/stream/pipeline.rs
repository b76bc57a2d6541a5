//! From a source to a consumer: decode, filter by what the kernel knows, enrich, filter by workload, consume.

use std::cell::LazyCell;
use std::ops::ControlFlow;
use std::sync::Arc;

use conn_common::connection::Connection;
use conn_common::owner::Owner;
use conn_common::protocol::UDP;

use crate::conntrack::account::Account;
use crate::conntrack::counts::Counts;
use crate::enrich::Enricher;
use crate::error::Error;
use crate::event::Event;
use crate::event::decode;
use crate::event::kind::Kind;
use crate::event::lost::Lost;
use crate::event::workload::Workload;
use crate::filter::Filter;
use crate::filter::expression::PredicateKind;
use crate::filter::lifetimes::LifetimeFilter;
use crate::filter::sockets;
use crate::filter::subject::Subject;
use crate::filter::tracked::TrackedFilter;
use crate::filter::visible;
use crate::filter::workload::WorkloadFilter;
use crate::host::clock::{WallClock, boot_now_ns};
use crate::host::flows::FlowTimeouts;
use crate::host::ticks::TickRate;
use crate::stream::accounting::EventAccounting;
use crate::stream::consumer::{Consumer, Taken};
use crate::stream::forwarded::FlowSource;
use crate::stream::kept::Keeping;
use crate::stream::notice::Notice;
use crate::stream::source::{Batch, Item, Source};

/// What the user-space part of a filter asks for beside the record. Found once: the part may have thousands of terms.
#[derive(Clone, Copy)]
struct Asked {
    mark: bool,
    interface: bool,
    workload: bool,
}

impl Asked {
    fn by(filter: &Filter) -> Self {
        Self {
            mark: filter.decides(PredicateKind::Mark),
            interface: filter.decides(PredicateKind::Interface),
            workload: filter.asks_for_workloads(),
        }
    }
}

/// The stages between a source and a consumer. Every command that shows connections runs on it.
pub(crate) struct Pipeline {
    /// The filter. Of a record, it decides only what the kernel did not.
    kernel_rest: Filter,
    asked: Asked,
    /// The tests that only flows of connection tracking have.
    flows: TrackedFilter,
    /// The lifetimes that pass, for ends only.
    lifetimes: Option<LifetimeFilter>,
    enricher: Enricher,
    workload: WorkloadFilter,
    /// The fate of the events by now.
    pub accounting: EventAccounting,
    clock: WallClock,
    rate: TickRate,
    /// Read at the first flow.
    timeouts: LazyCell<FlowTimeouts>,
    /// When the walk began that sockets come from, nanoseconds of `CLOCK_BOOTTIME`.
    walked_ns: u64,
    limit: Option<u64>,
    /// The memory of the reader, in a stream that outlives its process.
    keeping: Option<Keeping>,
}

impl Pipeline {
    /// A pipeline without an enricher, in which every workload and lifetime passes.
    pub(crate) fn new(filter: &Filter) -> Self {
        Self {
            kernel_rest: filter.clone(),
            asked: Asked::by(filter),
            flows: TrackedFilter::default(),
            lifetimes: None,
            enricher: Enricher::default(),
            workload: WorkloadFilter::default(),
            accounting: EventAccounting::default(),
            clock: WallClock::probe(),
            rate: TickRate::probe(),
            timeouts: LazyCell::new(FlowTimeouts::probe),
            walked_ns: boot_now_ns(),
            limit: None,
            keeping: None,
        }
    }

    /// The same with an enricher, and a filter of what it finds.
    #[must_use]
    pub(crate) fn enriched(self, enricher: Enricher, workload: &WorkloadFilter) -> Self {
        Self { enricher, workload: workload.clone(), ..self }
    }

    /// The same for flows that pass tests of their own.
    #[must_use]
    pub(crate) fn of_flows(self, flows: &TrackedFilter) -> Self {
        Self { flows: flows.clone(), ..self }
    }

    /// The same for ends with certain lifetimes only.
    #[must_use]
    pub(crate) fn lasting(self, lifetimes: Option<LifetimeFilter>) -> Self {
        Self { lifetimes, ..self }
    }

    /// The same for so many events only. The source keeps what comes after them.
    #[must_use]
    pub(crate) fn limited(self, limit: Option<u64>) -> Self {
        Self { limit, ..self }
    }

    /// The same for a stream that outlives its process, and goes on behind earlier events.
    #[must_use]
    pub(crate) fn keeping(self, keeping: Option<Keeping>, accounting: EventAccounting) -> Self {
        Self { accounting, keeping, ..self }
    }

    /// True of a stream that outlives its process.
    pub(crate) const fn is_kept(&self) -> bool {
        self.keeping.is_some()
    }

    /// Begins the output: lets the consumer report what an earlier process took and did not deliver.
    pub(crate) fn begin(&mut self, missing: Option<&Lost>, consumer: &mut dyn Consumer) {
        if let Some(missing) = missing {
            consumer.lost(missing, &self.clock);
            consumer.notice(&Notice::Undelivered(missing.count));
        }
        self.note(None, boot_now_ns(), consumer);
    }

    /// The same with clocks and a tick rate other than those of this host, for recordings. `walked_ns` is when the walk
    /// began that sockets come from, nanoseconds of `CLOCK_BOOTTIME`.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn timed(self, clock: WallClock, rate: TickRate, walked_ns: u64) -> Self {
        Self { clock, rate, walked_ns, ..self }
    }

    /// True if the consumer has as many events as it is to have.
    pub(crate) fn is_complete(&self) -> bool {
        self.limit.is_some_and(|limit| self.accounting.shown >= limit)
    }

    /// Runs the next batch of a source, until the pipeline is complete. If it was complete before, records only count
    /// as unread.
    ///
    /// # Errors
    /// The source cannot be read.
    pub(crate) fn run(
        &mut self,
        source: &mut dyn Source,
        consumer: &mut dyn Consumer,
    ) -> Result<Batch, Error> {
        if self.keeping.is_none() {
            return source.next_batch(&mut |item| self.take(item, consumer));
        }
        source.next_batch(&mut |item| {
            let (record, time_ns) = match item {
                Item::Record(bytes) => (Some(bytes.len()), decode::time_ns(bytes).unwrap_or_default()),
                Item::Lost(lost) => {
                    self.keeping.iter_mut().for_each(|keeping| keeping.report(lost.count));
                    (None, lost.until_ns)
                }
                _ => (None, boot_now_ns()),
            };
            let taken = self.take(item, consumer);
            self.note(record, time_ns, consumer);
            taken
        })
    }

    /// Notes that an item is done, before the ring forgets it.
    fn note(&mut self, record: Option<usize>, time_ns: u64, consumer: &dyn Consumer) {
        if let Some(keeping) = &mut self.keeping {
            keeping.note(record, &self.accounting, consumer.position(), time_ns);
        }
    }

    /// The accounts of a source of flows. What has expired ends first.
    ///
    /// # Errors
    /// The source cannot be read.
    pub(crate) fn accounts(
        &mut self,
        source: &mut FlowSource,
        consumer: &mut dyn Consumer,
    ) -> Result<Vec<Account>, Error> {
        source.accounts(&mut |item| self.take(item, consumer))
    }

    /// Takes what flows are left when their source has ended, and the counts of all of them.
    ///
    /// # Errors
    /// The source cannot be read.
    pub(crate) fn finish_flows(
        &mut self,
        source: &mut FlowSource,
        consumer: &mut dyn Consumer,
    ) -> Result<Counts, Error> {
        let dumps = !self.is_complete();
        let counts = source.finish(dumps, &mut |item| self.take(item, consumer))?;
        self.accounting.lost = counts.all_lost();
        self.accounting.produced = counts.produced();
        self.accounting.undecoded += counts.undecoded;
        self.accounting.filtered += counts.unwanted;
        Ok(counts)
    }

    /// Measures the distance of the clocks again: the wall clock may have been set.
    pub(crate) fn refresh_clock(&mut self) {
        self.clock.refresh();
    }

    /// Lets the consumer show what it kept for the end.
    pub(crate) fn finish(&mut self, consumer: &mut dyn Consumer) {
        let finished = consumer.finish(&mut self.enricher, &self.clock);
        self.accounting.shown -= finished.filtered;
        self.accounting.filtered += finished.filtered;
        self.note_unwritten(finished.unwritten);
    }

    /// Notes that so many events that the consumer took did not leave the process.
    pub(crate) const fn note_unwritten(&mut self, events: u64) {
        self.accounting.shown -= events;
        self.accounting.unwritten += events;
    }

    fn take(&mut self, item: Item<'_>, consumer: &mut dyn Consumer) -> ControlFlow<()> {
        match item {
            Item::Record(_) | Item::Event(_) | Item::Flow(_) if self.is_complete() => {
                self.accounting.unread += 1;
                return ControlFlow::Continue(());
            }
            Item::Record(bytes) => match decode::decode(bytes, self.rate) {
                Ok(mut event) => {
                    event.tracked.timeout_s = self.timeout_s(&event);
                    let passes = if event.kind == Kind::Attempt {
                        // There is no socket whose mark the kernel could judge or show.
                        self.judge(&event, None, |filter, subject| filter.matches(subject))
                    } else {
                        let mark = if self.asked.mark { decode::mark(bytes) } else { None };
                        self.judge(&event, mark, |filter, subject| filter.matches_rest(subject))
                    };
                    self.pass_on(&event, passes, consumer);
                }
                Err(error) => {
                    self.accounting.undecoded += 1;
                    log::error!("an event could not be decoded: {error}");
                }
            },
            Item::Event(event) => {
                let passes = self.judge(event, None, |filter, subject| filter.matches_rest(subject));
                self.pass_on(event, passes, consumer);
                // Such events can wait in their source.
                if !consumer.has_room() {
                    return ControlFlow::Break(());
                }
            }
            Item::Flow(event) => {
                let passes = self.flows.matches(event)
                    && self.judge(event, event.tracked.mark, |filter, subject| filter.matches(subject));
                self.pass_on(event, passes, consumer);
            }
            Item::Socket(row, _) if sockets::has_ended(row) => self.accounting.filtered += 1,
            Item::Socket(row, holders) => {
                let holders = visible::holders(holders, self.kernel_rest.viewer());
                let holders = holders.as_deref();
                // A mini-socket has no cookie, and shows no mark.
                let mark = Some(row.mark).filter(|_| row.cookie != 0);
                let (walked_ns, rate) = (self.walked_ns, self.rate);
                let open = |connection: &Connection| decode::open(row, connection, walked_ns, rate);
                let found = sockets::wanted(sockets::connection(row), row.uid, holders, |connection| {
                    self.judge(&open(connection), mark, |filter, subject| filter.matches(subject))
                });
                match found {
                    Some(connection) => {
                        let holders = holders.filter(|holders| holders.len() > 1);
                        self.pass_on_held(&open(&connection), holders, true, consumer);
                    }
                    None => self.accounting.filtered += 1,
                }
            }
            Item::Lost(lost) => {
                consumer.lost(&lost, &self.clock);
                consumer.notice(&Notice::Lost(lost.count));
            }
        }
        if self.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// The idle time of a flow that is alive.
    fn timeout_s(&self, event: &Event) -> Option<u32> {
        let is_alive_flow = event.protocol == UDP && event.kind != Kind::Destroy;
        is_alive_flow.then(|| self.timeouts.of(event.connection.state))
    }

    /// True if an event passes the filter. What only the host knows is looked up if the filter asks for it.
    fn judge(
        &mut self,
        event: &Event,
        mark: Option<u32>,
        matches: impl FnOnce(&Filter, Subject<'_>) -> bool,
    ) -> bool {
        let workload = if self.asked.workload { self.enricher.workload(event) } else { None };
        let interface = if self.asked.interface { self.enricher.interface(event) } else { None };
        let subject = Subject {
            mark,
            interface: interface.as_deref(),
            workload: workload.as_deref(),
            ..Subject::from(event)
        };
        matches(&self.kernel_rest, subject)
    }

    /// Enriches an event and hands it to the consumer, unless a filter rejects it.
    fn pass_on(&mut self, event: &Event, passes: bool, consumer: &mut dyn Consumer) {
        self.pass_on_held(event, None, passes, consumer);
    }

    /// The same for a socket that several processes have open.
    fn pass_on_held(
        &mut self,
        event: &Event,
        holders: Option<&[Owner]>,
        passes: bool,
        consumer: &mut dyn Consumer,
    ) {
        let passes = passes && self.lifetimes.is_none_or(|lifetimes| lifetimes.matches(event));
        // Behind the filter, which admits no other's connection by its owner, and before any look-up.
        let event = &visible::event(event, self.kernel_rest.viewer());
        let workload: Option<Arc<Workload>> = if passes { self.enricher.workload(event) } else { None };
        if !passes || !self.workload.matches(workload.as_deref()) {
            self.accounting.filtered += 1;
            return;
        }
        let mut enriched = self.enricher.enrich(event, workload);
        enriched.all_holders = holders.map(Arc::from);
        match consumer.event(&enriched, &self.clock) {
            Taken::Shown => self.accounting.shown += 1,
            Taken::Dropped => self.accounting.unwritten += 1,
        }
    }
}

#[cfg(test)]
mod tests;
