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

/// Counts by direction and service port.
pub(crate) type Ports = BTreeMap<(u8, u16), FlowCounts>;
/// Packets by inode number of the network namespace.
pub(crate) type Packets = BTreeMap<u32, FlowTraffic>;

/// What the sweep counts: flows that it ended, and packets that it took out of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FlowTally {
    pub ports: Ports,
    /// Packets of flows that ended.
    pub netns: Packets,
}

impl FlowTally {
    /// Counts the end of a flow.
    pub(crate) fn count_end(&mut self, connection: &Connection, cause: Cause) {
        self.port(connection).cells[end_cell(cause as u8)] += 1;
    }

    /// Counts packets, and payload bytes that were sent and received.
    pub(crate) fn add_traffic(&mut self, connection: &Connection, (traffic, bytes): (FlowTraffic, [u64; 2])) {
        if traffic == FlowTraffic::default() && bytes == [0; 2] {
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
}

/// The sum over all ports.
pub(crate) fn total(ports: &Ports) -> FlowCounts {
    let mut total = FlowCounts::default();
    for counts in ports.values() {
        total.add(counts);
    }
    total
}

fn add_ports(sum: &mut Ports, others: &Ports) {
    for (key, counts) in others {
        sum.entry(*key).or_default().add(counts);
    }
}

/// Adds packets of each namespace.
pub(crate) fn add_packets(sum: &mut Packets, others: &Packets) {
    for (netns, traffic) in others {
        sum.entry(*netns).or_default().add(traffic);
    }
}

/// How often a reading is tried again in which a flow ended before it began.
const TRIES: usize = 5;

/// Reads the counts of the programs.
#[derive(Debug)]
pub(crate) struct FlowCountReader {
    ports: MappedArray<FlowCounts>,
    netns: HashMap<u64, FlowTraffic>,
}

impl FlowCountReader {
    /// Opens the maps.
    ///
    /// # Errors
    /// A map cannot be opened.
    pub(crate) fn new(probe: &Probe) -> Result<Self, MapError> {
        Ok(Self { ports: probe.map(name::FLOW_COUNTS)?, netns: probe.map(name::FLOW_NETNS)? })
    }

    /// The counts of the programs and of the sweep together.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn ports(&self, swept: &Ports) -> Result<Ports, MapError> {
        let mut ports = Ports::new();
        for _ in 0..TRIES {
            ports.clear();
            self.ports.each(|index, cells| {
                if cells.iter().any(|&cell| cell != 0) {
                    let mut counts = FlowCounts::default();
                    counts.cells.copy_from_slice(cells);
                    ports.insert(from_index(index), counts);
                }
            })?;
            add_ports(&mut ports, swept);
            // A program counts a flow just after other programs can see it, and may end it.
            if ports.values().all(|counts| counts.open() >= 0) {
                break;
            }
        }
        Ok(ports)
    }

    /// The packets that the programs counted.
    ///
    /// # Errors
    /// The map cannot be read.
    pub(crate) fn packets(&self) -> Result<Packets, MapError> {
        let mut packets = Packets::new();
        for (key, traffic) in self.netns.entries()? {
            // The upper half of the key is the CPU.
            packets.entry(key as u32).or_default().add(&traffic);
        }
        Ok(packets)
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
        add_ports(&mut programs.ports, &swept.ports);
        add_packets(&mut programs.netns, &swept.netns);
        add_packets(&mut programs.netns, &swept.netns);
        let total = total(&programs.ports);
        assert_eq!((total.cells[CLOSED], total.open(), total.cells[BYTES_RECEIVED]), (1, 1, 30));
        assert_eq!(programs.netns[&7], FlowTraffic { packets: [4, 6], merged: [0, 2] });
    }
}
