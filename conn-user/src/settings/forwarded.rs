//! A run of connection tracking: which flows it shows, and what it does not know.

use crate::cli::conntrack_compat::{MARK, NAT, ZONE};
use crate::cli::{Direction, FilterArgs, FlowArgs, Forwarded, Group, ListArgs, StatsArgs};
use crate::complaint::{Complaint, as_typed, complaint};
use crate::conntrack::plan::Scope;
use crate::error::UsageError;
use crate::event::kind::{Kind, KindSet};
use crate::event::tracked::Nat;
use crate::filter::Filter;
use crate::filter::expression::{Expression, Field, PredicateKind, value};
use crate::filter::protocols::Protocols;
use crate::filter::tracked::{NatTest, TrackedFilter};
use crate::filter::value::list::{self, ValueList};
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;
use crate::filter::workload::WorkloadFilter;
use crate::host::lookup::Lookup;
use crate::render::style::{Format, Style};
use crate::settings::filter;

/// Default room for messages of each group in each network namespace: about 52,000, half a second of a very busy router.
const DEFAULT_BUFFER: usize = 64 << 20;

/// The settings of a run of connection tracking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardedSettings {
    /// Which flows are shown.
    pub scope: Scope,
    /// The tests that only flows have.
    pub filter: TrackedFilter,
    /// Room for messages of each group, bytes.
    pub buffer: usize,
}

/// The flows that the options ask for; `None` of a run of sockets.
pub(super) fn scope(args: &FilterArgs) -> Option<Scope> {
    match (args.forwarded, args.direction) {
        (Some(Forwarded::All), Some(Direction::Forward)) | (Some(Forwarded::Only), _) => {
            Some(Scope::Forwarded)
        }
        (Some(Forwarded::All), _) => Some(Scope::All),
        (None, Some(Direction::Forward)) => Some(Scope::Forwarded),
        (None, _) => None,
    }
}

/// The test of marks, which the filter of connections makes.
///
/// # Errors
/// A value is no mark.
pub(super) fn marks(args: &FilterArgs, lookup: &dyn Lookup) -> Result<Option<Expression>, UsageError> {
    let parse = |text: &String| {
        value::predicate(PredicateKind::Mark, text, false, lookup)
            .map_err(|error| UsageError::value("--mark", text, error.complaint))
    };
    let marks: Vec<Expression> = args.flow.mark.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(Expression::any_of(marks))
}

impl ForwardedSettings {
    /// The settings, if the options ask for flows. `ring` is the value of `--buffer-size`.
    ///
    /// # Errors
    /// The first option that is wrong, or that flows have no value for; or an option of flows in a run of sockets.
    pub(super) fn new(
        args: &FilterArgs,
        whole: &Filter,
        ring: Option<u32>,
        lookup: &dyn Lookup,
    ) -> Result<Option<Self>, UsageError> {
        let Some(scope) = scope(args) else { return refuse_flow_options(args).map(|()| None) };
        check(args, whole)?;
        let lists = [
            ("--reply-src", Field::Client, &args.flow.reply_src),
            ("--reply-dst", Field::Server, &args.flow.reply_dst),
            ("--reply-port-src", Field::ClientPort, &args.flow.reply_port_src),
            ("--reply-port-dst", Field::Service, &args.flow.reply_port_dst),
        ];
        let mut reply = Vec::new();
        for (option, field, texts) in lists {
            reply.extend(filter::list(option, field, texts, lookup)?);
        }
        let nat = [
            ("--src-nat", Nat::Source, &args.flow.src_nat),
            ("--dst-nat", Nat::Destination, &args.flow.dst_nat),
            ("--any-nat", Nat::Both, &args.flow.any_nat),
        ];
        let nat = nat.into_iter().filter_map(|(option, of, typed)| Some((option, of, typed.as_deref()?)));
        let nat = nat.map(|(option, of, typed)| {
            let to = match typed {
                "any" => None,
                text => Some(prefix::parse(text).map_err(|error| UsageError::value(option, text, error))?),
            };
            Ok(NatTest { of, to })
        });
        let filter = TrackedFilter {
            protocols: args.protocol.as_deref().map_or(Ok(None), protocols)?,
            reply: Filter::new(Expression::all_of(reply)),
            zones: zones(&args.flow.zone)?,
            nat: nat.collect::<Result<_, UsageError>>()?,
        };
        let buffer = ring.map_or(DEFAULT_BUFFER, |bytes| bytes as usize);
        Ok(Some(Self { scope, filter, buffer }))
    }

    /// The protocols of sockets that may be behind the flows.
    pub(crate) fn protocols_of_sockets(&self) -> Protocols {
        self.filter.protocols.as_ref().map_or(Protocols::INET, Protocols::from_numbers)
    }
}

/// Refuses the options of flows in a run of sockets.
fn refuse_flow_options(args: &FilterArgs) -> Result<(), UsageError> {
    let options = [
        ("--mark", !args.flow.mark.is_empty(), MARK),
        ("--zone", !args.flow.zone.is_empty(), ZONE),
        ("--src-nat", args.flow.src_nat.is_some(), NAT),
        ("--dst-nat", args.flow.dst_nat.is_some(), NAT),
        ("--any-nat", args.flow.any_nat.is_some(), NAT),
    ];
    match options.into_iter().find(|&(_, is_given, _)| is_given) {
        Some((option, _, why)) => {
            Err(UsageError::Unknown(complaint!("conntrack's {option} has no meaning here: {why}")))
        }
        None => Ok(()),
    }
}

/// The filter of `stats` and its settings of flows, if its options ask for flows. Else the filter is that of the ledger.
///
/// # Errors
/// The first option that is wrong, or that flows or sockets have no counts for.
pub(super) fn of_stats(
    args: &StatsArgs,
    lookup: &dyn Lookup,
) -> Result<(Filter, Option<ForwardedSettings>), UsageError> {
    let options = FilterArgs {
        forwarded: args.forwarded,
        direction: args.direction,
        protocol: args.protocol.clone(),
        src: args.src.clone(),
        dst: args.dst.clone(),
        sport: args.sport.clone(),
        dport: args.dport.clone(),
        family: args.family,
        netns: args.netns.clone(),
        flow: args.flow.clone(),
        expression: args.expression.clone(),
        ..FilterArgs::default()
    };
    if scope(&options).is_none() {
        refuse_tuple_options(args)?;
        refuse_flow_options(&options)?;
        return Ok((filter::for_ledger(args, lookup)?, None));
    }
    let whole = filter::from_args(&options, lookup)?;
    let settings = ForwardedSettings::new(&options, &whole, None, lookup)?;
    check_count(&whole, &WorkloadFilter::default())?;
    let of_sockets = [
        ("--lifetimes", args.lifetimes),
        ("--sources", args.sources.is_some()),
        ("--proof", args.proof),
        ("--self", args.self_cost),
    ];
    match of_sockets.into_iter().find(|&(_, is_given)| is_given) {
        Some((option, _)) => {
            Err(UsageError::conflict(option, "it is for sockets: leave it out with --forwarded"))
        }
        None => Ok((whole, settings)),
    }
}

/// Refuses what the counts of sockets know nothing of.
fn refuse_tuple_options(args: &StatsArgs) -> Result<(), UsageError> {
    let FlowArgs { reply_src, reply_dst, reply_port_src, reply_port_dst, .. } = &args.flow;
    let options = [
        ("--src", !args.src.is_empty()),
        ("--dst", !args.dst.is_empty()),
        ("--sport", !args.sport.is_empty()),
        ("--family", args.family.is_some()),
        ("--netns", !args.netns.is_empty()),
        ("--reply-src", !reply_src.is_empty()),
        ("--reply-dst", !reply_dst.is_empty()),
        ("--reply-port-src", !reply_port_src.is_empty()),
        ("--reply-port-dst", !reply_port_dst.is_empty()),
    ];
    match options.into_iter().find(|&(_, is_given)| is_given) {
        Some((option, _)) => Err(UsageError::conflict(
            option,
            "sockets are counted by service and direction: use events or count for it, or add --forwarded",
        )),
        None => Ok(()),
    }
}

/// Refuses what flows have no value for.
fn check(args: &FilterArgs, whole: &Filter) -> Result<(), UsageError> {
    const END: &str = "connection tracking does not say why a flow ended: leave it out";
    let options = [
        ("--failed", args.failed),
        ("--reason", !args.reason.is_empty()),
        ("--error", !args.error.is_empty()),
    ];
    if let Some((option, _)) = options.into_iter().find(|&(_, is_given)| is_given) {
        return Err(UsageError::conflict(option, END));
    }
    let refused = |word| {
        Err(UsageError::Field(complaint!(
            "a flow that passes through has no {word}: filter by address, port, state or lifetime"
        )))
    };
    let is_unknown = |field: &Field| matches!(field, Field::Failed | Field::Reason | Field::Error);
    if let Some(field) = whole.fields().find(is_unknown) {
        return refused(field.word());
    }
    if whole.has_predicate_of(PredicateKind::Interface) {
        return refused(PredicateKind::Interface.word());
    }
    Ok(())
}

/// Refuses tests of owners, in a command that counts flows.
///
/// # Errors
/// There is one.
pub(super) fn check_count(whole: &Filter, workload: &WorkloadFilter) -> Result<(), UsageError> {
    if whole.asks_for_owners() || !workload.is_empty() {
        return Err(UsageError::Field(
            "flows are counted without the processes behind them: filter by address or port, or use list --forwarded"
                .into(),
        ));
    }
    Ok(())
}

/// The style, unless its format cannot express a flow.
///
/// # Errors
/// The format is one of those.
pub(super) fn checked(flows: Option<&ForwardedSettings>, style: Style) -> Result<Style, UsageError> {
    if flows.is_some() && matches!(style.format, Format::Xml(_) | Format::Save) {
        return Err(UsageError::conflict(
            "--output",
            "xml and save have no form here for the replies of a translated flow: use conntrack or json",
        ));
    }
    Ok(style)
}

/// The protocols of sockets; none of a run of flows.
pub(super) fn protocols_or(
    flows: Option<&ForwardedSettings>,
    of_sockets: impl FnOnce() -> Result<Protocols, UsageError>,
) -> Result<Protocols, UsageError> {
    if flows.is_some() { Ok(Protocols::NONE) } else { of_sockets() }
}

/// Refuses what a list of flows does not have.
///
/// # Errors
/// The first such option.
pub(super) fn check_list(args: &ListArgs) -> Result<(), UsageError> {
    if args.listening {
        return Err(UsageError::conflict(
            "--listening",
            "connection tracking has no listeners: leave it out",
        ));
    }
    if args.sort.is_some() {
        return Err(UsageError::conflict(
            "--sort",
            "flows are printed as the table is read, which may be large: sort the output, or use count --by",
        ));
    }
    Ok(())
}

/// Refuses groups that flows have no value for.
///
/// # Errors
/// One of the groups is of owners.
pub(super) fn check_groups(by: &[Group]) -> Result<(), UsageError> {
    if by.iter().any(|group| group.is_owners()) {
        return Err(UsageError::conflict(
            "--by",
            "flows are counted without the processes behind them: group by port, state, direction, netns, src, dst or peer",
        ));
    }
    Ok(())
}

/// Refuses what a stream of flows does not have.
///
/// # Errors
/// The kinds include attempts or listeners, or a summary is asked for.
pub(super) fn check_events(summary: bool, kinds: KindSet) -> Result<(), UsageError> {
    if summary {
        return Err(UsageError::conflict("--summary", "it counts sockets: leave it out with --forwarded"));
    }
    let of_sockets = [Kind::Attempt, Kind::Listen, Kind::Closed];
    if of_sockets.into_iter().any(|kind| kinds.contains(kind)) {
        return Err(UsageError::conflict(
            "--event-mask",
            "connection tracking has neither attempts nor listeners: use NEW, UPDATES or DESTROY with --forwarded",
        ));
    }
    Ok(())
}

/// The layer-4 protocols of `-p`; `None` for all.
fn protocols(text: &str) -> Result<Option<Ranges>, UsageError> {
    const HOW: &str = "write a name like tcp, udp, icmp, icmpv6, sctp or gre, a number, or all";
    let one = |item: &str| {
        let lower = item.to_ascii_lowercase();
        let number = match lower.as_str() {
            "all" => return Ok(None),
            "ipv6-icmp" | "icmp6" => Some(conn_common::protocol::ICMPV6),
            name => name.parse().ok().or_else(|| conn_common::protocol::from_name(name)),
        };
        number
            .map(|number| Some(Ranges::one(number.into())))
            .ok_or_else(|| complaint!("unknown protocol {}: {HOW}", as_typed(item)))
    };
    let ValueList { wanted, unwanted } = list::parse(text, "a protocol", HOW, one)
        .map_err(|error| UsageError::value("--protocol", text, error.complaint))?;
    let every = || Ranges::between(0, u8::MAX.into());
    let union = |sets: Vec<Option<Ranges>>| {
        let sets: Vec<Ranges> = sets.into_iter().map(|set| set.unwrap_or_else(every)).collect();
        Ranges::in_any(&sets)
    };
    let set = union(wanted).unwrap_or_else(every).without(&union(unwanted).unwrap_or_default());
    Ok(Some(set).filter(|set| *set != every()))
}

/// The zones of `--zone`; `None` for all.
fn zones(texts: &[String]) -> Result<Option<Ranges>, UsageError> {
    let parse = |text: &str| -> Result<Ranges, Complaint> {
        let number: Result<u16, _> = text.trim().parse();
        let how = "write a number from 0 to 65535";
        number
            .map(|number| Ranges::one(number.into()))
            .map_err(|_| complaint!("{} is not a zone: {how}", as_typed(text)))
    };
    let mut all = Vec::new();
    for text in texts {
        for item in text.split(',') {
            all.push(parse(item).map_err(|complaint| UsageError::value("--zone", text, complaint))?);
        }
    }
    Ok(Ranges::in_any(&all))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, rewrite_args};
    use crate::host::lookup::fixed::FixedLookup;
    use crate::settings::Settings;

    fn settings(line: &str) -> Result<ForwardedSettings, String> {
        let words = std::iter::once("conntrace").chain(line.split_whitespace()).map(Into::into);
        let args = rewrite_args(words.collect()).unwrap();
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        match Settings::from_cli(&cli, &FixedLookup::default()).map_err(|error| error.to_string())? {
            Settings::Events(settings) => settings.forwarded,
            Settings::List(settings) => settings.forwarded,
            Settings::Count(settings) => settings.forwarded,
            Settings::Stats(settings) => settings.forwarded,
            other => panic!("{other:?}"),
        }
        .ok_or_else(|| "sockets".to_owned())
    }

    #[test]
    fn options_choose_flows() {
        for (line, scope) in [
            ("--forwarded", Scope::Forwarded),
            ("--forwarded=all", Scope::All),
            ("--direction forward", Scope::Forwarded),
            ("--forwarded=all --direction forward", Scope::Forwarded),
            ("life --forwarded", Scope::Forwarded),
            ("stats --direction forward -p icmp", Scope::Forwarded),
            ("list --forwarded --min-age 1h", Scope::Forwarded),
            ("count --forwarded=all --by port,peer", Scope::All),
            ("--forwarded=all --direction out", Scope::All),
        ] {
            assert_eq!(settings(line).map(|settings| settings.scope), Ok(scope), "{line}");
        }
        assert_eq!(settings("--dport 22"), Err("sockets".into()));
        assert_eq!(settings("--forwarded -b 1M").unwrap().buffer, 1 << 20);
        let all =
            settings("--forwarded -p icmp,47 --zone 0,3 --src-nat --dst-nat 10.0.0.1 -r 10.1.0.1").unwrap();
        assert_eq!(all.filter.protocols, Some(Ranges::collect([(1, 1), (47, 47)])));
        assert_eq!(all.filter.zones, Some(Ranges::collect([(0, 0), (3, 3)])));
        assert_eq!(all.filter.nat.len(), 2);
        assert!(all.filter.nat[0].to.is_none() && all.filter.nat[1].to.is_some());
        assert_ne!(all.filter.reply, Filter::all());
        assert_eq!(settings("--forwarded -p all").unwrap().filter, TrackedFilter::default());
        assert!(settings("--forwarded -p !tcp").unwrap().filter.protocols.unwrap().contains(1));
    }

    #[test]
    fn what_a_flow_does_not_have_is_refused() {
        let refused = [
            "--mark 7",
            "-m 7",
            "-w 3",
            "--src-nat",
            "-g 192.0.2.1",
            "-j",
            "--forwarded --failed",
            "--forwarded reason = refused",
            "--forwarded dev = eth0",
            "count --forwarded --pid 1",
            "count --forwarded uid = 0",
            "count --forwarded --unit nginx",
            "--forwarded -e ATTEMPT",
            "--forwarded --summary",
            "--forwarded -o xml",
            "--forwarded -p tpc",
            "--forwarded --zone all",
            "--forwarded --mark x",
            "--forwarded -g router",
            "list --forwarded --listening",
            "list --forwarded --sort age",
            "count --forwarded --by comm",
            "stats --forwarded --lifetimes",
        ];
        let errors = refused.map(|line| settings(line).unwrap_err());
        insta::assert_snapshot!(errors.join("\n"));
    }
}
