//! `conntrace events`: the stream of events, until someone has had enough of it.

use aya_log::EbpfLogger;
use conn_common::counter::LOST;
use conn_common::name;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::clock::WallClock;
use crate::counters::Counters;
use crate::decode::decode;
use crate::error::Error;
use crate::kind::Kind;
use crate::output::Terminal;
use crate::poll::register;
use crate::probe::{Options, Probe};
use crate::ready;
use crate::render::{Renderer, Subject};
use crate::report::Report;
use crate::session::{Session, When};
use crate::settings::EventsSettings;
use crate::sink::{Sink, Written};
use crate::source::Source;
use crate::stop::Stop;
use crate::table::TableFormat;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &EventsSettings) -> Result<(), Error> {
    let mut session = Session::start(&options(settings))?;
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
        witnesses: settings.witnesses,
        // NEW comes before anybody can accept; whatever comes later tells who did.
        owners: if settings.kinds.contains(Kind::Update) || settings.kinds.contains(Kind::Destroy) {
            name::HOLDERS
        } else {
            name::OPENERS
        },
        accept_hook: settings.accept_hook,
        ..Options::lists(&settings.filter)
    }
}

async fn watch(settings: &EventsSettings, session: &mut Session) -> Result<(), Error> {
    let mut end = Stop::new(settings.timeout)?;
    let mut source = Source::take(&mut session.probe, settings.ring_bytes)?;
    let mut programs = ProgramLog::new(settings.verbose >= 2, &mut session.probe)?;
    let mut sink = Sink::stdout()?;
    let mut stream = Stream::new(settings);
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
        quiet = source.drain(|record| stream.take(record)) == 0;
        stop |= stream.is_complete();
        stream.tell_losses(&session.counters)?;
        if stream.flush(&mut sink)? == Written::Closed {
            return Ok(());
        }
    }
    programs.flush();
    stream.renderer.end(&mut stream.batch);
    if stream.flush(&mut sink)? == Written::Closed {
        return Ok(());
    }
    if settings.summary {
        let report = Report::take(session, &settings.filter, When::Now)?;
        eprint!("{}", report.write(TableFormat::Table, false, None));
    }
    stream.tell_end();
    Ok(())
}

/// Events on their way to the sink.
struct Stream {
    renderer: Renderer,
    clock: WallClock,
    batch: Vec<u8>,
    shown: u64,
    limit: Option<u64>,
    lost: u64,
    undecoded: u64,
}

impl Stream {
    fn new(settings: &EventsSettings) -> Self {
        let terminal = Terminal::stdout(settings.style.color);
        let renderer = Renderer::new(&settings.style, Subject::Events, terminal);
        let mut batch = Vec::new();
        renderer.begin(&mut batch);
        Self {
            renderer,
            clock: WallClock::measure(),
            batch,
            shown: 0,
            limit: settings.count,
            lost: 0,
            undecoded: 0,
        }
    }

    fn is_complete(&self) -> bool {
        self.limit.is_some_and(|limit| self.shown >= limit)
    }

    /// Takes one record of the ring. False when the limit is reached: the rest stays in the ring.
    fn take(&mut self, record: &[u8]) -> bool {
        match decode(record) {
            Ok(event) => {
                self.renderer.event(&event, &self.clock, &mut self.batch);
                self.shown += 1;
            }
            Err(error) => {
                self.undecoded += 1;
                log::error!("an event could not be decoded: {error}");
            }
        }
        !self.is_complete()
    }

    fn flush(&mut self, sink: &mut Sink) -> Result<Written, Error> {
        let written = if self.batch.is_empty() { Written::All } else { sink.write(&self.batch)? };
        self.batch.clear();
        // The wall clock may have been stepped while we slept.
        self.clock.refresh();
        Ok(written)
    }

    /// Losses are told when they happen. The number comes from the kernel's counter.
    fn tell_losses(&mut self, counters: &Counters) -> Result<(), Error> {
        let lost = counters.read()?[LOST as usize];
        if lost > self.lost {
            eprintln!(
                "conntrace: {} events were lost: the ring was full. Use a larger --buffer-size, or a filter",
                lost - self.lost
            );
            self.lost = lost;
        }
        Ok(())
    }

    fn tell_end(&self) {
        if self.lost > 0 {
            eprintln!("conntrace: {} events were lost in all", self.lost);
        }
        if self.undecoded > 0 {
            eprintln!("conntrace: {} events could not be decoded", self.undecoded);
        }
        eprintln!("conntrace v{}: {} flow events have been shown.", env!("CARGO_PKG_VERSION"), self.shown);
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
