//! The sum over everything that `cargo test` ran, read from its output. The end of a long log repeats the failures
//! and the skips.

use std::fmt;
use std::mem;
use std::process::ExitCode;

use anyhow::Result;

/// The report repeats so many lines of a failed test.
const LINES: usize = 30;

/// Counts of tests, and why some failed or were skipped.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that did not run.
    pub(crate) skipped: u64,
    /// Name and reason of each skipped test.
    pub(crate) skips: Vec<Skip>,
    /// Name and output of each failed test.
    pub(crate) failures: Vec<Failure>,
    /// Whether lines belong to the last failure.
    is_output: bool,
}

/// One skipped test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}

/// One failed test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) name: String,
    /// The beginning of its output.
    pub(crate) lines: Vec<String>,
}

impl Tally {
    /// Counts what one line of output reports.
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
            self.is_output = false;
        } else if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" ----")) {
            let name = name.strip_suffix(" stdout").unwrap_or(name).to_owned();
            self.failures.push(Failure { name, lines: Vec::new() });
            self.is_output = true;
        } else if line == "failures:" {
            self.is_output = false;
        } else if self.is_output {
            if let Some(failure) = self.failures.last_mut()
                && failure.lines.len() < LINES
                && !line.is_empty()
            {
                failure.lines.push(line.to_owned());
            }
        } else if let Some((name, outcome)) =
            line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ignored"))
        {
            // The compiler's harness writes `ignored, reason`; libtest-mimic writes `ignored (reason)`.
            let reason = outcome
                .strip_prefix(", ")
                .or_else(|| outcome.strip_prefix(" (").and_then(|reason| reason.strip_suffix(')')))
                .unwrap_or("no reason given");
            self.skips.push(Skip { name: name.trim_end().to_owned(), reason: reason.to_owned() });
        }
    }

    /// Counts something that did not run.
    pub(crate) fn skip(&mut self, name: String, reason: &str) {
        self.skipped += 1;
        self.skips.push(Skip { name, reason: reason.to_owned() });
    }

    /// Counts every skip as a failure for which `accepted` has no cause; the others get the cause.
    pub(crate) fn forbid_skips(&mut self, accepted: impl Fn(&str, &str) -> Option<String>) {
        for mut skip in mem::take(&mut self.skips) {
            if let Some(cause) = accepted(&skip.name, &skip.reason) {
                skip.reason = format!("{} ({cause})", skip.reason);
                self.skips.push(skip);
                continue;
            }
            self.skipped = self.skipped.saturating_sub(1);
            self.failed += 1;
            let lines = vec![
                format!("skipped: {}", skip.reason),
                "xtask/src/skips.rs does not list this skip, so it is a failure in CI".to_owned(),
            ];
            self.failures.push(Failure { name: skip.name, lines });
        }
    }

    /// Counts a failure of something that is no test. The report repeats its last lines.
    pub(crate) fn fail(&mut self, name: String, lines: &[String]) {
        self.failed += 1;
        let lines = lines[lines.len().saturating_sub(LINES)..].to_vec();
        self.failures.push(Failure { name, lines });
    }

    /// Adds another tally.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.skips.extend(other.skips);
        self.failures.extend(other.failures);
    }

    /// Puts the machine before the name of each test.
    pub(crate) fn of(mut self, machine: &str) -> Self {
        let failed = self.failures.iter_mut().map(|failure| &mut failure.name);
        for name in self.skips.iter_mut().map(|skip| &mut skip.name).chain(failed) {
            name.insert_str(0, machine);
        }
        self
    }

    /// Prints the tally, also of a run that came to no end. The last line on stdout is the count.
    pub(crate) fn report(&self, complete: Result<()>) -> ExitCode {
        if !self.skips.is_empty() {
            println!("skipped:");
            for skip in &self.skips {
                println!("    {skip}");
            }
        }
        if !self.failures.is_empty() {
            println!("failed:");
            for Failure { name, lines } in &self.failures {
                println!("    {name}");
                for line in lines {
                    println!("        {line}");
                }
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
    fn counts_add_up_over_targets() {
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
        let skips: Vec<String> = sum.skips.iter().map(Skip::to_string).collect();
        assert_eq!(skips, ["live::a: needs root", "live::b: no BTF (6.1)", "live::c: no reason given"]);
    }

    #[test]
    fn an_unlisted_skip_is_a_failure() {
        let mut sum = tally(
            "test live::a ... ignored, needs root\n\
             test live::b ... ignored (no BTF (6.1))\n\
             test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out\n",
        );
        let cause = "accepted on 6.1: no BTF".to_owned();
        sum.forbid_skips(|name, _| (name == "live::b").then(|| cause.clone()));
        assert_eq!(sum.to_string(), "5 passed, 1 failed, 1 skipped");
        assert_eq!((sum.failures[0].name.as_str(), sum.skips[0].name.as_str()), ("live::a", "live::b"));
        assert_eq!(sum.skips[0].reason, "no BTF (6.1) (accepted on 6.1: no BTF)");
        assert!(!sum.is_good());
    }

    #[test]
    fn a_failure_repeats_the_output_of_its_test() {
        let sum = tally(
            "test live::a ... FAILED\n\
             test live::b ... ok\n\
             \n\
             failures:\n\
             \n\
             ---- live::a ----\n\
             test panicked: 1 is not 2\n\
             \n\
             ---- unit::c stdout ----\n\
             thread 'unit::c' panicked at c.rs:1:1:\n\
             no\n\
             \n\
             failures:\n\
             \u{20}   live::a\n\
             \n\
             test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n\
             something else\n",
        )
        .of("vm 6.1 ");
        let failures = [
            ("vm 6.1 live::a", vec!["test panicked: 1 is not 2"]),
            ("vm 6.1 unit::c", vec!["thread 'unit::c' panicked at c.rs:1:1:", "no"]),
        ];
        let expected = failures.map(|(name, lines)| Failure {
            name: name.to_owned(),
            lines: lines.into_iter().map(str::to_owned).collect(),
        });
        assert_eq!(sum.failures, expected);
        assert_eq!(sum.failed, 2);
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
