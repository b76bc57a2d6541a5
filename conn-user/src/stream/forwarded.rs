//! Flows that connection tracking reports, as a source.

use std::fs::File;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::sleep;

use crate::conntrack::account::Account;
use crate::conntrack::counts::Counts;
use crate::conntrack::plan::{Heard, Plan};
use crate::conntrack::tracker::Tracker;
use crate::error::Error;
use crate::filter::value::ranges::Ranges;
use crate::host::facts::Host;
use crate::output::async_fd::register;
use crate::stream::flow_owners::{FlowOwners, Missed};
use crate::stream::source::{Batch, Item, Source, Take};

/// How long messages gather before the next read: a wake-up for each would cost more than the message.
const GATHER: Duration = Duration::from_millis(1);

/// The watches over all network namespaces.
pub(crate) struct FlowSource {
    tracker: Tracker,
    ready: AsyncFd<File>,
    is_begun: bool,
    /// The processes behind flows, in a run that shows them.
    owners: Option<FlowOwners>,
    host: Host,
}

impl FlowSource {
    /// Watches all network namespaces, or `only` those with these inode numbers. The first batch has read the flows that
    /// exist. Needs a tokio runtime.
    ///
    /// # Errors
    /// There is no connection tracking.
    pub(crate) fn new(plan: Plan, only: Option<Ranges>, host: &Host) -> Result<Self, Error> {
        let tracker = Tracker::new(plan, only)?;
        let error = |source| Error::Io { context: "polling connection tracking".into(), source };
        let ready =
            tracker.descriptor().and_then(|file| register(file, Interest::READABLE)).map_err(error)?;
        Ok(Self { tracker, ready, is_begun: false, owners: None, host: host.clone() })
    }

    /// The same with the processes behind flows.
    #[must_use]
    pub(crate) fn owned(self, owners: Option<FlowOwners>) -> Self {
        Self { owners, ..self }
    }

    /// The watches.
    pub(crate) const fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    /// Waits until another batch is worthwhile. `quiet` if the last batch was idle.
    ///
    /// # Errors
    /// The sockets cannot be polled any more.
    pub(crate) async fn wait(&mut self, quiet: bool) -> Result<(), Error> {
        let due_in = self.tracker.due_in();
        if !quiet {
            sleep(GATHER.min(due_in)).await;
            return Ok(());
        }
        let Self { ready, owners, .. } = self;
        let sockets = async {
            match owners {
                Some(owners) => owners.wait(true).await,
                None => std::future::pending().await,
            }
        };
        let error = |source| Error::Io { context: "polling connection tracking".into(), source };
        tokio::select! {
            ready = ready.readable() => ready.map_err(error)?.clear_ready(),
            waited = sockets => waited?,
            // Only a batch that finds nothing waits again.
            () = sleep(due_in) => {}
        }
        Ok(())
    }

    /// See [`FlowOwners::unnamed`].
    pub(crate) fn unnamed(&self) -> Option<(u64, Missed)> {
        self.owners.as_ref()?.unnamed()
    }

    /// See [`Tracker::accounts`].
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(crate) fn accounts(&mut self, take: &mut Take<'_>) -> Result<Vec<Account>, Error> {
        let Self { tracker, owners, .. } = self;
        let mut hearer = Hearer { owners: owners.as_mut(), take, failed: None };
        let accounts = tracker.accounts(&mut |heard| hearer.hear(heard))?;
        hearer.failed.map_or(Ok(accounts), Err)
    }

    /// Takes what is left, see [`Tracker::finish`].
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(crate) fn finish(&mut self, dumps: bool, take: &mut Take<'_>) -> Result<Counts, Error> {
        let Self { tracker, owners, .. } = self;
        let mut hearer = Hearer { owners: owners.as_mut(), take, failed: None };
        tracker.finish(dumps, &mut |heard| hearer.hear(heard))?;
        hearer.failed.map_or(Ok(()), Err)?;
        Ok(self.tracker.counts())
    }
}

impl Source for FlowSource {
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error> {
        let Self { tracker, owners, is_begun, host, .. } = self;
        tracker.refresh_clock();
        let mut hearer = Hearer { owners: owners.as_mut(), take, failed: None };
        let mut hear = |heard: Heard<'_>| hearer.hear(heard);
        let mut was_something = if *is_begun { tracker.read(&mut hear)? } else { false };
        if !*is_begun {
            tracker.begin(&mut hear)?;
        }
        hearer.failed.map_or(Ok(()), Err)?;
        if let Some(owners) = owners {
            if !*is_begun {
                owners.end_start();
            }
            was_something |= owners.catch_up()?;
            owners.end_round(host)?;
        }
        *is_begun = true;
        Ok(if was_something { Batch::Items } else { Batch::Idle })
    }
}

/// Hears what the watches report, and passes it on with the owners of flows.
struct Hearer<'a, 'b> {
    owners: Option<&'a mut FlowOwners>,
    take: &'a mut Take<'b>,
    /// The first failure to read what the programs reported.
    failed: Option<Error>,
}

impl Hearer<'_, '_> {
    fn hear(&mut self, heard: Heard<'_>) {
        let Self { owners, take, failed } = self;
        match heard {
            Heard::Read => {
                if let Some(owners) = owners
                    && let Err(error) = owners.catch_up()
                {
                    failed.get_or_insert(error);
                }
            }
            Heard::Begun(flow) => {
                if let Some(owners) = owners {
                    owners.name(flow);
                }
            }
            // Messages cannot go back into a socket, so all of a batch are taken: the pipeline counts those that it does not
            // want.
            Heard::Event(flow) => _ = take(Item::Flow(flow)),
            Heard::Lost(lost) => _ = take(Item::Lost(lost)),
        }
    }
}
