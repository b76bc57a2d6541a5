//! The meaning of the command line: validated settings of each command. Nothing here asks the system. Every error
//! names the option, the mistake, and the remedy.

pub(crate) mod filter;
pub(crate) mod forwarded;
mod max_flows;
pub mod munin;
mod numbers;
pub mod otlp;
mod protocols;
mod ring_bytes;
pub mod rule;
pub mod serve;
mod stats;
pub(crate) mod style;
#[cfg(test)]
mod tests;
mod unix;
mod words;

use std::time::Duration;

use crate::cli::topics::{CompletionsArgs, HelpArgs};
use crate::cli::{
    Cli, Command, CountArgs, EventsArgs, FilterArgs, FrontArgs, Group, HookArgs, LifeArgs, ListArgs,
    StreamArgs,
};
use crate::complaint::Complaint;
use crate::error::UsageError;
use crate::event::kind::KindSet;
use crate::event::sort_key::{LifeKey, SocketKey};
use crate::filter::Filter;
use crate::filter::lifetimes::LifetimeFilter;
use crate::filter::protocols::Protocols;
use crate::filter::value::duration;
use crate::filter::workload::WorkloadFilter;
use crate::host::accept_hook::AcceptHook;
use crate::host::lookup::Lookup;
use crate::host::plan::HookSet;
use crate::host::services::Services;
use crate::render::number_table::TableFormat;
use crate::render::style::{Style, View};
use crate::settings::forwarded::ForwardedSettings;
use crate::settings::max_flows::room_for_flows;
pub use crate::settings::munin::MuninSettings;
use crate::settings::numbers::{count, timeout, top};
use crate::settings::protocols::protocols;
use crate::settings::ring_bytes::ring_bytes;
pub use crate::settings::serve::{Access, MAX_ADDRESSES, MAX_PORTS, RulesSettings, ServeSettings};
pub use crate::settings::stats::{HistorySettings, StatsSettings};
use crate::settings::words::{hook_set, kinds};

/// Default size of the ring in bytes: room for 40,329 events.
pub const DEFAULT_RING_BYTES: u32 = 8 << 20;

/// How many connections `life --sort` prints without `--top`.
const DEFAULT_TOP: usize = 20;

/// One command and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// `conntrace events`.
    Events(EventsSettings),
    /// `conntrace count`.
    Count(CountSettings),
    /// `conntrace list`.
    List(ListSettings),
    /// `conntrace stats`.
    Stats(StatsSettings),
    /// `conntrace serve`.
    Serve(ServeSettings),
    /// The front of the daemon.
    Front(FrontArgs),
    /// The process of the daemon that watches its rules.
    WatchRules(FrontArgs),
    /// The process of the daemon that sends its metrics.
    ExportOtlp(FrontArgs),
    /// `conntrace rules`.
    Rules(RulesSettings),
    /// `conntrace munin`.
    Munin(MuninSettings),
    /// `conntrace doctor`.
    Doctor(TableFormat),
    /// `conntrace help`.
    Help(HelpArgs),
    /// `conntrace completions`.
    Completions(CompletionsArgs),
}

/// The settings of `conntrace events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsSettings {
    /// Event kinds.
    pub kinds: KindSet,
    /// The protocols to show.
    pub protocols: Protocols,
    /// No option and no expression names a protocol, so the run shows TCP.
    pub is_tcp_by_default: bool,
    /// The filter of connections.
    pub filter: Filter,
    /// Flows of connection tracking instead of sockets.
    pub forwarded: Option<ForwardedSettings>,
    /// The filter of containers and units.
    pub workload: WorkloadFilter,
    /// How to print.
    pub style: Style,
    /// End after this number of events.
    pub count: Option<u64>,
    /// End after this time.
    pub timeout: Option<Duration>,
    /// Size of the ring: a power of two, 4096 or more. Where pages are larger, at least one is needed.
    pub ring_bytes: u32,
    /// Room for flows of UDP, a power of two.
    pub max_flows: u32,
    /// Print counts per service port at the end.
    pub summary: bool,
    /// Which ends `conntrace life` prints; `None` for the stream of events.
    pub life: Option<LifetimeFilter>,
    /// Print only this number of the largest ends, by this key, when the run ends; `None` for every end as it
    /// happens.
    pub top: Option<(usize, LifeKey)>,
    /// An event that was lost is an error at the end.
    pub strict: bool,
    /// Hooks to use instead of the planned ones.
    pub hooks: Option<HookSet>,
    /// The hook for accepts to use instead of the best one.
    pub accept_hook: Option<AcceptHook>,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// The settings of `conntrace list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListSettings {
    /// The protocols to show.
    pub protocols: Protocols,
    /// The filter of connections.
    pub filter: Filter,
    /// Flows of connection tracking instead of sockets.
    pub forwarded: Option<ForwardedSettings>,
    /// The filter of containers and units.
    pub workload: WorkloadFilter,
    /// How to print.
    pub style: Style,
    /// Show listening sockets instead of connections.
    pub listening: bool,
    /// No format was chosen: a terminal gets a table, and a pipe conntrack's lines.
    pub is_table_on_terminal: bool,
    /// The smallest certain age.
    pub min_age: Option<Duration>,
    /// Finding nothing is an error.
    pub exit_code: bool,
    /// The sort key; `None` sorts by service port and tuple.
    pub order: Option<SocketKey>,
}

/// The settings of `conntrace count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountSettings {
    /// The protocols to show.
    pub protocols: Protocols,
    /// The filter of connections.
    pub filter: Filter,
    /// Flows of connection tracking instead of sockets.
    pub forwarded: Option<ForwardedSettings>,
    /// The filter of containers and units.
    pub workload: WorkloadFilter,
    /// Groups, in the order of the columns; empty for a single number.
    pub by: Vec<Group>,
    /// Print only this number of the largest groups.
    pub top: Option<usize>,
    /// Finding nothing is an error.
    pub exit_code: bool,
    /// How to print.
    pub format: TableFormat,
    /// Names of ports in tables; empty for numbers.
    pub services: Services,
}

impl Settings {
    /// Validates a command line.
    ///
    /// # Errors
    /// The first option that is wrong.
    pub fn from_cli(cli: &Cli, lookup: &dyn Lookup) -> Result<Self, UsageError> {
        match &cli.command {
            Command::Events(args) => EventsSettings::new(args, cli.verbose, lookup).map(Self::Events),
            Command::Count(args) => CountSettings::new(args, lookup).map(Self::Count),
            Command::List(args) => ListSettings::new(args, lookup).map(Self::List),
            Command::Life(args) => EventsSettings::of_life(args, cli.verbose, lookup).map(Self::Events),
            Command::Stats(args) => StatsSettings::new(args, lookup).map(Self::Stats),
            Command::Serve(args) => ServeSettings::new(args, cli.verbose).map(Self::Serve),
            Command::Front(args) => Ok(Self::Front(args.clone())),
            Command::WatchRules(args) => Ok(Self::WatchRules(args.clone())),
            Command::ExportOtlp(args) => Ok(Self::ExportOtlp(args.clone())),
            Command::Rules(args) => RulesSettings::new(args, cli.place.daemon.as_deref()).map(Self::Rules),
            Command::Munin(args) => {
                MuninSettings::new(args, cli.place.daemon.as_deref(), lookup.services()).map(Self::Munin)
            }
            Command::Doctor(args) => match args.output {
                TableFormat::Csv => {
                    Err(UsageError::conflict("--output", "doctor has no csv: use table or json"))
                }
                format => Ok(Self::Doctor(format)),
            },
            Command::Help(args) => Ok(Self::Help(args.clone())),
            Command::Completions(args) => Ok(Self::Completions(args.clone())),
        }
    }
}

impl EventsSettings {
    fn new(args: &EventsArgs, verbose: u8, lookup: &dyn Lookup) -> Result<Self, UsageError> {
        let stream = Self::stream(
            &args.stream,
            &args.hooks,
            &args.filter,
            style::from_args(&args.output, View::Events, lookup.services())?,
            protocols::Command::EVENTS,
            lookup,
        )?;
        let kinds = kinds(&args.event_mask)?;
        if stream.forwarded.is_some() {
            forwarded::check_events(args.summary, kinds)?;
        }
        if args.summary && stream.forwarded.is_none() && stream.protocols != Protocols::TCP {
            return Err(UsageError::conflict("--summary", "it counts TCP only: use -p tcp, or leave it out"));
        }
        Ok(Self { kinds, summary: args.summary, verbose, ..stream })
    }

    /// `conntrace life` is a stream of ends with a filter of lifetimes.
    fn of_life(args: &LifeArgs, verbose: u8, lookup: &dyn Lookup) -> Result<Self, UsageError> {
        let top = optional("--top", args.top.as_deref(), count)?;
        let top = top.map(|top| usize::try_from(top).unwrap_or(usize::MAX));
        let sorted = top.is_some() || args.sort.is_some();
        if sorted && args.stream.count.is_some() {
            return Err(UsageError::conflict(
                "--count",
                "it cannot be used with --top or --sort, which print at the end only",
            ));
        }
        Ok(Self {
            kinds: KindSet::DESTROY,
            life: Some(LifetimeFilter {
                min: optional("--min", args.min.as_deref(), duration::parse)?,
                max: optional("--max", args.max.as_deref(), duration::parse)?,
            }),
            top: sorted.then(|| (top.unwrap_or(DEFAULT_TOP), args.sort.unwrap_or_default())),
            verbose,
            ..Self::stream(
                &args.stream,
                &args.hooks,
                &args.filter,
                style::from_args(&args.output, View::Lives, lookup.services())?,
                protocols::Command::LIFE,
                lookup,
            )?
        })
    }

    /// The settings that all streams of events share.
    fn stream(
        args: &StreamArgs,
        hooks: &HookArgs,
        options: &FilterArgs,
        style: Style,
        command: protocols::Command,
        lookup: &dyn Lookup,
    ) -> Result<Self, UsageError> {
        let filter = filter::from_args(options, lookup)?;
        let workload = filter::workload(options, lookup)?;
        let ring = optional("--buffer-size", args.buffer_size.as_deref(), ring_bytes)?;
        let forwarded = ForwardedSettings::new(options, &filter, ring, lookup)?;
        let style = forwarded::checked(forwarded.as_ref(), style)?;
        let protocols = forwarded::protocols_or(forwarded.as_ref(), || {
            protocols(options.protocol.as_deref(), &filter, command)
        })?;
        // Flows of UDP show the sockets behind forwarded flows.
        let of_sockets = forwarded.as_ref().map_or(protocols, ForwardedSettings::protocols_of_sockets);
        Ok(Self {
            kinds: KindSet::ALL,
            protocols,
            is_tcp_by_default: forwarded.is_none()
                && options.protocol.is_none()
                && filter.protocols().is_none(),
            filter,
            forwarded,
            workload,
            style,
            count: optional("--count", args.count.as_deref(), count)?,
            timeout: optional("--timeout", args.timeout.as_deref(), timeout)?,
            ring_bytes: ring.unwrap_or(DEFAULT_RING_BYTES),
            max_flows: room_for_flows(args.max_flows.as_deref(), of_sockets)?,
            summary: false,
            life: None,
            top: None,
            strict: args.strict,
            hooks: hook_set(hooks)?,
            accept_hook: optional("--accept-hook", hooks.accept_hook.as_deref(), AcceptHook::parse)?,
            verbose: 0,
        })
    }
}

impl ListSettings {
    fn new(args: &ListArgs, lookup: &dyn Lookup) -> Result<Self, UsageError> {
        let filter = filter::from_args(&args.filter, lookup)?;
        let workload = filter::workload(&args.filter, lookup)?;
        let forwarded = ForwardedSettings::new(&args.filter, &filter, None, lookup)?;
        if forwarded.is_some() {
            forwarded::check_list(args)?;
        }
        let protocols = forwarded::protocols_or(forwarded.as_ref(), || {
            protocols(args.filter.protocol.as_deref(), &filter, protocols::Command::LIST)
        })?;
        let listening = args.listening || (forwarded.is_none() && filter.is_of_listeners(protocols));
        if protocols == Protocols::UNIX {
            unix::check(args, &filter)?;
        }
        let subject = if forwarded.is_some() { View::Events } else { View::of_sockets(protocols, listening) };
        let is_of_flows = forwarded.is_some();
        if listening && args.min_age.is_some() {
            return Err(UsageError::conflict(
                "--min-age",
                "it cannot be used with --listening: a listener has no age",
            ));
        }
        Ok(Self {
            protocols,
            filter,
            workload,
            style: forwarded::checked(
                forwarded.as_ref(),
                style::from_args(&args.output, subject, lookup.services())?,
            )?,
            forwarded,
            listening,
            // A table would have columns of sockets.
            is_table_on_terminal: !args.dump && args.output.output.is_empty() && !is_of_flows,
            min_age: optional("--min-age", args.min_age.as_deref(), duration::parse)?,
            exit_code: args.exit_code,
            order: args.sort,
        })
    }
}

impl CountSettings {
    fn new(args: &CountArgs, lookup: &dyn Lookup) -> Result<Self, UsageError> {
        let top = optional("--top", args.top.as_deref(), top)?;
        if top.is_some() && args.by.is_empty() {
            return Err(UsageError::conflict(
                "--top",
                "without groups there is one number: add --by, like --by peer",
            ));
        }
        let filter = filter::from_args(&args.filter, lookup)?;
        let workload = filter::workload(&args.filter, lookup)?;
        let forwarded = ForwardedSettings::new(&args.filter, &filter, None, lookup)?;
        if forwarded.is_some() {
            forwarded::check_groups(&args.by)?;
            forwarded::check_count(&filter, &workload)?;
        }
        let protocols = forwarded::protocols_or(forwarded.as_ref(), || {
            protocols(args.filter.protocol.as_deref(), &filter, protocols::Command::COUNT)
        })?;
        Ok(Self {
            protocols,
            filter,
            forwarded,
            workload,
            by: args.by.clone(),
            top,
            exit_code: args.exit_code,
            format: args.output,
            services: lookup.services().unless(args.numeric),
        })
    }
}

/// Parses the value of an option, if there is one.
fn optional<T>(
    option: &'static str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, Complaint>,
) -> Result<Option<T>, UsageError> {
    text.map(|text| parse(text).map_err(|complaint| UsageError::value(option, text, complaint))).transpose()
}
