//! From a plan to running programs: what every command that watches the kernel does first.

use conn_common::name;

use crate::audit::{Audit, Census};
use crate::counters::Counters;
use crate::error::Error;
use crate::host::Host;
use crate::ledger::{Ledger, LedgerReader};
use crate::plan::plan;
use crate::probe::{Options, Probe};
use crate::repair::Repairs;
use crate::snapshot;

/// Running programs that have seen every socket of the host.
pub struct Session {
    /// The programs.
    pub probe: Probe,
    /// What they count about themselves.
    pub counters: Counters,
    ledger: LedgerReader,
    repairs: Repairs,
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
        let counters = Counters::take(probe.ebpf_mut())?;
        let ledger = LedgerReader::take(probe.ebpf_mut())?;
        probe.attach_witnesses(&plan)?;
        probe.enable()?;
        snapshot::adopt_all(&mut probe)?;
        probe.settle()?;
        probe.load_iter(name::TCP_LIST, "tcp")?;
        Ok(Self { probe, counters, ledger, repairs: Repairs::default() })
    }

    /// Holds the ledger against the sockets of the kernel. What is wrong is made good, counted in
    /// [`Self::repaired`], and no longer in the ledger that is returned.
    ///
    /// # Errors
    /// The kernel's maps or sockets cannot be read.
    pub fn audit(&mut self) -> Result<(Ledger, Audit), Error> {
        let mut found = self.look()?;
        if found.1.has_strangers() {
            // Sockets that no witness told of: the walk that adopts them also mends states.
            snapshot::adopt_all(&mut self.probe)?;
            found = self.look()?;
        }
        if self.repairs.learn(&found.1) {
            found = self.look()?;
        }
        Ok(found)
    }

    fn look(&mut self) -> Result<(Ledger, Audit), Error> {
        let before = self.read()?;
        let mut census = Census::default();
        snapshot::list(&mut self.probe, |row| census.count(&row))?;
        let after = self.read()?;
        let audit = Audit::compare(&before, &after, &census);
        Ok((after, audit))
    }

    fn read(&self) -> Result<Ledger, Error> {
        let mut ledger = self.ledger.read()?;
        self.repairs.apply(&mut ledger);
        Ok(ledger)
    }

    /// Connections that the ledger believed open and that were gone.
    pub fn repaired(&self) -> u64 {
        self.repairs.total()
    }
}
