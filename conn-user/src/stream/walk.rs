//! A walk over the sockets that exist now, as a source.

use crate::error::Error;
use crate::host::namespace::Found;
use crate::kernel::iterator::Walked;
use crate::kernel::probe::Probe;
use crate::kernel::sockets::{self, Holders};
use crate::stream::source::{Batch, Item, Source, Take};
use crate::stream::time_wait::Responders;

/// Every socket of some network namespaces: one batch.
pub(crate) struct SocketWalk<'a> {
    probe: &'a Probe,
    found: &'a Found,
    holders: &'a Holders,
    walked: Option<Walked>,
}

impl<'a> SocketWalk<'a> {
    /// Walks the sockets of the namespaces that were found, as far as the filters of `probe` let them through.
    /// `holders` says which processes have them open.
    pub(crate) const fn new(probe: &'a Probe, found: &'a Found, holders: &'a Holders) -> Self {
        Self { probe, found, holders, walked: None }
    }

    /// The first namespace that could not be entered, by inode number.
    pub(crate) fn missed(&self) -> Option<u32> {
        self.walked.as_ref()?.refused.first().map(|&(inode, _)| inode)
    }
}

impl Source for SocketWalk<'_> {
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error> {
        if self.walked.is_some() {
            return Ok(Batch::End);
        }
        let (holders, mut wanted) = (self.holders, true);
        let mut responders = Responders::default();
        // The kernel does not count half-open connections.
        let may_skip = |_| !self.probe.lists_half_open();
        let walked = sockets::list(self.probe, self.found, may_skip, |mut row| {
            if row.is_hint != 0 {
                responders.note_listener(&row.connection);
                return;
            }
            responders.direct(&mut row.connection, row.protocol);
            wanted = wanted && take(Item::Socket(&row, holders.of(&row).as_deref())).is_continue();
        })?;
        walked.warn("sockets there are missing");
        for inode in &self.found.hidden {
            log::warn!(
                "network namespace {inode} has no process and no file: connections there that no process has open \
                 are missing"
            );
        }
        self.walked = Some(walked);
        Ok(Batch::Items)
    }
}
