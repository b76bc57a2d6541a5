//! The reports of `/v1/stats`: from the counts of the daemon itself, one reading at a time.

use std::cell::Cell;
use std::convert::Infallible;

use tokio::sync::mpsc;

use crate::error::Error;
use crate::filter::Filter;
use crate::host::refusal::chain;
use crate::kernel::pin::Service;
use crate::ledger::auditor::{AuditError, Audited, When};
use crate::ledger::metrics::{Exporter, NamedPorts, Own, Parts};
use crate::ledger::report;
use crate::ledger::report_text::ReportStyle;
use crate::ledger::reporter::Reporter;
use crate::output::terminal;
use crate::render::number_table::TableFormat;
use crate::render::style::Color;
use crate::serve::back::{Report, Reported, Unknown, Wanted};
use crate::serve::count;
use crate::serve::earlier;
use crate::serve::epoch::Epoch;
use crate::serve::past::{Part, Past};
use crate::serve::problem::Problem;
use crate::settings::{ServeSettings, StatsSettings};

/// How many requests one reading answers.
const BATCH: usize = 1024;

/// Makes the reports that are wanted. `lines_lost`: by clients of streams. Never returns but by an error.
///
/// # Errors
/// The maps of the session cannot be opened.
pub(crate) async fn run(
    settings: &ServeSettings,
    service: &Service,
    epoch: &Epoch,
    lines_lost: &Cell<u64>,
    mut wanted: mpsc::UnboundedReceiver<Wanted>,
    reported: mpsc::UnboundedSender<Reported>,
) -> Result<Infallible, Error> {
    let all = Filter::all();
    let session = &service.session;
    let mut board = Reporter::new(session, &all)?;
    if settings.lifetimes {
        board = board.with_lifetimes(session)?;
    }
    if settings.sources.is_some() {
        board = board.with_sources(session, None)?;
    }
    let earlier = earlier::members(service);
    // Scrapes follow each other: a port keeps its series.
    let names = NamedPorts::new(false).with(settings.ports.clone());
    let mut exporter = Exporter::new(names, epoch.unix_ns);
    let mut history = Past::begin(&board)?;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            _ = wanted.recv_many(&mut batch, BATCH) => {}
            () = history.due() => {
                history.note(&board);
                continue;
            }
        }
        // Requests that come during a reading get the next one.
        let (mut counts, mut stats, mut scrapes) = (Vec::new(), Vec::new(), Vec::new());
        for Wanted { of, report } in batch.drain(..) {
            match report {
                Report::Count(settings, asked) => counts.push((of, settings, asked)),
                Report::Stats(settings, terminal) => stats.push((of, settings, terminal)),
                Report::Metrics { format, commands } => scrapes.push((of, format, commands)),
            }
        }
        if !counts.is_empty() {
            let ledger = board.ledger();
            for (of, settings, asked) in counts {
                let answer = match &ledger {
                    Ok(ledger) => count::answer(&settings, ledger)
                        .map(|(text, code)| (text.into_bytes(), code))
                        .ok_or(Unknown::Command(asked)),
                    Err(error) => Err(Unknown::Problem(problem(error))),
                };
                // The receiver ends with the daemon.
                let _ = reported.send(Reported { of, answer });
            }
        }
        if stats.is_empty() && scrapes.is_empty() {
            continue;
        }
        let reading = board.audited(When::Due).await;
        for (of, format, commands) in scrapes {
            board.choose(true, None, None);
            let answer = match &reading {
                Ok(audited) => board.report_of(audited.clone(), &all).map_err(|error| problem(&error)),
                Err(error) => Err(problem(error)),
            };
            let answer = answer.map(|report| {
                let is_pinned = service.pinned.as_ref().is_some_and(|pinned| pinned.harm().is_empty());
                let own = Own::now(is_pinned, commands, lines_lost.get());
                let reports = Parts { tcp: Some(&report), udp: None, own: Some(&own) };
                (exporter.encoded(reports, format), 0)
            });
            // The receiver ends with the daemon.
            let _ = reported.send(Reported { of, answer: answer.map_err(Unknown::Problem) });
        }
        for (of, settings, terminal) in stats {
            let answer = match &reading {
                Ok(audited) => answer(&mut board, &history, audited.clone(), &settings)
                    .map(|(report, part)| {
                        let style = style(&settings, terminal.as_deref());
                        match &part {
                            Some(part) if part.is_drawn() => {
                                (history.plot(part, &settings, &report, style.terminal), 0)
                            }
                            _ => text(&settings, report, &style, (epoch, &earlier, part), &mut exporter),
                        }
                    })
                    .map(|(text, code)| (text.into_bytes(), code))
                    .map_err(|error| Unknown::Problem(problem(&error))),
                Err(error) => Err(Unknown::Problem(problem(error))),
            };
            // The receiver ends with the daemon.
            let _ = reported.send(Reported { of, answer });
        }
    }
}

/// Why there is no reading.
fn problem(error: &AuditError) -> Problem {
    let remedy = error.remedy().map(Into::into);
    Problem { status: 500, parameter: None, message: chain(error), remedy }
}

/// The report that a client asks for, and the time that it is about if that is over.
fn answer(
    board: &mut Reporter<'_>,
    history: &Past,
    mut reading: Audited,
    settings: &StatsSettings,
) -> Result<(report::Report, Option<Part>), AuditError> {
    let mut part = settings.history.map(|asked| history.part(asked, board)).transpose()?;
    if let Some(part) = &mut part {
        reading.ledger = std::mem::take(&mut part.ledger);
    }
    // The last report was for another client.
    let over = part.as_ref().and_then(Part::rates_over);
    board.choose(settings.lifetimes, settings.sources, over);
    Ok((board.report_of(reading, &settings.filter)?, part))
}

/// How a report is written.
fn style(settings: &StatsSettings, terminal: Option<&str>) -> ReportStyle {
    ReportStyle {
        format: settings.format,
        services: settings.services.clone(),
        all_ports: settings.all_ports,
        proof: settings.proof,
        header: settings.header,
        is_repeated: false,
        terminal: terminal.and_then(|text| terminal::described(text, Color::Never)).unwrap_or_default(),
    }
}

/// The text of a report, and the exit status of the command.
fn text(
    settings: &StatsSettings,
    mut report: report::Report,
    style: &ReportStyle,
    (epoch, earlier, part): (&Epoch, &str, Option<Part>),
    exporter: &mut Exporter,
) -> (String, u8) {
    let code = if settings.strict && report.missed() > 0 { 3 } else { 0 };
    if let Some(metrics) = &settings.metrics {
        let mut chosen = metrics.chosen_ports.then(|| Exporter::new(NamedPorts::new(true), epoch.unix_ns));
        return (
            chosen.as_mut().unwrap_or(exporter).text(Parts { tcp: Some(&report), ..Parts::default() }),
            code,
        );
    }
    if settings.total {
        report.ports.clear();
    }
    let mut text = report.write(style);
    match (settings.format, &part) {
        (TableFormat::Json, part) if text.ends_with("}\n") => {
            // An epoch is text: that is JSON.
            let epoch = serde_json::to_string(epoch).unwrap_or_default();
            let since = part.as_ref().map(Part::member).unwrap_or_default();
            text.truncate(text.len() - 2);
            for part in [&since, ",\"epoch\":", &epoch, ",", earlier, "}\n"] {
                text.push_str(part);
            }
        }
        (TableFormat::Table, Some(part)) => text.insert_str(0, &part.heading()),
        _ => {}
    }
    (text, code)
}
