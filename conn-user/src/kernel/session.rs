//! From a plan to running programs that have seen every socket: what every command that watches the kernel needs.

use std::collections::BTreeSet;
use std::sync::Arc;

use conn_common::name;

use crate::host::accept_hook::{AcceptHook, Search};
use crate::host::facts::Host;
use crate::host::flows;
use crate::host::plan::{self, Degradation, HookSet, Plan, PlanError, plan};
use crate::host::refusal::chain;
use crate::kernel::attempt_hooks::{Attached, Sight};
use crate::kernel::counters::Counters;
use crate::kernel::epoch::Epoch;
use crate::kernel::iterator::{AdoptIterator, WalkError};
use crate::kernel::load_options::Options;
use crate::kernel::map::MapError;
use crate::kernel::pin::error::PinError;
use crate::kernel::probe::{Probe, ProbeError};
use crate::kernel::sockets;

/// Why the programs do not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The host lacks a requirement of conntrace. A retry does not help.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The programs cannot be loaded or attached.
    #[error(transparent)]
    Probe(#[from] ProbeError),
    /// The sockets that exist cannot be adopted.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The pins cannot be used.
    #[error(transparent)]
    Pin(#[from] PinError),
}

impl From<MapError> for StartError {
    fn from(error: MapError) -> Self {
        ProbeError::from(error).into()
    }
}

/// Running programs that have seen every socket of the host.
#[derive(Debug)]
pub struct Session {
    /// The programs. Other threads may share them.
    pub probe: Arc<Probe>,
    /// The programs' counters of themselves.
    pub counters: Arc<Counters>,
    /// The plan of the run.
    pub plan: Plan,
    /// The hook that sees accepts; none if the run does not ask for owners.
    pub accepts: Search,
    /// What the run sees of attempts that never become a connection.
    pub sight: Sight,
    /// Packets that find a receive buffer of UDP full are counted.
    pub flow_drops: bool,
    /// The namespaces whose sockets were adopted, by inode number.
    pub adopted: BTreeSet<u32>,
    /// When counting began.
    pub epoch: Epoch,
}

impl Session {
    /// Plans for the host, loads, attaches, switches on and adopts the sockets that exist.
    ///
    /// # Errors
    /// What this host lacks or refuses, with the remedy.
    pub fn start(host: &Host, options: &Options) -> Result<Self, StartError> {
        start_by_plans(host, options, |plan| {
            let prepared = Prepared::load(Probe::load(plan, options)?, plan, options)?;
            prepared.attach(options)?.begin(options)
        })
    }
}

/// Starts by the plan for the host. Where the kernel refuses a hook, starts by a plan without it.
///
/// # Errors
/// What this host lacks or refuses, with the remedy.
pub(super) fn start_by_plans<T>(
    host: &Host,
    options: &Options,
    mut start: impl FnMut(&Plan) -> Result<T, StartError>,
) -> Result<T, StartError> {
    log::debug!("host: {host:?}");
    let mut plan = plan(host, options.hooks)?;
    if options.flows.is_some() {
        flows::check(host)?;
    }
    for degradation in &plan.degradations {
        log_degradation(degradation);
    }
    loop {
        log::debug!("plan: {plan:?}");
        let refused = match start(&plan) {
            // Hooks that the command line chooses are these or none.
            Err(StartError::Probe(error)) if options.hooks.is_none() => error,
            started => return started,
        };
        plan = match plan_without(&plan, &refused) {
            Some(next) => next,
            None => return Err(refused.into()),
        };
        log::debug!("{}", chain(&refused));
        plan.degradations.last().into_iter().for_each(log_degradation);
    }
}

/// A session before it counts.
#[derive(Debug)]
pub(super) struct Prepared {
    /// The maps and programs.
    pub probe: Probe,
    plan: Plan,
    accepts: Search,
    refusals_are_seen: bool,
    flow_drops: bool,
}

impl Prepared {
    /// Loads the programs.
    pub(super) fn load(probe: Probe, plan: &Plan, options: &Options) -> Result<Self, StartError> {
        let (accepts, attempts) = load_programs(&probe, plan, options)?;
        let plan = plan.clone();
        Ok(Self { probe, plan, accepts, refusals_are_seen: attempts.refused, flow_drops: false })
    }

    /// The programs of an earlier process go on. `refusals_are_seen` says whether refused attempts are counted.
    pub(super) fn of_earlier(probe: Probe, plan: &Plan, refusals_are_seen: bool) -> Self {
        Self { probe, plan: plan.clone(), accepts: Search::default(), refusals_are_seen, flow_drops: false }
    }

    /// Attaches the hooks, which count nothing yet.
    pub(super) fn attach(mut self, options: &Options) -> Result<Self, StartError> {
        self.probe.attach_hooks(&self.plan)?;
        if let Some(root) = self.plan.cgroup_root.as_deref().filter(|_| options.flows.is_some()) {
            self.flow_drops = self.probe.attach_flows(root, options)?;
        }
        Ok(self)
    }

    /// Switches the hooks on, and adopts.
    pub(super) fn begin(self, options: &Options) -> Result<Session, StartError> {
        let owners = asks_owners(options);
        let probe = &self.probe;
        let epoch = Epoch::begin();
        probe.enable()?;
        if options.flows.is_some() && owners {
            AdoptIterator::of_flow_owners(probe)?.each(|()| {})?;
        }
        if options.kinds != 0 {
            // Without events, the first report loads more programs.
            probe.release_btf();
        }
        let adopted = if watches(&self.plan) { sockets::adopt_all(probe, owners)? } else { BTreeSet::new() };
        Ok(self.go_on(options, adopted, epoch)?)
    }

    /// Goes on where an earlier process stopped: the hooks count since `epoch`, and the sockets of these namespaces are
    /// adopted.
    pub(super) fn go_on(
        self,
        options: &Options,
        adopted: BTreeSet<u32>,
        epoch: Epoch,
    ) -> Result<Session, MapError> {
        let Self { probe, plan, accepts, refusals_are_seen, flow_drops } = self;
        let sight = Sight {
            begun: plan.hooks.sock_ops,
            refused: refusals_are_seen,
            ..probe.sight().filtered(&options.filter)
        };
        let counters = Arc::new(Counters::new(&probe)?);
        Ok(Session { probe: Arc::new(probe), counters, plan, accepts, sight, flow_drops, adopted, epoch })
    }
}

/// The plan without what the kernel refused, if there is one.
fn plan_without(plan: &Plan, refused: &ProbeError) -> Option<Plan> {
    match refused {
        ProbeError::Program { name, is_taken, .. } => plan.without(name, *is_taken),
        ProbeError::CgroupRoot { .. } => plan.without(name::SOCK_OPS, false),
        _ => None,
    }
}

/// True if a hook watches connections. Otherwise there is nothing to adopt.
fn watches(plan: &Plan) -> bool {
    plan.hooks != HookSet::NONE
}

/// True if the programs note owners, those of listeners included: a connection that is not accepted yet has its
/// listener's owner.
fn asks_owners(options: &Options) -> bool {
    options.owners != name::NO_OWNERS
}

/// Loads the hooks and the iterators of the start. Returns the hook that sees accepts, if the run asks for it, and those
/// that see attempts.
fn load_programs(probe: &Probe, plan: &Plan, options: &Options) -> Result<(Search, Attached), ProbeError> {
    let start = sockets::adopting_programs(asks_owners(options));
    let start = start.into_iter().filter(|_| watches(plan));
    let programs = plan.hooks.programs().chain(start).collect::<Vec<_>>();
    let asks_accepts = options.owners == name::HOLDERS;
    let hooks = match options.accept_hook {
        _ if !asks_accepts => vec![],
        Some(forced) => vec![forced],
        None => AcceptHook::ALL.to_vec(),
    };
    let (accepts, attempts) = probe.load_programs_and_more(&programs, plan, options, &hooks)?;
    if let Some(hook) = accepts.hook {
        log::debug!("who accepts a connection is seen by: {}", hook.name());
    }
    if asks_accepts && let Some(degradation) = plan::accepts(accepts.hook) {
        log_degradation(&degradation);
    }
    Ok((accepts, attempts))
}

/// Warns of a degradation, or mentions it with `-v`.
fn log_degradation(degradation: &Degradation) {
    let level = if degradation.warn { log::Level::Warn } else { log::Level::Debug };
    log::log!(level, "{degradation}");
}
