//! A stream that outlives its process: pins keep its programs and its ring, and the next process goes on where the last one was
//! killed. What the last one had taken and not delivered is a loss, with its number.

use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use conn_common::name;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::error::Error;
use crate::event::lost::Lost;
use crate::host::clock::boot_now_ns;
use crate::host::facts::Host;
use crate::kernel::load_options::Options;
use crate::kernel::pin::error::PinError;
use crate::kernel::pin::{
    self, Left, Opened, PinSettings, Pinned, Progress, RingPosition, Service, Standing,
};
use crate::kernel::session::{Session, StartError};
use crate::stream::accounting::EventAccounting;
use crate::stream::consumer::Position;

/// The environment variable with the directory of the stream's pins. The daemon sets it for the commands of its clients.
pub(crate) const POINT: &str = "CONNTRACE_STREAM";
/// The environment variable with the number of lines that the client has of an earlier process.
pub(crate) const FROM: &str = "CONNTRACE_STREAM_FROM";

/// How long a process waits for the one before it to end, and how often it looks.
const MAX_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// How a stream is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    point: PathBuf,
    from: Option<u64>,
}

/// The memory of the reader, and what an earlier one left.
#[derive(Debug)]
pub(crate) struct Keeping {
    progress: Progress,
    /// Losses that lines report.
    reported: u64,
    marked: u64,
    /// Keeps other processes away from the pins.
    _pinned: Pinned,
}

/// Where the output goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Start {
    /// The lines that the client has; none for a stream that begins.
    pub(crate) lines: Option<u64>,
    /// The fate of earlier events.
    pub(crate) accounting: EventAccounting,
    /// Losses of the ring that lines report.
    pub(crate) reported: u64,
    /// What the client does not have.
    pub(crate) missing: Option<Lost>,
}

impl Kept {
    /// What the daemon asks for. Without the daemon, nobody reads the lines: the process ends with it, and events stay in the
    /// ring.
    pub(crate) fn of_environment() -> Option<Self> {
        let point = PathBuf::from(env::var_os(POINT)?);
        if let Err(errno) = set_pdeathsig(Signal::SIGKILL) {
            log::warn!("the command does not end with the daemon: {errno}");
        }
        let from = env::var(FROM).ok().and_then(|lines| lines.parse().ok());
        Some(Self { point, from })
    }

    /// Starts the programs, or goes on with those that run. Without pins, the stream ends with the process.
    ///
    /// # Errors
    /// The programs cannot be started, or an earlier process left nothing to go on with.
    pub(crate) fn open(
        &self,
        host: &Host,
        options: &Options,
    ) -> Result<(Session, Option<Keeping>, Start), Error> {
        let pins = PinSettings { root: self.point.clone(), transient: false };
        let service = wait_for_pins(|| pin::open(host, options, &pins))?;
        let goes_on = matches!(service.how, Opened::Replaced | Opened::TakenOver);
        let Service { session, how, pinned, .. } = service;
        let Some(pinned) = pinned else {
            return if self.from.is_none() { Ok((session, None, Start::default())) } else { Err(gone(&how)) };
        };
        let ring: RingPosition = session.probe.map(name::EVENTS)?;
        let Some(lines) = self.from else {
            let progress = Progress::make(&self.point, ring)?;
            return Ok((
                session,
                Some(Keeping { progress, reported: 0, marked: 0, _pinned: pinned }),
                Start::default(),
            ));
        };
        if !goes_on {
            return Err(gone(&how));
        }
        let left = Progress::open(&self.point, ring)?;
        let (mut progress, left) = left.ok_or_else(|| gone(&how))?;
        let start = Start::behind(&left, lines)?;
        // No line reports them yet.
        let unreported = start.missing.map_or(0, |missing| missing.count);
        progress.begin(&standing(
            &start.accounting,
            lines,
            start.reported,
            unreported,
            left.standing.time_ns,
        ));
        Ok((session, Some(Keeping { progress, reported: start.reported, marked: 0, _pinned: pinned }), start))
    }
}

/// Opens. The process that read the stream may not have ended yet, and the daemon looks now and then whether it has.
fn wait_for_pins<T>(open: impl Fn() -> Result<T, StartError>) -> Result<T, StartError> {
    let deadline = Instant::now() + MAX_WAIT;
    loop {
        match open() {
            Err(StartError::Pin(PinError::InUse { .. })) if Instant::now() < deadline => thread::sleep(PAUSE),
            opened => return opened,
        }
    }
}

fn gone(how: &Opened) -> Error {
    let why = match how {
        Opened::New { why: Some(why) } | Opened::Unpinned { why } => format!(": {why}"),
        _ => String::new(),
    };
    Error::Stream(why)
}

impl Start {
    /// Behind what a client has.
    fn behind(left: &Left, lines: u64) -> Result<Self, Error> {
        let Standing { shown, filtered, unwritten, undecoded, reported, time_ns, .. } = left.standing;
        let unknown = || Error::Stream(": the last daemon left no note of them".into());
        let (count, undelivered) = left.missing(lines).ok_or_else(unknown)?;
        let accounting = EventAccounting {
            shown: shown.saturating_sub(undelivered),
            filtered,
            unwritten: unwritten + undelivered,
            undecoded,
            ..EventAccounting::default()
        };
        let until_ns = boot_now_ns();
        let missing = (count > 0).then_some(Lost { count, since_ns: time_ns, until_ns, of: None });
        Ok(Self { lines: Some(lines), accounting, reported, missing })
    }
}

impl Keeping {
    /// Notes that an item is done: a record of so many bytes, whose event happened at `time_ns`, or another item.
    pub(crate) fn note(
        &mut self,
        record: Option<usize>,
        accounting: &EventAccounting,
        output: Position,
        time_ns: u64,
    ) {
        if output.marked > self.marked {
            self.marked = output.marked;
            self.progress.report(output.mark);
        }
        self.progress
            .note(record, &standing(accounting, output.lines, self.reported, output.unreported, time_ns));
    }

    /// Notes that a line reports so many losses of the ring.
    pub(crate) const fn report(&mut self, losses: u64) {
        self.reported += losses;
    }
}

fn standing(
    accounting: &EventAccounting,
    lines: u64,
    reported: u64,
    unreported: u64,
    time_ns: u64,
) -> Standing {
    let EventAccounting { shown, filtered, unwritten, undecoded, .. } = *accounting;
    Standing { lines, shown, filtered, unwritten, undecoded, reported, unreported, time_ns }
}
