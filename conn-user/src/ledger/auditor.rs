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

use crate::kernel::counters::Counters;
use crate::kernel::iterator::WalkError;
use crate::kernel::map::MapError;
use crate::kernel::probe::Probe;
use crate::kernel::program_stats::ProgramStats;
use crate::kernel::session::Session;
use crate::kernel::sockets;
use crate::ledger::audit::{Audit, Difference, SocketTally};
use crate::ledger::background::Background;
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
/// Time between two audits while the kernel's counts say that steps may have been missed.
const AUDIT_IN_DOUBT: Duration = Duration::from_secs(1);
/// How long a caller waits for an audit that is due, if there is an earlier one to show.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// Why there is no audit. The auditor goes on: the next request begins a new audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The sockets could not be walked.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The ledger could not be read.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The auditor's thread could not be started.
    #[error("starting the auditor")]
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
    /// The findings of the audit.
    pub audit: Audit,
    /// How old the audit is.
    pub age: Duration,
    /// Connections that the ledger had open and that were gone, and are counted as ended.
    pub repaired: u64,
}

type Answer = Result<Audited, AuditError>;

/// Audits on request. Dropping it waits for the pass over the sockets that is under way.
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
            progress: Mutex::new(Progress { repairs: RepairMap::new(&session.probe)?, last: None }),
            stopped: AtomicBool::new(false),
        });
        let mut worker = Worker {
            shared: Arc::clone(&shared),
            probe: Arc::clone(&session.probe),
            adopted: session.adopted.clone(),
        };
        let audits = Background::start("auditor", move || worker.audit());
        Ok(Self { shared, audits: audits.map_err(|source| AuditError::Start { source })? })
    }

    /// The ledger with an audit: a new one if that is wanted, else the last one. A due audit that takes longer than
    /// 100 ms goes on in the background, and the caller gets the last one. Dropping the future is harmless.
    /// Needs a tokio runtime with time.
    ///
    /// # Errors
    /// The audit failed, this one or the one that went on without the caller.
    pub(crate) async fn audited(&mut self, when: When) -> Answer {
        if when == When::Now {
            self.audits.request();
            return self.answer().await;
        }
        if let Some(finished) = self.audits.take_finished() {
            // Its ledger is old, but an error is news.
            finished?;
        }
        if !self.audits.is_pending() {
            if !self.shared.is_due()? {
                return self.shared.current();
            }
            self.audits.request();
        }
        if !self.shared.has_audit() {
            return self.answer().await;
        }
        match timeout(MAX_WAIT, self.answer()).await {
            Ok(answer) => answer,
            Err(_elapsed) => self.shared.current(),
        }
    }

    async fn answer(&mut self) -> Answer {
        self.audits.answer().await.unwrap_or(Err(AuditError::Stopped))
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
        // `audits`, which is dropped next, waits for the thread.
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
    last: Option<Last>,
}

/// The last audit.
#[derive(Debug)]
struct Last {
    at: Instant,
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
        Ok(progress.last.as_ref().is_none_or(|last| is_due(last.at.elapsed(), doubts > last.doubts)))
    }

    /// The ledger as it is now, with the last audit.
    fn current(&self) -> Answer {
        let ledger = self.ledger()?;
        let progress = self.progress();
        let last = progress.last.as_ref().ok_or(AuditError::Stopped)?;
        Ok(Audited {
            ledger,
            audit: last.audit.clone(),
            age: last.at.elapsed(),
            repaired: progress.repairs.repairs().total(),
        })
    }

    /// The ledger, with the repairs of earlier audits.
    fn ledger(&self) -> Result<Ledger, MapError> {
        let mut ledger = self.ledger.read()?;
        self.progress().repairs.repairs().apply(&mut ledger);
        Ok(ledger)
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

/// Whether the next audit is due, if the last one is so old. `in_doubt`: steps may have been missed since.
fn is_due(age: Duration, in_doubt: bool) -> bool {
    age >= if in_doubt { AUDIT_IN_DOUBT } else { AUDIT_EVERY }
}

/// The thread's own part.
struct Worker {
    shared: Arc<Shared>,
    probe: Arc<Probe>,
    /// The namespaces whose sockets were adopted, by inode number.
    adopted: BTreeSet<u32>,
}

impl Worker {
    fn audit(&mut self) -> Answer {
        let doubts = self.shared.doubts()?;
        let (ledger, audit) = passes::audit(self)?;
        let mut progress = self.shared.progress();
        progress.last = Some(Last { at: Instant::now(), doubts, audit: audit.clone() });
        Ok(Audited { ledger, audit, age: Duration::ZERO, repaired: progress.repairs.repairs().total() })
    }
}

impl World for Worker {
    type Error = AuditError;

    fn look(&mut self) -> Result<(Ledger, Audit), AuditError> {
        if self.shared.stopped.load(Ordering::Relaxed) {
            return Err(AuditError::Stopped);
        }
        let before = self.shared.ledger()?;
        let namespaces = sockets::all_namespaces(&self.probe)?.namespaces;
        if namespaces.iter().any(|namespace| !self.adopted.contains(&namespace.inode)) {
            // The sockets of a namespace that is new, or was found only now, are not remembered yet.
            self.adopted.extend(sockets::adopt(&self.probe, &namespaces)?);
        }
        let mut tally = SocketTally::default();
        let walked = sockets::list(&self.probe, &namespaces, |row| tally.count(&row))?;
        // An audit loads no more programs than these.
        self.probe.release_btf();
        let after = self.shared.ledger()?;
        let hidden = busy(&after).filter(|inode| !walked.contains(inode)).count();
        let audit = if hidden == 0 {
            Audit::compare(&before, &after, &tally)
        } else {
            Audit::incomplete(hidden, &before, &after, &tally)
        };
        Ok((after, audit))
    }

    fn adopt(&mut self) -> Result<(), AuditError> {
        let namespaces = sockets::all_namespaces(&self.probe)?.namespaces;
        self.adopted.extend(sockets::adopt(&self.probe, &namespaces)?);
        Ok(())
    }

    fn repair(&mut self, phantoms: &[Difference]) -> Result<(), AuditError> {
        self.shared.progress().repairs.learn(phantoms);
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
        let seconds = Duration::from_secs_f64;
        assert!(!is_due(seconds(9.9), false) && is_due(seconds(10.0), false));
        assert!(!is_due(seconds(0.9), true) && is_due(seconds(1.0), true));
    }

    #[test]
    fn handles_cross_threads() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Shared>();
        is_shared::<Probe>();
        is_shared::<Auditor>();
    }
}
