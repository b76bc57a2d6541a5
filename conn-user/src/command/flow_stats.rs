//! `conntrace stats --forwarded`: how many flows passed through, per protocol and service port, once at the end or at an
//! interval, with the account of each network namespace.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::command::stats::{MAX_WAITING, style};
use crate::conntrack::plan::Plan;
use crate::enrich::Enricher;
use crate::error::Error;
use crate::event::enriched::Enriched;
use crate::event::kind::{Kind, KindSet};
use crate::event::lost::Lost;
use crate::filter::expression::Field;
use crate::host::clock::{WallClock, rfc3339, unix_now_ns};
use crate::host::facts::Host;
use crate::ledger::forwarded_report::{ForwardedReport, PassedByPort};
use crate::output::stdout::{Sink as _, Written};
use crate::output::{queue, stderr};
use crate::render::number_table::TableFormat;
use crate::settings::StatsSettings;
use crate::settings::forwarded::ForwardedSettings;
use crate::stream::consumer::{Consumer, Finished, Taken};
use crate::stream::forwarded::FlowSource;
use crate::stream::notice::Notice;
use crate::stream::pipeline::Pipeline;
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;
use crate::stream::source::Batch;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub(super) fn run(settings: &StatsSettings, flows: &ForwardedSettings, host: &Host) -> Result<(), Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, flows, host))
}

async fn watch(settings: &StatsSettings, flows: &ForwardedSettings, host: &Host) -> Result<(), Error> {
    let mut shutdown = Shutdown::new(settings.timeout)?;
    let plan = Plan { scope: flows.scope, kinds: KindSet::BOUNDS, buffer: flows.buffer, owners: false };
    let mut source = FlowSource::new(plan, settings.filter.bound(Field::Netns).cloned(), host)?;
    let mut pipeline = Pipeline::new(&settings.filter).of_flows(&flows.filter);
    let mut counts = Counts::default();
    // The flows that exist.
    pipeline.run(&mut source, &mut counts)?;
    let (mut sink, output) = queue::stdout(MAX_WAITING)?;
    Ready::take().signal();
    let mut style = style(settings);
    let next = |interval: Duration| Instant::now() + interval;
    let mut due = settings.interval.map(next);
    let mut quiet = false;
    loop {
        let ended = loop {
            tokio::select! {
                waited = source.wait(quiet) => waited?,
                closed = output.ended() => return closed,
                () = shutdown.wait() => break true,
                () = until(due) => break false,
            }
            quiet = pipeline.run(&mut source, &mut counts)? == Batch::Idle;
        };
        due = settings.interval.map(next);
        let accounts = pipeline.accounts(&mut source, &mut counts)?;
        let mut time = Vec::new();
        rfc3339(unix_now_ns(), &mut time);
        let report = ForwardedReport {
            time: String::from_utf8_lossy(&time).into_owned(),
            ports: counts.ports.clone(),
            accounts,
            is_total: settings.total,
        };
        let mut text = report.write(&style).into_bytes();
        if settings.format == TableFormat::Csv {
            // The rows of all reports stand under one header.
            style.header = false;
        }
        let mut ends = vec![text.len()];
        // A reader that does not read misses reports, but the last one.
        let is_wanted = ended || sink.has_room(text.len());
        if is_wanted && sink.push(&mut text, &mut ends)? == Written::Closed {
            return Ok(());
        }
        if ended {
            let (_, unwritten) = output.finish(shutdown.signal()).await?;
            if unwritten > 0 {
                counts.notice(&Notice::Unwritten(unwritten));
            }
            let missed = report.missed();
            return if settings.strict && missed > 0 {
                Err(Error::Lost(format!("{missed} flows were missed or could not be counted")))
            } else {
                Ok(())
            };
        }
    }
}

/// Until a moment, or for ever.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Counts flows by protocol and service port.
#[derive(Default)]
struct Counts {
    ports: PassedByPort,
}

impl Consumer for Counts {
    fn event(&mut self, event: &Enriched, _: &WallClock) -> Taken {
        let passed = self.ports.entry((event.protocol, event.connection.dport)).or_default();
        match event.kind {
            Kind::New => passed.begun += 1,
            _ => passed.ended += 1,
        }
        Taken::Shown
    }

    fn lost(&mut self, _: &Lost, _: &WallClock) {}

    fn notice(&mut self, notice: &Notice) {
        // The report counts what was lost.
        if !matches!(notice, Notice::Lost(_)) {
            stderr::print(notice);
        }
    }

    fn flush(&mut self) -> Result<Written, Error> {
        Ok(Written::All)
    }

    fn finish(&mut self, _: &mut Enricher, _: &WallClock) -> Finished {
        Finished::default()
    }
}
