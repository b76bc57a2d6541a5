//! What `conntrace stats -o json` says, and how it compares with a [`Truth`].

use crate::{
    kernel::SocketTally,
    sources::Sources,
    tracer::{Ended, Setup, Tracer},
    truth::{Counts, Direction, Key, Listens, Truth},
};
use serde::Deserialize;
use std::{cell::RefCell, collections::BTreeMap, fmt::Debug};

/// The numbers of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Numbers {
    pub opened: u64,
    pub preexisting: u64,
    pub established: u64,
    pub failed: u64,
    pub closed: u64,
    pub open: i64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub retransmits: u64,
    pub failed_refused: u64,
    pub failed_timed_out: u64,
    pub failed_unreachable: u64,
    pub failed_reset_by_peer: u64,
    pub failed_abandoned: u64,
    pub failed_local: u64,
    pub failed_aborted: u64,
    pub failed_unknown: u64,
    pub open_syn_sent: i64,
    pub open_syn_recv: i64,
    pub open_established: i64,
    pub open_fin_wait1: i64,
    pub open_fin_wait2: i64,
    pub open_close_wait: i64,
    pub open_last_ack: i64,
    pub open_closing: i64,
}

impl Numbers {
    /// Open connections by the name of their state, as [`crate::kernel::tally_sockets`] names them.
    pub fn open_by_state(&self) -> [(&'static str, i64); 8] {
        [
            ("established", self.open_established),
            ("syn_sent", self.open_syn_sent),
            ("syn_recv", self.open_syn_recv),
            ("fin_wait1", self.open_fin_wait1),
            ("fin_wait2", self.open_fin_wait2),
            ("close_wait", self.open_close_wait),
            ("last_ack", self.open_last_ack),
            ("closing", self.open_closing),
        ]
    }

    /// The numbers as a truth has them.
    fn counts(&self, direction: Direction) -> Counts {
        let counts = Counts {
            opened: self.opened,
            established: self.established,
            closed: self.closed,
            sent: self.bytes_sent,
            received: self.bytes_received,
            ..Counts::default()
        };
        match direction {
            Direction::In => Counts { died: self.failed, ..counts },
            Direction::Out => Counts {
                refused: self.failed_refused,
                timed_out: self.failed_timed_out,
                unreachable: self.failed_unreachable,
                reset: self.failed_reset_by_peer,
                abandoned: self.failed_abandoned,
                local: self.failed_local,
                aborted: self.failed_aborted,
                ..counts
            },
        }
    }
}

/// A direction and a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Row {
    /// The service port.
    pub port: u16,
    /// Which side.
    pub direction: Direction,
    /// The numbers.
    #[serde(flatten)]
    pub numbers: Numbers,
    /// Attempts that never became a connection.
    #[serde(flatten)]
    pub attempts: Attempts,
}

/// Attempts of a row that never became a connection; none where the kernel shows nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Attempts {
    pub attempts: Option<u64>,
    pub half_open: Option<u64>,
    pub abandoned: Option<u64>,
    pub dropped: Option<u64>,
    pub refused_by_us: Option<u64>,
}

/// Attempts of all ports.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct AttemptSummary {
    pub refused_by_us: Option<u64>,
    pub refused_ports: Option<u64>,
    pub unknown: BTreeMap<String, String>,
}

/// The listeners of a port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Listeners {
    pub port: u16,
    pub opened: u64,
    pub preexisting: u64,
    pub closed: u64,
    pub open: u64,
}

/// The totals of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Namespace {
    pub netns: u64,
    pub opened: u64,
    pub preexisting: u64,
    pub failed: u64,
    pub closed: u64,
    pub open: i64,
}

/// `opened + preexisting = failed + closed + open`, over all ports of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Identity {
    pub opened: u64,
    pub preexisting: u64,
    pub failed: u64,
    pub closed: u64,
    pub open: i64,
    pub holds: bool,
}

/// Where the ledger differed from the kernel's sockets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Difference {
    pub netns: Option<u64>,
    pub direction: Direction,
    pub port: u16,
    pub state: Option<String>,
    pub ledger: i64,
    pub kernel: u64,
}

/// The ledger held against the kernel's sockets by conntrace itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Audit {
    pub age_seconds: Option<f64>,
    pub error: Option<String>,
    pub kernel_open: u64,
    pub compared: u64,
    pub moved: u64,
    pub hidden_netns: u64,
    pub hidden: Vec<Hidden>,
    pub differences: Vec<Difference>,
}

/// A namespace that the audit left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Hidden {
    pub netns: u64,
    pub open: i64,
    pub seen: u64,
}

/// How a program of conntrace fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Program {
    pub missed: u64,
    pub runs: u64,
    pub run_ns: u64,
}

/// The kernel's counters of a namespace since the start, beside the ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct KernelCounters {
    pub netns: u64,
    pub active_opens: u64,
    pub passive_opens: u64,
    pub estab_resets: u64,
    pub syncookies_sent: u64,
    pub syncookies_received: u64,
    pub listen_drops: u64,
    pub ledger_from: u64,
    pub ledger_to: u64,
    pub agrees: bool,
}

/// The second audit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct SecondAudit {
    pub netns: Vec<KernelCounters>,
    pub unknown: Vec<u64>,
}

impl SecondAudit {
    /// The counters of a namespace.
    ///
    /// # Panics
    /// The namespace was not read.
    pub fn of(&self, netns: u64) -> KernelCounters {
        let found = self.netns.iter().find(|one| one.netns == netns).copied();
        found.unwrap_or_else(|| panic!("no counters of {netns}: {self:?}"))
    }
}

/// One report.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[expect(missing_docs, reason = "the names are those of the report")]
pub struct Report {
    pub ports: Vec<Row>,
    pub total: Numbers,
    pub attempts: AttemptSummary,
    pub listeners: Vec<Listeners>,
    pub netns: Vec<Namespace>,
    pub identity: Identity,
    pub audit: Audit,
    pub witness: BTreeMap<String, u64>,
    pub programs: BTreeMap<String, Program>,
    pub kernel: SecondAudit,
    pub repaired: u64,
    pub unattributed: Option<u64>,
    pub sources: Option<Sources>,
}

impl Report {
    /// Reads it from JSON.
    ///
    /// # Panics
    /// It is no report.
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("not a report: {error}: {text}"))
    }

    /// The numbers of a direction and service port, zeros if it has none.
    pub fn numbers(&self, direction: Direction, port: u16) -> Numbers {
        let row = self.ports.iter().find(|row| (row.direction, row.port) == (direction, port));
        row.map(|row| row.numbers).unwrap_or_default()
    }

    /// The attempts on a port, none if it has no row.
    pub fn attempts(&self, port: u16) -> Attempts {
        let row = self.ports.iter().find(|row| (row.direction, row.port) == (Direction::In, port));
        row.map(|row| row.attempts).unwrap_or_default()
    }

    /// The listeners of a port.
    pub fn listeners(&self, port: u16) -> Listeners {
        let listeners = self.listeners.iter().find(|listeners| listeners.port == port).copied();
        listeners.unwrap_or(Listeners { port, ..Listeners::default() })
    }

    /// Where the report differs from the truth; empty if it is right to the unit. Of the ports that the
    /// truth names, nothing may be in the ledger that is not in the truth; other ports are other people's.
    /// Listeners that begin under conntrace are counted by `sock_ops` and by no other hook.
    pub fn differences(&self, truth: &Truth) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut compare = |what: &str, ledger: &dyn Debug, truth: &dyn Debug| {
            let (ledger, truth) = (format!("{ledger:?}"), format!("{truth:?}"));
            if ledger != truth {
                wrong.push(format!("{what}\n  ledger {ledger}\n  truth  {truth}"));
            }
        };
        for port in truth.ports() {
            for direction in [Direction::In, Direction::Out] {
                let (numbers, truth) = (self.numbers(direction, port), truth.get(direction, port));
                let what = format!("port {port} {direction:?}");
                compare(&what, &numbers.counts(direction), &truth);
                compare(&format!("{what}: open"), &numbers.open, &truth.open());
                compare(&format!("{what}: failed in all"), &numbers.failed, &(truth.failed() + truth.died));
                compare(&format!("{what}: preexisting"), &numbers.preexisting, &0);
            }
            let listeners = self.listeners(port);
            let ledger = Listens { opened: listeners.opened, closed: listeners.closed };
            let listens = truth.listens.get(&port).filter(|_| self.programs.contains_key("sock_ops"));
            compare(&format!("port {port}: listeners"), &ledger, &listens.copied().unwrap_or_default());
        }
        wrong
    }

    /// The open connections of these ports by state, as [`crate::kernel::tally_sockets`] counts them.
    pub fn open(&self, ports: &[u16]) -> SocketTally {
        let mut tally = SocketTally::new();
        for row in self.ports.iter().filter(|row| ports.contains(&row.port)) {
            let key = Key { direction: row.direction, port: row.port };
            for (state, open) in row.numbers.open_by_state().into_iter().filter(|&(_, open)| open != 0) {
                let open = u64::try_from(open).unwrap_or_else(|_| panic!("{open} open in {state}: {row:?}"));
                tally.insert((key, state), open);
            }
        }
        tally
    }

    /// The counters and programs of conntrace itself, without zeros, as text.
    pub fn to_text(&self) -> String {
        let witness: Vec<_> = self.witness.iter().filter(|(_, count)| **count > 0).collect();
        let missed: Vec<_> = self.programs.iter().map(|(name, program)| (name, program.missed)).collect();
        let (retransmits, repaired) = (self.total.retransmits, self.repaired);
        format!("missed {missed:?}, witness {witness:?}, repaired {repaired}, retransmits {retransmits}")
    }

    /// The identity in every row and in the whole, and no difference found by the audit.
    pub fn check_identity(&self) {
        let rows = self.ports.iter().map(|row| &row.numbers).chain([&self.total]);
        for row in rows {
            let (left, right) = (row.opened + row.preexisting, row.failed + row.closed);
            assert_eq!(i128::from(left), i128::from(right) + i128::from(row.open), "{row:?}");
            let by_state: i64 = row.open_by_state().iter().map(|(_, open)| open).sum();
            assert_eq!(row.open, by_state, "{row:?}");
        }
        assert!(self.identity.holds, "{:?} {:?}", self.identity, self.audit);
        assert_eq!(self.audit.differences, [], "{:?}", self.audit);
        assert_eq!(self.unattributed, None);
    }
}

/// A running `conntrace stats`.
#[derive(Debug)]
pub struct Ledger {
    tracer: Tracer,
}

impl Ledger {
    /// Starts it with a report every `interval`, for these ports (all if there are none).
    pub fn start(ports: &[u16], interval: &str) -> Self {
        Self::start_with(ports, interval, &[])
    }

    /// [`Ledger::start`] with more arguments.
    pub fn start_with(ports: &[u16], interval: &str, more: &[&str]) -> Self {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut args =
            vec!["stats".to_owned(), "-o".into(), "json".into(), "--interval".into(), interval.into()];
        if !ports.is_empty() {
            args.extend(["--dport".into(), ports.join(",")]);
        }
        Self { tracer: Setup::new(args).arguments(more).start() }
    }

    /// One that was started in another way, with reports in JSON.
    pub fn of(tracer: Tracer) -> Self {
        Self { tracer }
    }

    /// Waits for a report with this property.
    pub fn await_report(&self, what: &str, accept: impl Fn(&Report) -> bool) -> Report {
        Report::parse(&self.tracer.await_stdout(what, |text| accept(&Report::parse(text))))
    }

    /// Waits until the ledger equals the truth.
    ///
    /// # Panics
    /// When it does not in time, with the differences.
    pub fn await_equal(&self, truth: &Truth) -> Report {
        self.await_equal_but(|_| truth.clone())
    }

    /// The same, where the truth is what this makes of each report: for what the ledger may lack.
    ///
    /// # Panics
    /// Likewise.
    pub fn await_equal_but(&self, truth: impl Fn(&Report) -> Truth) -> Report {
        let last = RefCell::new((None, Vec::new()));
        let equals = |text: &str| {
            let report = Report::parse(text);
            let wrong = report.differences(&truth(&report));
            let equal = wrong.is_empty();
            *last.borrow_mut() = (Some(report), wrong);
            equal
        };
        match self.tracer.find_stdout(equals) {
            Ok(text) => Report::parse(&text),
            Err(missing) => {
                let (report, wrong) = last.into_inner();
                let text = report.map(|report| report.to_text());
                panic!("the ledger is not the truth ({missing}):\n{}\n{text:?}", wrong.join("\n"));
            }
        }
    }

    /// The process.
    pub fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Ctrl-C; the report that it prints then.
    pub fn stop(self) -> Report {
        last_report(&self.tracer.stop())
    }

    /// The tracer, for a test that looks at its end.
    pub fn into_tracer(self) -> Tracer {
        self.tracer
    }
}

/// The last report of a `conntrace stats -o json` that has ended well.
pub fn last_report(ended: &Ended) -> Report {
    ended.expect_code(0);
    Report::parse(ended.stdout.last().expect("a report"))
}
