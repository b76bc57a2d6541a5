//! The ledger as the kernel keeps it, read while the programs go on counting.

use std::collections::{BTreeMap, BTreeSet};

use conn_common::assoc_table::TableSlot;
use conn_common::connection::UNDIRECTED;
use conn_common::ledger::{self, Cells, Slot, SlotId, Totals, listener};
use conn_common::name;
use conn_common::small_slot::SmallSlot;

use crate::kernel::map::{Array, MapError};
use crate::kernel::map_batch::Entries;
use crate::kernel::probe::Probe;
use crate::ledger::attempts::{self, AttemptReader};
use crate::ledger::counts::Counts;
use crate::ledger::passages::{Part, Parts, Passages};

/// Listeners of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Listeners that began while conntrace ran.
    pub opened: u64,
    /// Listeners that existed before.
    pub preexisting: u64,
    /// Listeners that ended.
    pub closed: u64,
    /// Packets that listeners had dropped before conntrace watched them.
    pub dropped_before: u64,
    /// Packets that listeners had dropped when they ended.
    pub dropped: u64,
}

impl Listeners {
    /// Listening now.
    pub fn open(&self) -> u64 {
        (self.opened + self.preexisting).saturating_sub(self.closed)
    }

    /// Both together.
    #[must_use]
    pub(super) const fn plus(self, other: Self) -> Self {
        Self {
            opened: self.opened + other.opened,
            preexisting: self.preexisting + other.preexisting,
            closed: self.closed + other.closed,
            dropped_before: self.dropped_before + other.dropped_before,
            dropped: self.dropped + other.dropped,
        }
    }
}

/// One reading of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By direction ([`conn_common::connection::IN`] or `OUT`) and service port.
    pub ports: BTreeMap<(u8, u16), Counts>,
    /// By port.
    pub listeners: BTreeMap<u16, Listeners>,
    /// By inode number of the network namespace.
    pub netns: BTreeMap<u32, Totals>,
    /// Attempts that never became a connection, by local port.
    pub attempts: attempts::ByPort,
    /// Connections that were counted while no slot could be made. Their port is unknown.
    pub unattributed: Option<Counts>,
    /// What an audit compares: the parts of the ports that a namespace has for itself, and those that several share.
    pub(super) parts: Parts,
    /// The namespaces with beginnings or ends in shared parts, by inode number.
    pub(super) sharing: BTreeSet<u32>,
    /// The reading leaves out [`Ledger::ports`]: a user can have connections on all ports.
    pub(super) has_no_ports: bool,
}

impl Ledger {
    /// Adds the slot of a direction and service port, or of the listeners of a port, in a namespace (0: in several).
    fn add(&mut self, netns: u32, id: SlotId, slot: &impl Cells) {
        if id.is_listener {
            let listeners = self.listeners.entry(id.port).or_default();
            for (cell, count) in slot.used() {
                *match cell {
                    listener::OPENED => &mut listeners.opened,
                    listener::PREEXISTING => &mut listeners.preexisting,
                    listener::CLOSED => &mut listeners.closed,
                    listener::DROPPED_BEFORE => &mut listeners.dropped_before,
                    listener::DROPPED => &mut listeners.dropped,
                    _ => continue,
                } += count;
            }
        } else {
            if !self.has_no_ports {
                self.ports.entry((id.direction, id.port)).or_insert(Counts::ZERO).add(slot);
            }
            self.parts.entry((netns, id.direction, id.port)).or_default().add(&Passages::of(slot));
        }
    }

    /// Adds a slot that belongs to a namespace, by its key.
    fn add_of_netns(&mut self, key: u64, slot: &impl Cells) {
        if let Some((netns, id)) = ledger::from_slot_key(key) {
            self.add(netns, id, slot);
            if !id.is_listener {
                self.netns.entry(netns).or_default().add(&Totals::of(slot));
            }
        }
    }

    /// True if steps of this part may have been counted in a part that several namespaces share: where its CPU found the
    /// slot of the part's own taken.
    pub(super) fn is_shared(&self, (_, direction, port): Part) -> bool {
        self.parts.contains_key(&(SHARED, direction, port))
    }

    /// All ports and directions added up, with what is unattributed.
    pub fn total(&self) -> Counts {
        let mut total = self.unattributed.clone().unwrap_or(Counts::ZERO);
        for slot in self.ports.values() {
            total.add(slot);
        }
        total
    }
}

/// True if a state was left more often than entered: a connection moved while its cells were read.
fn is_torn(counts: &Counts) -> bool {
    let (entered, left) = counts.passages();
    entered.iter().zip(left).any(|(entered, left)| entered.wrapping_sub(left).cast_signed() < 0)
}

/// Reads the ledger.
#[derive(Debug)]
pub struct LedgerReader {
    table: Entries<TableSlot<Slot>>,
    slots: Entries<Slot>,
    small: Entries<SmallSlot, u64>,
    shared: Entries<SmallSlot>,
    unattributed: Array<Slot>,
    netns: Entries<Totals>,
    attempts: AttemptReader,
}

/// The namespace of parts that several namespaces share.
pub(super) const SHARED: u32 = 0;

/// How often a reading is repeated that caught a connection between two CPUs' slots.
const TRIES: u32 = 5;

impl LedgerReader {
    /// Opens the maps.
    ///
    /// # Errors
    /// A map cannot be opened.
    pub fn new(probe: &Probe) -> Result<Self, MapError> {
        Ok(Self {
            table: probe.map(name::LEDGER_SLOTS)?,
            slots: probe.map(name::LEDGER)?,
            small: probe.map(name::SMALL_SLOTS)?,
            shared: probe.map(name::SHARED_SLOTS)?,
            unattributed: probe.map(name::UNATTRIBUTED)?,
            netns: probe.map(name::NETNS)?,
            attempts: AttemptReader::new(probe)?,
        })
    }

    /// One reading. A connection that moves while its cells are read may leave a state in the reading before it
    /// enters the state; such a reading is repeated.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(&self) -> Result<Ledger, MapError> {
        let mut ledger = self.read_once(Ledger::default())?;
        for _ in 1..TRIES {
            if !ledger.ports.values().any(is_torn) {
                break;
            }
            let earlier = std::mem::replace(&mut ledger, self.read_once(Ledger::default())?);
            // Beside many ports that move, each reading finds other ports torn.
            for (port, counts) in earlier.ports {
                if ledger.ports.get(&port).is_none_or(is_torn) && !is_torn(&counts) {
                    ledger.ports.insert(port, counts);
                }
            }
        }
        Ok(ledger)
    }

    /// One reading without ports. An audit compares parts, and needs no reading at one moment: see
    /// [`crate::ledger::passages::bounds`].
    pub(super) fn read_parts(&self) -> Result<Ledger, MapError> {
        self.read_once(Ledger { has_no_ports: true, ..Ledger::default() })
    }

    /// Reads into an empty ledger.
    fn read_once(&self, mut ledger: Ledger) -> Result<Ledger, MapError> {
        ledger.attempts = self.attempts.read()?;
        self.table.each(|_, entry| ledger.add_of_netns(entry.key, &entry.value))?;
        self.small.each(|key, small| ledger.add_of_netns(key, &Counts::of_small(small)))?;
        self.shared.each(|id, small| ledger.add(SHARED, SlotId::from_bits(id), &Counts::of_small(small)))?;
        self.slots.each(|key, slot| ledger.add(SHARED, SlotId::from_bits(key), slot))?;
        for direction in 0..UNDIRECTED {
            let slot = self.unattributed.get(u32::from(direction))?;
            if slot != Slot::ZERO {
                ledger.unattributed.get_or_insert(Counts::ZERO).add(&slot);
            }
        }
        self.netns.each(|inode, totals| {
            ledger.netns.entry(inode).or_default().add(totals);
            ledger.sharing.insert(inode);
        })?;
        Ok(ledger)
    }
}
