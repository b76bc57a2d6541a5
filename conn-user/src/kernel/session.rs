//! From a plan to running programs, and what they know: what every command that watches the kernel needs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use conn_common::counter::{END_UNSEEN, FLAGS_FAILED, NO_SOCKET, STORAGE_FAILED};
use conn_common::name;

use crate::error::Error;
use crate::host::accept_hook::Search;
use crate::host::facts::Host;
use crate::host::namespace::Namespace;
use crate::host::plan::{self, Degradation, Plan, plan};
use crate::kernel::counters::Counters;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::sockets;
use crate::ledger::audit::{Audit, Census};
use crate::ledger::latency::{LifetimeReader, Lifetimes};
use crate::ledger::reader::{Ledger, LedgerReader};
use crate::ledger::repair::Repairs;

/// Running programs that have seen every socket of the host.
pub struct Session {
    /// The programs.
    pub probe: Probe,
    /// What they count about themselves.
    pub counters: Counters,
    ledger: LedgerReader,
    lifetimes: Option<LifetimeReader>,
    /// What was decided.
    pub plan: Plan,
    /// The hook that sees who accepts; none if the run does not ask for that.
    pub accepts: Search,
    repairs: Repairs,
    walked: BTreeSet<u32>,
    twice: bool,
    last: Option<Last>,
}

/// The last audit.
struct Last {
    at: Instant,
    doubts: u64,
    audit: Audit,
}

/// When to audit. An audit walks all sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Now, for a final word.
    Now,
    /// If the last one is old, or there is reason for doubt.
    Due,
}

/// Time between two audits while all is well.
const AUDIT_EVERY: Duration = Duration::from_secs(10);
/// Time between two audits while the kernel tells of steps that may have been missed.
const AUDIT_IN_DOUBT: Duration = Duration::from_secs(1);

/// How often an audit looks again, at most.
const LOOKS: u32 = 3;

impl Session {
    /// Plans for the host, loads, attaches, switches on and adopts the sockets that exist.
    ///
    /// # Errors
    /// What this host lacks or refuses, with the remedy.
    pub fn start(host: &Host, options: &Options) -> Result<Self, Error> {
        log::debug!("host: {host:?}");
        let plan = plan(host, options.hooks)?;
        log::debug!("plan: {plan:?}");
        for degradation in &plan.degradations {
            tell(degradation);
        }
        let mut probe = Probe::load(&plan, options)?;
        let counters = Counters::take(probe.ebpf_mut())?;
        let ledger = LedgerReader::take(probe.ebpf_mut())?;
        let lifetimes = if options.spans { Some(LifetimeReader::take(probe.ebpf_mut())?) } else { None };
        // Also who listens: the owner of what is not accepted yet.
        let claims = options.owners != name::NO_OWNERS;
        let start = [name::TCP_ADOPT, sockets::file_walk(claims)];
        let programs = plan.hooks.programs().chain(start).collect::<Vec<_>>();
        let mut accepts = Search::default();
        if options.owners == name::HOLDERS {
            accepts = probe.load_programs_and_accept(&programs, options.accept_hook)?;
            if let Some(hook) = accepts.hook {
                log::debug!("who accepts a connection is seen by: {}", hook.name());
            }
            if let Some(degradation) = plan::accepts(accepts.hook) {
                tell(&degradation);
            }
        } else {
            probe.load_programs(&programs)?;
        }
        probe.attach_witnesses(&plan)?;
        probe.enable()?;
        let mut session = Self {
            probe,
            counters,
            ledger,
            lifetimes,
            plan: plan.clone(),
            accepts,
            repairs: Repairs::default(),
            walked: BTreeSet::new(),
            twice: plan.hooks.set_state_again,
            last: None,
        };
        if options.kinds != 0 {
            // Others have programs to load for their first report.
            session.probe.forget_types();
        }
        session.walked = sockets::adopt_all(&mut session.probe, claims)?;
        Ok(session)
    }

    fn adopt(&mut self, namespaces: &[Namespace]) -> Result<(), Error> {
        self.walked.extend(sockets::adopt(&mut self.probe, namespaces)?);
        Ok(())
    }

    /// The ledger with the result of an audit and its age: a new one if it is time, else the last.
    ///
    /// # Errors
    /// The kernel's maps or sockets cannot be read.
    pub fn audited(&mut self, when: When) -> Result<(Ledger, Audit, Duration), Error> {
        let doubts = self.doubts()?;
        if let Some(last) = &self.last
            && when == When::Due
        {
            let age = last.at.elapsed();
            if age < if doubts > last.doubts { AUDIT_IN_DOUBT } else { AUDIT_EVERY } {
                return Ok((self.ledger()?, last.audit.clone(), age));
            }
        }
        let (ledger, audit) = self.audit()?;
        self.last = Some(Last { at: Instant::now(), doubts, audit: audit.clone() });
        Ok((ledger, audit, Duration::ZERO))
    }

    /// What may have made the ledger wrong so far: steps that no witness can have seen.
    fn doubts(&self) -> Result<u64, Error> {
        let counters = self.counters.read()?;
        let costs = self.probe.costs();
        let missed = |name: &str| costs.get(name).map_or(0, |cost| cost.missed);
        // sock_ops sees what a tracing program is skipped for, but only of sockets that began under it.
        let states = missed(name::SET_STATE);
        let twice = if self.twice { states.min(missed(name::SET_STATE_AGAIN)) } else { states };
        Ok(counters[NO_SOCKET as usize]
            + counters[STORAGE_FAILED as usize]
            + counters[FLAGS_FAILED as usize]
            + counters[END_UNSEEN as usize]
            + twice
            + missed(name::DESTROY_SOCK))
    }

    /// The ledger, with the repairs that earlier audits made.
    ///
    /// # Errors
    /// The kernel's maps cannot be read.
    pub fn ledger(&self) -> Result<Ledger, Error> {
        let mut ledger = self.ledger.read()?;
        self.repairs.apply(&mut ledger);
        Ok(ledger)
    }

    /// The histograms, if the run asked for them.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn lifetimes(&self) -> Result<Option<Lifetimes>, Error> {
        self.lifetimes.as_ref().map(LifetimeReader::read).transpose()
    }

    /// Holds the ledger against the sockets of the kernel, all of which it walks. What is wrong twice in
    /// a row is made good, counted in [`Self::repaired`], and no longer in the ledger that is returned.
    fn audit(&mut self) -> Result<(Ledger, Audit), Error> {
        let (mut ledger, mut audit) = self.look()?;
        let mut mended = false;
        for _ in 0..LOOKS {
            if audit.holds() {
                break;
            }
            let (next_ledger, next) = self.look()?;
            // A socket may be on its way between its table and the ledger: then the next look differs.
            let wrong = next.also_in(&audit);
            (ledger, audit) = (next_ledger, next);
            if wrong.is_empty() {
                break;
            }
            if !mended && wrong.iter().any(|difference| difference.excess() < 0) {
                // Steps that no witness told of. The walk that adopts sockets also mends states, so this comes first:
                // what the ledger has too much in one state may be what it lacks in another, and no end.
                let namespaces = sockets::all_namespaces(&mut self.probe)?.namespaces;
                self.adopt(&namespaces)?;
                mended = true;
            } else {
                self.repairs.learn(&wrong);
            }
            (ledger, audit) = self.look()?;
        }
        Ok((ledger, audit))
    }

    fn look(&mut self) -> Result<(Ledger, Audit), Error> {
        let before = self.ledger()?;
        let namespaces = sockets::all_namespaces(&mut self.probe)?.namespaces;
        if namespaces.iter().any(|namespace| !self.walked.contains(&namespace.inode)) {
            // A namespace that is new, or was found only now: its sockets are met here.
            self.adopt(&namespaces)?;
        }
        let mut census = Census::default();
        let walked = sockets::list(&mut self.probe, &namespaces, |row| census.count(&row))?;
        // All programs that there are for this are loaded now.
        self.probe.forget_types();
        let after = self.ledger()?;
        let hidden = busy(&after).filter(|inode| !walked.contains(inode)).count();
        let audit = if hidden == 0 {
            Audit::compare(&before, &after, &census)
        } else {
            Audit::of_part(hidden, &census)
        };
        Ok((after, audit))
    }

    /// Connections that the ledger believed open and that were gone.
    pub fn repaired(&self) -> u64 {
        self.repairs.total()
    }
}

/// Warns of a degradation, or mentions it with `-v`.
fn tell(degradation: &Degradation) {
    let level = if degradation.warn { log::Level::Warn } else { log::Level::Debug };
    log::log!(level, "{degradation}");
}

/// The namespaces in which connections are open, by inode number.
fn busy(ledger: &Ledger) -> impl Iterator<Item = u32> {
    ledger.netns.iter().filter(|(_, totals)| totals.open() != 0).map(|(&inode, _)| inode)
}
