//! SECURITY.md against the code: each bound of its table is the value of the constant that the row names, and each test
//! that it names exists.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: a panic is the failure report")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The rows of the table under a heading, as cells.
fn rows(page: &str, heading: &str) -> Vec<Vec<String>> {
    let (_, section) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with('|')).skip(2);
    lines
        .map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
        .collect()
}

/// The words in backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A number with commas between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The texts that stand for a number.
fn texts(number: u64) -> Vec<String> {
    let mut texts = vec![grouped(number)];
    if number.is_power_of_two() {
        texts.push(format!("2^{}", number.ilog2()));
    }
    for (shift, unit) in [(10, "KiB"), (20, "MiB"), (30, "GiB")] {
        if number > 0 && number.is_multiple_of(1 << shift) {
            texts.push(format!("{} {unit}", number >> shift));
        }
    }
    texts
}

/// The value of a sum, product or shift of numbers.
fn value(expression: &str) -> Option<u64> {
    let expression = expression.trim();
    if let Some((left, right)) = expression.split_once("<<") {
        return Some(value(left)? << value(right)?);
    }
    if let Some((left, right)) = expression.split_once('*') {
        return Some(value(left)? * value(right)?);
    }
    expression.replace('_', "").parse().ok()
}

/// The number in the first call of `function` in an expression.
fn argument<'a>(expression: &'a str, function: &str) -> Option<&'a str> {
    expression.split_once(&format!("{function}("))?.1.split(')').next()
}

/// The texts that stand for the value of a constant, or for the capacity of a map.
fn of_constant(source: &str, name: &str) -> Option<Vec<String>> {
    let definition = ["const", "static"].iter().find_map(|word| {
        let (_, rest) = source.split_once(&format!("{word} {name}:"))?;
        rest.split(';').next()
    })?;
    let (kind, expression) = definition.split_once(" = ").or_else(|| definition.split_once(" =\n"))?;
    for (function, unit) in [("from_millis", "ms"), ("from_secs", "s")] {
        if let Some(number) = argument(expression, function) {
            return Some(vec![format!("{} {unit}", value(number)?)]);
        }
    }
    if let Some(number) = argument(expression, "NonZeroUsize::new") {
        return Some(texts(value(number)?));
    }
    if kind.contains("HashMap<") {
        // Key, value, capacity.
        return Some(texts(value(kind.rsplit(',').nth(1)?)?));
    }
    Some(texts(value(expression)?))
}

/// The limits of all `clamp(least, most)` in a function: numbers, or the exponents of powers of two.
fn of_function(source: &str, name: &str) -> Option<Vec<String>> {
    let (_, rest) = source.split_once(&format!("fn {name}("))?;
    let body = rest.split("\n    }\n").next()?;
    let limits = body.split(".clamp(").skip(1).filter_map(|clamp| clamp.split(')').next());
    Some(
        limits
            .flat_map(|limits| limits.split(','))
            .filter_map(value)
            .flat_map(|number| texts(number).into_iter().chain([format!("2^{number}")]))
            .collect(),
    )
}

#[test]
fn bounds_are_those_of_the_code() {
    let page = read("SECURITY.md");
    let rows = rows(&page, "What is bounded");
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows {
        let [_, bound, constant, beyond] = row.as_slice() else { panic!("{row:?}") };
        assert!(!beyond.is_empty(), "{row:?}");
        let mut words = quoted(constant);
        let path = words.pop().unwrap_or_else(|| panic!("{row:?}"));
        let source = read(path);
        assert!(!words.is_empty(), "{row:?}");
        for word in words {
            let missing = || panic!("{path} has no {word}: {row:?}");
            if let Some(function) = word.strip_suffix("()") {
                let limits = of_function(&source, function).unwrap_or_else(missing);
                let powers: Vec<&str> =
                    bound.split([' ', ',', ';']).filter(|word| word.contains('^')).collect();
                // Other bounds are calculated.
                for power in powers {
                    assert!(limits.iter().any(|limit| limit == power), "{word} of {path} has no {power}");
                }
            } else {
                let texts = of_constant(&source, word).unwrap_or_else(missing);
                let is_named = texts.iter().any(|text| has_word(bound, text));
                assert!(is_named, "{word} of {path} is {texts:?}: {bound}");
            }
        }
    }
}

/// True if `text` is in `bound`, and is no part of a longer number.
fn has_word(bound: &str, text: &str) -> bool {
    bound.match_indices(text).any(|(at, _)| {
        let before = bound[..at].chars().next_back();
        let mut after = bound[at + text.len()..].chars();
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit() || c == '^');
        let is_longer = after.next() == Some(',') && after.next().is_some_and(|c| c.is_ascii_digit());
        !is_part(before) && !is_part(bound[at + text.len()..].chars().next()) && !is_longer
    })
}

#[test]
fn attacks_have_their_tests() {
    let page = read("SECURITY.md");
    let rows = rows(&page, "Threat model");
    assert!(rows.len() > 3, "{rows:?}");
    for row in rows {
        for test in quoted(row.last().unwrap()) {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test}"));
            let source = read(&format!("tests/tests/live/attacks/{file}.rs"));
            assert!(source.contains(&format!("fn {name}(")), "there is no {test}");
        }
    }
}

#[test]
fn values_are_found() {
    assert_eq!(
        of_constant("const A: u64 = 1 << 20;", "A").unwrap(),
        ["1,048,576", "2^20", "1024 KiB", "1 MiB"]
    );
    assert_eq!(of_constant("const A: Duration = Duration::from_millis(20);", "A").unwrap(), ["20 ms"]);
    let map = "static M: HashMap<u64, Owner, 65_536, ON_DEMAND> = HashMap::new();";
    assert_eq!(of_constant(map, "M").unwrap()[0], "65,536");
    assert!(has_word("2^14 to 2^17", "2^17") && !has_word("2^14 to 2^17", "2^1"));
    assert!(!has_word("65,536", "65") && !has_word("165,536", "65,536"));
}
