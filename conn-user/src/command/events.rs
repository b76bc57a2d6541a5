//! `conntrace events`: the stream of events, until someone has had enough of it.

use std::path::Path;

use aya_log::EbpfLogger;
use conn_common::counter::{LOST, PRODUCED};
use conn_common::name;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::enrich::cgroup::{self, Places};
use crate::enrich::command_line::{self, CommandLines};
use crate::enrich::dns::Resolver;
use crate::error::Error;
use crate::event::Event;
use crate::event::decode::decode;
use crate::event::kind::Kind;
use crate::filter::Filter;
use crate::filter::lifetimes::LifetimeFilter;
use crate::filter::workload::WorkloadFilter;
use crate::host::clock::{WallClock, boot_now_ns};
use crate::host::facts::Host;
use crate::kernel::counters::Counters;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::session::{Session, When};
use crate::ledger::report::Report;
use crate::output::async_fd::register;
use crate::output::stdout::{Sink, Written};
use crate::output::terminal;
use crate::render::Renderer;
use crate::render::number_table::TableFormat;
use crate::render::style::View;
use crate::settings::EventsSettings;
use crate::stream::accounting::Balance;
use crate::stream::losses::LossWatch;
use crate::stream::ready;
use crate::stream::ring::Source;
use crate::stream::shutdown::Stop;
use crate::stream::top_n::Top;

/// How often the balance is taken at the end, until all programs are done.
const SETTLING: u32 = 1_000;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &EventsSettings, host: &Host) -> Result<(), Error> {
    settings.filter.log();
    let mut session = Session::start(host, &options(settings))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, &mut session))
}

fn options(settings: &EventsSettings) -> Options {
    Options {
        kinds: settings.kinds.mask(),
        ring_bytes: settings.ring_bytes,
        log: settings.verbose >= 2,
        hooks: settings.hooks,
        // NEW comes before anybody can accept; whatever comes later tells who did.
        owners: if settings.kinds.contains(Kind::Update) || settings.kinds.contains(Kind::Destroy) {
            name::HOLDERS
        } else {
            name::OPENERS
        },
        counts: settings.summary,
        accept_hook: settings.accept_hook,
        ..Options::lists(&settings.filter)
    }
}

async fn watch(settings: &EventsSettings, session: &mut Session) -> Result<(), Error> {
    let mut end = Stop::new(settings.timeout)?;
    let mut source = Source::take(&mut session.probe, settings.ring_bytes)?;
    let mut programs = ProgramLog::new(settings.verbose >= 2, &mut session.probe)?;
    let mut sink = Sink::stdout()?;
    let mut stream = Stream::new(settings, session.plan.cgroup_root.as_deref());
    if stream.flush(&mut sink)? == Written::Closed {
        return Ok(());
    }
    ready::tell();

    let mut quiet = false;
    let mut stop = stream.is_complete();
    while !stop {
        tokio::select! {
            waited = source.wait(quiet) => waited?,
            () = programs.lines() => continue,
            // Who closed the pipe has seen what it wanted.
            () = sink.closed() => return Ok(()),
            () = end.wait() => stop = true,
        }
        quiet = source.drain(|record| stream.take(record, &session.counters)) == 0;
        stop |= stream.is_complete();
        stream.tell_losses(&session.counters)?;
        if stream.flush(&mut sink)? == Written::Closed {
            return Ok(());
        }
    }
    programs.flush();
    // The ledger as it is now; afterwards nothing is counted any more.
    let report =
        if settings.summary { Some(Report::take(session, &settings.filter, When::Now)?) } else { None };
    stream.settle(session, &mut source)?;
    stream.finish();
    if stream.flush(&mut sink)? == Written::Closed {
        return Ok(());
    }
    if let Some(report) = report {
        eprint!("{}", report.write(TableFormat::Table, &settings.style.services, false, None));
    }
    stream.tell_end();
    let lost = stream.balance.lost + stream.balance.undecoded;
    if settings.strict && lost > 0 { Err(Error::Lost(format!("{lost} events were lost"))) } else { Ok(()) }
}

/// Events on their way to the sink.
struct Stream<'a> {
    renderer: Renderer,
    filter: &'a Filter,
    place_filter: &'a WorkloadFilter,
    /// `None` if nobody asks for places.
    places: Option<Places>,
    /// `None` if nobody asks for command lines.
    command_lines: Option<CommandLines>,
    /// `None` if nobody asks for names.
    names: Option<Resolver>,
    life: Option<LifetimeFilter>,
    top: Option<Top>,
    clock: WallClock,
    batch: Vec<u8>,
    limit: Option<u64>,
    losses: LossWatch,
    balance: Balance,
}

impl<'a> Stream<'a> {
    fn new(settings: &'a EventsSettings, cgroup_root: Option<&Path>) -> Self {
        let terminal = terminal::probe(settings.style.color);
        let subject = if settings.life.is_some() { View::Lives } else { View::Events };
        let renderer = Renderer::new(&settings.style, subject, terminal);
        let asks_for_places = !settings.workload.is_empty() || renderer.shows(&cgroup::COLUMNS);
        let command_lines = renderer.shows(&command_line::COLUMNS).then(CommandLines::of_host);
        let top = settings.top.map(|(limit, key)| Top::new(limit, key));
        let mut batch = Vec::new();
        if top.is_none() {
            renderer.begin(&mut batch);
        }
        Self {
            renderer,
            filter: &settings.filter,
            place_filter: &settings.workload,
            places: asks_for_places.then(|| Places::new(cgroup_root)),
            command_lines,
            names: settings.style.resolve.then(Resolver::start),
            life: settings.life,
            top,
            clock: WallClock::probe(),
            batch,
            limit: settings.count,
            losses: LossWatch::new(settings.ring_bytes, boot_now_ns()),
            balance: Balance::default(),
        }
    }

    fn is_complete(&self) -> bool {
        self.limit.is_some_and(|limit| self.balance.shown >= limit)
    }

    /// Takes one record of the ring. False when the limit is reached: the rest stays in the ring.
    fn take(&mut self, record: &[u8], counters: &Counters) -> bool {
        match decode(record) {
            Ok(mut event) => {
                let places = self.places.as_mut();
                event.place = places.and_then(|places| places.get(event.connection.owner.cgroup));
                let chosen = self.place_filter.matches(event.place.as_deref())
                    && self.filter.matches_rest(&event.connection)
                    && self.life.as_ref().is_none_or(|life| life.matches(&event));
                if let Some(command_lines) = self.command_lines.as_mut().filter(|_| chosen) {
                    event.process = command_lines.get(&event.connection.owner);
                }
                let time_ns = event.time_ns;
                match &mut self.top {
                    _ if !chosen => self.balance.filtered += 1,
                    Some(top) => top.push(event),
                    None => {
                        if let Some(names) = &mut self.names {
                            names.name(&mut event);
                        }
                        self.show(&event);
                    }
                }
                if self.losses.taken(record.len(), time_ns)
                    && let Err(error) = self.tell_losses(counters)
                {
                    log::error!("{}", error.report());
                }
            }
            Err(error) => {
                self.balance.undecoded += 1;
                log::error!("an event could not be decoded: {error}");
            }
        }
        !self.is_complete()
    }

    fn show(&mut self, event: &Event) {
        self.renderer.event(event, &self.clock, &mut self.batch);
        self.balance.shown += 1;
    }

    /// Shows what was kept for the end, and what stands after all events.
    fn finish(&mut self) {
        if let Some(top) = self.top.take() {
            let (mut lives, others) = top.sorted();
            if let Some(names) = &mut self.names {
                names.name_all(&mut lives);
            }
            self.balance.filtered += others;
            for event in &lives {
                self.renderer.measure(event, &self.clock);
            }
            self.renderer.begin(&mut self.batch);
            for event in &lives {
                self.show(event);
            }
        }
        self.renderer.end(&mut self.batch);
    }

    fn flush(&mut self, sink: &mut Sink) -> Result<Written, Error> {
        let written = if self.batch.is_empty() { Written::All } else { sink.write(&self.batch)? };
        self.batch.clear();
        // The wall clock may have been stepped while we slept.
        self.clock.refresh();
        Ok(written)
    }

    /// Losses are told where they happened, and on standard error. The number comes from the kernel's
    /// counter.
    fn tell_losses(&mut self, counters: &Counters) -> Result<(), Error> {
        let Some(lost) = self.losses.look(counters.read()?[LOST as usize], boot_now_ns()) else {
            return Ok(());
        };
        self.renderer.lost(&lost, &self.clock, &mut self.batch);
        eprintln!(
            "conntrace: {} events were lost: the ring was full. Use a larger --buffer-size, or a filter",
            lost.count
        );
        Ok(())
    }

    /// Stops the programs, and takes what they have made by then. What `--count` has no room for stays
    /// unread.
    fn settle(&mut self, session: &mut Session, source: &mut Source) -> Result<(), Error> {
        session.probe.disable()?;
        for _ in 0..SETTLING {
            source.drain(|record| {
                if self.is_complete() {
                    self.balance.unread += 1;
                } else {
                    self.take(record, &session.counters);
                }
                true
            });
            let counters = session.counters.read()?;
            self.balance.lost = counters[LOST as usize];
            self.balance.produced = counters[PRODUCED as usize] + self.balance.lost;
            if self.accounted().holds() {
                break;
            }
            // A program that had begun before is still at it.
            std::thread::yield_now();
        }
        self.tell_losses(&session.counters)
    }

    /// The balance, with what is kept for the end.
    fn accounted(&self) -> Balance {
        let kept = self.top.as_ref().map_or(0, Top::len);
        Balance { shown: self.balance.shown + kept, ..self.balance }
    }

    /// Tells what became of all events.
    fn tell_end(&self) {
        eprintln!("conntrace: {}", self.balance);
        let shown = self.balance.shown;
        eprintln!("conntrace v{}: {shown} flow events have been shown.", env!("CARGO_PKG_VERSION"));
    }
}

/// The programs' own log lines, with `-vv`.
struct ProgramLog(Option<AsyncFd<EbpfLogger<&'static dyn log::Log>>>);

impl ProgramLog {
    fn new(on: bool, probe: &mut Probe) -> Result<Self, Error> {
        if !on {
            return Ok(Self(None));
        }
        let logger = EbpfLogger::init(probe.ebpf_mut())
            .map_err(|error| Error::Internal(format!("program log: {error}")))?;
        let logger = register(logger, Interest::READABLE)
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
