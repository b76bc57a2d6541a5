//! The sweep over the table of UDP flows: ends flows by idle time and by the close of their sockets, and frees slots.
//!
//! The kernel programs end a flow at the close of a socket with one flow, and at a packet that comes after the idle time. A
//! flow whose last packet was the last of all is ended here, with the time at which its idle time was over.

use std::collections::HashMap;
use std::mem;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use conn_common::cause::Cause;
use conn_common::connection::{Connection, WANTED};
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
/// How long a sweep waits for room for its events, in all.
const PATIENCE: Duration = Duration::from_secs(2);

/// The flow of a slot, as a sweep saw it. Most sweeps need no more of a flow than its tag, so a table of a million flows is
/// read in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    tag: u64,
    cookie: u64,
    /// Its idle time is not over before this. Later packets only move the end of the idle time further away, and another flow
    /// with the same tag begins after it.
    until_ns: u64,
}

/// A sweep that has begun.
#[derive(Debug)]
struct Pass {
    /// The next slot.
    slot: u32,
    /// Sockets that have closed, by cookie, with the time.
    closed: HashMap<u64, u64>,
    /// Their bits, see [`mask`].
    may_be_closed: u64,
    /// Their entries, to free at the end.
    sockets: Vec<u32>,
    begun: Instant,
}

/// The bit of a socket in a mask that most other sockets are not in.
const fn mask(cookie: u64) -> u64 {
    1 << (cookie % 64)
}

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
    /// The sweep under way, if it was stopped.
    pass: Option<Pass>,
    /// What the last sweeps saw in each slot.
    seen: Vec<Seen>,
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
            pass: None,
            seen: vec![Seen::default(); maps.slots() as usize],
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

    /// Passes the connection of each flow that is alive to `each`.
    pub(crate) fn each_open(&self, mut each: impl FnMut(&Connection)) {
        for index in (0..self.maps.slots()).filter(|&index| phase_of(self.maps.tag(index)) == OPEN) {
            let flow = self.maps.flow(index);
            if flow.connection.is(WANTED) {
                each(&flow.connection);
            }
        }
    }

    /// How long until the next sweep.
    pub(crate) fn due_in(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// True unless the sweep under way was stopped too often: its events must not wait for ever, since the flows keep their slots.
    pub(crate) fn is_patient(&self) -> bool {
        self.pass.as_ref().is_none_or(|pass| pass.begun.elapsed() < PATIENCE)
    }

    /// Sweeps, at `now_ns` of `CLOCK_BOOTTIME`, and passes the event of each flow that it ends to `each`. If `each` breaks, the
    /// sweep goes on after that time with the next call.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(crate) fn run(
        &mut self,
        now_ns: u64,
        mut each: impl FnMut(&Event) -> ControlFlow<Duration>,
    ) -> Result<(), MapError> {
        let mut pass = match self.pass.take() {
            Some(pass) => pass,
            None => self.begin()?,
        };
        while pass.slot < self.maps.slots() {
            let index = pass.slot;
            pass.slot += 1;
            let tag = self.maps.tag(index);
            if phase_of(tag) == OPEN {
                if self.may_end(index, tag, &pass, now_ns)
                    && let Some(event) = self.end(index, tag, &pass.closed, now_ns)
                    && let ControlFlow::Break(pause) = each(&event)
                {
                    self.next = Instant::now() + pause;
                    self.pass = Some(pass);
                    return Ok(());
                }
            } else if is_over(tag) {
                self.free(index, tag, now_ns);
            }
        }
        self.next = Instant::now() + EVERY;
        for index in pass.sockets {
            self.maps.release_socket(index);
        }
        Ok(())
    }

    /// Begins a sweep: which sockets have closed.
    fn begin(&mut self) -> Result<Pass, MapError> {
        let entries = self.maps.closed_sockets();
        let mut fresh: HashMap<u64, u64> = entries.iter().map(|&(_, cookie, ns)| (cookie, ns)).collect();
        fresh.extend(self.maps.take_closed()?);
        let mut closed = mem::take(&mut self.closed_before);
        closed.extend(&fresh);
        self.closed_before = fresh;
        Ok(Pass {
            slot: 0,
            may_be_closed: closed.keys().fold(0, |all, &cookie| all | mask(cookie)),
            closed,
            sockets: entries.into_iter().map(|(index, ..)| index).collect(),
            begun: Instant::now(),
        })
    }

    /// False if the flow of a slot is certainly alive, by what a sweep saw before.
    fn may_end(&self, index: u32, tag: u64, pass: &Pass, now_ns: u64) -> bool {
        let Seen { tag: known, cookie, until_ns } = self.seen[index as usize];
        known != tag || until_ns <= now_ns || pass.may_be_closed & mask(cookie) != 0
    }

    /// Ends the flow of a slot if its time has come. The event of its end, if the run wants it.
    fn end(&mut self, index: u32, tag: u64, closed: &HashMap<u64, u64>, now_ns: u64) -> Option<Event> {
        let flow = self.maps.flow(index);
        let expires_ns = self.expires_ns(&flow);
        self.seen[index as usize] = Seen { tag, cookie: flow.cookie, until_ns: expires_ns };
        let (phase, end, end_ns) = match closed.get(&flow.cookie) {
            Some(&closed_ns) => (CLOSED, Cause::ClosedByUs, closed_ns),
            None if expires_ns <= now_ns => (EXPIRED, Cause::TimedOut, expires_ns),
            None => return None,
        };
        let cause = end_cause(end, state_of(flow.state), flow.refused);
        // A program may have ended it, or another flow may have the slot by now.
        if state_of(flow.state) == 0 || !self.maps.exchange_tag(index, tag, key_of(tag) | phase) {
            return None;
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
        if self.counts {
            self.tally.count_end(&flow.connection, cause);
            self.tally.add_traffic(&flow.connection, self.maps.take_traffic(index));
        }
        // From now on the slot may be used again after a while.
        self.maps.set(index, FlowWord::Ended, ended);
        self.emitted += u64::from(is_wanted);
        is_wanted.then(|| decode::flow_end(&flow, old_state, cause, end_ns))
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
