//! The look after what the counts depend on: the pins, the hooks, and the room in the kernel's maps. It also notes the sums
//! for the case that the next daemon must begin a new epoch.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use conn_common::connection::{IN, OUT};
use conn_common::ledger::Cells;
use conn_common::pin::{DirectionSums, EpochSums, NO_DIRECTION};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::error::Error;
use crate::host::clock;
use crate::host::refusal::chain;
use crate::kernel::counters::Failures;
use crate::kernel::pin::{Harm, Pinned, Service};
use crate::kernel::session::Session;
use crate::ledger::auditor::AuditError;
use crate::ledger::reader::{Ledger, LedgerReader};
use crate::ledger::repair::RepairMap;

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Time between two notes of the sums.
const NOTE_EVERY: Duration = Duration::from_secs(10);
/// Time between two warnings of failures that go on.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Looks, and remembers what it saw.
#[derive(Debug)]
pub(crate) struct Lookout<'a> {
    session: &'a Session,
    pinned: Option<&'a Pinned>,
    reader: LedgerReader,
    harm: BTreeSet<Harm>,
    failures: u64,
    warned: Option<Instant>,
    noted: Option<Instant>,
}

impl<'a> Lookout<'a> {
    /// Begins.
    ///
    /// # Errors
    /// The maps of the session cannot be opened.
    pub(crate) fn new(service: &'a Service) -> Result<Self, Error> {
        let (session, pinned) = (&service.session, service.pinned.as_ref());
        let reader = LedgerReader::new(&session.probe).map_err(AuditError::from)?;
        Ok(Self { session, pinned, reader, harm: BTreeSet::new(), failures: 0, warned: None, noted: None })
    }

    /// Looks and notes. Never returns.
    pub(crate) async fn run(&mut self) -> Infallible {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look();
            if self.noted.is_none_or(|then| then.elapsed() >= NOTE_EVERY) {
                self.note();
            }
        }
    }

    fn look(&mut self) {
        if let Some(pinned) = self.pinned {
            let harm: BTreeSet<_> = pinned.harm().into_iter().collect();
            for new in harm.difference(&self.harm) {
                log::warn!("{new}");
            }
            for old in self.harm.difference(&harm) {
                log::warn!("no longer true: {old}");
            }
            self.harm = harm;
        }
        let Ok(counters) = self.session.counters.read() else { return };
        let failures = Failures::of(&counters);
        let is_quiet = self.warned.is_some_and(|then| then.elapsed() < WARN_EVERY);
        if failures.total() > self.failures && !is_quiet {
            (self.failures, self.warned) = (failures.total(), Some(Instant::now()));
            log::warn!(
                "the kernel programs had no room or no memory, so counts or owners may be missing ({failures} since counting \
                 began): raise MemoryMax= of the unit if it is set; docs/exactness.md lists what each number means"
            );
        }
    }

    /// Notes the sums beside the counts. A failure is no harm to the counts.
    pub(crate) fn note(&mut self) {
        let Some(pinned) = self.pinned else { return };
        self.noted = Some(Instant::now());
        let noted = self.sums().map_err(|error| chain(&error)).and_then(|sums| {
            let done = pinned.note(sums);
            done.map_err(|error| chain(&error))
        });
        if let Err(reason) = noted {
            log::debug!("the sums are not noted: {reason}");
        }
    }

    fn sums(&self) -> Result<EpochSums, AuditError> {
        let mut ledger = self.reader.read()?;
        RepairMap::new(&self.session.probe)?.repairs().apply(&mut ledger);
        Ok(EpochSums {
            noted_unix_ns: clock::unix_now_ns().unsigned_abs(),
            noted_boot_ns: clock::boot_now_ns(),
            directions: directions(&ledger),
        })
    }
}

/// The sums of a ledger by direction.
fn directions(ledger: &Ledger) -> [DirectionSums; 3] {
    let mut directions = [DirectionSums::default(); 3];
    for (&(direction, _), counts) in &ledger.ports {
        let at = if direction == IN || direction == OUT { direction.into() } else { NO_DIRECTION };
        add(&mut directions[at], counts);
    }
    if let Some(counts) = &ledger.unattributed {
        add(&mut directions[NO_DIRECTION], counts);
    }
    directions
}

fn add(sums: &mut DirectionSums, counts: &impl Cells) {
    sums.opened += counts.opened();
    sums.preexisting += counts.preexisting();
    sums.established += counts.established();
    sums.failed += counts.failed();
    sums.closed += counts.closed();
    sums.bytes_sent += counts.bytes_sent();
    sums.bytes_received += counts.bytes_received();
}

#[cfg(test)]
mod tests {
    use conn_common::cause::Cause;
    use conn_common::ledger::Slot;
    use conn_common::state;

    use super::*;
    use crate::ledger::counts::Counts;

    #[test]
    fn sums_are_by_direction_and_leave_nothing_out() {
        let mut slot = Slot::ZERO;
        slot.count_opened(state::SYN_SENT);
        slot.count_step(state::SYN_SENT, state::ESTABLISHED);
        slot.count_end(state::ESTABLISHED, Cause::Unknown);
        let counts = Counts::of(&slot);
        let ports = [((OUT, 1), counts.clone()), ((OUT, 2), counts.clone()), ((IN, 1), counts.clone())];
        let mut ledger = Ledger::default();
        ledger.ports.extend(ports);
        ledger.unattributed = Some(counts);
        let found = directions(&ledger).map(|sums| (sums.opened, sums.established, sums.closed));
        assert_eq!(found, [(1, 1, 1), (2, 2, 2), (1, 1, 1)]);
    }
}
