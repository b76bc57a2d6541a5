//! `conntrace doctor`: the facts about this host, their consequences, and a self-test.

mod other_sockets;
mod pins;
mod selftest;
mod tracking;

use std::fmt::Write as _;

use serde::Serialize;

use crate::error::Error;
use crate::host::accept_hook::AcceptHook;
use crate::host::drop_reason::DropReasons;
use crate::host::facts::Host;
use crate::host::flows;
use crate::host::plan::{Degradation, HookSet, accepts};
use crate::kernel::attempt_hooks::Sight;
use crate::kernel::supported;
use crate::output::stdout;
use crate::render::number_table::TableFormat;
use selftest::Outcome;

/// The findings about this host.
#[derive(Debug, Default, Serialize)]
struct Findings {
    /// Nothing is degraded and the self-test passed.
    well: bool,
    /// The facts about this host.
    facts: Vec<Fact>,
    /// The choices of conntrace here.
    plan: Vec<Fact>,
    /// The features that work less well.
    degradations: Vec<Degradation>,
    /// The error that keeps conntrace from working at all.
    error: Option<String>,
    /// The checks of the connection of the self-test.
    selftest: Vec<Outcome>,
}

/// A fact: its name and its value.
#[derive(Debug, Serialize)]
struct Fact {
    name: &'static str,
    value: String,
}

/// Runs the command. The findings are the output; an error means that a check failed.
///
/// # Errors
/// [`Error::Unwell`], or the output cannot be written.
pub fn run(format: TableFormat, host: &Host) -> Result<(), Error> {
    let mut findings = Findings { facts: facts(host), ..Findings::default() };
    match selftest::run(host) {
        Ok(checked) => {
            findings.plan = plan(checked.plan.hooks, checked.accepts.hook);
            findings.plan.push(Fact { name: "attempts", value: checked.sight.describe() });
            findings.plan.push(Fact { name: "events of attempts", value: events(checked.sight) });
            findings.plan.push(Fact { name: "UDP flows", value: udp(host) });
            findings.plan.extend(other_sockets::facts(host));
            findings.plan.push(tracking::fact());
            findings.plan.push(pins::fact());
            let better =
                checked.accepts.refused.iter().map(|(hook, reason)| format!("{}: {reason}", hook.name()));
            let better: Vec<_> = better.collect();
            if !better.is_empty() {
                findings.plan.push(Fact { name: "accepts, not by", value: better.join("\n") });
            }
            findings.degradations = checked.plan.degradations;
            findings.degradations.extend(accepts(checked.accepts.hook));
            findings.selftest = checked.outcomes;
        }
        Err(error) => findings.error = Some(error.report()),
    }
    findings.well = findings.error.is_none()
        && findings.degradations.is_empty()
        && findings.selftest.iter().all(|outcome| outcome.passed);
    let text = match format {
        TableFormat::Json => {
            serde_json::to_string(&findings)
                .map_err(|error| Error::Internal(format!("the findings as JSON: {error}")))?
                + "\n"
        }
        TableFormat::Table | TableFormat::Csv => findings.text(),
    };
    stdout::print(text.as_bytes())?;
    if findings.well { Ok(()) } else { Err(Error::Unwell { broken: !findings.works() }) }
}

fn facts(host: &Host) -> Vec<Fact> {
    let fact = |name, value: String| Fact { name, value };
    let missing = host.missing_capabilities();
    vec![
        fact("kernel", host.kernel.clone()),
        fact(
            "privileges",
            if missing.is_empty() { "enough".into() } else { format!("missing: {}", missing.join(", ")) },
        ),
        fact("type information", if host.has_btf { "yes" } else { "no" }.into()),
        fact(
            "cgroup v2",
            host.cgroup_root.as_ref().map_or_else(|| "not mounted".into(), |root| root.display().to_string()),
        ),
        fact(
            "processes",
            if host.sees_all_processes { "all" } else { "only those of this pid namespace" }.into(),
        ),
        fact("programs", host.has_jit.map_or("-", |jit| if jit { "compiled" } else { "interpreted" }).into()),
        fact("may load", supported::describe()),
        fact("lockdown", host.lockdown.clone().unwrap_or_else(|| "-".into())),
        fact("CPUs", host.possible_cpus.to_string()),
    ]
}

fn plan(hooks: HookSet, accept: Option<AcceptHook>) -> Vec<Fact> {
    vec![
        Fact { name: "transitions", value: hooks.names().join(", ") },
        Fact { name: "accepts", value: accept.map_or("listener's owner only", AcceptHook::name).into() },
        Fact { name: "existing sockets", value: "iterators over sockets and files".into() },
    ]
}

/// The outcomes of attempts that have events (`-e ATTEMPT`).
fn events(sight: Sight) -> String {
    let reasons = DropReasons::probe();
    let (yes, refused) = ("yes", sight.refused || reasons.no_socket != 0);
    [
        format!("half_open: {}", if sight.begun { yes } else { "no, sock_ops is not attached" }),
        format!("refused: {}", if refused { yes } else { "no, Linux 5.17 and later show them" }),
        format!(
            "dropped: {}",
            if reasons.queue_full != 0 { yes } else { "no, Linux 6.15 and later show them" }
        ),
    ]
    .join("\n")
}

/// The hooks of flows of UDP, or why they cannot be attached here.
fn udp(host: &Host) -> String {
    const SEEN: &str = "packets of sockets on the cgroup v2 root (-p udp)\nnot: forwarded packets, tunnels' own sockets, packets \
                        to ports without a socket";
    flows::check(host).map_or_else(|lack| format!("no: {lack}"), |()| SEEN.into())
}

impl Findings {
    /// True if conntrace does its work here, however degraded.
    fn works(&self) -> bool {
        self.error.is_none() && self.selftest.iter().all(|outcome| outcome.passed)
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(out, "  {name:<18}{}", value.replace('\n', "\n                    "));
        };
        for fact in self.facts.iter().chain(&self.plan) {
            line(fact.name, &fact.value);
        }
        for outcome in &self.selftest {
            let verdict = if outcome.passed { "ok".into() } else { format!("FAILED: {}", outcome.found) };
            line(outcome.what, &verdict);
        }
        if let Some(error) = &self.error {
            line("FAILED", error);
        }
        for degradation in &self.degradations {
            let _ = writeln!(
                out,
                "degraded: {}\n  effect: {}\n  remedy: {}",
                degradation.fact, degradation.consequence, degradation.remedy
            );
        }
        if self.well {
            out.push_str("all is well\n");
        }
        out
    }
}
