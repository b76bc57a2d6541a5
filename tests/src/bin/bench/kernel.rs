//! What conntrace's programs cost in the kernel, by the kernel's own clock.

use crate::{
    load::Field,
    machine::{attempt, median},
    page::{self, Target},
    tool::{How, Tool},
};
use aya::{
    programs::loaded_programs,
    sys::{Stats, enable_stats},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

const EMPTY: &str = "empty";
const REMEMBERING: &str = "remembering";
const COUNTING: &str = "`stats`";
const NEW: &str = "`-e NEW`";
const JSON: &str = "`-o json`";

fn tools(empty: &Path) -> [Tool<'_>; 5] {
    let plain = |name, how| Tool { name, how, tracked: false, lines: None };
    [
        plain(EMPTY, How::Like(empty, &[])),
        plain(REMEMBERING, How::Like(empty, &["--remember"])),
        plain(COUNTING, How::Conntrace(&["stats"])),
        plain(NEW, How::Conntrace(&["events", "-e", "NEW"])),
        plain(JSON, How::Conntrace(&["events", "-o", "json"])),
    ]
}

/// A loaded program as the kernel describes it.
#[derive(Debug, Clone, Default)]
struct Program {
    name: String,
    runs: u64,
    ns: u64,
    /// Those that run, and those that the verifier followed on all ways through them.
    instructions: [Option<u32>; 2],
}

/// All programs of the host, by their ids.
fn programs() -> BTreeMap<u32, Program> {
    // A program that goes meanwhile is none of ours.
    let all = loaded_programs().filter_map(Result::ok);
    all.map(|info| {
        let program = Program {
            name: info.name_as_str().unwrap_or("?").to_owned(),
            runs: info.run_count(),
            ns: info.run_time().as_nanos() as u64,
            instructions: [info.size_translated().map(|bytes| bytes / 8), info.verified_instruction_count()],
        };
        (info.id(), program)
    })
    .collect()
}

/// What one program did per connection.
struct Sample {
    runs: f64,
    ns: f64,
    instructions: [Option<u32>; 2],
}

/// The programs of a tool beside the load, by name.
fn sample(tool: &Tool<'_>, duration: Duration) -> Result<BTreeMap<String, Sample>, String> {
    let field = Field::new();
    let running = tool.start(&field.ns)?;
    let ids = running.programs();
    let window = field.flood(2, duration, programs);
    running.stop()?;
    let made = window.made as f64;
    let own = window.after.into_iter().filter(|(id, _)| ids.contains(id));
    let samples = own.map(|(id, now)| {
        let then = window.before.get(&id).cloned().unwrap_or_default();
        let [runs, ns] = [now.runs - then.runs, now.ns - then.ns].map(|sum| sum as f64 / made);
        (now.name, Sample { runs, ns, instructions: now.instructions })
    });
    // Iterators are loaded, too, and have nothing to do meanwhile.
    Ok(samples.filter(|(_, sample)| sample.runs > 0.01).collect())
}

/// The section.
pub(crate) fn measure(empty: &Path, quick: bool) -> String {
    let (rounds, duration) =
        if quick { (1, Duration::from_millis(300)) } else { (4, Duration::from_millis(1_500)) };
    let stats = match enable_stats(Stats::RunTime) {
        Ok(stats) => stats,
        Err(error) => return page::skipped(&[("run times".to_owned(), error.to_string())]),
    };
    let tools = tools(empty);
    let mut all: BTreeMap<&str, Vec<BTreeMap<String, Sample>>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for round in 0..rounds {
        for tool in &tools {
            match attempt(|| sample(tool, duration)) {
                Ok(sample) => all.entry(tool.name).or_default().push(sample),
                Err(why) => skipped.push((tool.name.to_owned(), why)),
            }
        }
        eprintln!("kernel: round {} of {rounds}", round + 1);
    }
    drop(stats);

    let sum = |name: &str| {
        let rounds = all.get(name)?;
        Some(median(rounds.iter().map(|round| round.values().map(|sample| sample.ns).sum())))
    };
    let mut rows = Vec::new();
    for tool in &tools {
        let Some(rounds) = all.get(tool.name) else { continue };
        rows.extend(programs_of(tool.name, rounds));
        let ratio = sum(tool.name).zip(sum(EMPTY)).map(|(own, empty)| own / empty);
        rows.push(vec![
            format!("**{}**", tool.name),
            "**all**".into(),
            format!("{:.1}", median(rounds.iter().map(|round| round.values().map(|one| one.runs).sum()))),
            String::new(),
            sum(tool.name).map_or_else(String::new, |ns| format!("{ns:.0}")),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")),
            String::new(),
            String::new(),
        ]);
    }
    let head = [
        "",
        "program",
        "runs per connection",
        "ns per run",
        "ns per connection",
        "by empty",
        "instructions",
        "followed by the verifier",
    ];
    let goals = [(COUNTING, 2.5), (NEW, 4.0), (JSON, 4.0)].into_iter().filter_map(|(name, limit)| {
        let ratio = sum(name)? / sum(EMPTY)?;
        Some(Target::at_most(&format!("{name}: by the empty programs, per connection"), limit, ratio))
    });
    let goals: Vec<_> = goals.collect();
    format!("{}\n{}\n{}", page::table(&head, &rows), page::skipped(&skipped), page::targets(&goals))
}

/// A row for each program of a tool.
fn programs_of(tool: &str, rounds: &[BTreeMap<String, Sample>]) -> Vec<Vec<String>> {
    let names: BTreeSet<&String> = rounds.iter().flat_map(BTreeMap::keys).collect();
    let number = |number: Option<u32>| number.map_or_else(|| "–".to_owned(), |number| number.to_string());
    let row = |name: &String| {
        let seen: Vec<_> = rounds.iter().filter_map(|round| round.get(name)).collect();
        let [sized, followed] = seen[0].instructions;
        vec![
            tool.to_owned(),
            name.clone(),
            format!("{:.1}", median(seen.iter().map(|sample| sample.runs))),
            format!("{:.0}", median(seen.iter().map(|sample| sample.ns / sample.runs))),
            format!("{:.0}", median(seen.iter().map(|sample| sample.ns))),
            String::new(),
            number(sized),
            number(followed),
        ]
    };
    names.into_iter().map(row).collect()
}
