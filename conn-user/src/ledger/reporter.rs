//! Gathers the parts of a report, and remembers what rates need of the last one.

use std::time::{Duration, Instant};

use conn_common::connection::IN;
use conn_common::counter;

use crate::event::sort_key::TopSources;
use crate::filter::Filter;
use crate::host::clock;
use crate::kernel::attempt_hooks::Sight;
use crate::kernel::map::MapError;
use crate::kernel::session::Session;
use crate::ledger::auditor::{AuditError, Audited, Auditor, When};
use crate::ledger::latency::{LifetimeReader, Lifetimes};
use crate::ledger::rates::Baseline;
use crate::ledger::reader::Ledger;
use crate::ledger::remotes::{RemoteReader, Remotes};
use crate::ledger::report::{Gathered, Report};
use crate::ledger::self_cost::SelfCostWatch;
use crate::ledger::sources::Sources;

/// Makes reports.
#[derive(Debug)]
pub(crate) struct Reporter<'a> {
    auditor: Auditor,
    filter: &'a Filter,
    lifetimes: Option<LifetimeReader>,
    /// Reports have histograms of lifetimes, if the session counts them.
    shows_lifetimes: bool,
    sources: Option<SourceReader>,
    self_cost: Option<&'a SelfCostWatch>,
    sight: Sight,
    last: Option<(Instant, Baseline)>,
    /// Reports are of counts that began to be counted so long ago, and have rates over that time.
    over: Option<Duration>,
}

/// Reads the counts per remote address, and remembers what rates need of the last reading.
#[derive(Debug)]
struct SourceReader {
    /// What reports show; `None` for nothing.
    top: Option<TopSources>,
    reader: RemoteReader,
    last: Option<(Instant, Remotes)>,
}

impl SourceReader {
    fn read(&mut self, sight: Sight) -> Result<Option<Sources>, MapError> {
        let Some(top) = self.top else { return Ok(None) };
        let (now, remotes) = (Instant::now(), self.reader.read()?);
        let since = self.last.as_ref().map(|(then, last)| (last, (now - *then).as_secs_f64()));
        let sources = Sources::new(top, sight, &remotes, since);
        self.last = Some((now, remotes));
        Ok(Some(sources))
    }
}

impl<'a> Reporter<'a> {
    /// Makes reports of the ports that pass the filter.
    ///
    /// # Errors
    /// A map of the ledger cannot be opened, or there can be no more threads.
    pub(crate) fn new(session: &Session, filter: &'a Filter) -> Result<Self, AuditError> {
        let (auditor, sight) = (Auditor::start(session)?, session.sight);
        Ok(Self {
            auditor,
            filter,
            lifetimes: None,
            shows_lifetimes: true,
            sources: None,
            self_cost: None,
            sight,
            last: None,
            over: None,
        })
    }

    /// Adds histograms of handshakes and lifetimes, which the session counts.
    ///
    /// # Errors
    /// The map cannot be opened.
    pub(crate) fn with_lifetimes(self, session: &Session) -> Result<Self, AuditError> {
        Ok(Self { lifetimes: Some(LifetimeReader::new(&session.probe)?), ..self })
    }

    /// Adds the remote addresses with the largest counts, which the session counts.
    ///
    /// # Errors
    /// The map cannot be opened.
    pub(crate) fn with_sources(self, session: &Session, top: Option<TopSources>) -> Result<Self, AuditError> {
        let reader = RemoteReader::new(&session.probe)?;
        Ok(Self { sources: Some(SourceReader { top, reader, last: None }), ..self })
    }

    /// The next report has these parts, as far as the session counts them. It has rates if its counts are those of a time.
    pub(crate) fn choose(&mut self, lifetimes: bool, sources: Option<TopSources>, over: Option<Duration>) {
        self.last = None;
        self.over = over;
        self.shows_lifetimes = lifetimes;
        if let Some(reader) = &mut self.sources {
            (reader.top, reader.last) = (sources, None);
        }
    }

    /// Adds the cost of conntrace itself.
    #[must_use]
    pub(crate) fn with_self_cost(self, watch: Option<&'a SelfCostWatch>) -> Self {
        Self { self_cost: watch, ..self }
    }

    /// One report, with rates since the last one.
    ///
    /// # Errors
    /// The kernel's maps or sockets cannot be read.
    pub(crate) async fn report(&mut self, when: When) -> Result<Report, AuditError> {
        let audited = self.audited(when).await?;
        self.report_of(audited, self.filter)
    }

    /// A reading of all ports.
    ///
    /// # Errors
    /// The kernel's maps or sockets cannot be read.
    pub(crate) async fn audited(&mut self, when: When) -> Result<Audited, AuditError> {
        self.auditor.audited(when).await
    }

    /// The ledger as it is now, without an audit.
    ///
    /// # Errors
    /// The kernel's maps cannot be read.
    pub(crate) fn ledger(&self) -> Result<Ledger, AuditError> {
        Ok(self.auditor.ledger()?)
    }

    /// The report of a reading: of the ports that pass a filter, with rates since the last report.
    ///
    /// # Errors
    /// The kernel's maps cannot be read.
    pub(crate) fn report_of(&mut self, audited: Audited, filter: &Filter) -> Result<Report, AuditError> {
        let Audited { mut ledger, mut audit, repaired } = audited;
        ledger.ports.retain(|&(direction, port), _| filter.matches_slot(direction, port));
        ledger.listeners.retain(|&port, _| filter.matches_slot(IN, port));
        let mut lifetimes =
            self.lifetimes.as_ref().filter(|_| self.shows_lifetimes).map(LifetimeReader::read).transpose()?;
        if let Some(Lifetimes(ports)) = &mut lifetimes {
            // A histogram of several ports may be of ports that pass.
            ports
                .retain(|&(direction, port), _| port.is_none_or(|port| filter.matches_slot(direction, port)));
        }
        ledger.attempts.retain(|&port, _| filter.matches_slot(IN, port));
        audit.found.waiting.retain(|&port, _| filter.matches_slot(IN, port));
        audit.found.accept_queues.retain(|&port, _| filter.matches_slot(IN, port));
        let sight = self.sight;
        let sources = self.sources.as_mut().map(|sources| sources.read(sight)).transpose()?.flatten();
        let taken = Instant::now();
        let counters = self.auditor.counters()?;
        let costs = self.auditor.programs().read();
        let self_cost = self.self_cost.map(|watch| watch.read(&costs, counters[counter::LOST as usize]));
        let nothing = Baseline::default();
        let since = match self.over {
            Some(over) => Some((&nothing, over.as_secs_f64())),
            None => self.last.as_ref().map(|(then, last)| (last, (taken - *then).as_secs_f64())),
        };
        let gathered = Gathered {
            unix_ns: clock::unix_now_ns(),
            ledger: &ledger,
            sight: self.sight,
            audit,
            counters,
            costs,
            repaired,
            lifetimes,
            sources,
            self_cost,
        };
        let report = Report::new(gathered, since);
        self.last = Some((taken, Baseline::of(&ledger)));
        Ok(report)
    }
}
