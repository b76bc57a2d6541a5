//! The syntax of durations: `20s`, `1m30s`, `500ms`, `1.5h`.

use std::time::Duration;

use crate::complaint::{Complaint, as_typed, complaint};

/// Units in nanoseconds. `m` is a minute, as in sleep(1) and systemd.time(7).
const UNITS: [(&str, u64); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("min", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", 86_400 * SECOND),
];
const SECOND: u64 = 1_000_000_000;

/// Parses a duration: numbers with units, added up. A single number without unit is in seconds.
///
/// # Errors
/// The text is not a duration, or longer than 584 years.
pub(crate) fn parse(text: &str) -> Result<Duration, Complaint> {
    let unclear = || {
        complaint!(
            "{} is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms",
            as_typed(text)
        )
    };
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(unclear());
    }
    let mut total: u64 = 0;
    let mut terms = 0;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        if number.is_empty() {
            return Err(unclear());
        }
        let (unit, after) = split(after.trim_start(), char::is_alphabetic);
        let nanos = match UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, nanos)) => *nanos,
            None if unit.is_empty() && terms == 0 && after.is_empty() => SECOND,
            None if unit.is_empty() => return Err(unclear()),
            None => {
                return Err(complaint!(
                    "unknown unit {} in {}: use ms, s, m, h or d",
                    as_typed(unit),
                    as_typed(text)
                ));
            }
        };
        let term = scale(number, nanos).ok_or_else(unclear)?;
        total = total
            .checked_add(term)
            .ok_or_else(|| complaint!("{} is longer than 584 years", as_typed(text)))?;
        terms += 1;
        rest = after.trim_start();
    }
    Ok(Duration::from_nanos(total))
}

/// The longest prefix of characters of a `kind`, and the rest.
fn split(text: &str, kind: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !kind(c)).unwrap_or(text.len()))
}

/// A decimal number times `unit`, cut off to whole nanoseconds. `None` if the text is not a number, or the product
/// too large.
fn scale(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    // A day has 14 digits of nanoseconds, so 18 digits are enough.
    let fraction = fraction.get(..18).unwrap_or(fraction);
    let digits: u64 = fraction.parse().ok()?;
    let part = u128::from(digits) * u128::from(unit) / 10_u128.pow(fraction.len() as u32);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_parse() {
        for (text, nanos) in [
            ("20s", 20 * SECOND),
            ("1m30s", 90 * SECOND),
            ("1m 30s", 90 * SECOND),
            ("500ms", SECOND / 2),
            ("2", 2 * SECOND),
            ("0.25", SECOND / 4),
            ("1.5h", 5_400 * SECOND),
            ("2min", 120 * SECOND),
            ("1d", 86_400 * SECOND),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("0", 0),
            ("0.0000000001s", 0),
            ("1.00000000000000000000000001s", SECOND),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn errors_name_the_mistake() {
        let errors = ["", "soon", "5 parsecs", "1m30", "-1s", "1.2.3s", ".s", "1.", "99999999999d", "20x"]
            .map(|text| parse(text).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @r#"
        "" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        "soon" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        unknown unit "parsecs" in "5 parsecs": use ms, s, m, h or d
        "1m30" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        "-1s" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        "1.2.3s" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        ".s" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        "1." is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        "99999999999d" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        unknown unit "x" in "20x": use ms, s, m, h or d
        "#);
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails(text in ".{0,40}") {
            let _ = parse(&text);
        }

        #[test]
        fn std_durations_parse_back(nanos in 0..u64::MAX / 2) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format!("{duration:?}")), Ok(duration));
        }
    }
}
