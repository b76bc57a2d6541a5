//! Lists of values: `22,80,!8080`. Items with `!` are excluded from the others, or from everything if all items have
//! `!`.

use crate::complaint::{Complaint, as_typed, complaint};
use crate::filter::syntax_error::SyntaxError;

/// The parsed items of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ValueList<T> {
    /// The wanted items; empty for everything except the unwanted.
    pub wanted: Vec<T>,
    /// The excluded items.
    pub unwanted: Vec<T>,
}

/// Parses a comma-separated list. `what` names an item (`a port`), `how` is the remedy of a complaint.
///
/// # Errors
/// The first wrong item.
pub(crate) fn parse<T>(
    text: &str,
    what: &str,
    how: &str,
    mut item: impl FnMut(&str) -> Result<T, Complaint>,
) -> Result<ValueList<T>, SyntaxError> {
    let mut list = ValueList { wanted: Vec::new(), unwanted: Vec::new() };
    let mut at = 0;
    for part in text.split(',') {
        let begin = at + (part.len() - part.trim_start().len());
        let word = part.trim();
        at += part.len() + 1;
        let wrong = |complaint: Complaint| SyntaxError { at: begin, len: word.len(), complaint };
        let (unwanted, word) = match word.strip_prefix('!') {
            Some(word) => (true, word.trim_start()),
            None => (false, word),
        };
        if word.is_empty() {
            let complaint = if unwanted {
                complaint!("{what} is missing behind ! in {text}: {how}", text = as_typed(text))
            } else if text.trim().is_empty() {
                complaint!("{what} is missing in {text}: {how}", text = as_typed(text))
            } else {
                complaint!("{what} is missing beside a comma in {text}: {how}", text = as_typed(text))
            };
            return Err(wrong(complaint));
        }
        let value = item(word).map_err(wrong)?;
        if unwanted { &mut list.unwanted } else { &mut list.wanted }.push(value);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Result<ValueList<u8>, SyntaxError> {
        parse(text, "a number", "write one", |item| {
            item.parse().map_err(|_| complaint!("{item} is no number", item = as_typed(item)))
        })
    }

    #[test]
    fn takes_items_in_and_out() {
        let list = |wanted: &[u8], unwanted: &[u8]| {
            Ok(ValueList { wanted: wanted.to_vec(), unwanted: unwanted.to_vec() })
        };
        assert_eq!(numbers("1"), list(&[1], &[]));
        assert_eq!(numbers(" 1 ,2,! 3,!4"), list(&[1, 2], &[3, 4]));
        assert_eq!(numbers("!1"), list(&[], &[1]));
    }

    #[test]
    fn errors_have_the_position_of_the_item() {
        let error = |text| numbers(text).map_err(|error| (error.at, error.len, error.complaint));
        assert_eq!(error("1, x2"), Err((3, 2, r#""x2" is no number"#.into())));
        assert_eq!(error("1,!!2"), Err((2, 3, r#""!2" is no number"#.into())));
        assert_eq!(
            error("1,,2"),
            Err((2, 0, r#"a number is missing beside a comma in "1,,2": write one"#.into()))
        );
        assert_eq!(error(""), Err((0, 0, r#"a number is missing in "": write one"#.into())));
        assert_eq!(error("!"), Err((0, 1, r#"a number is missing behind ! in "!": write one"#.into())));
    }
}
