//! The sweep over the table of UDP flows: ends flows by idle time and by the close of their sockets, and frees slots.
//!
//! The kernel programs end a flow at the close of a socket with one flow, and at a packet that comes after the idle time. A
//! flow whose last packet was the last of all is ended here, with the time at which its idle time was over.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

use conn_common::cause::Cause;
use conn_common::connection::WANTED;
use conn_common::event::DESTROY;
use conn_common::filter::{bit, wants_owner, wants_state};
use conn_common::flow::{Flow, GRACE_MS, end_cause, state_of};
use conn_common::flow_counts::FlowTraffic;
use conn_common::flow_table::{BUSY, CLOSED, EXPIRED, FREE, OPEN, is_over, key_of, phase_of};
use conn_common::state::CLOSE;

use crate::event::Event;
use crate::event::decode;
use crate::filter::KernelPart;
use crate::host::flows::{self, FlowTimeouts};
use crate::kernel::flow_counts::{FlowTally, Packets};
use crate::kernel::flow_map::{FlowMaps, FlowWord};
use crate::kernel::map::MapError;

/// Time between two sweeps.
const EVERY: Duration = Duration::from_millis(500);

/// Sweeps the table.
#[derive(Debug)]
pub(crate) struct FlowSweep {
    maps: FlowMaps,
    timeouts: FlowTimeouts,
    tick_ns: u64,
    kinds: u8,
    filter: KernelPart,
    next: Instant,
    /// Sockets that closed before the last sweep, by cookie, with the time. A packet that was under way may have begun a flow
    /// that the last sweep could not end yet.
    closed_before: HashMap<u64, u64>,
    /// Events that the sweep made.
    pub emitted: u64,
    /// What the sweep counts, in a run that counts flows.
    pub tally: FlowTally,
    counts: bool,
}

impl FlowSweep {
    /// A sweep that makes events of these kinds for flows that the kernel's part of the filter lets through.
    pub(crate) fn new(maps: FlowMaps, kinds: u8, filter: &KernelPart) -> Self {
        Self {
            maps,
            timeouts: FlowTimeouts::probe(),
            tick_ns: flows::tick_ns(),
            kinds,
            filter: filter.clone(),
            next: Instant::now() + EVERY,
            closed_before: HashMap::new(),
            emitted: 0,
            tally: FlowTally::default(),
            counts: false,
        }
    }

    /// A sweep that counts the flows that it ends.
    pub(crate) fn counting(maps: FlowMaps) -> Self {
        Self { counts: true, ..Self::new(maps, 0, &KernelPart::all()) }
    }

    /// The packets of the flows in the table, by network namespace: of those that are alive, and packets that were under way when
    /// their flow ended.
    pub(crate) fn traffic_in_table(&self) -> Packets {
        let mut traffic = Packets::new();
        for index in 0..self.maps.slots() {
            if phase_of(self.maps.tag(index)) > BUSY {
                let flow = self.maps.flow(index);
                let of_flow = FlowTraffic { packets: flow.packets, merged: flow.merged };
                traffic.entry(flow.connection.netns).or_default().add(&of_flow);
            }
        }
        traffic
    }

    /// How long until the next sweep.
    pub(crate) fn due_in(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Sweeps once, at `now_ns` of `CLOCK_BOOTTIME`, and passes the event of each flow that it ends to `each`.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(crate) fn run(&mut self, now_ns: u64, mut each: impl FnMut(&Event)) -> Result<(), MapError> {
        self.next = Instant::now() + EVERY;
        let entries = self.maps.closed_sockets();
        let mut fresh: HashMap<u64, u64> = entries.iter().map(|&(_, cookie, ns)| (cookie, ns)).collect();
        fresh.extend(self.maps.take_closed()?);
        let mut closed = mem::take(&mut self.closed_before);
        closed.extend(&fresh);
        self.closed_before = fresh;
        for index in 0..self.maps.slots() {
            let tag = self.maps.tag(index);
            if phase_of(tag) == OPEN {
                self.end(index, tag, &closed, now_ns, &mut each);
            } else if is_over(tag) {
                self.free(index, tag, now_ns);
            }
        }
        for (index, ..) in entries {
            self.maps.release_socket(index);
        }
        Ok(())
    }

    /// Ends the flow of a slot if its time has come.
    fn end(
        &mut self,
        index: u32,
        tag: u64,
        closed: &HashMap<u64, u64>,
        now_ns: u64,
        each: &mut impl FnMut(&Event),
    ) {
        let flow = self.maps.flow(index);
        let expires_ns = self.expires_ns(&flow);
        let (phase, end, end_ns) = match closed.get(&flow.cookie) {
            Some(&closed_ns) => (CLOSED, Cause::ClosedByUs, closed_ns),
            None if expires_ns <= now_ns => (EXPIRED, Cause::TimedOut, expires_ns),
            None => return,
        };
        let cause = end_cause(end, state_of(flow.state), flow.refused);
        // A program may have ended it, or another flow may have the slot by now.
        if state_of(flow.state) == 0 || !self.maps.exchange_tag(index, tag, key_of(tag) | phase) {
            return;
        }
        self.maps.set(index, FlowWord::Cause, cause as u64 | u64::from(index) << 32);
        self.maps.set(index, FlowWord::EndNs, end_ns);
        let ended = self.tick(&flow, now_ns);
        let mut flow = self.maps.flow(index);
        let old_state = state_of(flow.state);
        flow.connection.state = CLOSE;
        let is_wanted = self.kinds & bit(DESTROY) != 0
            && flow.connection.is(WANTED)
            && wants_state(&self.filter, CLOSE)
            && wants_owner(&self.filter, &flow.connection.owner);
        if is_wanted {
            self.emitted += 1;
            each(&decode::flow_end(&flow, old_state, cause, end_ns));
        }
        if self.counts {
            self.tally.count_end(&flow.connection, cause);
            self.tally.add_traffic(&flow.connection, self.maps.take_traffic(index));
        }
        // From now on the slot may be used again after a while.
        self.maps.set(index, FlowWord::Ended, ended);
    }

    /// When the idle time of a flow is over, nanoseconds of `CLOCK_BOOTTIME`.
    fn expires_ns(&self, flow: &Flow) -> u64 {
        let idle_since = self.boot_ns(flow, flow.last);
        idle_since + u64::from(self.timeouts.of(state_of(flow.state))) * 1_000_000_000
    }

    /// A tick as a time, by what both were when the flow began.
    fn boot_ns(&self, flow: &Flow, tick: u64) -> u64 {
        flow.connection.first_seen_ns() + tick.saturating_sub(flow.begun) * self.tick_ns
    }

    /// A time as a tick.
    fn tick(&self, flow: &Flow, now_ns: u64) -> u64 {
        flow.begun + now_ns.saturating_sub(flow.connection.first_seen_ns()) / self.tick_ns
    }

    /// Frees a slot whose flow ended a while ago.
    fn free(&mut self, index: u32, tag: u64, now_ns: u64) {
        let flow = self.maps.flow(index);
        let grace_ns = GRACE_MS * 1_000_000;
        if flow.ended == 0
            || self.boot_ns(&flow, flow.ended) + grace_ns > now_ns
            || !self.maps.exchange_tag(index, tag, BUSY)
        {
            return;
        }
        if self.counts {
            // Packets that were under way when the flow ended.
            self.tally.add_traffic(&flow.connection, self.maps.take_traffic(index));
        }
        self.maps.exchange_tag(index, BUSY, FREE);
    }
}
