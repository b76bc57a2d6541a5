//! docs/kernels.md, generated from the results of the machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::Ran;
use super::job::Kind;
use crate::page;

const PAGE: &str = "docs/kernels.md";
/// Rows from the findings of `conntrace doctor`: group and name.
const FACTS: [(&str, &str); 7] = [
    ("facts", "type information"),
    ("facts", "programs"),
    ("facts", "may load"),
    ("facts", "lockdown"),
    ("plan", "transitions"),
    ("plan", "accepts"),
    ("plan", "existing sockets"),
];
/// Programs with a row for their size.
const PROGRAMS: [&str; 4] = ["set_state", "set_state_again", "sock_ops", "destroy_sock"];
/// The cell of a kernel without a value.
const NONE: &str = "–";

/// Replaces the generated part of the page.
pub(crate) fn write(ran: &[Ran]) -> Result<()> {
    page::replace(PAGE, "generated", &["\n", &table(ran), &remarks(ran), "\n"].concat())
}

/// A column for each kernel.
fn table(ran: &[Ran]) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let each = |of: &dyn Fn(&Ran) -> Option<String>| -> Vec<String> {
        ran.iter().map(|one| of(one).unwrap_or_else(|| NONE.to_owned())).collect()
    };
    rows.push(("Debian's version".into(), each(&|one| Some(one.kernel.version.clone()))));
    rows.push(("processor of the machine".into(), each(&|one| Some(format!("`{}`", one.cpu)))));
    let says =
        |one: &Ran| Some(if one.kernel.wanted.supported { "runs" } else { "refuses, see below" }.into());
    rows.push(("conntrace".into(), each(&says)));
    for (group, name) in FACTS {
        let fact = |one: &Ran| {
            let findings = one.findings()?;
            let facts = findings[group].as_array()?;
            let value = facts.iter().find(|fact| fact["name"] == name)?["value"].as_str()?;
            Some(value.to_owned())
        };
        rows.push((name.to_owned(), each(&fact)));
    }
    let degraded = |one: &Ran| {
        let findings = one.findings()?;
        let all = findings["degradations"].as_array()?.iter();
        let all: Vec<_> = all.filter_map(|one| one["fact"].as_str()).collect();
        Some(if all.is_empty() { "nothing".to_owned() } else { all.join("; ") })
    };
    rows.push(("degraded".into(), each(&degraded)));
    let works = |one: &Ran| {
        let findings = one.findings()?;
        let all = findings["selftest"].as_array()?;
        let passed = all.iter().filter(|outcome| outcome["passed"] == true).count();
        Some(format!("{passed} of {} passed", all.len()))
    };
    rows.push(("self-test".into(), each(&works)));
    for program in PROGRAMS {
        let count = |one: &Ran| instructions(one.all_lines_of(Kind::Sizes), program);
        rows.push((format!("instructions of `{program}`"), each(&count)));
    }
    for name in names(ran, Kind::Tests) {
        let counts = |one: &Ran| Some(one.jobs.iter().find(|job| job.name == name)?.tally.to_string());
        rows.push((format!("tests: `{name}`"), each(&counts)));
    }
    let sets: Vec<String> = ran
        .iter()
        .filter_map(|one| one.lines_of(Kind::Truth))
        .map(|lines| differences(lines).into_iter().map(|(set, _)| set).collect::<Vec<_>>())
        .max_by_key(Vec::len)
        .unwrap_or_default();
    for set in sets {
        let difference = |one: &Ran| {
            let found = differences(one.lines_of(Kind::Truth)?);
            found.into_iter().find(|(name, _)| *name == set).map(|(_, cell)| cell)
        };
        rows.push((format!("truth: {set}"), each(&difference)));
    }
    let mut text = String::new();
    let heads: Vec<String> = ran.iter().map(|one| format!("Linux {}", one.kernel.linux())).collect();
    let _ = writeln!(text, "| | {} |", heads.join(" | "));
    let _ = writeln!(text, "| --- |{}", " --- |".repeat(heads.len()));
    for (name, cells) in rows {
        let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
    }
    text
}

/// The text after the table: refusals, and skipped tests with their reasons.
fn remarks(ran: &[Ran]) -> String {
    let mut text = String::new();
    for one in ran {
        if let Some(lines) = one.lines_of(Kind::Refusal) {
            let lines: Vec<_> = lines.iter().filter(|line| !line.is_empty()).map(String::as_str).collect();
            let message = lines.join("\n");
            let _ = write!(
                text,
                "\nOn {}, conntrace ends with 1 and says:\n\n```text\n{message}\n```\n",
                one.kernel.linux()
            );
        }
    }
    let mut skipped: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for one in ran {
        for skip in &one.tally.skips {
            let prefix = format!("vm {} ", one.kernel.wanted.name);
            let name = skip.name.strip_prefix(&prefix).unwrap_or(&skip.name);
            let kernels = skipped.entry((name, skip.reason.as_str())).or_default();
            if !kernels.contains(&one.kernel.linux()) {
                kernels.push(one.kernel.linux());
            }
        }
    }
    if !skipped.is_empty() {
        text += "\nTests that a machine does not allow were skipped:\n\n";
    }
    for ((name, reason), kernels) in skipped {
        let _ = writeln!(text, "- `{name}`: {reason} ({})", kernels.join(", "));
    }
    text
}

/// The names of the jobs of a kind, in the order in which they ran.
fn names(ran: &[Ran], kind: Kind) -> Vec<String> {
    let mut names = Vec::new();
    for job in ran.iter().flat_map(|one| &one.jobs).filter(|job| job.kind == kind) {
        if !names.contains(&job.name) {
            names.push(job.name.clone());
        }
    }
    names
}

/// From `program set_state: 2205 instructions`.
fn instructions<'a>(mut lines: impl Iterator<Item = &'a String>, program: &str) -> Option<String> {
    let start = format!("program {program}: ");
    let rest = lines.find_map(|line| Some(line.split_once(&start)?.1))?;
    rest.split(' ').next().map(str::to_owned)
}

/// The sets of hooks in the table of `cargo xtask truth`, and the difference of each.
fn differences(lines: &[String]) -> Vec<(String, String)> {
    let rows = lines.iter().filter(|line| line.starts_with("| ")).skip(2);
    rows.filter_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [set, made, _, _, difference, skipped, good, ..] = cells[..] else { return None };
        let mut cell = format!("{difference} of {made}");
        if skipped != "none" {
            let _ = write!(cell, "; skipped: {skipped}");
        }
        if good != "0" {
            let _ = write!(cell, "; made good: {good}");
        }
        Some((set.to_owned(), cell))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_from_the_verbose_output() {
        let lines = ["[DEBUG conntrace::probe] program set_state: 2205 instructions".to_owned()];
        assert_eq!(instructions(lines.iter(), "set_state").as_deref(), Some("2205"));
        assert_eq!(instructions(lines.iter(), "set_state_again"), None);
    }

    #[test]
    fn differences_are_read_from_the_truth_table() {
        let table = "| hooks | connections made | a | b | difference | skipped | good | x | y | z |\n\
                     | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n\
                     | planned | 1000 | 1000 + 1000 | 1000 + 1000 | 0 | none | 0 | 25.4 | 2778 | 70632 |\n\
                     | set_state | 1000 | 1 + 1 | 1 + 1 | 87 | set_state 140 | 37 | 8.1 | 5887 | 47508 |";
        let lines: Vec<String> = table.lines().map(str::to_owned).collect();
        assert_eq!(
            differences(&lines),
            [
                ("planned".to_owned(), "0 of 1000".to_owned()),
                ("set_state".to_owned(), "87 of 1000; skipped: set_state 140; made good: 37".to_owned()),
            ]
        );
    }
}
