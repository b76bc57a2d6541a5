//! Values of fields: addresses, ports, names. Options and expressions share this syntax.

use conn_common::connection::UNDIRECTED;
use conn_common::owner::COMM;

use crate::complaint::{Complaint, complaint};
use crate::event::direction;
use crate::filter::expression::field::{self, Field, LISTEN, UNKNOWN};
use crate::filter::expression::{Expression, Test, state};
use crate::filter::syntax_error::SyntaxError;
use crate::filter::value::list::{self, ValueList};
use crate::filter::value::ranges::Ranges;
use crate::filter::value::{port, prefix};
use crate::host::lookup::Lookup;

/// Matches every value of any field.
const ANY: &str = "*";
/// An unknown value of an owner, as in events.
const NOT_KNOWN: &str = "-";

/// Parses a list of values in an expression, where addresses may have ports.
///
/// # Errors
/// The first wrong value.
pub(crate) fn expression(field: Field, text: &str, lookup: &dyn Lookup) -> Result<Expression, SyntaxError> {
    let list = list::parse(text, noun(field), how(field), |item| match field {
        Field::Src | Field::Dst => host(field, item, lookup),
        Field::Sport | Field::Dport => port_of_family(field, item, lookup),
        _ => one(field, item, lookup).map(|set| Expression::test(field, set)),
    })?;
    Ok(join(field, list))
}

/// Parses a list of values of an option.
///
/// # Errors
/// The first wrong value.
pub(crate) fn sets(field: Field, text: &str, lookup: &dyn Lookup) -> Result<ValueList<Ranges>, SyntaxError> {
    list::parse(text, noun(field), how(field), |item| one(field, item, lookup))
}

/// The set that a list of sets means.
pub(crate) fn set(field: Field, list: &ValueList<Ranges>) -> Ranges {
    let wanted = Ranges::in_any(&list.wanted).unwrap_or_else(|| field.domain());
    wanted.without(&Ranges::in_any(&list.unwanted).unwrap_or_default())
}

/// The value after `<`, `<=`, `>` or `>=`.
///
/// # Errors
/// The text is not a value of the field.
pub(crate) fn limit(field: Field, text: &str, lookup: &dyn Lookup) -> Result<u128, Complaint> {
    let number = match field {
        Field::Sport | Field::Dport => {
            let text = text.strip_prefix("*:").or(text.strip_prefix(':')).unwrap_or(text);
            port::port(text, lookup.services())?.into()
        }
        Field::Uid => user(text, lookup)?,
        _ => number(text).ok_or_else(|| complaint!("{text:?} is no number: {}", how(field)))?,
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
        Field::Src | Field::Dst => "an address",
        Field::Sport | Field::Dport => "a port",
        Field::State => "a state",
        Field::Direction => "a direction",
        Field::Family => "a family",
        Field::Netns => "a network namespace",
        Field::Pid => "a process id",
        Field::Uid => "a user",
        Field::Cgroup => "a cgroup",
        Field::Comm => "a name",
    }
}

/// How to write a value of a field.
pub(crate) const fn how(field: Field) -> &'static str {
    match field {
        Field::Src | Field::Dst => prefix::HOW,
        Field::Sport | Field::Dport => port::HOW,
        Field::State => state::HOW,
        Field::Direction => "write in or out, or - where it is not known",
        Field::Family => "write ipv4 or ipv6",
        Field::Netns => "write a name, a path, a process id or an inode number",
        Field::Pid => "write a number, a range like 100-200, or - for an unknown owner",
        Field::Uid => "write a number, a login name, a range like 1000-1999, or - for an unknown owner",
        Field::Cgroup => "write a path below the cgroup v2 root, an id, or - for an unknown owner",
        Field::Comm => "write the name of a process, or - for an unknown owner",
    }
}

/// One value or one range of values.
fn one(field: Field, item: &str, lookup: &dyn Lookup) -> Result<Ranges, Complaint> {
    if item == ANY {
        return Ok(field.domain());
    }
    if item == NOT_KNOWN && field.is_owners() {
        return Ok(Ranges::one(UNKNOWN));
    }
    let wrong = || complaint!("{item:?} is not {}: {}", noun(field), how(field));
    let lower = item.to_ascii_lowercase();
    Ok(match field {
        Field::Src | Field::Dst => prefix::parse(item)?,
        Field::Sport | Field::Dport => {
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
        Field::Netns => range(item, |text| lookup.netns(text))?,
        Field::Pid => range(item, |text| number(text).ok_or_else(wrong))?,
        Field::Uid => range(item, |text| user(text, lookup))?,
        Field::Cgroup => range(item, |text| text.parse::<u64>().or_else(|_| lookup.cgroup(text)))?,
        Field::Comm => Ranges::one(name(&unescaped(item)?)),
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
        None => {
            lookup.user(text)?.ok_or_else(|| complaint!("no user {text:?} on this host: {}", how(Field::Uid)))
        }
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
                    "{text:?} has a lone backslash: write \\\\ for it, and \\x20 for a byte"
                ));
            }
        }
    }
    Ok(bytes)
}

/// ss's `[FAMILY:]ADDRESS[:PORT]`, either part of which may be `*`.
fn host(field: Field, item: &str, lookup: &dyn Lookup) -> Result<Expression, Complaint> {
    let port_field = if field == Field::Src { Field::Sport } else { Field::Dport };
    let (family, rest) = family(item);
    let (address, port) = split_host(rest)?;
    let mut terms = Vec::from_iter(family);
    if address != ANY {
        terms.push(Expression::test(field, prefix::parse(&address)?));
    }
    if let Some(port) = port.filter(|&port| port != ANY) {
        terms.push(Expression::test(port_field, one(port_field, port, lookup)?));
    }
    Ok(Expression::all_of(terms).unwrap_or_else(|| Expression::test(field, field.domain())))
}

/// The address and the port of a host.
fn split_host(text: &str) -> Result<(String, Option<&str>), Complaint> {
    let wrong =
        || complaint!("{text:?} is no address with a port: write 192.0.2.7:22, [fd00::1]:22, or *:22");
    if let Some(inside) = text.strip_prefix('[') {
        let (address, behind) =
            inside.split_once(']').ok_or_else(|| complaint!("a ] is missing in {text:?}"))?;
        let (length, port) = match behind.split_once(':') {
            Some((length, port)) => (length, Some(port)),
            None => (behind, None),
        };
        if !(length.is_empty() || length.starts_with('/')) || port == Some("") {
            return Err(wrong());
        }
        return Ok((format!("{address}{length}"), port));
    }
    // Without brackets, an IPv6 address has no port.
    let colons = text.matches(':').count();
    match text.split_once(':') {
        Some((_, "")) => Err(wrong()),
        Some(("", port)) if colons == 1 => Ok((ANY.into(), Some(port))),
        Some((address, port)) if colons == 1 => Ok((address.into(), Some(port))),
        _ => Ok((text.into(), None)),
    }
}

/// ss's `[FAMILY:]:PORT`. Both colons are optional.
fn port_of_family(field: Field, item: &str, lookup: &dyn Lookup) -> Result<Expression, Complaint> {
    let (family, rest) = family(item);
    let port = rest.strip_prefix("*:").unwrap_or(rest);
    let ports = Expression::test(field, one(field, port, lookup)?);
    Ok(match family {
        Some(family) => Expression::And(vec![family, ports]),
        None => ports,
    })
}

/// The family before an address, if any, and the rest.
fn family(item: &str) -> (Option<Expression>, &str) {
    for (word, number) in [("inet6:", 6), ("inet:", 4)] {
        if let Some(rest) = item.strip_prefix(word) {
            return (Some(Expression::test(Field::Family, Ranges::one(number))), rest);
        }
    }
    (None, item)
}

/// The meaning of a list: one test if all items are tests of the field.
fn join(field: Field, list: ValueList<Expression>) -> Expression {
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
