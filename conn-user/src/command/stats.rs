//! `conntrace stats`: the ledger per service port, once at the end or at an interval, with the identity and the
//! audit that prove it.

use std::time::Duration;

use conn_common::remote;

use crate::error::Error;
use crate::event::kind::Kind;
use crate::event::sort_key::{SourceGroup, TopSources};
use crate::filter::Filter;
use crate::host::facts::Host;
use crate::kernel::load_options::{Options, RemoteOptions};
use crate::kernel::session::Session;
use crate::ledger::auditor::When;
use crate::ledger::report_text::ReportStyle;
use crate::ledger::reporter::Reporter;
use crate::ledger::self_cost::SelfCostWatch;
use crate::output::stdout::{Sink as _, Written};
use crate::output::{queue, stderr, terminal};
use crate::render::number_table::TableFormat;
use crate::render::style::Color;
use crate::settings::StatsSettings;
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;

/// Bytes of reports that may wait for a reader.
const MAX_WAITING: usize = 4 << 20;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &StatsSettings, host: &Host) -> Result<(), Error> {
    settings.filter.log(&Kind::ALL, settings.protocols);
    let self_cost = settings.self_cost.then(SelfCostWatch::start);
    let session = Session::start(
        host,
        &Options {
            hooks: settings.hooks,
            durations: settings.lifetimes,
            remotes: settings.sources.map(|top| remotes(top, &settings.filter)),
            ..Options::counting()
        },
    )?;
    let mut reporter = Reporter::new(&session, &settings.filter)?.with_self_cost(self_cost.as_ref());
    if settings.lifetimes {
        reporter = reporter.with_lifetimes(&session)?;
    }
    if let Some(top) = settings.sources {
        reporter = reporter.with_sources(&session, top)?;
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, &mut reporter))
}

/// What the kernel counts per remote address: of the ports that pass the filter.
fn remotes(top: TopSources, filter: &Filter) -> RemoteOptions {
    let by = match top.group {
        SourceGroup::Address => remote::BY_ADDRESS,
        SourceGroup::Prefix => remote::BY_PREFIX,
    };
    RemoteOptions { by, slots: filter.slots() }
}

/// Prints reports until the end.
async fn watch(settings: &StatsSettings, reporter: &mut Reporter<'_>) -> Result<(), Error> {
    let mut shutdown = Shutdown::new(settings.timeout)?;
    let (mut sink, output) = queue::stdout(MAX_WAITING)?;
    Ready::take().signal();
    let mut style = style(settings);
    loop {
        let mut ended = tokio::select! {
            () = shutdown.wait() => true,
            ended = output.ended() => return ended,
            () = pause(settings.interval) => false,
        };
        let report = tokio::select! {
            report = reporter.report(When::Due), if !ended => Some(report?),
            () = shutdown.wait(), if !ended => None,
            else => None,
        };
        ended |= report.is_none();
        let mut report = match report {
            Some(report) => report,
            None => reporter.report(When::Now).await?,
        };
        if settings.total {
            report.ports.clear();
        }
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
                stderr::print(format_args!(
                    "conntrace: {unwritten} reports were not written, because the reader of standard output was too \
                     slow\n"
                ));
            }
            let missed = report.missed();
            return if settings.strict && missed > 0 {
                Err(Error::Lost(format!("{missed} steps were missed or could not be counted")))
            } else {
                Ok(())
            };
        }
    }
}

fn style(settings: &StatsSettings) -> ReportStyle {
    ReportStyle {
        format: settings.format,
        services: settings.services.clone(),
        all_ports: settings.all_ports,
        proof: settings.proof,
        header: settings.header,
        is_repeated: settings.interval.is_some(),
        terminal: terminal::probe(Color::Never),
    }
}

/// Until the next report, or for ever.
async fn pause(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}
