//! Answers about a time that is over: `stats` with `--since`, `--rates` and `--plot`.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::event::direction;
use crate::filter::Filter;
use crate::host::clock;
use crate::ledger::auditor::AuditError;
use crate::ledger::counts::Counts;
use crate::ledger::history::{History, Moment};
use crate::ledger::plot::{self, Row};
use crate::ledger::reader::Ledger;
use crate::ledger::report::{Report, RowKey};
use crate::ledger::reporter::Reporter;
use crate::render::style::Terminal;
use crate::settings::{HistorySettings, StatsSettings};

/// How often the counts are noted.
const STEP: Duration = Duration::from_secs(60);
/// Tests set this variable to a shorter time, in milliseconds.
const STEP_MS: &str = "CONNTRACE_TEST_STEP_MS";
/// How many ports a plot has beside the sum.
const PLOTTED: usize = 9;

/// The history of the daemon.
#[derive(Debug)]
pub(super) struct Past {
    history: History,
    steps: Interval,
}

/// The counts of a time that is over.
#[derive(Debug)]
pub(super) struct Part {
    /// The counts.
    pub(super) ledger: Ledger,
    /// The reading of now.
    now: (Moment, Ledger),
    from: Moment,
    asked: HistorySettings,
}

/// When the counts of a report began, in JSON.
#[derive(Debug, Serialize)]
struct Since {
    /// Wall-clock time (RFC 3339).
    time: String,
    /// How long ago, in seconds.
    seconds: f64,
    /// How long ago the client asked for.
    asked_seconds: f64,
}

impl Past {
    /// A history that begins now.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(super) fn begin(board: &Reporter<'_>) -> Result<Self, AuditError> {
        let shorter = std::env::var(STEP_MS).ok().and_then(|text| text.parse().ok());
        let step = shorter.map_or(STEP, Duration::from_millis);
        let mut steps = interval_at(Instant::now() + step, step);
        steps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { history: History::new(&board.ledger()?, moment()), steps })
    }

    /// Waits until the counts are due to be noted. Dropping the future is harmless.
    pub(super) async fn due(&mut self) {
        self.steps.tick().await;
    }

    /// Notes the counts. A reading that fails is made up for by the next one.
    pub(super) fn note(&mut self, board: &Reporter<'_>) {
        match board.ledger() {
            Ok(ledger) => self.history.note(&ledger, moment()),
            Err(error) => log::warn!("the counts of this minute belong to the next one: {error}"),
        }
    }

    /// The counts that a client asks for.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(super) fn part(&self, asked: HistorySettings, board: &Reporter<'_>) -> Result<Part, AuditError> {
        let now = (moment(), board.ledger()?);
        let (from, ledger) = self.history.since(asked.since, now.0, &now.1);
        Ok(Part { ledger, now, from, asked })
    }

    /// The plot of a part, of the ports that a report of it has.
    pub(super) fn plot(
        &self,
        span: &Part,
        settings: &StatsSettings,
        report: &Report,
        terminal: Terminal,
    ) -> String {
        let (now, ledger) = (span.now.0, &span.now.1);
        let points = |ports: &[(u8, u16)]| self.history.points(span.from, now, ledger, ports);
        let all: Vec<(u8, u16)> = ports(&settings.filter, ledger);
        let mut rows: Vec<Row> = vec![("all ports".to_owned(), points(&all))];
        let most = if settings.all_ports { usize::MAX } else { PLOTTED };
        // Refused SYNs make no connection.
        let counted = report.ports.iter().filter(|row| row.slot != Counts::ZERO);
        let named = counted.filter_map(|row| match row.key {
            RowKey::Port(direction, port) => Some((direction, port)),
            RowKey::Others(_) | RowKey::Total => None,
        });
        for (direction, port) in named.take(most).filter(|_| !settings.total) {
            let name = settings.services.name(port).map_or_else(|| port.to_string(), str::to_owned);
            let title = format!("port {name} {}", direction::name(direction).unwrap_or("-"));
            rows.push((title, points(&[(direction, port)])));
        }
        span.heading() + &plot::plot(&rows, span.from, now, terminal)
    }
}

impl Part {
    /// How long ago the counts began.
    fn age(&self) -> Duration {
        Duration::from_nanos(self.now.0.boot_ns.saturating_sub(self.from.boot_ns))
    }

    /// True if the client wants it drawn.
    pub(super) const fn is_drawn(&self) -> bool {
        self.asked.plot
    }

    /// The time of rates, if there are any.
    pub(super) fn rates_over(&self) -> Option<Duration> {
        self.asked.rates.then(|| self.age().max(Duration::from_millis(1)))
    }

    /// A line for people that says when the counts began.
    pub(super) fn heading(&self) -> String {
        let age = self.age().as_secs();
        let ago = match (age / 3600, age / 60 % 60, age % 60) {
            (0, 0, seconds) => format!("{seconds} s"),
            (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
            (hours, minutes, _) => format!("{hours} h {minutes} min"),
        };
        let limit = if self.age() < self.asked.since { ": the daemon knows no earlier minutes" } else { "" };
        format!("since {}, {ago} ago{limit}\n", time(self.from.unix_ns, false))
    }

    /// When the counts began, as a member of a JSON object.
    pub(super) fn member(&self) -> String {
        let since = Since {
            time: time(self.from.unix_ns, true),
            seconds: self.age().as_secs_f64(),
            asked_seconds: self.asked.since.as_secs_f64(),
        };
        // Numbers and text are JSON.
        serde_json::to_string(&since).map_or_else(|_| String::new(), |json| format!(",\"since\":{json}"))
    }
}

/// The ports of a ledger that pass.
fn ports(filter: &Filter, ledger: &Ledger) -> Vec<(u8, u16)> {
    ledger.ports.keys().copied().filter(|&(direction, port)| filter.matches_slot(direction, port)).collect()
}

fn moment() -> Moment {
    Moment { boot_ns: clock::boot_now_ns(), unix_ns: clock::unix_now_ns() }
}

/// RFC 3339, with nanoseconds or without.
fn time(unix_ns: i64, is_whole: bool) -> String {
    let mut text = Vec::new();
    clock::rfc3339(unix_ns, &mut text);
    let text = String::from_utf8_lossy(&text).into_owned();
    match text.split_once('.') {
        Some((seconds, _)) if !is_whole => format!("{seconds}Z"),
        _ => text,
    }
}
