//! From a plan to running programs: what every command that watches the kernel does first.

use crate::counters::Counters;
use crate::error::Error;
use crate::host::Host;
use crate::plan::plan;
use crate::probe::{Options, Probe};
use crate::snapshot;

/// Running programs that have seen every socket of the host.
pub struct Session {
    /// The programs.
    pub probe: Probe,
    /// What they count about themselves.
    pub counters: Counters,
}

impl Session {
    /// Looks at the host, loads, attaches, switches on and adopts the sockets that exist.
    ///
    /// # Errors
    /// What this host lacks or refuses, with the remedy.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let host = Host::look();
        log::debug!("host: {host:?}");
        let plan = plan(&host)?;
        log::debug!("plan: {plan:?}");
        for degradation in &plan.degradations {
            log::warn!("{degradation}");
        }
        let mut probe = Probe::load(&plan, options)?;
        probe.attach_witnesses(&plan)?;
        let counters = Counters::take(probe.ebpf_mut())?;
        probe.enable()?;
        snapshot::adopt_all(&mut probe)?;
        probe.settle()?;
        Ok(Self { probe, counters })
    }
}
