//! Hosts and ports in the syntax of ss: `[FAMILY:]ADDRESS[%INTERFACE][:PORT]`.

use crate::complaint::{Complaint, as_typed, complaint};
use crate::filter::expression::field::Field;
use crate::filter::expression::value::{ANY, one};
use crate::filter::expression::{Expression, Predicate, family};
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;
use crate::host::lookup::Lookup;

/// Matches every address, as in ss.
const EVERY_ADDRESS: [&str; 4] = [ANY, "any", "all", "default"];

/// ss's `[FAMILY:]ADDRESS[%INTERFACE][:PORT]`. Address and port may be `*`.
pub(super) fn address(field: Field, item: &str, lookup: &dyn Lookup) -> Result<Expression, Complaint> {
    let (family, rest) = family::split(item)?;
    let (address, port) = split_host(rest)?;
    let (address, interface) = match address.split_once('%') {
        // A length stands behind the interface, or before it.
        Some((address, behind)) => match behind.split_once('/') {
            Some((interface, length)) => (format!("{address}/{length}"), Some(interface.to_owned())),
            None => (address.to_owned(), Some(behind.to_owned())),
        },
        None => (address, None),
    };
    let mut terms = Vec::from_iter(family);
    if !EVERY_ADDRESS.contains(&address.as_str()) {
        terms.push(Expression::test(field, addresses(&address, lookup)?));
    }
    if let (Some(port), Some(field)) = (port.filter(|port| !["", ANY].contains(port)), field.port_beside()) {
        terms.push(Expression::test(field, one(field, port, lookup)?));
    }
    terms.extend(interface.map(|interface| Expression::Predicate(Predicate::Interface(interface))));
    Ok(Expression::all_of(terms).unwrap_or_else(|| Expression::test(field, field.domain())))
}

/// A test of an address together with the interface of its socket.
pub(super) fn scoped(address: Expression, interface: &str) -> Expression {
    Expression::And(vec![address, Expression::Predicate(Predicate::Interface(interface.to_owned()))])
}

/// The addresses that a text stands for: a prefix, an address, or the name of a host. As in ss, missing numbers at the end
/// of an IPv4 address are 0.
fn addresses(text: &str, lookup: &dyn Lookup) -> Result<Ranges, Complaint> {
    let is_short = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && text.matches('.').count() < 3;
    let long = if is_short { prefix::complete(text) } else { text.to_owned() };
    match prefix::parse(&long) {
        Err(_) if prefix::may_be_name(text) => {
            let found = lookup.host(text)?;
            Ok(Ranges::collect(found.into_iter().map(|ip| (prefix::number_of(ip), prefix::number_of(ip)))))
        }
        parsed => parsed,
    }
}

/// The address and the port of a host.
fn split_host(text: &str) -> Result<(String, Option<&str>), Complaint> {
    let wrong = || {
        complaint!(
            "{text} is no address with a port: write 192.0.2.7:22, [fd00::1]:22, or *:22",
            text = as_typed(text)
        )
    };
    if let Some(inside) = text.strip_prefix('[') {
        let (address, behind) = inside
            .split_once(']')
            .ok_or_else(|| complaint!("a ] is missing in {text}", text = as_typed(text)))?;
        let (length, port) = match behind.split_once(':') {
            Some((length, port)) => (length, Some(port)),
            None => (behind, None),
        };
        if !(length.is_empty() || length.starts_with('/')) {
            return Err(wrong());
        }
        return Ok((format!("{address}{length}"), port));
    }
    // As in ss, the port stands behind the last colon, or behind the first colon after a length.
    let colons = text.matches(':').count();
    if let Some(slash) = text.find('/') {
        return Ok(match text[slash..].find(':') {
            Some(colon) => (text[..slash + colon].into(), Some(&text[slash + colon + 1..])),
            None => (text.into(), None),
        });
    }
    match text.rsplit_once(':') {
        Some(("", port)) if colons == 1 => Ok((ANY.into(), Some(port))),
        Some((address, port)) if colons == 1 => Ok((address.into(), Some(port))),
        // ss takes the last part of an IPv6 address without brackets for a port.
        Some((address, port)) if prefix::parse(address).is_ok() && prefix::parse(text).is_ok() => Err(
            complaint!("{text} may be an address, or one with a port: write [{text}], or [{address}]:{port}"),
        ),
        Some((address, port)) if prefix::parse(address).is_ok() && !address.is_empty() => {
            Ok((address.into(), Some(port)))
        }
        _ => Ok((text.into(), None)),
    }
}

/// ss's `[FAMILY:]:PORT`. Both colons are optional.
pub(super) fn port(field: Field, item: &str, lookup: &dyn Lookup) -> Result<Expression, Complaint> {
    let (family, rest) = family::split(item)?;
    let port = rest.strip_prefix("*:").or(rest.strip_prefix(':')).unwrap_or(rest);
    let ports = Expression::test(field, one(field, port, lookup)?);
    Ok(match family {
        Some(family) => Expression::And(vec![family, ports]),
        None => ports,
    })
}
