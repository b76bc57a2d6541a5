//! What is watched in each network namespace, and what a watch reports.

use crate::event::Event;
use crate::event::entry::Change;
use crate::event::kind::{Kind, KindSet};
use crate::event::lost::Lost;

/// Which flows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of which neither the source nor the source of replies is an address of their network namespace.
    Forwarded,
    /// Every flow that is tracked.
    All,
}

/// What a watch reports.
#[derive(Debug)]
pub(crate) enum Heard<'a> {
    /// Messages were read. What they report follows.
    Read,
    /// A flow in scope begins, or is from before the run. The hearer may fill in the owner, which all its events have.
    Begun(&'a mut Event),
    /// An event of a flow in scope.
    Event(&'a mut Event),
    /// Messages were lost.
    Lost(Lost),
}

/// Takes what a watch reports.
pub(crate) type Hear<'a> = dyn FnMut(Heard<'_>) + 'a;

/// What is watched in each network namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Which flows are shown.
    pub scope: Scope,
    /// The kinds of events.
    pub kinds: KindSet,
    /// The room of each group for messages, bytes.
    pub buffer: usize,
    /// The run shows the owners of flows. Their beginnings show them.
    pub owners: bool,
}

impl Plan {
    /// True if the flows that are alive are remembered, so that dumps find those from before the run, and ends in time.
    pub(super) const fn dumps(&self) -> bool {
        self.kinds.contains(Kind::Destroy) || (self.owners && self.kinds.contains(Kind::Update))
    }

    /// True if messages about a change are needed.
    pub(super) const fn joins(&self, change: Change) -> bool {
        let needs = match change {
            // The beginning shows the owner, and gives the lifetime.
            Change::New => self.owners || self.dumps(),
            Change::Update => false,
            Change::Destroy => self.dumps(),
        };
        needs || self.kinds.contains(change.kind())
    }
}
