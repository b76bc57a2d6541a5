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
use crate::kernel::iterator::{AdoptIterator, WalkError};
use crate::kernel::load_options::Options;
use crate::kernel::map::MapError;
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
}

impl Session {
    /// Plans for the host, loads, attaches, switches on and adopts the sockets that exist.
    ///
    /// # Errors
    /// What this host lacks or refuses, with the remedy.
    pub fn start(host: &Host, options: &Options) -> Result<Self, StartError> {
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
            let refused = match Self::start_as_planned(&plan, options) {
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

    /// Loads, attaches, switches on and adopts.
    fn start_as_planned(plan: &Plan, options: &Options) -> Result<Self, StartError> {
        let probe = Probe::load(plan, options)?;
        let counters = Arc::new(Counters::new(&probe)?);
        let ((accepts, attempts), asks_owners) =
            (load_programs(&probe, plan, options)?, asks_owners(options));
        let sight = Sight {
            begun: plan.hooks.sock_ops,
            refused: attempts.refused,
            ..probe.sight().filtered(&options.filter)
        };
        probe.attach_hooks(plan)?;
        let flow_drops = match plan.cgroup_root.as_deref().filter(|_| options.flows.is_some()) {
            Some(root) => probe.attach_flows(root, options)?,
            None => false,
        };
        probe.enable()?;
        if options.flows.is_some() && asks_owners {
            AdoptIterator::of_flow_owners(&probe)?.each(|()| {})?;
        }
        if options.kinds != 0 {
            // Without events, the first report loads more programs.
            probe.release_btf();
        }
        let adopted = if watches(plan) { sockets::adopt_all(&probe, asks_owners)? } else { BTreeSet::new() };
        Ok(Self { probe: Arc::new(probe), counters, plan: plan.clone(), accepts, sight, flow_drops, adopted })
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
