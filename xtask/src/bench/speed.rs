//! The benches of conn-user, run by criterion and summed up.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command;

/// The targets, in millions per second.
const TARGETS: [(&str, &str, f64); 2] =
    [("decode", "events into conntrack", 2.0), ("decode", "events into json", 1.5)];

/// Criterion's result for one bench.
#[derive(Debug, PartialEq)]
struct Measured {
    group: String,
    name: String,
    /// Nanoseconds: the median, and the ends of its confidence interval.
    ns: [f64; 3],
}

fn bench() -> Command {
    command::cargo(["bench", "--quiet", "--package", "conn-user", "--bench", "speed"])
}

/// Compiles the benches, so that no compiler runs beside the measurement.
pub(super) fn build() -> Result<()> {
    command::run(bench().arg("--no-run"))
}

/// Runs the benches and gives a table of the results.
pub(super) fn measure(quick: bool) -> Result<String> {
    // Results of earlier runs are about another program.
    let home = command::target().join("bench");
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot clear {}", home.display()))?;
    }
    let [warm_up, span] = if quick { ["0.05", "0.1"] } else { ["0.5", "1.5"] };
    let mut bench = bench();
    bench.args(["--", "--warm-up-time", warm_up, "--measurement-time", span]);
    // Standard output carries the table only.
    command::run(bench.env("CRITERION_HOME", &home).stdout(std::io::stderr()))?;
    let mut all = Vec::new();
    collect(&home, &mut all)?;
    ensure!(!all.is_empty(), "criterion left no results in {}", home.display());
    all.sort_by(|a, b| (&a.group, &a.name).cmp(&(&b.group, &b.name)));
    Ok(table(&all))
}

/// All results below a directory.
fn collect(directory: &Path, all: &mut Vec<Measured>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name == "new") {
            let read = |name: &str| -> Result<Value> {
                let path: PathBuf = path.join(name);
                let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
                Ok(serde_json::from_slice(&text)?)
            };
            let found = measured(&read("benchmark.json")?, &read("estimates.json")?);
            all.push(found.with_context(|| format!("{} is not as expected", path.display()))?);
        } else if path.is_dir() {
            collect(&path, all)?;
        }
    }
    Ok(())
}

/// From criterion's two files: the time of one element.
fn measured(benchmark: &Value, estimates: &Value) -> Option<Measured> {
    let elements = benchmark["throughput"]["Elements"].as_f64()?;
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    let ns = [&median["point_estimate"], &interval["lower_bound"], &interval["upper_bound"]];
    let [Some(middle), Some(low), Some(high)] = ns.map(|ns| ns.as_f64().map(|ns| ns / elements)) else {
        return None;
    };
    Some(Measured {
        group: benchmark["group_id"].as_str()?.to_owned(),
        name: benchmark["function_id"].as_str()?.to_owned(),
        ns: [middle, low, high],
    })
}

fn table(all: &[Measured]) -> String {
    let mut text = "| | | millions per second | ns each |\n| --- | --- | ---: | ---: |\n".to_owned();
    for Measured { group, name, ns: [middle, low, high] } in all {
        let millions = 1e3 / middle;
        let _ = writeln!(text, "| {group} | {name} | {millions:.2} | {middle:.1} ({low:.1}–{high:.1}) |");
    }
    text += "\n| target | limit | measured | |\n| --- | ---: | ---: | ---: |\n";
    for (group, name, limit) in TARGETS {
        let found = all.iter().find(|one| one.group == group && one.name == name);
        let millions = found.map_or(0.0, |one| 1e3 / one.ns[0]);
        let said = if millions >= limit { "met" } else { "**not met**" };
        let _ = writeln!(text, "| {name}, millions per second | ≥ {limit} | {millions:.2} | {said} |");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(name: &str, ns: f64) -> Option<Measured> {
        let benchmark = json!({ "group_id": "decode", "function_id": name, "throughput": { "Elements": 6 } });
        let interval = json!({ "lower_bound": 0.9 * ns, "upper_bound": 1.2 * ns });
        measured(&benchmark, &json!({ "median": { "point_estimate": ns, "confidence_interval": interval } }))
    }

    #[test]
    fn results_are_read_per_element() {
        let read = one("events", 600.0).map(|one| one.ns.map(f64::round));
        assert_eq!(read, Some([100.0, 90.0, 120.0]));
        assert_eq!(measured(&json!({}), &json!({})), None);
    }

    #[test]
    fn targets_are_judged() {
        let all: Vec<_> = [one("events into conntrack", 1_200.0), one("events into json", 9_000.0)]
            .into_iter()
            .flatten()
            .collect();
        let text = table(&all);
        assert!(text.contains("| events into conntrack, millions per second | ≥ 2 | 5.00 | met |"), "{text}");
        assert!(
            text.contains("| events into json, millions per second | ≥ 1.5 | 0.67 | **not met** |"),
            "{text}"
        );
    }
}
