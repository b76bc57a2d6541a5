//! An expression as text that parses to the same expression.

use std::fmt::{Display, Formatter, Result, Write as _};

use crate::event::direction;
use crate::filter::expression::field::{Field, LISTEN, UNKNOWN};
use crate::filter::expression::{Expression, Test, lexer, state};
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;

impl Display for Expression {
    fn fmt(&self, out: &mut Formatter<'_>) -> Result {
        match self {
            Self::Test(test) => test.fmt(out),
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
        match list {
            (true, list) => write!(out, "{word} = {list}"),
            (false, list) => write!(out, "{word} != {list}"),
        }
    }
}

impl Test {
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
        Field::Src | Field::Dst => prefix::write(set),
        Field::State => each(|number| state::name(number).unwrap_or_default().to_owned()),
        Field::Direction => each(|number| {
            // The number of a listener, or of a direction, has eight bits.
            let name = if number == LISTEN { Some(direction::LISTEN) } else { direction::name(number as u8) };
            name.unwrap_or("-").to_owned()
        }),
        Field::Family => each(|number| if number == 6 { "ipv6" } else { "ipv4" }.to_owned()),
        Field::Comm => set.as_slice().iter().flat_map(|&(low, high)| names(low, high)).collect(),
        _ => set.as_slice().iter().map(|&(low, high)| numbers(low, high)).collect(),
    }
}

fn numbers(low: u128, high: u128) -> String {
    if low == UNKNOWN {
        "-".into()
    } else if low == high {
        low.to_string()
    } else {
        format!("{low}-{high}")
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
    let mut text = String::new();
    // A keyword needs an escape, since the parser would read an operator.
    let is_word = std::str::from_utf8(&bytes[..end]).is_ok_and(lexer::is_keyword);
    for (at, &byte) in bytes[..end].iter().enumerate() {
        if is_word && at == 0 {
            let _ = write!(text, "\\x{byte:02x}");
        } else if byte.is_ascii_alphanumeric() || b"._/:@+".contains(&byte) || (byte == b'-' && end > 1) {
            text.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    if text.is_empty() { "\\x00".into() } else { text }
}
