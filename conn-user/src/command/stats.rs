//! `conntrace stats`: the ledger per service port, once at the end or at an interval, with the
//! identity and the audit that prove it.

use std::time::Duration;

use crate::error::Error;
use crate::host::facts::Host;
use crate::kernel::load_options::Options;
use crate::kernel::session::{Session, When};
use crate::ledger::report::Report;
use crate::ledger::self_cost::OwnWatch;
use crate::output::stdout::{Sink, Written};
use crate::settings::StatsSettings;
use crate::stream::ready;
use crate::stream::shutdown::Stop;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &StatsSettings, host: &Host) -> Result<(), Error> {
    settings.filter.log();
    let own = settings.self_cost.then(OwnWatch::start);
    let mut session = Session::start(
        host,
        &Options { hooks: settings.hooks, spans: settings.lifetimes, ..Options::counting() },
    )?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, &mut session, own.as_ref()))
}

async fn watch(settings: &StatsSettings, session: &mut Session, own: Option<&OwnWatch>) -> Result<(), Error> {
    let mut stop = Stop::new(settings.timeout)?;
    let mut sink = Sink::stdout()?;
    let mut last: Option<Report> = None;
    ready::tell();
    loop {
        let ended = tokio::select! {
            () = stop.wait() => true,
            () = sink.closed() => return Ok(()),
            () = pause(settings.interval) => false,
        };
        let when = if ended { When::Now } else { When::Due };
        let mut report = Report::take(session, &settings.filter, when)?;
        if let Some(own) = own {
            report.add_own(own);
        }
        let text = report.write(settings.format, &settings.services, settings.total, last.as_ref());
        if sink.write(text.as_bytes())? == Written::Closed {
            return Ok(());
        }
        if ended {
            let missed = report.missed();
            return if settings.strict && missed > 0 {
                Err(Error::Lost(format!("{missed} steps were missed or could not be counted")))
            } else {
                Ok(())
            };
        }
        last = Some(report);
    }
}

/// Until the next report, or for ever.
async fn pause(interval: Option<Duration>) {
    match interval {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}
