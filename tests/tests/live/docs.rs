//! Commands from the documentation, run as they stand there.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    tracer::Setup,
};
use macro_rules_attribute::apply;
use std::collections::BTreeSet;

/// Commands that give one answer and end by themselves.
const SNAPSHOTS: [&str; 4] = ["list", "-L", "count", "-C"];

/// The page with the replacement of each familiar command.
const PAGE: &str = include_str!("../../../docs/from.md");

/// The second cells of its table.
fn lines() -> Vec<String> {
    let cells = PAGE.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `"));
    cells.map(|(_, now)| now.to_owned()).collect()
}

fn has_help(command: &str) -> bool {
    Setup::new(["help", command]).run().code == Some(0)
}

#[apply(needs_tracing)]
fn every_documented_replacement_runs(_: &Host) -> Outcome {
    let lines = lines();
    assert!(lines.len() > 20, "{lines:#?}");
    let mut missing = BTreeSet::new();
    for line in &lines {
        let mut words: Vec<&str> = line.split(' ').skip(1).collect();
        let command = words.first().copied().filter(|word| !word.starts_with('-'));
        if let Some(command) = command.filter(|command| !has_help(command)) {
            missing.insert(command.to_owned());
            continue;
        }
        if !words.first().is_some_and(|word| SNAPSHOTS.contains(word)) {
            words.extend(["--timeout", "100ms"]);
        }
        let ended = Setup::new(words).run();
        assert_eq!(ended.code, Some(0), "{line}: {ended:#?}");
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Skip(format!("there is no command {missing:?} yet; the others run")))
    }
}

#[apply(needs_tracing)]
fn every_topic_and_command_has_help(_: &Host) -> Outcome {
    for topic in ["filters", "formats", "states", "exactness", "from", "events", "count", "stats"] {
        assert!(has_help(topic), "{topic}");
    }
    let short = Setup::new(["-h"]).run();
    assert!(short.stdout.len() <= 45, "{short:#?}");
    assert_eq!(short.expect_code(0), "");
    assert_eq!(Setup::new(["help", "nothing"]).run().code, Some(2));
    Ok(())
}
