//! The proof below a report for people: in one line, with what is not as it should be, or whole.

use std::borrow::Cow;

use conn_common::counter;

use crate::event::state_name;
use crate::ledger::audit::{Difference, Hidden};
use crate::ledger::netns_totals::Sums;
use crate::ledger::report::{MAX_HIDDEN, Report, direction_name};

/// The counters of a proof: events in the ring and other work, then losses, failures and repairs.
const SHOWN: [u32; 18] = [
    counter::PRODUCED,
    counter::WAKEUPS,
    counter::LOST,
    counter::NO_SOCKET,
    counter::STATE_OVERFLOWED,
    counter::STORAGE_FAILED,
    counter::STEP_STATELESS,
    counter::LEDGER_OVERFLOWED,
    counter::LEDGER_FAILED,
    counter::NETNS_FAILED,
    counter::FLAGS_FAILED,
    counter::STEP_REPAIRED,
    counter::ADOPTED_LATE,
    counter::CLOSED_LATE,
    counter::END_UNSEEN,
    counter::OWNER_FAILED,
    counter::SPANS_SHARED,
    counter::SPANS_FAILED,
];
/// Those of [`SHOWN`] that count work and no trouble.
const WORK: [u32; 5] = [
    counter::PRODUCED,
    counter::WAKEUPS,
    counter::STATE_OVERFLOWED,
    counter::LEDGER_OVERFLOWED,
    counter::SPANS_SHARED,
];
/// Counters of full tables, and the consequence.
const OVERFLOWS: [(u32, &str); 3] = [
    (counter::STATE_OVERFLOWED, "the table of sockets is full, so that such sockets cost more"),
    (
        counter::LEDGER_OVERFLOWED,
        "the table of counts has no room for a busy port, so that such steps cost more",
    ),
    (counter::SPANS_SHARED, "there are more ports than histograms, so that the others have one together"),
];
/// How many differences a report for people names.
const MAX_DIFFERENCES: usize = 20;

impl Report {
    /// One line that says whether the counts are exact and against what, and then only what is not as it should be.
    pub(super) fn conclusion(&self) -> Vec<String> {
        let audit = &self.audit.found;
        let is_trouble = |at: &u32| !WORK.contains(at) && self.counters[*at as usize] != 0;
        let mut troubles: Vec<String> =
            SHOWN.into_iter().filter(is_trouble).map(|at| self.counter(at)).collect();
        if self.repaired != 0 {
            troubles.push(format!("repaired {}", self.repaired));
        }
        let troubles =
            if troubles.is_empty() { "nothing missed or lost".into() } else { troubles.join(", ") };
        let mut lines = self.tries.lines();
        lines.push(format!("{}: {}; {}; {troubles}", self.verdict(), self.sums(), self.comparison()));
        let overflows = OVERFLOWS.into_iter().filter(|&(at, _)| self.counters[at as usize] != 0);
        lines.extend(overflows.map(|(at, consequence)| format!("{}: {consequence}", self.counter(at))));
        if let Some(failure) = &self.audit.failure
            && self.audit.age.is_some()
        {
            lines.push(format!("the last audit failed and is tried again: {failure}"));
        }
        lines.extend(audit.kernel.lines());
        lines.extend(hidden_lines(&audit.hidden));
        lines.extend(difference_lines(&audit.differences));
        let skipped = self.skipped(|missed| missed > 0);
        if !skipped.is_empty() {
            lines.push(format!("skipped by the kernel, seen by other hooks: {skipped}"));
        }
        lines
    }

    /// `40 opened = 40 closed + 0 open`; what is zero of the rest is left out.
    fn sums(&self) -> String {
        let identity = &self.identity;
        let optional = |number: u64, text: String| if number == 0 { String::new() } else { text };
        format!(
            "{} opened{} = {}{} closed + {} open",
            identity.opened,
            optional(identity.preexisting, format!(" + {} preexisting", identity.preexisting)),
            optional(identity.failed, format!("{} failed + ", identity.failed)),
            identity.closed,
            identity.open
        )
    }

    /// What the counts were compared with.
    fn comparison(&self) -> String {
        let audit = &self.audit.found;
        match (self.audit.age, &self.audit.failure) {
            (None, failure) => {
                format!(
                    "not compared with the sockets: {}",
                    failure.as_deref().unwrap_or("no audit was done")
                )
            }
            (Some(age), _) => {
                let plural = if audit.kernel_open == 1 { "" } else { "s" };
                let age = age.as_secs_f64();
                let moved = match audit.moved {
                    0 => String::new(),
                    moved => format!(", {moved} of {} counts between bounds", audit.compared + moved),
                };
                format!("compared with {} socket{plural} {age:.1} s ago{moved}", audit.kernel_open)
            }
        }
    }

    /// The verdict on the sums and the audit.
    fn verdict(&self) -> &'static str {
        if !self.identity.holds {
            "NOT EXACT"
        } else if self.audit.age.is_none() {
            "not proved"
        } else if self.audit.found.hidden.is_empty() {
            "exact"
        } else {
            "exact but for what is hidden"
        }
    }

    /// All lines: totals of namespaces, losses and repairs, the audit, and the identity.
    pub(super) fn proof(&self) -> Vec<String> {
        let audit = &self.audit.found;
        let mut lines = self.tries.lines();
        lines.extend(self.netns_lines());
        let counters = SHOWN.map(|at| self.counter(at)).join(", ");
        lines.extend([
            format!("witness: {counters}, repaired {}", self.repaired),
            format!("skipped by the kernel: {}", self.skipped(|_| true)),
        ]);
        if let Some(age) = self.audit.age {
            lines.push(format!(
                "audit {:.1} s ago: {} open in the kernel; {} counts compared, {} moved meanwhile, {} differ",
                age.as_secs_f64(),
                audit.kernel_open,
                audit.compared,
                audit.moved,
                audit.differences.len()
            ));
        }
        if let Some(failure) = &self.audit.failure {
            lines.push(format!("audit failed: {failure}"));
        }
        lines.extend(hidden_lines(&audit.hidden));
        lines.extend(audit.kernel.lines());
        lines.extend(difference_lines(&audit.differences));
        let identity = &self.identity;
        lines.push(format!(
            "opened {} + preexisting {} = failed {} + closed {} + open {}: {}",
            identity.opened,
            identity.preexisting,
            identity.failed,
            identity.closed,
            identity.open,
            self.whole_verdict()
        ));
        lines
    }

    /// The last words of the whole proof.
    fn whole_verdict(&self) -> Cow<'static, str> {
        let failures = self.failures();
        let verdict = if failures.total() > 0 {
            return format!("DOES NOT HOLD: the programs failed ({failures})").into();
        } else if !self.identity.holds {
            "DOES NOT HOLD"
        } else if self.audit.age.is_none() {
            "the sums hold, the sockets could not be compared"
        } else if !self.audit.found.hidden.is_empty() {
            "holds, but for what is hidden"
        } else if self.audit.found.moved > 0 {
            "holds, where ports moved between bounds"
        } else {
            "holds"
        };
        verdict.into()
    }

    fn counter(&self, at: u32) -> String {
        format!("{} {}", counter::NAMES[at as usize], self.counters[at as usize])
    }

    /// The programs that the kernel skipped, those whose number is `wanted`.
    fn skipped(&self, wanted: impl Fn(u64) -> bool) -> String {
        let skipped = self.programs.iter().filter(|(_, cost)| wanted(cost.missed));
        skipped.map(|(name, cost)| format!("{name} {}", cost.missed)).collect::<Vec<_>>().join(", ")
    }

    /// The totals of each namespace that exists, if there are several, and of all others together.
    fn netns_lines(&self) -> Vec<String> {
        if self.netns.len() + usize::from(self.netns_gone.is_some()) <= 1 {
            return Vec::new();
        }
        let sums = |totals: &Sums| {
            format!(
                "opened {} + preexisting {} = failed {} + closed {} + open {}",
                totals.opened, totals.preexisting, totals.failed, totals.closed, totals.open
            )
        };
        let mut lines: Vec<String> = self
            .netns
            .iter()
            .map(|totals| format!("netns {}: {}", totals.netns, sums(&totals.sums)))
            .collect();
        if let Some(gone) = &self.netns_gone {
            lines.push(format!("netns gone ({}): {}", gone.namespaces, sums(&gone.sums)));
        }
        lines
    }
}

/// What was left out of the audit.
fn hidden_lines(hidden: &[Hidden]) -> Vec<String> {
    let line = |hidden: &Hidden| {
        format!(
            "left out: network namespace {}, which cannot be entered: {} open, {} of them seen through files",
            hidden.netns, hidden.open, hidden.seen
        )
    };
    let mut lines: Vec<String> = hidden.iter().take(MAX_HIDDEN).map(line).collect();
    if let Some(others @ 1..) = hidden.len().checked_sub(MAX_HIDDEN) {
        lines.push(format!("left out: {others} more network namespaces"));
    }
    lines
}

fn difference_lines(differences: &[Difference]) -> Vec<String> {
    let line = |difference: &Difference| {
        let netns = match difference.netns {
            0 => "several netns".into(),
            netns => format!("netns {netns}"),
        };
        let bound = match (difference.moved, difference.excess() > 0) {
            (false, _) => "",
            (true, true) => "at least ",
            (true, false) => "at most ",
        };
        format!(
            "audit: {netns} port {} {} {}: {bound}{} in the ledger, {} in the kernel",
            difference.port,
            direction_name(difference.direction),
            state_name::name(difference.state).unwrap_or("-"),
            difference.ledger,
            difference.kernel
        )
    };
    let mut lines: Vec<String> = differences.iter().take(MAX_DIFFERENCES).map(line).collect();
    if let Some(others @ 1..) = differences.len().checked_sub(MAX_DIFFERENCES) {
        lines.push(format!("audit: {others} more differences"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::kernel::program_stats::Cost;
    use crate::ledger::audit::Audit;
    use crate::ledger::report_text::tests::{audited, report};

    /// The report of a run in which nothing went wrong.
    fn clean(audit: Audit) -> Report {
        let mut report = report(audit, None);
        report.counters.fill(0);
        report.repaired = 0;
        report.programs = BTreeMap::from([("set_state", Cost::default())]);
        report
    }

    #[test]
    fn conclusion_is_one_line_if_nothing_is_wrong() {
        let mut report = clean(Audit { compared: 2, kernel_open: 3, ..Audit::default() });
        report.counters[counter::PRODUCED as usize] = 7;
        insta::assert_snapshot!(report.conclusion().join("\n"), @"exact: 4 opened + 1 preexisting = 1 failed + 1 closed + 3 open; compared with 3 sockets 1.2 s ago; nothing missed or lost");
        (report.identity.preexisting, report.identity.failed, report.audit.found.kernel_open) = (0, 0, 1);
        report.audit.found.moved = 4;
        insta::assert_snapshot!(report.conclusion().join("\n"), @"exact: 4 opened = 1 closed + 3 open; compared with 1 socket 1.2 s ago, 4 of 6 counts between bounds; nothing missed or lost");
    }

    #[test]
    fn conclusion_names_what_is_wrong() {
        insta::assert_snapshot!(report(audited(), None).conclusion().join("\n"), @"
        NOT EXACT: 4 opened + 1 preexisting = 1 failed + 1 closed + 3 open; compared with 2 sockets 1.2 s ago; closed_late 3, repaired 2
        audit: netns 4026532200 port 443 out syn_sent: 2 in the ledger, 1 in the kernel
        skipped by the kernel, seen by other hooks: set_state 7
        ");
    }

    #[test]
    fn conclusion_names_what_was_left_out() {
        let hidden = |netns| Hidden { netns, open: 2, seen: 1 };
        let mut report = clean(Audit { hidden: (1..=18).map(hidden).collect(), ..Audit::default() });
        let lines = report.conclusion();
        assert_eq!(lines.len(), 1 + MAX_HIDDEN + 1);
        assert!(lines[0].starts_with("exact but for what is hidden: "), "{}", lines[0]);
        insta::assert_snapshot!(lines[16..].join("\n"), @"
        left out: network namespace 16, which cannot be entered: 2 open, 1 of them seen through files
        left out: 2 more network namespaces
        ");
        report.audit.failure = Some("walking with tcp_list: Cannot allocate memory".into());
        assert!(report.conclusion()[1].starts_with("the last audit failed and is tried again: walking"));
        report.audit.age = None;
        assert!(report.conclusion()[0].contains("; not compared with the sockets: walking with tcp_list: "));
    }

    #[test]
    fn differences_of_moving_parts_are_bounds() {
        let one = |netns, ledger, moved| Difference {
            netns,
            direction: conn_common::connection::IN,
            port: 22,
            state: conn_common::state::ESTABLISHED,
            ledger,
            kernel: 3,
            moved,
        };
        let lines = difference_lines(&[one(0, 5, false), one(7, 5, true), one(7, 1, true)]);
        insta::assert_snapshot!(lines.join("\n"), @"
        audit: several netns port 22 in established: 5 in the ledger, 3 in the kernel
        audit: netns 7 port 22 in established: at least 5 in the ledger, 3 in the kernel
        audit: netns 7 port 22 in established: at most 1 in the ledger, 3 in the kernel
        ");
        assert_eq!(
            difference_lines(&vec![one(7, 5, false); 30]).last().unwrap(),
            "audit: 10 more differences"
        );
    }

    #[test]
    fn last_words_of_the_proof_are_the_verdict() {
        let verdict = |audit: Audit| report(audit, None).whole_verdict();
        assert_eq!(verdict(Audit::default()), "holds");
        assert_eq!(verdict(audited()), "DOES NOT HOLD");
        assert_eq!(
            verdict(Audit { moved: 1, ..Audit::default() }),
            "holds, where ports moved between bounds"
        );
        let hidden = Audit { hidden: vec![Hidden { netns: 1, open: 1, seen: 0 }], ..Audit::default() };
        assert_eq!(verdict(hidden), "holds, but for what is hidden");
    }
}
