//! Counts of UDP flows: those of the programs, and those of the sweep over the table.

use std::collections::BTreeMap;

use conn_common::cause::Cause;
use conn_common::connection::Connection;
use conn_common::flow::{RECEIVED, SENT};
use conn_common::flow_counts::{
    BYTES_RECEIVED, BYTES_SENT, FlowCounts, FlowTraffic, PACKETS_RECEIVED, PACKETS_SENT, end_cell, from_index,
};
use conn_common::name;

use crate::kernel::map::{HashMap, MapError};
use crate::kernel::mapped::MappedArray;
use crate::kernel::probe::Probe;

/// Counts by direction and service port, and packets by network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowTally {
    /// By direction and service port.
    pub ports: BTreeMap<(u8, u16), FlowCounts>,
    /// By inode number of the network namespace: packets of flows that ended.
    pub netns: BTreeMap<u32, FlowTraffic>,
}

impl FlowTally {
    /// Counts the end of a flow.
    pub(crate) fn count_end(&mut self, connection: &Connection, cause: Cause) {
        self.port(connection).cells[end_cell(cause as u8)] += 1;
    }

    /// Counts packets, and payload bytes that were sent and received.
    pub(crate) fn add_traffic(&mut self, connection: &Connection, (traffic, bytes): (FlowTraffic, [u64; 2])) {
        if traffic.packets == [0; 2] {
            return;
        }
        let cells = &mut self.port(connection).cells;
        cells[PACKETS_SENT] += traffic.packets[SENT];
        cells[PACKETS_RECEIVED] += traffic.packets[RECEIVED];
        cells[BYTES_SENT] += bytes[SENT];
        cells[BYTES_RECEIVED] += bytes[RECEIVED];
        self.netns.entry(connection.netns).or_default().add(&traffic);
    }

    fn port(&mut self, connection: &Connection) -> &mut FlowCounts {
        self.ports.entry((connection.direction, connection.dport)).or_default()
    }

    /// Adds another's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for (key, counts) in &other.ports {
            self.ports.entry(*key).or_default().add(counts);
        }
        for (netns, traffic) in &other.netns {
            self.netns.entry(*netns).or_default().add(traffic);
        }
    }

    /// Adds packets by network namespace.
    pub(crate) fn add_packets(&mut self, packets: &BTreeMap<u32, FlowTraffic>) {
        for (netns, traffic) in packets {
            self.netns.entry(*netns).or_default().add(traffic);
        }
    }

    /// The sum over all ports.
    pub(crate) fn total(&self) -> FlowCounts {
        let mut total = FlowCounts::default();
        self.ports.values().for_each(|counts| total.add(counts));
        total
    }
}

/// How often a reading is tried again in which a flow ended before it began.
const TRIES: usize = 100;

/// Reads the counts of the programs.
#[derive(Debug)]
pub(crate) struct FlowCountReader {
    ports: MappedArray<FlowCounts>,
    netns: HashMap<u32, FlowTraffic>,
}

impl FlowCountReader {
    /// Opens the maps.
    ///
    /// # Errors
    /// A map cannot be opened.
    pub(crate) fn new(probe: &Probe) -> Result<Self, MapError> {
        Ok(Self { ports: probe.map(name::FLOW_COUNTS)?, netns: probe.map(name::FLOW_NETNS)? })
    }

    /// The counts of the programs and of the sweep together. No port has a negative number of open flows.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(crate) fn read(&self, swept: &FlowTally) -> Result<FlowTally, MapError> {
        let mut tally = FlowTally::default();
        for _ in 0..TRIES {
            tally = self.read_once()?;
            tally.add(swept);
            // A program counts a flow just after other programs can see it, and may end it.
            if tally.ports.values().all(|counts| counts.open() >= 0) {
                break;
            }
        }
        Ok(tally)
    }

    fn read_once(&self) -> Result<FlowTally, MapError> {
        let mut tally = FlowTally::default();
        self.ports.each(|index, cells| {
            if cells.iter().any(|&cell| cell != 0) {
                let mut counts = FlowCounts::default();
                counts.cells.copy_from_slice(cells);
                tally.ports.insert(from_index(index), counts);
            }
        })?;
        tally.netns = self.netns.entries()?.into_iter().collect();
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use conn_common::flow_counts::{BEGUN, CLOSED};

    use super::*;

    #[test]
    fn both_sides_add_up() {
        let connection = Connection { dport: 53, netns: 7, ..Connection::UNSEEN };
        let mut swept = FlowTally::default();
        swept.count_end(&connection, Cause::ClosedByUs);
        let traffic = FlowTraffic { packets: [2, 3], merged: [0, 1] };
        swept.add_traffic(&connection, (traffic, [20, 30]));
        swept.add_traffic(&connection, (FlowTraffic::default(), [0, 0]));
        let mut programs = FlowTally::default();
        programs.port(&connection).cells[BEGUN] = 2;
        programs.add(&swept);
        programs.add_packets(&swept.netns);
        let total = programs.total();
        assert_eq!((total.cells[CLOSED], total.open(), total.cells[BYTES_RECEIVED]), (1, 1, 30));
        assert_eq!(programs.netns[&7], FlowTraffic { packets: [4, 6], merged: [0, 2] });
    }
}
