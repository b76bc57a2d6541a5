//! The filter of options and expression together. All of them must hold.

use conn_common::connection::{IN, OUT};

use crate::cli::{Direction, Family, FilterArgs, StatsArgs};
use crate::complaint::{Complaint, complaint};
use crate::error::UsageError;
use crate::filter::Filter;
use crate::filter::expression::{self, Expression, Field, PredicateKind, value};
use crate::filter::value::list::ValueList;
use crate::filter::value::ranges::Ranges;
use crate::filter::workload::{ContainerPattern, UnitPattern, WorkloadFilter};
use crate::host::lookup::Lookup;
use crate::settings::forwarded;

/// The filter of a command that sees connections.
///
/// # Errors
/// The first option that is wrong.
pub(crate) fn from_args(args: &FilterArgs, lookup: &dyn Lookup) -> Result<Filter, UsageError> {
    // The replies of a flow have a tuple of their own, see `forwarded`.
    let of_flows = forwarded::scope(args).is_some();
    if of_flows && args.viewer.is_some() {
        let why = "the kernel shows the table of connection tracking to root alone, and the daemon to its group: become a \
                   member";
        return Err(UsageError::conflict("--forwarded", why));
    }
    let none = Vec::new();
    let replies = |texts| if of_flows { &none } else { texts };
    let lists = [
        // Options have conntrack's words: which end opened the connection.
        ("--src", Field::Client, &args.src),
        ("--dst", Field::Server, &args.dst),
        // A reply goes in the opposite direction.
        ("--reply-src", Field::Server, replies(&args.flow.reply_src)),
        ("--reply-dst", Field::Client, replies(&args.flow.reply_dst)),
        ("--dport", Field::Service, &args.dport),
        ("--sport", Field::ClientPort, &args.sport),
        ("--reply-port-src", Field::Service, replies(&args.flow.reply_port_src)),
        ("--reply-port-dst", Field::ClientPort, replies(&args.flow.reply_port_dst)),
        ("--state", Field::State, &args.state),
        ("--pid", Field::Pid, &args.pid),
        ("--comm", Field::Comm, &args.comm),
        ("--uid", Field::Uid, &args.uid),
        ("--netns", Field::Netns, &args.netns),
        ("--cgroup", Field::Cgroup, &args.cgroup),
        ("--reason", Field::Reason, &args.reason),
        ("--error", Field::Error, &args.error),
    ];
    let mut terms = Vec::new();
    for (option, field, texts) in lists {
        terms.extend(list(option, field, texts, lookup)?);
    }
    terms.extend(args.failed.then(|| Expression::test(Field::Failed, Ranges::one(1))));
    terms.extend(args.direction.and_then(direction));
    terms.extend(forwarded::marks(args, lookup)?);
    terms.extend(args.family.map(|family| {
        let number = match family {
            Family::V4 => 4,
            Family::V6 => 6,
        };
        Expression::test(Field::Family, Ranges::one(number))
    }));
    terms.extend(typed(&args.expression, lookup)?);
    let whole = Expression::all_of(terms);
    let tests_workloads =
        [&args.container, &args.unit, &args.user_unit].iter().any(|texts| !texts.is_empty());
    Ok(match args.viewer {
        None => Filter::new(whole),
        Some(viewer) => Filter::of_viewer(whole, viewer, tests_workloads),
    })
}

/// The filter of containers and units, which user space decides.
///
/// # Errors
/// The first option that is wrong.
pub(crate) fn workload(args: &FilterArgs, lookup: &dyn Lookup) -> Result<WorkloadFilter, UsageError> {
    let user = |name: &str| lookup.user(name);
    Ok(WorkloadFilter {
        containers: each("--container", &args.container, |text| ContainerPattern::new(text, user))?,
        units: each("--unit", &args.unit, UnitPattern::new)?,
        user_units: each("--user-unit", &args.user_unit, UnitPattern::new)?,
    })
}

/// Parses each value of an option.
fn each<T>(
    option: &'static str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, Complaint>,
) -> Result<Vec<T>, UsageError> {
    let value = |text: &String| parse(text).map_err(|complaint| UsageError::value(option, text, complaint));
    texts.iter().map(value).collect()
}

/// The filter of `stats`: the ledger knows service ports and directions only.
///
/// # Errors
/// The first option that is wrong, or an expression that asks for another field.
pub(crate) fn for_ledger(args: &StatsArgs, lookup: &dyn Lookup) -> Result<Filter, UsageError> {
    let expression = typed(&args.expression, lookup)?;
    let fields = expression.iter().flat_map(Expression::fields);
    let fields = fields
        .into_iter()
        .filter(|field| !matches!(field, Field::Service | Field::Direction | Field::Protocol));
    let has = |kind: &PredicateKind| expression.iter().any(|expression| expression.has_predicate(*kind));
    let predicates = PredicateKind::ALL.into_iter().filter(has).map(PredicateKind::word);
    if let Some(word) = fields.map(Field::word).chain(predicates).next() {
        let hint = match word {
            "sport" | "dport" => "write service = :22, or use events or count",
            _ => "use events or count for it",
        };
        return Err(UsageError::Field(complaint!(
            "stats counts by service and direction and knows no {word}: {hint}"
        )));
    }
    let ports = list("--dport", Field::Service, &args.dport, lookup)?;
    let terms = ports.into_iter().chain(args.direction.and_then(direction)).chain(expression);
    Ok(Filter::new(Expression::all_of(terms.collect())))
}

/// The test of a direction. Flows that pass through are no part of a run of sockets, so they need no test.
fn direction(direction: Direction) -> Option<Expression> {
    let number = match direction {
        Direction::In => IN,
        Direction::Out => OUT,
        Direction::Forward => return None,
    };
    Some(Expression::test(Field::Direction, Ranges::one(number.into())))
}

/// All occurrences of an option form one list.
pub(super) fn list(
    option: &'static str,
    field: Field,
    texts: &[String],
    lookup: &dyn Lookup,
) -> Result<Option<Expression>, UsageError> {
    let mut all = ValueList { wanted: Vec::new(), unwanted: Vec::new() };
    for text in texts {
        let ValueList { wanted, unwanted } = value::option(field, text, lookup)
            .map_err(|error| UsageError::value(option, text, error.complaint))?;
        all.wanted.extend(wanted);
        all.unwanted.extend(unwanted);
    }
    Ok((!texts.is_empty()).then(|| value::join(field, all)))
}

/// The expression after the options, in one or several arguments.
fn typed(words: &[String], lookup: &dyn Lookup) -> Result<Option<Expression>, UsageError> {
    if words.is_empty() {
        return Ok(None);
    }
    let text = words.join(" ");
    match expression::parser::parse_all(&text, lookup) {
        Ok(parsed) => {
            // Words that ss does not have were not pasted from ss.
            let is_from_ss = parsed.expression.fields().into_iter().all(Field::is_of_ss);
            if parsed.mixes && is_from_ss {
                log::warn!(
                    "filter: and binds more than or here, as the manual of ss says; ss itself takes them from left to \
                     right: use parentheses"
                );
            }
            Ok(Some(parsed.expression))
        }
        Err(error) => Err(UsageError::Expression { typed: text, error }),
    }
}
