//! Values of fields: addresses, ports, names. Options and expressions share this syntax.

use conn_common::cause::Cause;
use conn_common::connection::UNDIRECTED;
use conn_common::owner::COMM;

use crate::complaint::{Complaint, as_typed, complaint};
use crate::event::{direction, errno};
use crate::filter::expression::field::{self, Field, LISTEN, UNKNOWN};
use crate::filter::expression::{Expression, Predicate, PredicateKind, Test, host, state};
use crate::filter::protocols::Protocols;
use crate::filter::syntax_error::SyntaxError;
use crate::filter::value::list::{self, ValueList};
use crate::filter::value::ranges::Ranges;
use crate::filter::value::{duration, port, prefix, quantity};
use crate::filter::workload::{ContainerPattern, UnitPattern};
use crate::host::lookup::Lookup;

/// Matches every value of any field.
pub(super) const ANY: &str = "*";
/// An unknown value of an owner, as in events.
const NOT_KNOWN: &str = "-";

/// Parses a list of values in an expression, where addresses may have ports.
///
/// # Errors
/// The first wrong value.
pub(crate) fn expression(field: Field, text: &str, lookup: &dyn Lookup) -> Result<Expression, SyntaxError> {
    let list = list::parse(text, noun(field), how(field), |item| match field {
        _ if field.is_address() => host::address(field, item, lookup),
        _ if field.is_port() => host::port(field, item, lookup),
        _ => one(field, item, lookup).map(|set| Expression::test(field, set)),
    })?;
    Ok(join(field, list))
}

/// Parses a list of values of an option for each item. Addresses may have an interface behind `%`.
///
/// # Errors
/// The first wrong value.
pub(crate) fn option(
    field: Field,
    text: &str,
    lookup: &dyn Lookup,
) -> Result<ValueList<Expression>, SyntaxError> {
    list::parse(text, noun(field), how(field), |item| match item.split_once('%') {
        Some((address, interface)) if field.is_address() => {
            Ok(host::scoped(Expression::test(field, prefix::parse(address)?), interface))
        }
        _ => one(field, item, lookup).map(|set| Expression::test(field, set)),
    })
}

/// The set that a list of sets means.
fn set(field: Field, list: &ValueList<Ranges>) -> Ranges {
    let wanted = Ranges::in_any(&list.wanted).unwrap_or_else(|| field.domain());
    wanted.without(&Ranges::in_any(&list.unwanted).unwrap_or_default())
}

/// The value after `<`, `<=`, `>` or `>=`.
///
/// # Errors
/// The text is not a value of the field.
pub(crate) fn limit(field: Field, text: &str, lookup: &dyn Lookup) -> Result<u128, Complaint> {
    let number = match field {
        _ if field.is_port() => {
            let text = text.strip_prefix("*:").or(text.strip_prefix(':')).unwrap_or(text);
            port::port(text, lookup.services())?.into()
        }
        Field::Lifetime => return duration::parse(text).map(|duration| duration.as_nanos()),
        Field::Bytes => return quantity::bytes(text).map(u128::from),
        Field::Uid => user(text, lookup)?,
        _ => number(text)
            .ok_or_else(|| complaint!("{text} is no number: {}", how(field), text = as_typed(text)))?,
    };
    Ok(number.into())
}

/// A value in quotes, without escapes and lists.
///
/// # Errors
/// The text is not a value of the field.
pub(crate) fn quoted(field: Field, text: &str, lookup: &dyn Lookup) -> Result<Ranges, Complaint> {
    if field == Field::Comm {
        Ok(Ranges::one(name(text.as_bytes())))
    } else {
        one(field, text.trim(), lookup)
    }
}

const fn noun(field: Field) -> &'static str {
    match field {
        Field::Client | Field::Server | Field::Src | Field::Dst => "an address",
        Field::ClientPort | Field::Service | Field::Sport | Field::Dport => "a port",
        Field::State => "a state",
        Field::Direction => "a direction",
        Field::Family => "a family",
        Field::Protocol => "a protocol",
        Field::Netns => "a network namespace",
        Field::Pid => "a process id",
        Field::Uid => "a user",
        Field::Cgroup => "a cgroup",
        Field::Comm => "a name",
        Field::Failed => "yes or no",
        Field::Reason => "a reason",
        Field::Error => "an error",
        Field::Lifetime => "a duration",
        Field::Bytes => "a number of bytes",
    }
}

/// How to write a value of a field.
pub(crate) const fn how(field: Field) -> &'static str {
    match field {
        Field::Client | Field::Server | Field::Src | Field::Dst => prefix::HOW,
        Field::ClientPort | Field::Service | Field::Sport | Field::Dport => port::HOW,
        Field::State => state::HOW,
        Field::Direction => "write in or out, or - where it is not known",
        Field::Family => "write ipv4 or ipv6",
        Field::Protocol => "write tcp or udp",
        Field::Netns => "write a name, a path, a process id or an inode number",
        Field::Pid => "write a number, a range like 100-200, or - for an unknown owner",
        Field::Uid => "write a number, a login name, a range like 1000-1999, or - for an unknown owner",
        Field::Cgroup => "write a path below the cgroup v2 root, an id, or - for an unknown owner",
        Field::Comm => "write the name of a process, or - for an unknown owner",
        Field::Failed => "write failed or not failed",
        Field::Reason => {
            "write refused, timed_out, unreachable, reset_by_peer, abandoned, local, aborted, unknown, closed_by_us, \
             closed_by_peer, reset_by_us or not_accepted; - for no end yet"
        }
        Field::Error => "write a name like ECONNREFUSED, a number, or - for no error",
        Field::Lifetime => "write a number of seconds, or numbers with units like 1m30s or 500ms",
        Field::Bytes => "write a number, or one with K, M, G or T",
    }
}

/// How to write a value of a predicate.
pub(crate) const fn predicate_how(kind: PredicateKind) -> &'static str {
    match kind {
        PredicateKind::Mark => "write a number, or a number and a mask like 0x1/0xff",
        PredicateKind::Interface => "write the name of an interface, or its index",
        PredicateKind::Container => {
            "write the name of a container, its id, the first digits of the id, or a pattern"
        }
        PredicateKind::Unit | PredicateKind::UserUnit => "write the name of a systemd unit, or a pattern",
    }
}

/// Parses a list of values of a predicate.
///
/// # Errors
/// The first wrong value.
pub(crate) fn predicate(
    kind: PredicateKind,
    text: &str,
    quoted: bool,
    lookup: &dyn Lookup,
) -> Result<Expression, SyntaxError> {
    let one = |item: &str| {
        Ok(Expression::Predicate(match kind {
            PredicateKind::Mark => mark(item)?,
            PredicateKind::Interface => Predicate::Interface(plain(item)?),
            PredicateKind::Container => {
                Predicate::Container(ContainerPattern::new(&plain(item)?, |user| lookup.user(user))?)
            }
            PredicateKind::Unit => Predicate::Unit(UnitPattern::new(&plain(item)?)?),
            PredicateKind::UserUnit => Predicate::UserUnit(UnitPattern::new(&plain(item)?)?),
        }))
    };
    if quoted {
        return one(&text.replace('\\', "\\\\"))
            .map_err(|complaint| SyntaxError::new(0, text.len(), complaint));
    }
    let ValueList { wanted, unwanted } = list::parse(text, kind.word(), predicate_how(kind), one)?;
    let (wanted, unwanted) =
        (Expression::any_of(wanted), Expression::any_of(unwanted).map(Expression::negated));
    let terms: Vec<_> = wanted.into_iter().chain(unwanted).collect();
    Expression::all_of(terms).ok_or_else(|| SyntaxError::new(0, text.len(), predicate_how(kind)))
}

/// A mark, or a mark and a mask, in the notation of C.
fn mark(item: &str) -> Result<Predicate, Complaint> {
    let number = |text: &str| {
        let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) => (digits, 16),
            None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
            None => (text, 10),
        };
        u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+')).ok_or_else(|| {
            complaint!(
                "{text} is no mark: {how}",
                text = as_typed(text),
                how = predicate_how(PredicateKind::Mark)
            )
        })
    };
    Ok(match item.split_once('/') {
        Some((value, mask)) => Predicate::Mark { mark: number(value)?, mask: number(mask)? },
        None => Predicate::Mark { mark: number(item)?, mask: u32::MAX },
    })
}

/// A name without the escapes of names in events.
fn plain(item: &str) -> Result<String, Complaint> {
    unescaped(item).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// As `autobound` of ss: this host's port is in the range from which the kernel chooses ports.
pub(crate) fn autobound(lookup: &dyn Lookup) -> Expression {
    let (low, high) = lookup.local_ports();
    Expression::test(Field::Sport, Ranges::between(low.into(), high.into()))
}

/// One value or one range of values.
pub(super) fn one(field: Field, item: &str, lookup: &dyn Lookup) -> Result<Ranges, Complaint> {
    if item == ANY {
        return Ok(field.domain());
    }
    if item == NOT_KNOWN && field.may_be_unknown() {
        return Ok(Ranges::one(UNKNOWN));
    }
    let wrong = || complaint!("{item} is not {}: {}", noun(field), how(field), item = as_typed(item));
    let lower = item.to_ascii_lowercase();
    Ok(match field {
        Field::Client | Field::Server | Field::Src | Field::Dst => prefix::parse(item)?,
        Field::ClientPort | Field::Service | Field::Sport | Field::Dport => {
            let ports = port::range(item.strip_prefix(':').unwrap_or(item), lookup.services())?;
            Ranges::between((*ports.start()).into(), (*ports.end()).into())
        }
        Field::State => state::parse(item)?,
        Field::Direction => Ranges::one(match lower.as_str() {
            "listen" => LISTEN,
            NOT_KNOWN => UNDIRECTED.into(),
            name => direction::from_name(name).ok_or_else(wrong)?.into(),
        }),
        Field::Family => match lower.as_str() {
            "ipv4" | "inet" | "4" => Ranges::one(4),
            "ipv6" | "inet6" | "6" => Ranges::one(6),
            _ => return Err(wrong()),
        },
        Field::Protocol => {
            let protocol = Protocols::from_word(item).ok_or_else(wrong)?;
            let numbers = protocol.numbers();
            if numbers.is_empty() {
                return Err(complaint!(
                    "an expression cannot choose {protocol}: use the option -p {protocol}"
                ));
            }
            numbers
        }
        Field::Netns => range(item, |text| lookup.netns(text))?,
        Field::Pid => range(item, |text| number(text).ok_or_else(wrong))?,
        Field::Uid => range(item, |text| user(text, lookup))?,
        Field::Cgroup => range(item, |text| text.parse::<u64>().or_else(|_| lookup.cgroup(text)))?,
        Field::Comm => Ranges::one(name(&unescaped(item)?)),
        Field::Failed => Ranges::one(match lower.as_str() {
            "yes" | "true" => 1,
            "no" | "false" => 0,
            _ => return Err(wrong()),
        }),
        Field::Reason => {
            let name = lower.replace('-', "_");
            let cause = Cause::ALL.into_iter().find(|cause| cause.name() == name);
            Ranges::one(cause.ok_or_else(wrong)? as u128)
        }
        Field::Error => {
            let known = number(item).and_then(|number| u16::try_from(number).ok());
            let error = known.or_else(|| errno::from_name(&item.to_ascii_uppercase()));
            Ranges::one(error.filter(|&error| error != 0).ok_or_else(wrong)?.into())
        }
        Field::Lifetime => range(item, |text| duration::parse(text).map(|duration| duration.as_nanos()))?,
        Field::Bytes => range(item, quantity::bytes)?,
    })
}

/// A value, or two values with a hyphen between. Names may have hyphens, so the whole text is tried first.
fn range<T>(item: &str, one: impl Fn(&str) -> Result<T, Complaint>) -> Result<Ranges, Complaint>
where
    T: Into<u128> + PartialOrd,
{
    let whole = match one(item) {
        Ok(number) => return Ok(Ranges::one(number.into())),
        Err(error) => error,
    };
    let halves = item.match_indices('-').map(|(at, _)| (&item[..at], &item[at + 1..]));
    for (first, last) in halves {
        if let (Ok(low), Ok(high)) = (one(first), one(last)) {
            if low > high {
                return Err(complaint!("the range {item} is reversed: write {last}-{first}"));
            }
            return Ok(Ranges::between(low.into(), high.into()));
        }
    }
    Err(whole)
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

fn user(text: &str, lookup: &dyn Lookup) -> Result<u32, Complaint> {
    match number(text) {
        Some(uid) => Ok(uid),
        None => lookup.user(text)?.ok_or_else(|| {
            complaint!("no user {text} on this host: {}", how(Field::Uid), text = as_typed(text))
        }),
    }
}

/// The number of a process's name. The kernel keeps 15 bytes of a name.
fn name(text: &[u8]) -> u128 {
    let mut comm = [0; COMM];
    let len = text.len().min(comm.len() - 1);
    comm[..len].copy_from_slice(&text[..len]);
    field::comm(&comm)
}

/// Reverses the escapes of names in events, so that a name can be copied from an event.
fn unescaped(text: &str) -> Result<Vec<u8>, Complaint> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let hex = |at: usize| after.get(at).and_then(|&byte| char::from(byte).to_digit(16));
        match (after.first(), hex(1), hex(2)) {
            (Some(b'\\'), ..) => {
                bytes.push(b'\\');
                rest = &after[1..];
            }
            (Some(b'x'), Some(high), Some(low)) => {
                bytes.push((high << 4 | low) as u8);
                rest = &after[3..];
            }
            _ => {
                return Err(complaint!(
                    "{text} has a lone backslash: write \\\\ for it, and \\x20 for a byte",
                    text = as_typed(text)
                ));
            }
        }
    }
    Ok(bytes)
}

/// The meaning of a list: one test if all items are tests of the field.
pub(crate) fn join(field: Field, list: ValueList<Expression>) -> Expression {
    let pure = |terms: &[Expression]| {
        let set = |term: &Expression| match term {
            Expression::Test(Test { field: asked, set }) if *asked == field => Some(set.clone()),
            _ => None,
        };
        terms.iter().map(set).collect::<Option<Vec<Ranges>>>()
    };
    if let (Some(wanted), Some(unwanted)) = (pure(&list.wanted), pure(&list.unwanted)) {
        return Expression::test(field, set(field, &ValueList { wanted, unwanted }));
    }
    let wanted = Expression::any_of(list.wanted);
    let unwanted = Expression::any_of(list.unwanted).map(Expression::negated);
    let terms = wanted.into_iter().chain(unwanted).collect();
    // A list has at least one item.
    Expression::all_of(terms).unwrap_or_else(|| Expression::test(field, field.domain()))
}
