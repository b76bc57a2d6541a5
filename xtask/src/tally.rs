//! The sum over everything `cargo test` ran, read from what it printed.

use std::fmt;
use std::process::ExitCode;

use anyhow::Result;

/// Counts of tests, and why some were skipped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that did not run.
    pub(crate) skipped: u64,
    /// `name: reason` of each skipped test.
    pub(crate) reasons: Vec<String>,
}

impl Tally {
    /// Takes one line of output into account.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". ")) {
            for count in counts.split("; ") {
                match count.split_once(' ') {
                    Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                    Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                    Some((number, "ignored")) => self.skipped += number.parse().unwrap_or(0),
                    _ => {}
                }
            }
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
        {
            // The compiler's harness writes `ignored, reason`; libtest-mimic writes `ignored (reason)`.
            let reason = outcome
                .strip_prefix(", ")
                .or_else(|| outcome.strip_prefix(" (").and_then(|reason| reason.strip_suffix(')')))
                .unwrap_or("no reason given");
            self.reasons.push(format!("{}: {reason}", name.trim_end()));
        }
    }

    /// Takes note of something that did not run.
    pub(crate) fn skip(&mut self, name: String, reason: &str) {
        self.skipped += 1;
        self.reasons.push(name + ": " + reason);
    }

    /// Takes another one into account.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.reasons.extend(other.reasons);
    }

    /// The same with names that tell where it was.
    pub(crate) fn of(mut self, place: &str) -> Self {
        for reason in &mut self.reasons {
            reason.insert_str(0, place);
        }
        self
    }

    /// Prints it, also when not all could run. The last line on stdout is the count.
    pub(crate) fn report(&self, complete: Result<()>) -> ExitCode {
        if !self.reasons.is_empty() {
            println!("skipped:");
            for reason in &self.reasons {
                println!("    {reason}");
            }
        }
        let good = match complete {
            Ok(()) if self.passed + self.failed == 0 => {
                eprintln!("error: no test ran");
                false
            }
            Ok(()) => self.is_good(),
            Err(error) => {
                eprintln!("error: {error:#}");
                false
            }
        };
        println!("{self}");
        if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Whether tests ran, and none failed.
    pub(crate) fn is_good(&self) -> bool {
        self.passed > 0 && self.failed == 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.line(line));
        tally
    }

    #[test]
    fn results_add_up_over_targets() {
        let sum = tally(
            "running 2 tests\n\
             test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.00s\n\
             test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 1.25s\n",
        );
        assert_eq!(sum.to_string(), "5 passed, 1 failed, 2 skipped");
        assert!(!sum.is_good());
    }

    #[test]
    fn a_skipped_test_gives_its_reason() {
        let sum = tally(
            "test live::a ... ignored, needs root\n\
             test live::b ... ignored (no BTF (6.1))\n\
             test live::c    ... ignored\n\
             test live::d ... ok\n",
        );
        assert_eq!(sum.reasons, ["live::a: needs root", "live::b: no BTF (6.1)", "live::c: no reason given"]);
    }

    #[test]
    fn nothing_run_is_not_good() {
        assert!(!tally("").is_good());
        assert!(
            !tally("test result: ok. 0 passed; 0 failed; 4 ignored; 0 measured; 0 filtered out").is_good()
        );
        assert!(
            tally("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out").is_good()
        );
    }

    #[test]
    fn other_output_is_not_counted() {
        assert_eq!(
            tally("test result: unknown\nxtest result: ok. 9 passed; \ntest x ... ok\n"),
            Tally::default()
        );
    }
}
