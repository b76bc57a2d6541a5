//! The settings of `stats`.

use std::path::PathBuf;
use std::time::Duration;

use crate::cli::StatsArgs;
use crate::complaint::complaint;
use crate::error::UsageError;
use crate::event::sort_key::TopSources;
use crate::filter::Filter;
use crate::filter::protocols::Protocols;
use crate::filter::value::duration;
use crate::host::lookup::Lookup;
use crate::host::plan::HookSet;
use crate::host::services::Services;
use crate::render::number_table::{ReportFormat, TableFormat};
use crate::settings::forwarded::{self, ForwardedSettings};
use crate::settings::max_flows::room_for_flows;
use crate::settings::numbers::{interval, sources, timeout};
use crate::settings::optional;
use crate::settings::protocols::{self, protocols};
use crate::settings::words::hook_set;

/// A filter that lets at most so many directions and service ports through chooses them.
const MOST_CHOSEN: u32 = 512;

/// Reports as metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// The command line chose the ports of the report.
    pub chosen_ports: bool,
    /// The file to write instead of standard output.
    pub textfile: Option<PathBuf>,
}

impl MetricsSettings {
    fn new(args: &StatsArgs, filter: &Filter, of_flows: bool) -> Result<Option<Self>, UsageError> {
        if args.output != ReportFormat::Prometheus {
            let complaint =
                "only metrics are written into a file: add -o prometheus, or redirect standard output";
            return if args.textfile.is_some() {
                Err(UsageError::conflict("--textfile", complaint))
            } else {
                Ok(None)
            };
        }
        let complaint = match args {
            _ if of_flows => "there are no metrics of forwarded flows: use --output json",
            _ if args.total => "metrics have no row of sums: leave --total out, and add them up with sum()",
            _ if args.all || args.proof || args.no_header => {
                "metrics are no table: leave --all, --proof and --no-header out"
            }
            _ if args.sources.is_some() => {
                "metrics have no remote addresses: leave --sources out, or use --output json"
            }
            _ if args.interval.is_some() && args.textfile.is_none() => {
                "metrics are those of one reading: add --textfile FILE, or leave --interval out"
            }
            _ => {
                // A filter that only leaves ports out chooses none.
                let slots: u32 = filter.slots().iter().flatten().map(|word| word.count_ones()).sum();
                let chosen_ports = (1..=MOST_CHOSEN).contains(&slots);
                return Ok(Some(Self { chosen_ports, textfile: args.textfile.clone() }));
            }
        };
        Err(UsageError::conflict("--output", complaint))
    }
}

/// Counts of a time that is over, which the daemon keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// How long ago it began.
    pub since: Duration,
    /// Add rates per second.
    pub rates: bool,
    /// Draw it.
    pub plot: bool,
}

impl HistorySettings {
    fn new(args: &StatsArgs) -> Result<Option<Self>, UsageError> {
        if !args.asks_for_history() {
            return Ok(None);
        }
        if args.output == ReportFormat::Prometheus {
            let complaint = "metrics are counts since the epoch: leave --since and --rates out";
            return Err(UsageError::conflict("--output", complaint));
        }
        let usual = if args.plot { REACH } else { A_MINUTE };
        let since = optional("--since", args.since.as_deref(), duration::parse)?.unwrap_or(usual);
        Ok(Some(Self { since, rates: args.rates, plot: args.plot }))
    }
}

/// The time of rates, and that of a plot.
const A_MINUTE: Duration = Duration::from_secs(60);
const REACH: Duration = Duration::from_secs(24 * 60 * 60);

/// The settings of `conntrace stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct StatsSettings {
    /// The protocols to count.
    pub protocols: Protocols,
    /// The slots of the ledger to show. The ledger counts all slots.
    pub filter: Filter,
    /// Flows of connection tracking instead of sockets.
    pub forwarded: Option<ForwardedSettings>,
    /// Time between two reports; `None` for one at the end.
    pub interval: Option<Duration>,
    /// End after this time.
    pub timeout: Option<Duration>,
    /// Room for flows of UDP, a power of two.
    pub max_flows: u32,
    /// Counts of a time that is over.
    pub history: Option<HistorySettings>,
    /// A missed or uncounted step is an error at the end.
    pub strict: bool,
    /// Show only the sum.
    pub total: bool,
    /// Count handshakes and lifetimes in histograms.
    pub lifetimes: bool,
    /// Report the cost of conntrace itself.
    pub self_cost: bool,
    /// The remote addresses to report.
    pub sources: Option<TopSources>,
    /// Hooks to use instead of the planned ones.
    pub hooks: Option<HookSet>,
    /// How to print tables.
    pub format: TableFormat,
    /// Print metrics instead.
    pub metrics: Option<MetricsSettings>,
    /// Names of ports in tables; empty for numbers.
    pub services: Services,
    /// Name all ports in tables.
    pub all_ports: bool,
    /// End tables with the whole proof.
    pub proof: bool,
    /// Print the names of the columns.
    pub header: bool,
}

impl StatsSettings {
    pub(super) fn new(args: &StatsArgs, lookup: &dyn Lookup) -> Result<Self, UsageError> {
        let (filter, forwarded) = forwarded::of_stats(args, lookup)?;
        let protocols = forwarded::protocols_or(forwarded.as_ref(), || {
            protocols(args.protocol.as_deref(), &filter, protocols::Command::STATS)
        })?;
        if args.output == ReportFormat::Csv && protocols == Protocols::INET {
            let complaint =
                "the counts of tcp and udp have other columns: use -p tcp or -p udp, or --output json";
            return Err(UsageError::conflict("--output", complaint));
        }
        if forwarded.is_none() && !protocols.contains(Protocols::TCP) {
            for (option, is_given) in [
                ("--lifetimes", args.lifetimes),
                ("--sources", args.sources.is_some()),
                ("--proof", args.proof),
            ] {
                if is_given {
                    let complaint = complaint!("{option} is for tcp: add tcp to -p, or leave {option} out");
                    return Err(UsageError::conflict(option, complaint));
                }
            }
        }
        let history = HistorySettings::new(args)?;
        if history.is_some() && protocols != Protocols::TCP {
            return Err(UsageError::conflict(
                "--protocol",
                "the daemon keeps the history of tcp: leave -p out",
            ));
        }
        let metrics = MetricsSettings::new(args, &filter, forwarded.is_some())?;
        Ok(Self {
            protocols,
            filter,
            forwarded,
            max_flows: room_for_flows(args.max_flows.as_deref(), protocols)?,
            interval: optional("--interval", args.interval.as_deref(), interval)?,
            timeout: optional("--timeout", args.timeout.as_deref(), timeout)?,
            history,
            strict: args.strict,
            total: args.total,
            lifetimes: args.lifetimes,
            self_cost: args.self_cost,
            sources: optional("--sources", args.sources.as_deref(), sources)?.map(|most| TopSources {
                most,
                group: args.sources_by,
                key: args.sources_sort,
            }),
            hooks: hook_set(&args.hooks)?,
            format: args.output.tables().unwrap_or_default(),
            metrics,
            services: lookup.services().unless(args.numeric),
            all_ports: args.all,
            proof: args.proof,
            header: !args.no_header,
        })
    }
}
