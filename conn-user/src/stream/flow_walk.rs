//! The flows that connection tracking has now, as a source.

use crate::conntrack::owners::Owners;
use crate::conntrack::plan::Scope;
use crate::conntrack::tables::Tables;
use crate::error::Error;
use crate::event::Event;
use crate::filter::value::ranges::Ranges;
use crate::host::clock::WallClock;
use crate::stream::source::{Batch, Item, Source, Take};

/// Every flow in scope of some network namespaces: one batch. No flow is kept in memory.
pub(crate) struct FlowWalk {
    tables: Tables,
    scope: Scope,
    /// The sockets behind flows, in a list that shows them.
    owners: Option<Owners>,
    /// Flows may be missing, since a table changed its shape.
    pub is_partial: bool,
    is_over: bool,
}

impl FlowWalk {
    /// A walk over the tables of all network namespaces, or of `only` those with these inode numbers.
    ///
    /// # Errors
    /// There is no connection tracking.
    pub(crate) fn new(scope: Scope, only: Option<&Ranges>) -> Result<Self, Error> {
        Ok(Self { tables: Tables::open(only)?, scope, owners: None, is_partial: false, is_over: false })
    }

    /// The same with the sockets behind flows.
    #[must_use]
    pub(crate) fn owned(self, owners: Option<Owners>) -> Self {
        Self { owners, ..self }
    }

    /// The first namespace whose table cannot be read, by inode number.
    pub(crate) fn missed(&self) -> Option<u32> {
        self.tables.refused.as_ref().map(|&(netns, _)| netns)
    }

    /// True if a process could not be inspected, so that a namespace may be missing.
    pub(crate) const fn is_denied(&self) -> bool {
        self.tables.denied
    }
}

impl Source for FlowWalk {
    fn next_batch(&mut self, take: &mut Take<'_>) -> Result<Batch, Error> {
        if self.is_over {
            return Ok(Batch::End);
        }
        self.is_over = true;
        let owners = &self.owners;
        let each = |event: &mut Event| {
            if let Some(owner) = owners.as_ref().and_then(|owners| owners.of_socket(event)) {
                event.connection.owner = owner;
            }
            _ = take(Item::Flow(event));
        };
        self.is_partial = self.tables.read(self.scope, &WallClock::probe(), each)?;
        Ok(Batch::Items)
    }
}
