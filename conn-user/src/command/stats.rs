//! `conntrace stats`: the ledger per service port, once at the end or at an interval, with the identity and the
//! audit that prove it.

use std::convert::Infallible;
use std::ops::ControlFlow;
use std::time::Duration;

use crate::command::flow_stats;
use crate::error::Error;
use crate::event::kind::Kind;
use crate::event::sort_key::TopSources;
use crate::filter::Filter;
use crate::filter::protocols::Protocols;
use crate::host::clock;
use crate::host::facts::Host;
use crate::host::plan::HookSet;
use crate::kernel::flow_counts::{FlowTally, Packets};
use crate::kernel::flow_map::FlowMaps;
use crate::kernel::load_options::{Options, RemoteOptions};
use crate::kernel::session::Session;
use crate::ledger::auditor::When;
use crate::ledger::flow_report::FlowReport;
use crate::ledger::flow_reporter::{FlowReporter, Swept};
use crate::ledger::metrics::{Exporter, NamedPorts, Parts};
use crate::ledger::report::Report;
use crate::ledger::report_text::ReportStyle;
use crate::ledger::reporter::Reporter;
use crate::ledger::self_cost::SelfCostWatch;
use crate::output::stdout::{Sink as _, Written};
use crate::output::textfile::TextFile;
use crate::output::{queue, stderr, terminal};
use crate::render::number_table::TableFormat;
use crate::render::style::Color;
use crate::settings::StatsSettings;
use crate::stream::flow_sweep::FlowSweep;
use crate::stream::ready::Ready;
use crate::stream::shutdown::Shutdown;

/// Bytes of reports that may wait for a reader.
pub(super) const MAX_WAITING: usize = 4 << 20;

/// Runs the command.
///
/// # Errors
/// See [`Error`].
pub fn run(settings: &StatsSettings, host: &Host) -> Result<(), Error> {
    if let Some(flows) = &settings.forwarded {
        return flow_stats::run(settings, flows, host);
    }
    settings.filter.log(&Kind::ALL, settings.protocols);
    let self_cost = settings.self_cost.then(SelfCostWatch::start);
    let [counts_tcp, counts_udp] =
        [Protocols::TCP, Protocols::UDP].map(|protocol| settings.protocols.contains(protocol));
    let session = Session::start(
        host,
        &Options {
            hooks: settings.hooks.or_else(|| (!counts_tcp).then_some(HookSet::NONE)),
            counts: counts_tcp,
            flows: counts_udp.then_some(settings.max_flows),
            flow_counts: counts_udp,
            durations: settings.lifetimes,
            remotes: settings.sources.map(|top| remotes(top, &settings.filter)),
            ..Options::counting()
        },
    )?;
    let flows = if counts_udp { Some(Flows::new(&session, &settings.filter)?) } else { None };
    let tcp = if counts_tcp {
        let mut reporter = Reporter::new(&session, &settings.filter)?.with_self_cost(self_cost.as_ref());
        if settings.lifetimes {
            reporter = reporter.with_lifetimes(&session)?;
        }
        if let Some(top) = settings.sources {
            reporter = reporter.with_sources(&session, Some(top))?;
        }
        Some(reporter)
    } else {
        None
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { context: "starting the event loop".into(), source })?
        .block_on(watch(settings, Reporters { tcp, flows }))
}

/// The sweep over flows, and the reports of what it and the programs count.
struct Flows<'a> {
    sweep: FlowSweep,
    reporter: FlowReporter<'a>,
}

impl Swept for FlowSweep {
    fn tally(&self) -> &FlowTally {
        &self.tally
    }

    fn in_table(&self) -> Packets {
        self.traffic_in_table()
    }
}

impl<'a> Flows<'a> {
    fn new(session: &'a Session, filter: &'a Filter) -> Result<Self, Error> {
        let sweep = FlowSweep::counting(FlowMaps::new(&session.probe)?);
        let reporter = FlowReporter::new(session, filter, &sweep)?;
        Ok(Self { sweep, reporter })
    }

    fn sweep(&mut self) -> Result<(), Error> {
        // A run that counts makes no events.
        Ok(self.sweep.run(clock::boot_now_ns(), |_| ControlFlow::Continue(()))?)
    }

    /// A report of the flows. The flows of sockets that have closed end first.
    fn report(&mut self, when: When) -> Result<FlowReport, Error> {
        self.sweep()?;
        Ok(self.reporter.report(when, &self.sweep)?)
    }
}

/// The reports of each protocol of the run.
struct Reporters<'a> {
    tcp: Option<Reporter<'a>>,
    flows: Option<Flows<'a>>,
}

impl Reporters<'_> {
    async fn report(&mut self, when: When) -> Result<Reports, Error> {
        let tcp = match &mut self.tcp {
            Some(reporter) => Some(reporter.report(when).await?),
            None => None,
        };
        let udp = self.flows.as_mut().map(|flows| flows.report(when)).transpose()?;
        Ok(Reports { tcp, udp })
    }

    /// Sweeps over the flows whenever that is due. Never ends but by an error.
    async fn sweep(&mut self) -> Result<Infallible, Error> {
        let Some(flows) = &mut self.flows else { return std::future::pending().await };
        loop {
            tokio::time::sleep(flows.sweep.due_in()).await;
            flows.sweep()?;
        }
    }
}

/// The reports of one moment.
struct Reports {
    tcp: Option<Report>,
    udp: Option<FlowReport>,
}

impl Reports {
    /// Only the sums.
    fn keep_totals(&mut self) {
        if let Some(report) = &mut self.tcp {
            report.ports.clear();
        }
        if let Some(report) = &mut self.udp {
            report.ports.clear();
        }
    }

    /// The reports in the style. In JSON, flows of UDP are a member of the object.
    fn write(&self, style: &ReportStyle) -> String {
        match (&self.tcp, &self.udp, style.format) {
            (Some(tcp), Some(udp), TableFormat::Json) => tcp.json_with(Some(udp)),
            (None, Some(udp), TableFormat::Json) => udp.json(),
            (None, Some(udp), TableFormat::Csv) => udp.csv(style),
            (tcp, udp, _) => {
                let tcp = tcp.as_ref().map(|report| report.write(style)).unwrap_or_default();
                let udp = udp.as_ref().map(|report| report.text(style)).unwrap_or_default();
                tcp + &udp
            }
        }
    }

    fn missed(&self) -> u64 {
        self.tcp.as_ref().map_or(0, Report::missed) + self.udp.as_ref().map_or(0, FlowReport::missed)
    }
}

/// What the kernel counts per remote address: of the ports that pass the filter.
fn remotes(top: TopSources, filter: &Filter) -> RemoteOptions {
    RemoteOptions { by: top.group.number(), slots: filter.slots() }
}

/// Prints reports until the end.
async fn watch(settings: &StatsSettings, mut reporters: Reporters<'_>) -> Result<(), Error> {
    let mut shutdown = Shutdown::new(settings.timeout)?;
    let (mut sink, output) = queue::stdout(MAX_WAITING)?;
    Ready::take().signal();
    let mut style = style(settings);
    let mut exporter = settings
        .metrics
        .as_ref()
        .map(|metrics| Exporter::new(NamedPorts::new(metrics.chosen_ports), clock::unix_now_ns()));
    let textfile = settings.metrics.iter().find_map(|metrics| metrics.textfile.as_deref().map(TextFile::new));
    loop {
        let mut ended = tokio::select! {
            () = shutdown.wait() => true,
            ended = output.ended() => return ended,
            () = pause(settings.interval) => false,
            failed = reporters.sweep() => match failed? {},
        };
        let report = tokio::select! {
            report = reporters.report(When::Due), if !ended => Some(report?),
            () = shutdown.wait(), if !ended => None,
            else => None,
        };
        ended |= report.is_none();
        let mut report = match report {
            Some(report) => report,
            None => reporters.report(When::Now).await?,
        };
        if settings.total {
            report.keep_totals();
        }
        let mut text = match &mut exporter {
            Some(exporter) => {
                exporter.text(Parts { tcp: report.tcp.as_ref(), udp: report.udp.as_ref(), own: None })
            }
            None => report.write(&style),
        }
        .into_bytes();
        if let Some(file) = &textfile {
            match file.replace(&text) {
                Ok(()) => {}
                Err(error) if ended => return Err(error),
                Err(error) => {
                    stderr::print(format_args!("conntrace: {error}; the next report tries again\n"));
                }
            }
            text.clear();
        }
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

pub(super) fn style(settings: &StatsSettings) -> ReportStyle {
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
