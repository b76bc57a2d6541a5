//! What the host knows about an event's owner and addresses.

pub(crate) mod background;
pub(crate) mod cgroup;
mod cgroup_path;
pub(crate) mod command_line;
pub(crate) mod container_names;
pub(crate) mod dns;
pub(crate) mod existing;
pub(crate) mod interface;
mod runtime_files;

use std::path::Path;
use std::sync::Arc;

use crate::enrich::cgroup::Workloads;
use crate::enrich::command_line::CommandLines;
use crate::enrich::dns::Resolver;
use crate::enrich::interface::Interfaces;
use crate::event::Event;
use crate::event::enriched::Enriched;
use crate::event::workload::Workload;
use crate::filter::Filter;
use crate::filter::expression::PredicateKind;
use crate::filter::workload::WorkloadFilter;

/// When a look-up is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LookUp {
    /// Not at all.
    #[default]
    Never,
    /// When the event comes. The event does not wait, or 20 ms at most.
    AtOnce,
    /// At the end, for the events that remain, see [`Enricher::complete`].
    AtEnd,
}

/// The look-ups of an enricher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Containers and units.
    pub workloads: bool,
    /// A filter asks for names of containers.
    pub filters_containers: bool,
    /// Command lines.
    pub command_lines: LookUp,
    /// Names of addresses.
    pub names: LookUp,
}

impl Wanted {
    /// The look-ups that filters need.
    pub(crate) fn by_filters(filter: &Filter, workload: &WorkloadFilter) -> Self {
        Self {
            workloads: !workload.is_empty() || filter.asks_for_workloads(),
            filters_containers: !workload.containers.is_empty() || filter.decides(PredicateKind::Container),
            ..Self::default()
        }
    }
}

/// Looks up what the kernel does not say. Each event is filled once.
#[derive(Default)]
pub(crate) struct Enricher {
    wanted: Wanted,
    workloads: Option<Workloads>,
    command_lines: Option<CommandLines>,
    resolver: Option<Resolver>,
    interfaces: Interfaces,
}

impl Enricher {
    /// Prepares the look-ups that are wanted. `cgroup_root` is where the cgroup v2 hierarchy is mounted.
    pub(crate) fn new(wanted: Wanted, cgroup_root: Option<&Path>) -> Self {
        Self {
            wanted,
            workloads: wanted.workloads.then(|| Workloads::new(cgroup_root, wanted.filters_containers)),
            command_lines: (wanted.command_lines != LookUp::Never).then(CommandLines::of_host),
            resolver: (wanted.names != LookUp::Never).then(Resolver::start),
            interfaces: Interfaces::default(),
        }
    }

    /// The workload of an event's owner; `None` if it is unknown or not wanted.
    pub(crate) fn workload(&mut self, event: &Event) -> Option<Arc<Workload>> {
        self.workload_of(event.connection.owner.cgroup)
    }

    /// The workload of a cgroup, with the names that are known by now; `None` if it is unknown or not wanted.
    pub(crate) fn workload_of(&mut self, cgroup: u64) -> Option<Arc<Workload>> {
        self.workloads.as_mut()?.get(cgroup)
    }

    /// The name of the interface that an event's socket is bound to; `None` if it is not bound, or the name is unknown.
    pub(crate) fn interface(&mut self, event: &Event) -> Option<Arc<str>> {
        self.interfaces.get(&event.connection)
    }

    /// Fills in what is looked up at once, beside the workload.
    pub(crate) fn enrich(&mut self, event: &Event, workload: Option<Arc<Workload>>) -> Enriched {
        let interface = self.interface(event);
        let mut enriched = Enriched { workload, interface, ..Enriched::from(*event) };
        if let Some(command_lines) = &mut self.command_lines
            && self.wanted.command_lines == LookUp::AtOnce
        {
            enriched.command_line = command_lines.get(&event.connection.owner);
        }
        if let Some(resolver) = &mut self.resolver
            && self.wanted.names == LookUp::AtOnce
        {
            resolver.name(&mut enriched);
        }
        enriched
    }

    /// Fills in what is looked up at the end, and names of containers that came late. Waits for names of addresses,
    /// [`dns::MAX_WAIT`] at most.
    pub(crate) fn complete(&mut self, events: &mut [Enriched]) {
        for event in &mut *events {
            let owner = event.connection.owner;
            if let Some(workload) = self.workloads.as_mut().and_then(|known| known.get(owner.cgroup)) {
                event.workload = Some(workload);
            }
            if let Some(command_lines) = &mut self.command_lines
                && self.wanted.command_lines == LookUp::AtEnd
            {
                event.command_line = command_lines.get(&owner);
            }
        }
        if let Some(resolver) = &mut self.resolver
            && self.wanted.names == LookUp::AtEnd
        {
            resolver.name_all(events);
        }
    }
}
