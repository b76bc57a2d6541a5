//! The jobs of a machine, and the verdict on each.

use serde_json::{Value, json};

use super::kernel::Wanted;
use super::tools;

/// Paths inside a machine.
pub(crate) const CONNTRACE: &str = "/bin/conntrace";
pub(crate) const LIVE: &str = "/bin/live";
pub(crate) const TRUTH: &str = "/bin/truth";
pub(crate) const FREEZE: &str = "/bin/freeze";

/// The factor of time limits on an emulated processor.
const EMULATED: u32 = 4;

/// All hooks, in two sets with different programs.
const HOOK_SETS: [&str; 2] = ["set_state,sock_ops,destroy_sock", "set_state,set_state_again,destroy_sock"];

/// Alternative hooks, which must give the same results: an option of conntrace, its value, and the repeated tests.
const FORCED: [(&str, &str, &str); 3] = [
    ("--witnesses", HOOK_SETS[1], "ledger::everything_at_once"),
    ("--accept-hook", "syscalls", "event::"),
    ("--accept-hook", "syscalls", "ledger::everything_at_once"),
];

/// Tests of the short selection: every beginning and end of connections, events, owners by every hook for accepts,
/// sockets older than the tracer, socket state, attacks that hide connections, flows of UDP, whose programs have the
/// deepest stacks, and flows in a flowtable, which this host's kernel may not have.
const SELECTION: [&str; 9] = [
    "hook_matrix::accepts",
    "ledger::everything_at_once",
    "event::",
    "start::adopts_every_state",
    "count::equals_the_kernel_in_every_state",
    "socket_state::",
    "attacks::storage::",
    "udp::exchange_is_shown",
    "forwarded::flowtable::offloaded_flows_have_all_packets",
];

/// How the lines and the end of a job are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Output of a test harness.
    Tests,
    /// Findings of `conntrace doctor`.
    Doctor,
    /// Program sizes.
    Sizes,
    /// A comparison of the ledger with the truth.
    Truth,
    /// A refusal, with its cause.
    Refusal,
    /// The kernel's self-description.
    Freeze,
}

/// One program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    command: Vec<String>,
    environment: Vec<(&'static str, String)>,
    limit: u64,
}

/// The extent of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A few minutes for all kernels together.
    Short,
    /// All there is.
    All,
    /// No test, only the kernel's self-description.
    Freeze,
    /// The live tests, with these arguments.
    Filter(Vec<String>),
}

/// The jobs for a kernel.
pub(crate) fn list(wanted: Wanted, extent: &Extent, kvm: bool) -> Vec<Job> {
    if *extent == Extent::Freeze {
        return vec![job("freeze", Kind::Freeze, [FREEZE], 120)];
    }
    if !wanted.supported {
        let command = [CONNTRACE, "-e", "NEW", "--timeout", "5s"];
        return vec![job("refusal", Kind::Refusal, command, 120)];
    }
    let doctor = job("doctor", Kind::Doctor, [CONNTRACE, "doctor", "-o", "json"], 120);
    let sizes = |witnesses| {
        let name = format!("sizes with {witnesses}");
        job(&name, Kind::Sizes, [CONNTRACE, "-v", "--timeout", "1s", "--witnesses", witnesses], 120)
    };
    let truth = |connections: &str, limit| {
        let mut truth = job("truth", Kind::Truth, [TRUTH, "--connections", connections], limit);
        truth.command.extend(wanted.twice_is_exact.then(|| "--stock".to_owned()));
        truth
    };
    let mut jobs = match extent {
        Extent::Freeze => Vec::new(),
        Extent::Filter(filter) => vec![live("live", filter, 3_600)],
        Extent::Short => {
            let mut jobs = vec![doctor];
            jobs.extend(HOOK_SETS.map(sizes));
            jobs.extend(SELECTION.map(|filter| live(filter, &[filter], 300)));
            jobs.push(truth("600", 300));
            jobs
        }
        Extent::All => {
            let mut jobs = vec![doctor];
            jobs.extend(HOOK_SETS.map(sizes));
            jobs.push(live("live", &[""; 0], 3_600));
            for (option, value, test) in FORCED {
                let mut forced = live(&format!("{test} with {option} {value}"), &[test], 300);
                forced.environment.push(("CONNTRACE_TEST_ARGUMENTS", format!("{option} {value}")));
                jobs.push(forced);
            }
            jobs.push(truth("6000", 900));
            jobs
        }
    };
    let connections = if kvm { "200000" } else { "10000" };
    let factor = if kvm { 1 } else { EMULATED };
    for job in &mut jobs {
        job.environment.extend([
            ("CONNTRACE_BIN", CONNTRACE.to_owned()),
            ("CONNTRACE_TEST_TIMEOUT_FACTOR", factor.to_string()),
            ("CONNTRACE_TEST_CONNECTIONS", connections.to_owned()),
            ("PATH", tools::PATH.to_owned()),
        ]);
    }
    jobs
}

fn job<const N: usize>(name: &str, kind: Kind, command: [&str; N], limit: u64) -> Job {
    let command = command.map(str::to_owned).into();
    Job { name: name.to_owned(), kind, command, environment: Vec::new(), limit }
}

fn live<A: AsRef<str>>(name: &str, filter: &[A], limit: u64) -> Job {
    let mut live = job(name, Kind::Tests, [LIVE, "--color", "never"], limit);
    live.command.extend(filter.iter().map(|word| word.as_ref().to_owned()));
    live
}

/// Encodes the jobs for the machine's first process.
pub(crate) fn to_json(jobs: &[Job]) -> Value {
    let jobs = jobs.iter().map(|job| {
        json!({ "name": job.name, "command": job.command, "environment": job.environment, "limit": job.limit })
    });
    jobs.collect()
}

impl Job {
    /// Judges the outcome and the output of the job.
    ///
    /// # Errors
    /// The defect.
    pub(crate) fn judge(&self, outcome: &str, lines: &[String]) -> Result<(), String> {
        let ended_as = |expected: &str| {
            if outcome == expected { Ok(()) } else { Err(format!("{outcome} instead of {expected}")) }
        };
        match self.kind {
            Kind::Doctor | Kind::Sizes | Kind::Truth | Kind::Freeze => ended_as("exit 0"),
            Kind::Refusal => {
                ended_as("exit 1")?;
                let says = |word: &str| lines.iter().any(|line| line.contains(word));
                if says("5.15") && !says("panicked") {
                    return Ok(());
                }
                Err("the message does not name the oldest kernel that works".to_owned())
            }
            // Failures are in the lines, unless the harness printed no result.
            Kind::Tests => {
                let result = lines.iter().any(|line| line.starts_with("test result: "));
                if result && outcome.starts_with("exit ") { Ok(()) } else { Err(outcome.to_owned()) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::kernel;

    fn named(name: &str) -> Wanted {
        *kernel::ALL.iter().find(|wanted| wanted.name == name).expect("a kernel")
    }

    #[test]
    fn an_unsupported_kernel_runs_the_refusal_only() {
        let jobs = list(named("5.10"), &Extent::All, false);
        assert_eq!(jobs.iter().map(|job| job.kind).collect::<Vec<_>>(), [Kind::Refusal]);
        let refusal = |outcome, line: &str| jobs[0].judge(outcome, &[line.to_owned()]).is_ok();
        assert!(refusal("exit 1", "conntrace: Linux 5.15 or later is needed"));
        assert!(!refusal("exit 1", "conntrace: invalid argument"));
        assert!(!refusal("exit 0", "5.15"));
        assert!(!refusal("exit 1", "panicked at 5.15"));
    }

    #[test]
    fn a_filter_runs_the_live_tests_only() {
        let jobs = list(named("6.1"), &Extent::Filter(vec!["event::".into()]), true);
        let [job] = &jobs[..] else { panic!("{jobs:?}") };
        assert_eq!(job.command, [LIVE, "--color", "never", "event::"]);
        assert!(job.environment.contains(&("CONNTRACE_TEST_TIMEOUT_FACTOR", "1".into())));
        assert_eq!(to_json(&jobs)[0]["environment"][0][0], "CONNTRACE_BIN");
    }

    #[test]
    fn a_harness_without_a_result_has_failed() {
        let jobs = list(named("6.1"), &Extent::Short, false);
        let tests = jobs.iter().find(|job| job.kind == Kind::Tests).expect("tests");
        let result = ["test result: FAILED. 1 passed; 1 failed".to_owned()];
        assert_eq!(tests.judge("exit 101", &result), Ok(()));
        assert!(tests.judge("exit 101", &[]).is_err());
        assert!(tests.judge("timeout: killed after 3 s", &result).is_err());
    }
}
