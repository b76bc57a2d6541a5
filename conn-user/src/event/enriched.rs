//! An event with the host's names and files about it.

use std::net::IpAddr;
use std::ops::{Deref, DerefMut};
use std::slice;
use std::sync::Arc;

use conn_common::owner::Owner;

use crate::event::Event;
use crate::event::workload::{Container, ContainerNames, Workload};

/// An event, and what the enricher found: plain values that no thread changes later. A look-up that was not asked
/// for, or did not end in time, left `None`.
///
/// Renderers and columns read an enriched event like the event itself, so it dereferences to the event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enriched {
    /// The event.
    pub event: Event,
    /// The processes that have the socket open, if there are several and a walk found them; else the owner is all of them.
    pub all_holders: Option<Arc<[Owner]>>,
    /// Where the owner runs.
    pub workload: Option<Arc<Workload>>,
    /// The command line of the owner's process: its arguments with blanks between, any bytes.
    pub command_line: Option<Arc<[u8]>>,
    /// The name of the initiator's address.
    pub src_name: Option<Arc<str>>,
    /// The name of the responder's address.
    pub dst_name: Option<Arc<str>>,
    /// The name of the interface that the socket is bound to.
    pub interface: Option<Arc<str>>,
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link<'a> {
    /// Its name. Needs escapes.
    Name(&'a str),
    /// Its index in the namespace of the socket, where the name is not known.
    Index(u32),
}

impl From<Event> for Enriched {
    /// An event about which nothing else is known.
    fn from(event: Event) -> Self {
        Self {
            event,
            all_holders: None,
            workload: None,
            command_line: None,
            src_name: None,
            dst_name: None,
            interface: None,
        }
    }
}

impl Deref for Enriched {
    type Target = Event;

    fn deref(&self) -> &Event {
        &self.event
    }
}

impl DerefMut for Enriched {
    fn deref_mut(&mut self) -> &mut Event {
        &mut self.event
    }
}

impl Enriched {
    /// The processes that have the socket open, as far as known.
    pub fn processes(&self) -> &[Owner] {
        let owner = &self.connection.owner;
        let owner = if owner.is_known() { slice::from_ref(owner) } else { &[] };
        self.all_holders.as_deref().unwrap_or(owner)
    }

    /// The interface that the socket is bound to; `None` if it is not bound.
    pub fn link(&self) -> Option<Link<'_>> {
        let index = self.interface_index()?;
        Some(self.interface.as_deref().map_or(Link::Index(index), Link::Name))
    }

    /// The interface on which an address is valid; `None` for an address that is valid beyond one link (RFC 4007).
    pub fn scope(&self, ip: IpAddr) -> Option<Link<'_>> {
        match ip {
            IpAddr::V6(ip) if ip.is_unicast_link_local() => self.link(),
            _ => None,
        }
    }

    /// The id of the owner's container; `None` outside of containers.
    pub fn container(&self) -> Option<&str> {
        self.in_container().map(|container| container.id.as_str())
    }

    /// The names of the owner's container; `None` outside of containers.
    pub fn container_names(&self) -> Option<&ContainerNames> {
        self.in_container().map(|container| &container.names)
    }

    fn in_container(&self) -> Option<&Container> {
        self.workload.as_ref()?.container.as_ref()
    }

    /// The user whose runtime made the owner's container; `None` for the host's runtimes and outside of containers.
    pub fn container_user(&self) -> Option<u32> {
        self.in_container()?.user
    }

    /// The owner's unit of the host's service manager; `None` outside of units.
    pub fn unit(&self) -> Option<&str> {
        self.workload.as_ref()?.unit.as_deref()
    }

    /// The owner's unit of a user's service manager; `None` outside of such units.
    pub fn user_unit(&self) -> Option<&str> {
        self.workload.as_ref()?.user_unit.as_deref()
    }
}
