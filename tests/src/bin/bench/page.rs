//! Markdown.

use crate::machine::{median, quantile};
use conn_tests::exit::own_peak_bytes;
use std::fmt::Write as _;

/// A table: the first column to the left, all others to the right.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n| --- |{}\n", head.join(" | "), " ---: |".repeat(head.len() - 1));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// A ratio: the median, and the quartiles.
pub(crate) fn ratio(values: impl Iterator<Item = f64> + Clone) -> String {
    let [low, high] = [250, 750].map(|per_mille| quantile(values.clone(), per_mille));
    format!("{:.3} ({low:.3}–{high:.3})", median(values))
}

/// What was to be reached, and was it.
pub(crate) struct Target {
    pub(crate) what: String,
    pub(crate) limit: String,
    pub(crate) measured: String,
    pub(crate) met: bool,
}

impl Target {
    pub(crate) fn at_least(what: &str, limit: f64, measured: f64) -> Self {
        Self::new(what, "≥", limit, measured, measured >= limit)
    }

    pub(crate) fn at_most(what: &str, limit: f64, measured: f64) -> Self {
        Self::new(what, "≤", limit, measured, measured <= limit)
    }

    fn new(what: &str, sign: &str, limit: f64, measured: f64, met: bool) -> Self {
        Self {
            what: what.to_owned(),
            limit: format!("{sign} {limit}"),
            measured: format!("{measured:.3}"),
            met,
        }
    }
}

/// The table of targets.
pub(crate) fn targets(targets: &[Target]) -> String {
    let row = |target: &Target| {
        let said = if target.met { "met" } else { "**not met**" };
        vec![target.what.clone(), target.limit.clone(), target.measured.clone(), said.to_owned()]
    };
    table(&["target", "limit", "measured", ""], &targets.iter().map(row).collect::<Vec<_>>())
}

/// What could not be measured.
pub(crate) fn skipped(all: &[(String, String)]) -> String {
    all.iter().fold(String::new(), |text, (what, why)| text + &format!("- {what}: skipped: {why}\n"))
}

/// The peak of a program's memory. The kernel reports at least the parent's memory at the fork.
pub(crate) fn memory(peak_bytes: u64) -> String {
    let own = own_peak_bytes();
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / 1_048_576.0);
    if peak_bytes <= own { format!("< {}", mib(own)) } else { mib(peak_bytes) }
}
