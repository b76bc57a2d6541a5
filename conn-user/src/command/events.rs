//! `conntrace events` and `conntrace life`: the stream of events, until something ends it.

use std::path::Path;

use conn_common::counter::{LOST, PRODUCED};
use conn_common::name;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::command::{forwarded, hint};
use crate::enrich::cgroup;
use crate::enrich::command_line;
use crate::enrich::existing::Search;
use crate::enrich::{Enricher, LookUp, Wanted};
use crate::error::Error;
use crate::event::kind::Kind;
use crate::filter::protocols::Protocols;
use crate::host::facts::Host;
use crate::host::plan::HookSet;
use crate::kernel::counters::Failures;
use crate::kernel::flow_map::FlowMaps;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::program_log;
use crate::kernel::session::Session;
use crate::ledger::auditor::When;
use crate::ledger::report::Report;
use crate::ledger::report_text::ReportStyle;
use crate::ledger::reporter::Reporter;
use crate::output::async_fd::register;
use crate::output::queue::{self, QueueSink};
use crate::output::stdout::Written;
use crate::output::terminal;
use crate::render::Renderer;
use crate::render::style::View;
use crate::settings::EventsSettings;
use crate::stream::consumer::Consumer;
use crate::stream::flow_sweep::FlowSweep;
use crate::stream::kept::{Keeping, Kept, Start};
use crate::stream::live::LiveSource;
use crate::stream::notice::Notice;
use crate::stream::pipeline::Pipeline;
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;
use crate::stream::source::Batch;
use crate::stream::text::Text;
use crate::stream::top_n::TopN;

/// How often the accounting is taken at the end, until all programs are done.
const SETTLING: u32 = 1_000;
/// Bytes of lines that may wait for the reader, for each byte of the ring: a JSON line is four times as long as its
/// record, so that all that the ring can hold may wait as lines.
const QUEUE_PER_RING: usize = 4;
/// The smallest queue.
const MIN_QUEUE: usize = 1 << 20;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &EventsSettings, host: &Host) -> Result<(), Error> {
    if let Some(flows) = &settings.forwarded {
        return forwarded::run(settings, flows, host);
    }
    let kinds: Vec<Kind> = Kind::STREAM.into_iter().filter(|&kind| settings.kinds.contains(kind)).collect();
    settings.filter.log(&kinds, settings.protocols);
    let search = Search::start(host.cgroup_root.as_deref(), &settings.filter, &settings.workload);
    let (mut session, keeping, start) = match Kept::of_environment() {
        Some(kept) => kept.open(host, &options(settings))?,
        None => (Session::start(host, &options(settings))?, None, Start::default()),
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, &mut session, search, keeping, start))
}

fn options(settings: &EventsSettings) -> Options {
    // A run that wants nothing of connections watches none.
    let watches_tcp = settings.protocols.contains(Protocols::TCP);
    let only_attempts = settings.kinds.is_only(Kind::Attempt) && !settings.summary;
    Options {
        kinds: settings.kinds.mask(),
        ring_bytes: settings.ring_bytes,
        log: settings.verbose >= 2,
        hooks: settings.hooks.or_else(|| (only_attempts || !watches_tcp).then_some(HookSet::NONE)),
        flows: settings.protocols.contains(Protocols::UDP).then_some(settings.max_flows),
        // NEW comes before a process can accept; later events name the process that did. Flows get owners from their packets.
        owners: if watches_tcp
            && (settings.kinds.contains(Kind::Update) || settings.kinds.contains(Kind::Destroy))
        {
            name::HOLDERS
        } else {
            name::OPENERS
        },
        counts: settings.summary,
        accept_hook: settings.accept_hook,
        ..Options::lists(&settings.filter)
    }
    .visiting_listeners()
    .showing_listeners(&settings.filter)
}

/// The sweep over flows, in a run that has them.
fn flow_sweep(settings: &EventsSettings, session: &Session) -> Result<Option<FlowSweep>, Error> {
    if !settings.protocols.contains(Protocols::UDP) {
        return Ok(None);
    }
    let maps = FlowMaps::new(&session.probe)?;
    Ok(Some(FlowSweep::new(maps, settings.kinds.mask(), settings.filter.kernel_part())))
}

async fn watch(
    settings: &EventsSettings,
    session: &mut Session,
    search: Search,
    keeping: Option<Keeping>,
    start: Start,
) -> Result<(), Error> {
    let mut shutdown = Shutdown::new(settings.timeout)?;
    let flows = flow_sweep(settings, session)?;
    let mut source = LiveSource::new(session, settings.ring_bytes)?.sweeping(flows).behind(start.reported);
    let mut programs = ProgramLog::new(settings.verbose >= 2, &session.probe)?;
    let capacity = (settings.ring_bytes as usize).saturating_mul(QUEUE_PER_RING).max(MIN_QUEUE);
    let (sink, output) = queue::stdout(capacity)?;
    let (pipeline, mut consumer) = stages(settings, session.plan.cgroup_root.as_deref(), sink, start.lines);
    let mut pipeline = pipeline.keeping(keeping, start.accounting);
    pipeline.begin(start.missing.as_ref(), &mut *consumer);
    if consumer.flush()? == Written::Closed {
        return Ok(());
    }
    search.absent().into_iter().for_each(|absent| consumer.notice(&Notice::Absent(absent)));
    hint::print(&settings.filter, &mut *consumer);
    // Attempts and listeners are of TCP only.
    let has_flows = Kind::ALL.into_iter().any(|kind| settings.kinds.contains(kind));
    hint::print_other_protocols(settings.is_tcp_by_default && has_flows, &mut *consumer);
    Ready::take().signal();

    let mut quiet = false;
    let mut stop = pipeline.is_complete();
    while !stop {
        tokio::select! {
            waited = source.wait(quiet) => waited?,
            () = programs.lines() => continue,
            // A reader that closed the pipe has seen what it wanted.
            ended = output.ended() => return ended,
            // The stream goes on without a reader.
            () = shutdown.wait() => if shutdown.is_terminated && pipeline.is_kept() { return Ok(()) } else { stop = true },
        }
        quiet = pipeline.run(&mut source, &mut *consumer)? == Batch::Idle;
        stop |= pipeline.is_complete();
        if let Some(notice) = source.take_notice() {
            consumer.notice(&notice);
        }
        if consumer.flush()? == Written::Closed {
            return Ok(());
        }
        pipeline.refresh_clock();
    }
    programs.flush();
    // The ledger as it is now; afterwards nothing is counted any more.
    let report = if settings.summary {
        Some(summary(settings, session, &mut source, &mut pipeline, &mut *consumer).await?)
    } else {
        None
    };
    settle(session, &mut source, &mut pipeline, &mut *consumer)?;
    pipeline.finish(&mut *consumer);
    if consumer.flush()? == Written::Closed {
        return Ok(());
    }
    let (written, unwritten) = output.finish(shutdown.signal()).await?;
    if written == Written::Closed {
        return Ok(());
    }
    pipeline.note_unwritten(unwritten);
    end(settings, &pipeline, &mut *consumer, unwritten, report.as_ref())
}

/// The ledger as it is now. The ring is read meanwhile, since an audit takes long beside many sockets.
async fn summary(
    settings: &EventsSettings,
    session: &Session,
    source: &mut LiveSource,
    pipeline: &mut Pipeline,
    consumer: &mut dyn Consumer,
) -> Result<Report, Error> {
    let mut reporter = Reporter::new(session, &settings.filter)?;
    let mut report = std::pin::pin!(reporter.report(When::Now));
    loop {
        // Events beyond `--count` stay in the ring.
        let quiet = pipeline.is_complete() || pipeline.run(source, consumer)? == Batch::Idle;
        tokio::select! {
            report = &mut report => return Ok(report?),
            waited = source.wait(quiet) => waited?,
        }
    }
}

/// Reports the fate of all events.
pub(super) fn end(
    settings: &EventsSettings,
    pipeline: &Pipeline,
    consumer: &mut dyn Consumer,
    unwritten: u64,
    report: Option<&Report>,
) -> Result<(), Error> {
    if let Some(report) = report {
        let style = ReportStyle {
            services: settings.style.services.clone(),
            header: true,
            terminal: terminal::probe(settings.style.color),
            // The proof has the counters of the programs.
            proof: settings.verbose > 0,
            ..ReportStyle::default()
        };
        consumer.notice(&Notice::Report(report.write(&style)));
    }
    if unwritten > 0 {
        consumer.notice(&Notice::Unwritten(unwritten));
    }
    let accounting = pipeline.accounting;
    consumer.notice(&Notice::Accounting(accounting));
    consumer.notice(&Notice::Shown { count: accounting.shown, noun: "flow events" });
    let failures = accounting.failures;
    match (accounting.missing(), failures.total()) {
        _ if !settings.strict => Ok(()),
        (0, 0) => Ok(()),
        (missing, 0) => Err(Error::Lost(format!("{missing} events were lost"))),
        (0, _) => Err(Error::Lost(format!("the programs failed ({failures})"))),
        (missing, _) => {
            Err(Error::Lost(format!("{missing} events were lost, the programs failed ({failures})")))
        }
    }
}

/// The pipeline, and the consumer at its end. `lines`: what an output already has that goes on.
pub(super) fn stages(
    settings: &EventsSettings,
    cgroup_root: Option<&Path>,
    sink: QueueSink,
    lines: Option<u64>,
) -> (Pipeline, Box<dyn Consumer>) {
    let terminal = terminal::probe(settings.style.color);
    let subject = if settings.life.is_some() { View::Lives } else { View::Events };
    let renderer = Renderer::new(&settings.style, subject, terminal);
    let names = if settings.top.is_some() { LookUp::AtEnd } else { LookUp::AtOnce };
    let shows_command_lines = renderer.shows(&command_line::COLUMNS);
    let by_filters = Wanted::by_filters(&settings.filter, &settings.workload);
    let wanted = Wanted {
        workloads: by_filters.workloads || renderer.shows(&cgroup::COLUMNS),
        command_lines: if shows_command_lines { LookUp::AtOnce } else { LookUp::Never },
        names: if settings.style.resolve { names } else { LookUp::Never },
        ..by_filters
    };
    let pipeline = Pipeline::new(&settings.filter)
        .enriched(Enricher::new(wanted, cgroup_root), &settings.workload)
        .lasting(settings.life)
        .limited(settings.count);
    let mut text = Text::new(renderer, sink);
    let consumer: Box<dyn Consumer> = if let Some((limit, key)) = settings.top {
        Box::new(TopN::new(limit, key, text))
    } else {
        match lines {
            Some(lines) => text.go_on(lines),
            None => text.begin(),
        }
        Box::new(text)
    };
    (pipeline, consumer)
}

/// Stops the programs, and takes the events that they have made by then. Events beyond `--count` stay unread.
fn settle(
    session: &mut Session,
    source: &mut LiveSource,
    pipeline: &mut Pipeline,
    consumer: &mut dyn Consumer,
) -> Result<(), Error> {
    session.probe.disable()?;
    for _ in 0..SETTLING {
        // The batch ends where the pipeline becomes complete; the next batch is unread.
        while pipeline.run(source, consumer)? != Batch::Idle {}
        let counters = session.counters.read()?;
        pipeline.accounting.lost = counters[LOST as usize];
        pipeline.accounting.produced =
            counters[PRODUCED as usize] + pipeline.accounting.lost + source.swept();
        pipeline.accounting.failures = Failures::of(&counters);
        if pipeline.accounting.holds() {
            break;
        }
        // A program that had begun before is still at it.
        std::thread::yield_now();
    }
    Ok(())
}

/// The programs' own log lines, with `-vv`.
struct ProgramLog(Option<AsyncFd<program_log::ProgramLog>>);

impl ProgramLog {
    fn new(on: bool, probe: &Probe) -> Result<Self, Error> {
        if !on {
            return Ok(Self(None));
        }
        let logger = register(probe.log()?, Interest::READABLE)
            .map_err(|source| Error::Io { context: "polling the program log".into(), source })?;
        Ok(Self(Some(logger)))
    }

    /// Logs the lines that wait.
    fn flush(&mut self) {
        if let Some(logger) = &mut self.0 {
            logger.get_mut().flush();
        }
    }

    /// Waits for lines and logs them.
    async fn lines(&mut self) {
        let Some(logger) = &mut self.0 else { return std::future::pending().await };
        match logger.readable_mut().await {
            Ok(mut guard) => {
                guard.get_inner_mut().flush();
                guard.clear_ready();
            }
            Err(error) => {
                log::error!("the program log cannot be read any more: {error}");
                self.0 = None;
            }
        }
    }
}
