//! The processes behind flows that pass through: programs watch the sockets of this host that send first, beside connection
//! tracking.
//!
//! A hook sees a socket before its first packet leaves. So once messages of connection tracking were read, the ring has the
//! sockets behind them.

use std::ops::ControlFlow;
use std::thread;
use std::time::{Duration, Instant};

use conn_common::connection::{IN, OUT};
use conn_common::counter::{LOST, PACKETS_UNTRACKED, PRODUCED, STORAGE_FAILED};
use conn_common::filter::bit;
use conn_common::name::{self, LIST_CONNECTED, LIST_INODES};
use conn_common::protocol::UDP;
use tokio::time::timeout;

use crate::conntrack::owners::{Owners, WALKED};
use crate::error::Error;
use crate::event::Event;
use crate::event::decode;
use crate::event::kind::{Kind, KindSet};
use crate::filter::protocols::Protocols;
use crate::filter::{Filter, KernelPart, sockets as socket_filter};
use crate::host::clock::boot_now_ns;
use crate::host::facts::Host;
use crate::host::plan::{HookSet, plan};
use crate::host::ticks::TickRate;
use crate::kernel::flow_map::FlowMaps;
use crate::kernel::load_options::Options;
use crate::kernel::probe::Probe;
use crate::kernel::session::Session;
use crate::kernel::sockets;
use crate::stream::flow_sweep::FlowSweep;
use crate::stream::ring::RingReader;

/// Size of the ring, bytes: about 40,000 beginnings and ends of sockets.
const RING: u32 = 8 << 20;
/// The longest wait for records that the programs have counted: a task that was preempted may still write one before them.
const MAX_WRITING: Duration = Duration::from_millis(20);
/// Time between two looks for them.
const LOOK_EVERY: Duration = Duration::from_micros(50);
/// Time between two walks after losses, at the least.
const WALK_EVERY: Duration = Duration::from_secs(10);

/// Watches the sockets behind flows.
pub(crate) struct FlowOwners {
    session: Session,
    ring: RingReader,
    /// The sweep over flows of UDP, in a run that has them.
    sweep: Option<FlowSweep>,
    protocols: Protocols,
    rate: TickRate,
    owners: Owners,
    /// Records that were taken out of the ring.
    taken: u64,
    missed: Missed,
    /// The protocols of which every socket that has sent is known. Else a socket that is known might not be the only one with
    /// its tuple.
    complete: Protocols,
    /// Flows that began without an owner, since sockets of their protocol were missed.
    unnamed: u64,
    next_walk: Instant,
}

/// What the programs could not report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// Beginnings and ends of sockets that found the ring full, and sockets that found no memory.
    pub records: u64,
    /// Packets of UDP that found no room in the table of flows.
    pub packets: u64,
}

impl Missed {
    /// The protocols of which a socket was missed since an earlier reading.
    const fn protocols_since(self, before: Self) -> Protocols {
        if self.records != before.records {
            Protocols::INET
        } else if self.packets != before.packets {
            Protocols::UDP
        } else {
            Protocols::NONE
        }
    }
}

impl FlowOwners {
    /// Watches sockets of these protocols. `max_flows` is the room for flows of UDP, a power of two. Needs a tokio runtime.
    ///
    /// # Errors
    /// The programs do not run, or the sockets that exist cannot be walked.
    pub(crate) fn start(host: &Host, protocols: Protocols, max_flows: u32) -> Result<Self, Error> {
        let (has_tcp, has_udp) = (protocols.contains(Protocols::TCP), protocols.contains(Protocols::UDP));
        let kinds = KindSet::BOUNDS.mask();
        let filter = KernelPart { directions: bit(OUT), ..KernelPart::all() };
        let options = Options {
            kinds,
            filter: filter.clone(),
            ring_bytes: RING,
            hooks: (!has_tcp).then_some(HookSet::NONE),
            owners: name::OPENERS,
            flows: has_udp.then_some(max_flows),
            ..Options::lists(&Filter::all())
        };
        let session = Session::start(host, &options)?;
        let sweep =
            if has_udp { Some(FlowSweep::new(FlowMaps::new(&session.probe)?, kinds, &filter)) } else { None };
        let mut owners = Self {
            ring: RingReader::new(&session.probe, RING)?,
            session,
            sweep,
            protocols,
            rate: TickRate::probe(),
            owners: Owners::default(),
            taken: 0,
            missed: Missed::default(),
            complete: Protocols::NONE,
            unnamed: 0,
            next_walk: Instant::now(),
        };
        owners.walk(host, protocols, protocols)?;
        Ok(owners)
    }

    /// Waits until the ring is worth another look. `quiet` if the last look found nothing.
    ///
    /// # Errors
    /// The ring cannot be polled any more.
    pub(crate) async fn wait(&mut self, quiet: bool) -> Result<(), Error> {
        let Some(sweep) = &self.sweep else { return self.ring.wait(quiet).await };
        timeout(sweep.due_in(), self.ring.wait(quiet)).await.unwrap_or(Ok(()))
    }

    /// Takes what the programs have reported. True if there was something.
    ///
    /// # Errors
    /// A map cannot be read any more.
    pub(crate) fn catch_up(&mut self) -> Result<bool, Error> {
        let counters = self.session.counters.read()?;
        let Self { ring, owners, taken, rate, sweep, .. } = self;
        let begin = Instant::now();
        let taken_before = *taken;
        loop {
            ring.drain(|record| {
                *taken += 1;
                match decode::decode(record, *rate) {
                    Ok(event) => note(owners, &event),
                    Err(error) => log::error!("an event could not be decoded: {error}"),
                }
                true
            });
            if *taken >= counters[PRODUCED as usize] || begin.elapsed() >= MAX_WRITING {
                break;
            }
            thread::sleep(LOOK_EVERY);
        }
        if let Some(sweep) = sweep
            && sweep.due_in().is_zero()
        {
            sweep.run(boot_now_ns(), |event| {
                note(owners, event);
                ControlFlow::Continue(())
            })?;
        }
        let missed = Missed {
            records: counters[LOST as usize] + counters[STORAGE_FAILED as usize],
            packets: counters[PACKETS_UNTRACKED as usize],
        };
        let incomplete =
            if self.owners.is_full() { Protocols::INET } else { missed.protocols_since(self.missed) };
        self.missed = missed;
        if !incomplete.is_empty() {
            self.complete = self.complete.without(incomplete);
            self.owners.forget_sockets(incomplete);
        }
        Ok(self.taken > taken_before)
    }

    /// Every network namespace was read. After a loss, walks the sockets again.
    ///
    /// # Errors
    /// The sockets cannot be walked.
    pub(crate) fn end_round(&mut self, host: &Host) -> Result<(), Error> {
        self.owners.end_round();
        let incomplete = self.protocols.without(self.complete);
        if !incomplete.is_empty() && Instant::now() >= self.next_walk {
            // The table of flows has those of UDP.
            self.walk(host, incomplete, incomplete.without(Protocols::UDP))?;
        }
        Ok(())
    }

    /// Finds the sockets of these protocols: of `walked` those that exist, of UDP the flows that the programs have seen.
    fn walk(&mut self, host: &Host, protocols: Protocols, walked: Protocols) -> Result<(), Error> {
        self.catch_up()?;
        self.owners.forget_sockets(protocols);
        if !walked.is_empty() {
            each_socket(host, walked, &mut self.owners)?;
        }
        if let Some(sweep) = self.sweep.as_ref().filter(|_| protocols.contains(Protocols::UDP)) {
            sweep.each_open(|connection| self.owners.open(UDP, connection));
        }
        self.complete = self.complete.union(protocols);
        // Also finds whether something was lost meanwhile.
        self.catch_up()?;
        self.next_walk = Instant::now() + WALK_EVERY;
        Ok(())
    }

    /// The flows from before the run have been named.
    pub(crate) fn end_start(&mut self) {
        self.owners.forget_walked();
    }

    /// Fills in the owner of a flow that begins now, or is from before the run.
    pub(crate) fn name(&mut self, flow: &mut Event) {
        let protocol = Protocols::of(flow.protocol).intersection(self.protocols);
        if !self.complete.contains(protocol) {
            self.unnamed += 1;
        } else if let Some(owner) = self.owners.of_socket(flow) {
            flow.connection.owner = owner;
        }
    }

    /// How many flows have no owner since sockets were missed, if any, and what was missed.
    pub(crate) fn unnamed(&self) -> Option<(u64, Missed)> {
        (self.unnamed > 0).then_some((self.unnamed, self.missed))
    }
}

/// Notes that a socket begins or ends.
fn note(owners: &mut Owners, event: &Event) {
    if event.kind == Kind::New {
        owners.open(event.protocol, &event.connection);
    } else {
        owners.close(event.protocol, &event.connection);
    }
}

/// The sockets that exist, for a list of the flows that exist.
///
/// # Errors
/// The sockets cannot be walked.
pub(crate) fn of_existing(host: &Host, protocols: Protocols) -> Result<Owners, Error> {
    let mut owners = Owners::default();
    each_socket(host, protocols, &mut owners)?;
    Ok(owners)
}

/// Walks the connected sockets of all network namespaces.
fn each_socket(host: &Host, protocols: Protocols, owners: &mut Owners) -> Result<(), Error> {
    let options =
        Options { protocols, listed: LIST_CONNECTED | LIST_INODES, ..Options::lists(&Filter::all()) };
    let probe = Probe::load(&plan(host, None)?, &options)?;
    probe.load_programs(&sockets::listing_programs(protocols, true))?;
    probe.release_btf();
    let (found, holders) = sockets::namespaces_and_holders(&probe)?;
    let walked = sockets::list(
        &probe,
        &found,
        |_| true,
        |row| {
            if row.is_hint != 0 || row.connection.direction == IN {
                return;
            }
            let connection = socket_filter::connection(&row);
            let holders = holders.of(&row);
            if let Some(mut connection) =
                socket_filter::wanted(connection, row.uid, holders.as_deref(), |_| true)
            {
                connection.id = WALKED;
                owners.open(row.protocol, &connection);
            }
        },
    )?;
    walked.warn("the processes behind flows of sockets there are not known");
    Ok(())
}
