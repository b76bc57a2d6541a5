//! Counts of UDP flows per direction and service port, and of packets per network namespace.
//!
//! A flow is counted when it begins, at each step, and when it ends. Its packets and bytes are counted when it ends, so that a
//! packet costs nothing more. `begun + preexisting = closed + timed out + refused + open`.

use crate::cause::Cause;

/// Flows whose first packet came while conntrace watched.
pub const BEGUN: usize = 0;
/// Flows of sockets that were connected to the peer before the start.
pub const PREEXISTING: usize = 1;
/// Flows with packets both ways.
pub const REPLIED: usize = 2;
/// Flows that became a stream, see [`crate::flow::ASSURED`].
pub const ASSURED: usize = 3;
/// Flows that ended with their socket.
pub const CLOSED: usize = 4;
/// Flows that ended by their idle time.
pub const TIMED_OUT: usize = 5;
/// Flows whose socket closed after the peer's host had refused a packet.
pub const REFUSED: usize = 6;
/// Packets that flows which ended had sent, each segment of a GSO packet by itself.
pub const PACKETS_SENT: usize = 7;
/// Packets that flows which ended had received, likewise.
pub const PACKETS_RECEIVED: usize = 8;
/// Payload bytes that flows which ended had sent.
pub const BYTES_SENT: usize = 9;
/// Payload bytes that flows which ended had received.
pub const BYTES_RECEIVED: usize = 10;
/// Packets that found the receive buffer of a socket full. The entry is that of incoming flows and the socket's own port.
pub const DROPPED: usize = 11;
/// Cells of one entry. Those behind the last one are reserved.
pub const CELLS: usize = 16;

/// Entries: two directions of all ports.
pub const ENTRIES: u32 = 2 << 16;

/// The counts of one direction and service port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowCounts {
    /// By the numbers above.
    pub cells: [u64; CELLS],
}

impl FlowCounts {
    /// Adds another's cells.
    pub fn add(&mut self, other: &Self) {
        for (sum, cell) in self.cells.iter_mut().zip(other.cells) {
            *sum = sum.wrapping_add(cell);
        }
    }

    /// Flows that ended.
    pub const fn ended(&self) -> u64 {
        self.cells[CLOSED] + self.cells[TIMED_OUT] + self.cells[REFUSED]
    }

    /// Flows that are alive. A negative number means that a flow ended between two reads of its cells.
    pub const fn open(&self) -> i64 {
        (self.cells[BEGUN] + self.cells[PREEXISTING]).wrapping_sub(self.ended()).cast_signed()
    }
}

/// The entry of a direction and service port.
#[inline(always)]
pub const fn index(direction: u8, port: u16) -> u32 {
    ((direction & 1) as u32) << 16 | port as u32
}

/// Direction and service port of an entry.
pub const fn from_index(index: u32) -> (u8, u16) {
    ((index >> 16) as u8, index as u16)
}

/// The cell of an end, by the number of its cause.
#[inline(always)]
pub const fn end_cell(cause: u8) -> usize {
    if cause == Cause::TimedOut as u8 {
        TIMED_OUT
    } else if cause == Cause::Refused as u8 {
        REFUSED
    } else {
        CLOSED
    }
}

/// Entries of a network namespace: CPUs that wrote to one would wait for each other.
pub const NETNS_SHARDS: u32 = 8;

/// The entry of a network namespace on a CPU.
#[inline(always)]
pub const fn netns_key(netns: u32, cpu: u32) -> u64 {
    netns as u64 | ((cpu % NETNS_SHARDS) as u64) << 32
}

/// The packets of one network namespace, sent and received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowTraffic {
    /// Packets of flows that ended, and packets that were counted in no flow.
    pub packets: [u64; 2],
    /// Of these, segments beyond the first of GSO and GRO packets: the kernel's counters count such a packet once.
    pub merged: [u64; 2],
}

impl FlowTraffic {
    /// Adds another's.
    pub fn add(&mut self, other: &Self) {
        for way in 0..2 {
            self.packets[way] += other.packets[way];
            self.merged[way] += other.merged[way];
        }
    }

    /// Packets as the kernel counts them.
    pub const fn datagrams(&self, way: usize) -> u64 {
        self.packets[way].saturating_sub(self.merged[way])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{IN, OUT};

    #[test]
    fn an_entry_has_a_direction_and_a_port() {
        for (direction, port) in [(IN, 0), (IN, u16::MAX), (OUT, 0), (OUT, 53), (OUT, u16::MAX)] {
            let index = index(direction, port);
            assert!(index < ENTRIES);
            assert_eq!(from_index(index), (direction, port));
        }
    }

    #[test]
    fn flows_that_began_are_open_or_ended() {
        let mut counts = FlowCounts::default();
        counts.cells[BEGUN] = 7;
        counts.cells[PREEXISTING] = 1;
        for (cause, ends) in [(Cause::ClosedByUs, 3), (Cause::TimedOut, 2), (Cause::Refused, 1)] {
            counts.cells[end_cell(cause as u8)] += ends;
        }
        assert_eq!((counts.ended(), counts.open()), (6, 2));
        let mut twice = counts;
        twice.add(&counts);
        assert_eq!((twice.ended(), twice.open()), (12, 4));
    }

    #[test]
    fn merged_segments_are_one_datagram() {
        let mut traffic = FlowTraffic { packets: [10, 4], merged: [6, 0] };
        traffic.add(&FlowTraffic { packets: [1, 1], merged: [0, 0] });
        assert_eq!((traffic.datagrams(0), traffic.datagrams(1)), (5, 5));
    }
}
