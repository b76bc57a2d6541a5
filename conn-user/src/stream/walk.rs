//! A walk over the sockets that exist now, as a source.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::host::namespace::Namespace;
use crate::kernel::probe::Probe;
use crate::kernel::sockets::{self, Holders};
use crate::stream::source::{Batch, Item, Source, Take};
use crate::stream::time_wait::Responders;

/// Every TCP socket of some network namespaces: one batch.
pub(crate) struct SocketWalk<'a> {
    probe: &'a Probe,
    namespaces: &'a [Namespace],
    holders: &'a Holders,
    walked: Option<BTreeSet<u32>>,
}

impl<'a> SocketWalk<'a> {
    /// Walks the sockets of `namespaces` that the filters of `probe` let through. `holders` says which processes have
    /// them open.
    pub(crate) const fn new(probe: &'a Probe, namespaces: &'a [Namespace], holders: &'a Holders) -> Self {
        Self { probe, namespaces, holders, walked: None }
    }

    /// The first namespace that was not walked, by inode number.
    pub(crate) fn missed(&self) -> Option<u32> {
        let walked = self.walked.as_ref();
        let is_missed = |inode: &u32| walked.is_none_or(|walked| !walked.contains(inode));
        self.namespaces.iter().map(|namespace| namespace.inode).find(is_missed)
    }
}

impl Source for SocketWalk<'_> {
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error> {
        if self.walked.is_some() {
            return Ok(Batch::End);
        }
        let (holders, mut wanted) = (self.holders, true);
        let mut responders = Responders::new(self.namespaces);
        let walked = sockets::list(self.probe, self.namespaces, |mut row| {
            if row.is_hint != 0 {
                responders.note_listener(&row.connection);
                return;
            }
            responders.direct(&mut row.connection);
            wanted = wanted && take(Item::Socket(&row, holders.of(&row))).is_continue();
        })?;
        self.walked = Some(walked);
        Ok(Batch::Items)
    }
}
