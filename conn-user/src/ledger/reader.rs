//! The ledger as the kernel keeps it, read without stopping anything.

use std::collections::BTreeMap;

use aya::maps::{Array, MapData};
use aya::{Ebpf, Pod};
use conn_common::assoc_table::TableSlot;
use conn_common::connection::LISTENER;
use conn_common::ledger::{self, Slot, Totals, listener};
use conn_common::name;

use crate::error::Error;
use crate::kernel::map_batch::Entries;

/// A slot, for the maps.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodSlot(Slot);

// SAFETY: integers only.
unsafe impl Pod for PodSlot {}

/// A slot of the table, for the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodTableSlot(TableSlot<Slot>);

// SAFETY: integers only.
unsafe impl Pod for PodTableSlot {}

/// Totals of a namespace, for the map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct PodTotals(Totals);

// SAFETY: integers only.
unsafe impl Pod for PodTotals {}

/// Listeners of one port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// Began to listen while conntrace watched.
    pub opened: u64,
    /// Were there before.
    pub preexisting: u64,
    /// Ended.
    pub closed: u64,
}

impl Listeners {
    /// Listening now.
    pub fn open(&self) -> u64 {
        (self.opened + self.preexisting).saturating_sub(self.closed)
    }
}

/// One reading of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// By direction ([`conn_common::connection::IN`] or `OUT`) and service port.
    pub ports: BTreeMap<(u8, u16), Slot>,
    /// By port.
    pub listeners: BTreeMap<u16, Listeners>,
    /// By inode number of the network namespace.
    pub netns: BTreeMap<u32, Totals>,
    /// What happened while no slot could be made: counted, but of unknown port.
    pub unattributed: Option<Slot>,
}

impl Ledger {
    /// Adds the slot of a direction and service port.
    fn add(&mut self, direction: u8, port: u16, slot: &Slot) {
        if direction == LISTENER {
            let listeners = self.listeners.entry(port).or_default();
            listeners.opened += slot.cells[listener::OPENED];
            listeners.preexisting += slot.cells[listener::PREEXISTING];
            listeners.closed += slot.cells[listener::CLOSED];
        } else {
            self.ports.entry((direction, port)).or_insert(Slot::ZERO).add(slot);
        }
    }

    /// All ports and directions added up, with what is unattributed.
    pub fn total(&self) -> Slot {
        let mut total = self.unattributed.unwrap_or(Slot::ZERO);
        for slot in self.ports.values() {
            total.add(slot);
        }
        total
    }
}

/// Reads the ledger.
pub struct LedgerReader {
    places: Entries<PodTableSlot>,
    slots: Entries<PodSlot>,
    unattributed: Array<MapData, PodSlot>,
    netns: Entries<PodTotals>,
}

/// How often a reading is repeated that caught a connection between two CPUs' slots.
const TRIES: u32 = 5;

impl LedgerReader {
    /// Takes the maps, once.
    ///
    /// # Errors
    /// They were taken before.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let unattributed = ebpf
            .take_map(name::UNATTRIBUTED)
            .ok_or_else(|| Error::Internal(format!("the object has no map {}", name::UNATTRIBUTED)))?;
        Ok(Self {
            places: Entries::take(ebpf, name::LEDGER_SLOTS)?,
            slots: Entries::take(ebpf, name::LEDGER)?,
            unattributed: Array::try_from(unattributed).map_err(|error| failed(&error))?,
            netns: Entries::take(ebpf, name::NETNS)?,
        })
    }

    /// One reading. A connection that moves while its cells are read may be seen to leave a state
    /// before it is seen to enter it; such a reading is repeated.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn read(&self) -> Result<Ledger, Error> {
        let mut ledger = self.read_once()?;
        for _ in 1..TRIES {
            if ledger
                .ports
                .values()
                .all(|slot| conn_common::state::OPEN.iter().all(|&state| slot.open_in(state) >= 0))
            {
                break;
            }
            ledger = self.read_once()?;
        }
        Ok(ledger)
    }

    fn read_once(&self) -> Result<Ledger, Error> {
        let mut ledger = Ledger::default();
        let places = self.places.each(|_, PodTableSlot(place)| {
            if let Some((netns, direction, port)) = ledger::owned(place.key) {
                ledger.add(direction, port, &place.value);
                if direction != LISTENER {
                    ledger.netns.entry(netns).or_default().add(&Totals::of(&place.value));
                }
            }
        });
        places.map_err(|error| failed(&error))?;
        let slots = self.slots.each(|key, PodSlot(slot)| {
            let (direction, port) = ledger::split(key);
            ledger.add(direction, port, slot);
        });
        slots.map_err(|error| failed(&error))?;
        for direction in 0..LISTENER {
            let PodSlot(slot) =
                self.unattributed.get(&u32::from(direction), 0).map_err(|error| failed(&error))?;
            if slot != Slot::ZERO {
                ledger.unattributed.get_or_insert(Slot::ZERO).add(&slot);
            }
        }
        let netns =
            self.netns.each(|inode, PodTotals(totals)| ledger.netns.entry(inode).or_default().add(totals));
        netns.map_err(|error| failed(&error))?;
        Ok(ledger)
    }
}

fn failed(error: &dyn std::error::Error) -> Error {
    Error::Internal(format!("reading the ledger: {error}"))
}
