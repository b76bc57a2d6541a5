//! The reports of `/v1/stats`: from the counts of the daemon itself, one reading at a time.

use std::convert::Infallible;

use tokio::sync::mpsc;

use crate::error::Error;
use crate::filter::Filter;
use crate::kernel::session::Session;
use crate::ledger::auditor::When;
use crate::ledger::report_text::ReportStyle;
use crate::ledger::reporter::Reporter;
use crate::render::number_table::TableFormat;
use crate::render::style::Terminal;
use crate::serve::back::{Reported, Wanted};
use crate::serve::epoch::Epoch;
use crate::serve::problem::Problem;
use crate::settings::StatsSettings;

/// How many requests one reading answers.
const BATCH: usize = 1024;

/// Makes the reports that are wanted. Never returns but by an error.
///
/// # Errors
/// The maps of the session cannot be opened.
pub(crate) async fn run(
    session: &Session,
    epoch: &Epoch,
    mut wanted: mpsc::UnboundedReceiver<Wanted>,
    reported: mpsc::UnboundedSender<Reported>,
) -> Result<Infallible, Error> {
    let all = Filter::all();
    let mut reporter = Reporter::new(session, &all)?;
    let mut batch = Vec::new();
    loop {
        wanted.recv_many(&mut batch, BATCH).await;
        // Requests that come during the reading get the next one.
        let reading = reporter.audited(When::Due).await;
        for Wanted { of, settings } in batch.drain(..) {
            // The last report was for another client.
            reporter.forget_rates();
            let answer = match &reading {
                Ok(audited) => reporter
                    .report_of(audited.clone(), &settings.filter)
                    .map(|report| text(&settings, report, epoch))
                    .map_err(|error| Problem::of_error(&error.into())),
                Err(error) => Err(Problem {
                    remedy: error.remedy().map(Into::into),
                    ..Problem::new(500, crate::host::refusal::chain(error), "")
                }),
            };
            // The receiver ends with the daemon.
            let _ = reported.send(Reported { of, answer });
        }
    }
}

/// The text of a report, and the exit status of the command.
fn text(settings: &StatsSettings, mut report: crate::ledger::report::Report, epoch: &Epoch) -> (String, u8) {
    if settings.total {
        report.ports.clear();
    }
    let style = ReportStyle {
        format: settings.format,
        services: settings.services.clone(),
        all_ports: settings.all_ports,
        proof: settings.proof,
        header: settings.header,
        is_repeated: false,
        terminal: Terminal::default(),
    };
    let mut text = report.write(&style);
    if settings.format == TableFormat::Json
        && let Ok(epoch) = serde_json::to_string(epoch)
        && text.ends_with("}\n")
    {
        text.truncate(text.len() - 2);
        text.push_str(&format!(",\"epoch\":{epoch}}}\n"));
    }
    (text, if settings.strict && report.missed() > 0 { 3 } else { 0 })
}
