//! An expression as text that parses to the same expression.

use std::fmt::{Display, Formatter, Result, Write as _};

use conn_common::cause::Cause;
use conn_common::connection::FORWARD;

use crate::event::{direction, errno};
use crate::filter::expression::field::{FORWARDED, Field, LISTEN, UNKNOWN};
use crate::filter::expression::{Expression, Test, lexer, state};
use crate::filter::protocols::Protocols;
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;

/// A range of so many values is a list of its values.
const MAX_EACH: u128 = 64;

impl Display for Expression {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Self::Test(test) => test.fmt(out),
            Self::Predicate(predicate) => predicate.fmt(out),
            Self::Not(term) if matches!(**term, Self::And(_) | Self::Or(_)) => write!(out, "not ({term})"),
            Self::Not(term) => write!(out, "not {term}"),
            Self::And(terms) => {
                joined(out, terms, " and ", |term| matches!(term, Self::And(_) | Self::Or(_)))
            }
            Self::Or(terms) => joined(out, terms, " or ", |term| matches!(term, Self::Or(_))),
        }
    }
}

fn joined(
    out: &mut Formatter<'_>,
    terms: &[Expression],
    word: &str,
    binds_less: impl Fn(&Expression) -> bool,
) -> Result {
    for (at, term) in terms.iter().enumerate() {
        if at > 0 {
            out.write_str(word)?;
        }
        if binds_less(term) { write!(out, "({term})")? } else { write!(out, "{term}")? }
    }
    Ok(())
}

impl Display for Test {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        let (word, list) = (self.field.word(), self.list());
        if let Some((sign, limit)) = self.limit() {
            return write!(out, "{word} {sign} {}", value(self.field, limit));
        }
        if self.field == Field::Failed && self.set.len() == 1 {
            return out.write_str(if self.set.contains(1) { "failed" } else { "not failed" });
        }
        match list {
            (true, list) => write!(out, "{word} = {list}"),
            (false, list) => write!(out, "{word} != {list}"),
        }
    }
}

impl Test {
    /// The sign and the limit of a comparison of quantities.
    fn limit(&self) -> Option<(&'static str, u128)> {
        if !matches!(self.field, Field::Lifetime | Field::Bytes) {
            return None;
        }
        match *self.set.as_slice() {
            [(0, limit)] if limit < self.field.largest() => Some(("<=", limit)),
            [(limit, last)] if limit > 0 && last == self.field.largest() => Some((">=", limit)),
            _ => None,
        }
    }

    /// The test in words, for `-v`.
    pub(crate) fn describe(&self) -> String {
        let noun = self.field.noun();
        if self.field == Field::Failed && self.set.len() == 1 {
            return if self.set.contains(1) {
                "the connection failed"
            } else {
                "the connection did not fail"
            }
            .into();
        }
        if let Some((sign, limit)) = self.limit() {
            let compares = if sign == "<=" { "at most" } else { "at least" };
            return format!("{noun} is {compares} {}", value(self.field, limit));
        }
        match self.list() {
            (true, list) if list == "*" => format!("{noun} is any"),
            (false, list) if list == "*" => format!("{noun} is none"),
            (is_wanted, list) => {
                let is = if is_wanted { "is" } else { "is not" };
                let or = if self.field.is_owners() { list.replace(",-", " or unknown") } else { list };
                format!("{noun} {is} {}", if or == "-" { "unknown".into() } else { or.replace(',', " or ") })
            }
        }
    }

    /// The shorter list: of the values in the set (true), or of the others (false).
    fn list(&self) -> (bool, String) {
        let rest = self.field.domain().without(&self.set);
        if rest.is_empty() || self.set.is_empty() {
            return (rest.is_empty(), "*".into());
        }
        let (wanted, unwanted) = (items(self.field, &self.set), items(self.field, &rest));
        let (is_wanted, items) =
            if unwanted.len() < wanted.len() { (false, unwanted) } else { (true, wanted) };
        (is_wanted, items.join(","))
    }

    /// The number of values or ranges in the shorter list.
    pub fn weight(&self) -> usize {
        let rest = self.field.domain().without(&self.set);
        items(self.field, &self.set).len().min(items(self.field, &rest).len())
    }
}

fn items(field: Field, set: &Ranges) -> Vec<String> {
    let each = |write: fn(u128) -> String| set.numbers().map(write).collect();
    match field {
        Field::Client | Field::Server | Field::Src | Field::Dst => {
            // Without brackets, the last part of an IPv6 address may be a port.
            let bracketed = |text: String| {
                if text.contains(':') && !text.contains('/') { format!("[{text}]") } else { text }
            };
            prefix::write(set).into_iter().map(bracketed).collect()
        }
        Field::Reason | Field::Error => each_value(field, set),
        Field::State => each(|number| state::name(number).unwrap_or_default().to_owned()),
        Field::Direction => each(|number| {
            let name = match number {
                LISTEN => Some(direction::LISTEN),
                FORWARDED => direction::name(FORWARD),
                // The number of a direction has eight bits.
                _ => direction::name(number as u8),
            };
            name.unwrap_or("-").to_owned()
        }),
        Field::Family => each(|number| if number == 6 { "ipv6" } else { "ipv4" }.to_owned()),
        Field::Protocol => each(|number| Protocols::from_numbers(&Ranges::one(number)).to_string()),
        Field::Comm => set.as_slice().iter().flat_map(|&(low, high)| names(low, high)).collect(),
        _ => set.as_slice().iter().map(|&(low, high)| values(field, low, high)).collect(),
    }
}

fn each_value(field: Field, set: &Ranges) -> Vec<String> {
    // Errors that have no name stand in ranges, since there are 65,000 of them.
    let of_range = |&(low, high): &(u128, u128)| {
        if high - low > MAX_EACH {
            vec![values(field, low, high)]
        } else {
            (low..=high).map(|one| value(field, one)).collect()
        }
    };
    set.as_slice().iter().flat_map(of_range).collect()
}

fn values(field: Field, low: u128, high: u128) -> String {
    if low == high { value(field, low) } else { format!("{}-{}", value(field, low), value(field, high)) }
}

/// One value as text that parses back.
fn value(field: Field, number: u128) -> String {
    match field {
        _ if number == UNKNOWN => "-".into(),
        Field::Lifetime => format!("{number}ns"),
        Field::Reason => {
            Cause::from_number(number as u8).map_or_else(|| number.to_string(), |cause| cause.name().into())
        }
        Field::Error => errno::name(number as u16).map_or_else(|| number.to_string(), Into::into),
        _ => number.to_string(),
    }
}

/// No two names are neighbouring numbers, so a longer range is a gap between names. Such ranges are never printed,
/// since the list of names is shorter; they count for three items.
fn names(low: u128, high: u128) -> Vec<String> {
    if low == high { vec![name(low)] } else { vec![name(low), "...".into(), name(high)] }
}

fn name(number: u128) -> String {
    if number == UNKNOWN {
        return "-".into();
    }
    let bytes = number.to_be_bytes();
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    escaped(&bytes[..end])
}

/// A name of any bytes as a word that parses back.
pub(super) fn escaped(name: &[u8]) -> String {
    let mut text = String::new();
    // A keyword needs an escape, since the parser would read an operator.
    let is_word = std::str::from_utf8(name).is_ok_and(lexer::is_keyword);
    for (at, &byte) in name.iter().enumerate() {
        if is_word && at == 0 {
            let _ = write!(text, "\\x{byte:02x}");
        } else if byte.is_ascii_alphanumeric()
            || b"._/:@+*?[]%".contains(&byte) && !(byte == b'*' && name.len() == 1)
            || (byte == b'-' && name.len() > 1)
        {
            text.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if text.is_empty() { "\\x00".into() } else { text }
}
