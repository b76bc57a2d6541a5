//! Audits on a thread of their own. An audit walks all sockets, which takes long beside many, and meanwhile the
//! ring must be read and reports printed.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use conn_common::counter::{self, END_UNSEEN, FLAGS_FAILED, NO_SOCKET, STORAGE_FAILED};
use conn_common::name;
use tokio::time::timeout;

use crate::host::namespace::{Found, Namespace};
use crate::host::refusal::chain;
use crate::kernel::counters::Counters;
use crate::kernel::iterator::WalkError;
use crate::kernel::map::MapError;
use crate::kernel::probe::Probe;
use crate::kernel::program_stats::ProgramStats;
use crate::kernel::session::Session;
use crate::kernel::sockets;
use crate::ledger::audit::{Audit, Difference, SocketTally};
use crate::ledger::background::Background;
use crate::ledger::kernel_counters::{self, Start};
use crate::ledger::passes::{self, World};
use crate::ledger::reader::{Ledger, LedgerReader};
use crate::ledger::repair::RepairMap;

/// When to audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Now, for a final word.
    Now,
    /// If the last audit is old, or there is reason for doubt.
    Due,
}

/// Time between two audits while no step was missed.
const AUDIT_EVERY: Duration = Duration::from_secs(10);
/// Time between two audits while the kernel's counts say that steps may have been missed, and after a failure.
const AUDIT_IN_DOUBT: Duration = Duration::from_secs(1);
/// An audit rests for so many times as long as it took, so that it takes 5 % of two CPUs at most.
const REST: u32 = 20;
/// How long a caller waits for an audit that is due, if there is an earlier one to show.
const MAX_WAIT: Duration = Duration::from_millis(100);
/// How long a caller waits for the first audit of all.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// How long the end of a run waits for its own audit, if there is an earlier one to show.
const END_WAIT: Duration = Duration::from_millis(300);
/// How long the end of a run waits for the only audit.
const ONLY_WAIT: Duration = Duration::from_secs(5);

/// Why there is no audit. An audit that fails ends no run: it is reported, and tried again.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The sockets could not be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The ledger could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The auditor's thread could not be started.
    #[error("conntrace cannot start the auditor")]
    Start {
        /// The system's answer.
        source: io::Error,
    },
    /// The auditor was stopped during the audit.
    #[error("the auditor was stopped")]
    Stopped,
}

impl AuditError {
    /// The remedy, if one is known.
    pub fn remedy(&self) -> Option<Cow<'static, str>> {
        if let Self::Walk(error) = self { error.remedy() } else { None }
    }
}

/// A reading of the ledger with the last audit.
#[derive(Clone, Debug)]
pub(crate) struct Audited {
    /// The ledger, repairs included. It is the reading of the audit itself if `age` is 0.
    pub ledger: Ledger,
    /// The last audit that was done.
    pub audit: AgedAudit,
    /// Connections that the ledger had open and that were gone, and are counted as ended.
    pub repaired: u64,
}

/// An audit and its age.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AgedAudit {
    /// The findings of the audit.
    pub found: Audit,
    /// How old the audit is; `None` if none was done yet.
    pub age: Option<Duration>,
    /// Why a later audit failed, or was not done yet.
    pub failure: Option<String>,
}

type Answer = Result<Audited, AuditError>;

/// Audits on request. Dropping it ends neither the pass over the sockets that is under way nor waits for it.
#[derive(Debug)]
pub(crate) struct Auditor {
    shared: Arc<Shared>,
    audits: Background<Answer>,
}

impl Auditor {
    /// Starts the thread.
    ///
    /// # Errors
    /// A map of the ledger cannot be opened, or there can be no more threads.
    pub(crate) fn start(session: &Session) -> Result<Self, AuditError> {
        let shared = Arc::new(Shared {
            ledger: LedgerReader::new(&session.probe)?,
            counters: Counters::new(&session.probe)?,
            programs: session.probe.program_stats(),
            has_two_set_state: session.plan.hooks.set_state_again,
            progress: Mutex::new(Progress {
                repairs: RepairMap::new(&session.probe)?,
                last: None,
                failure: None,
            }),
            stopped: AtomicBool::new(false),
        });
        let mut worker = Worker {
            start: first_counters(session, &shared)?,
            shared: Arc::clone(&shared),
            probe: Arc::clone(&session.probe),
            adopted: session.adopted.clone(),
        };
        let audits = Background::start("auditor", move || worker.audit());
        Ok(Self { shared, audits: audits.map_err(|source| AuditError::Start { source })? })
    }

    /// The ledger with an audit: a new one if that is wanted, else the last one. An audit that takes too long goes on in
    /// the background, and the caller gets the last one. Dropping the future is harmless. Needs a tokio runtime with
    /// time.
    ///
    /// # Errors
    /// The ledger cannot be read. An audit that failed is no error, but part of the answer.
    pub(crate) async fn audited(&mut self, when: When) -> Answer {
        let has_audit = self.shared.has_audit();
        let limit = match when {
            When::Now => {
                self.audits.request();
                if has_audit { END_WAIT } else { ONLY_WAIT }
            }
            When::Due => {
                // The ledger of a finished audit is old, and its failure is noted.
                self.audits.take_finished();
                if !self.audits.is_pending() {
                    if !self.shared.is_due()? {
                        return self.shared.current();
                    }
                    self.audits.request();
                }
                if has_audit { MAX_WAIT } else { FIRST_WAIT }
            }
        };
        match timeout(limit, self.audits.answer()).await {
            Ok(Some(Ok(audited))) => Ok(audited),
            _ => self.shared.current(),
        }
    }

    /// The ledger as it is now, repairs included.
    pub(super) fn ledger(&self) -> Result<Ledger, MapError> {
        self.shared.ledger()
    }

    /// The programs' counters of themselves.
    pub(super) fn counters(&self) -> Result<[u64; counter::COUNT], MapError> {
        self.shared.counters.read()
    }

    /// The kernel's counts of the programs.
    pub(super) fn programs(&self) -> &ProgramStats {
        &self.shared.programs
    }
}

impl Drop for Auditor {
    fn drop(&mut self) {
        // The thread begins no further pass.
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

/// The state that the thread and its callers share.
#[derive(Debug)]
struct Shared {
    ledger: LedgerReader,
    counters: Counters,
    programs: ProgramStats,
    has_two_set_state: bool,
    progress: Mutex<Progress>,
    stopped: AtomicBool,
}

/// The findings of all audits so far.
#[derive(Debug)]
struct Progress {
    repairs: RepairMap,
    /// The last audit that was done.
    last: Option<Last>,
    /// The last audit, if it failed: when, and why.
    failure: Option<(Instant, String)>,
}

/// The last audit that was done.
#[derive(Debug)]
struct Last {
    at: Instant,
    took: Duration,
    doubts: u64,
    audit: Audit,
}

impl Shared {
    /// No code panics while it holds this lock, and a half-made repair would be completed by the next audit.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_audit(&self) -> bool {
        self.progress().last.is_some()
    }

    fn is_due(&self) -> Result<bool, MapError> {
        let doubts = self.doubts()?;
        let progress = self.progress();
        if let Some((at, _)) = &progress.failure {
            return Ok(at.elapsed() >= AUDIT_IN_DOUBT);
        }
        Ok(progress
            .last
            .as_ref()
            .is_none_or(|last| is_due(last.at.elapsed(), last.took, doubts > last.doubts)))
    }

    /// The ledger as it is now, with the last audit.
    fn current(&self) -> Answer {
        let ledger = self.ledger()?;
        let progress = self.progress();
        let mut audit = AgedAudit::default();
        if let Some(last) = &progress.last {
            audit.found = last.audit.clone();
            audit.age = Some(last.at.elapsed());
        } else {
            audit.failure = Some("the first audit is still under way".into());
        }
        if let Some((_, failure)) = &progress.failure {
            audit.failure = Some(failure.clone());
        }
        Ok(Audited { ledger, audit, repaired: progress.repairs.repairs().total() })
    }

    /// The ledger, with the repairs of earlier audits.
    fn ledger(&self) -> Result<Ledger, MapError> {
        Ok(self.repaired(self.ledger.read()?))
    }

    /// A reading, with the repairs of earlier audits.
    fn repaired(&self, mut ledger: Ledger) -> Ledger {
        self.progress().repairs.repairs().apply(&mut ledger);
        ledger
    }

    /// How many steps no hook may have seen so far.
    fn doubts(&self) -> Result<u64, MapError> {
        let counters = self.counters.read()?;
        let costs = self.programs.read();
        let missed = |name: &str| costs.get(name).map_or(0, |cost| cost.missed);
        // sock_ops sees what a tracing program is skipped for, but only of sockets that began under it.
        let states = missed(name::SET_STATE);
        let states = if self.has_two_set_state { states.min(missed(name::SET_STATE_AGAIN)) } else { states };
        Ok(counters[NO_SOCKET as usize]
            + counters[STORAGE_FAILED as usize]
            + counters[FLAGS_FAILED as usize]
            + counters[END_UNSEEN as usize]
            + states
            + missed(name::DESTROY_SOCK))
    }
}

/// Whether the next audit is due, if the last one is so old and took so long. `in_doubt`: steps may have been missed
/// since.
fn is_due(age: Duration, took: Duration, in_doubt: bool) -> bool {
    age >= (took * REST).max(if in_doubt { AUDIT_IN_DOUBT } else { AUDIT_EVERY })
}

/// The thread's own part.
struct Worker {
    shared: Arc<Shared>,
    probe: Arc<Probe>,
    /// The namespaces whose sockets were adopted, by inode number, without those that are gone.
    adopted: BTreeSet<u32>,
    /// The kernel's counters at the start.
    start: Start,
}

/// The kernel's counters of all namespaces at the start.
fn first_counters(session: &Session, shared: &Shared) -> Result<Start, AuditError> {
    let found = sockets::all_namespaces(&session.probe)?;
    let before = shared.ledger()?;
    let counters = kernel_counters::read(&found.namespaces);
    Ok(Start::new(&found, &before, counters, &shared.ledger()?))
}

impl Worker {
    fn audit(&mut self) -> Answer {
        let begin = Instant::now();
        let done = self.shared.doubts().map_err(AuditError::from).and_then(|doubts| {
            let (ledger, audit) = passes::audit(self)?;
            Ok((doubts, ledger, audit))
        });
        let mut progress = self.shared.progress();
        let (doubts, ledger, audit) = done.inspect_err(|error| {
            let text = match error.remedy() {
                Some(remedy) => format!("{}; {remedy}", chain(error)),
                None => chain(error),
            };
            log::debug!("an audit failed: {text}");
            progress.failure = Some((Instant::now(), text));
        })?;
        progress.failure = None;
        progress.last =
            Some(Last { at: Instant::now(), took: begin.elapsed(), doubts, audit: audit.clone() });
        let audit = AgedAudit { found: audit, age: Some(Duration::ZERO), failure: None };
        Ok(Audited { ledger, audit, repaired: progress.repairs.repairs().total() })
    }

    /// Adopts the sockets of the namespaces that were not adopted yet.
    fn adopt_new(&mut self, found: &Found) -> Result<(), AuditError> {
        self.adopted.retain(|&inode| found.has(inode));
        let is_new = |namespace: &&Namespace| !self.adopted.contains(&namespace.inode);
        let new: Vec<Namespace> = found.namespaces.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            self.adopted.extend(sockets::adopt(&self.probe, &new)?.done);
        }
        Ok(())
    }
}

impl World for Worker {
    type Error = AuditError;

    fn look(&mut self) -> Result<(Ledger, Audit), AuditError> {
        if self.shared.stopped.load(Ordering::Relaxed) {
            return Err(AuditError::Stopped);
        }
        let found = sockets::all_namespaces(&self.probe)?;
        self.adopt_new(&found)?;
        let before = self.shared.repaired(self.shared.ledger.read_parts()?);
        let busy: BTreeSet<u32> = busy(&before).collect();
        let mut tally = SocketTally::default();
        let is_idle = |inode| !busy.contains(&inode);
        let walked = sockets::list(&self.probe, &found, is_idle, |row| tally.count(&row))?;
        // An audit loads no more programs than these.
        self.probe.release_btf();
        let counters = kernel_counters::read(&found.namespaces);
        let after = self.shared.ledger()?;
        let mut audit = Audit::compare(&before, &after, &tally, walked.done);
        audit.kernel = self.start.compare(&before, &counters, &after);
        Ok((after, audit))
    }

    fn adopt(&mut self) -> Result<(), AuditError> {
        let namespaces = sockets::all_namespaces(&self.probe)?.namespaces;
        self.adopted.extend(sockets::adopt(&self.probe, &namespaces)?.done);
        Ok(())
    }

    fn repair(&mut self, confirmed: &[Difference], audit: &Audit) -> Result<(), AuditError> {
        self.shared.progress().repairs.learn(confirmed, &audit.phantoms);
        Ok(())
    }
}

/// The namespaces in which connections are open, by inode number.
fn busy(ledger: &Ledger) -> impl Iterator<Item = u32> {
    ledger.netns.iter().filter(|(_, totals)| totals.open() != 0).map(|(&inode, _)| inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audit_is_due_after_ten_seconds_or_one_in_doubt() {
        let (seconds, took) = (Duration::from_secs_f64, Duration::from_millis(1));
        assert!(!is_due(seconds(9.9), took, false) && is_due(seconds(10.0), took, false));
        assert!(!is_due(seconds(0.9), took, true) && is_due(seconds(1.0), took, true));
    }

    #[test]
    fn audit_rests_for_twenty_times_as_long_as_it_took() {
        let seconds = Duration::from_secs;
        for in_doubt in [false, true] {
            assert!(!is_due(seconds(59), seconds(3), in_doubt) && is_due(seconds(60), seconds(3), in_doubt));
        }
    }

    #[test]
    fn handles_cross_threads() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Shared>();
        is_shared::<Probe>();
        is_shared::<Auditor>();
    }
}
