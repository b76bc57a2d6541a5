//! Flows that connection tracking reports, as a source.

use std::fs::File;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::conntrack::account::Account;
use crate::conntrack::tracker::Tracker;
use crate::conntrack::watch::{Counts, Heard, Plan};
use crate::error::Error;
use crate::filter::value::ranges::Ranges;
use crate::output::async_fd::register;
use crate::stream::source::{Batch, Item, Source, Take};

/// How long messages gather before the next read: a wake-up for each would cost more than the message.
const GATHER: Duration = Duration::from_millis(1);

/// The watches over all network namespaces.
pub(crate) struct FlowSource {
    tracker: Tracker,
    ready: AsyncFd<File>,
}

impl FlowSource {
    /// Watches all network namespaces, or `only` those with these inode numbers. Returns when the flows that exist are
    /// known. Needs a tokio runtime.
    ///
    /// # Errors
    /// There is no connection tracking, or it cannot be read.
    pub(crate) fn start(plan: Plan, only: Option<Ranges>) -> Result<Self, Error> {
        let tracker = Tracker::start(plan, only)?;
        let error = |source| Error::Io { context: "polling connection tracking".into(), source };
        let ready =
            tracker.descriptor().and_then(|file| register(file, Interest::READABLE)).map_err(error)?;
        Ok(Self { tracker, ready })
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
        if let Ok(ready) = timeout(due_in, self.ready.readable()).await {
            let error = |source| Error::Io { context: "polling connection tracking".into(), source };
            // Only a batch that finds nothing waits again.
            ready.map_err(error)?.clear_ready();
        }
        Ok(())
    }

    /// See [`Tracker::accounts`].
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(crate) fn accounts(&mut self, take: &mut Take<'_>) -> Result<Vec<Account>, Error> {
        Ok(self.tracker.accounts(&mut |heard| pass_on(heard, take))?)
    }

    /// Takes what is left, see [`Tracker::finish`].
    ///
    /// # Errors
    /// A socket cannot be read any more.
    pub(crate) fn finish(&mut self, dumps: bool, take: &mut Take<'_>) -> Result<Counts, Error> {
        self.tracker.finish(dumps, &mut |heard| pass_on(heard, take))?;
        Ok(self.tracker.counts())
    }
}

impl Source for FlowSource {
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error> {
        self.tracker.refresh_clock();
        let was_something = self.tracker.read(&mut |heard| pass_on(heard, take))?;
        Ok(if was_something { Batch::Items } else { Batch::Idle })
    }
}

/// Messages cannot go back into a socket, so all of a batch are taken: the pipeline counts those that it does not want.
fn pass_on(heard: Heard<'_>, take: &mut Take<'_>) {
    _ = take(match heard {
        Heard::Event(event) => Item::Flow(event),
        Heard::Lost(lost) => Item::Lost(lost),
    });
}
