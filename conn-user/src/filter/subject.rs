//! What a filter judges.

use conn_common::connection::Connection;
use conn_common::protocol::TCP;

use crate::event::Event;
use crate::event::workload::Workload;

/// A connection, and what else is known of it. A test of something unknown fails.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The connection.
    pub connection: &'a Connection,
    /// Its protocol (`IPPROTO_*`).
    pub protocol: u8,
    /// The event of it.
    pub event: Option<&'a Event>,
    /// The mark of its socket; `None` if the kernel does not show it.
    pub mark: Option<u32>,
    /// The name of the interface that its socket is bound to.
    pub interface: Option<&'a str>,
    /// Where its owner runs.
    pub workload: Option<&'a Workload>,
}

impl<'a> From<&'a Connection> for Subject<'a> {
    fn from(connection: &'a Connection) -> Self {
        Self { connection, protocol: TCP, event: None, mark: None, interface: None, workload: None }
    }
}

impl<'a> From<&'a Event> for Subject<'a> {
    fn from(event: &'a Event) -> Self {
        Self { event: Some(event), protocol: event.protocol, ..Self::from(&event.connection) }
    }
}

impl Subject<'_> {
    /// Payload bytes sent and received; `None` if they are not known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        let event = self.event.filter(|event| event.has_traffic())?;
        Some(event.traffic.bytes_sent.saturating_add(event.traffic.bytes_received))
    }
}
