//! Puts the kernel's part of a filter into the programs' globals and maps.

use aya::EbpfLoader;
use conn_common::{filter, name};

use crate::filter::KernelPart;
use crate::filter::value::prefix::Block;
use crate::host::refusal::{Refusal, chain};
use crate::kernel::load_options::RemoteOptions;
use crate::kernel::map::{Array, HashMap, MapError, PrefixSet};
use crate::kernel::probe::Probe;

/// The sizes of the maps.
pub(super) fn sizes(pushed: &KernelPart) -> [(&'static str, u32); 3] {
    // A map holds at least one entry.
    let room = |entries: usize| u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
    [
        (name::SOURCES, room(pushed.sources.len())),
        (name::DESTINATIONS, room(pushed.destinations.len())),
        (name::VALUES, room(pushed.values.len())),
    ]
}

/// Sets the globals, before the programs are loaded.
pub(super) fn prepare<'a>(loader: &mut EbpfLoader<'a>, pushed: &'a KernelPart) {
    loader
        .override_global(name::WANTED_DIRECTIONS, &pushed.directions, true)
        .override_global(name::WANTED_FAMILIES, &pushed.families, true)
        .override_global(name::WANTED_STATES, &pushed.states, true)
        .override_global(name::SET_MODES, &pushed.modes, true)
        .override_global(name::MARK_MASK, &pushed.mark_mask, true)
        .override_global(name::WANTED_MARK, &pushed.mark, true);
    if let Some(ports) = &pushed.dports {
        loader.override_global(name::SERVICE_PORTS, &ports[..], true);
    }
    if let Some(ports) = &pushed.sports {
        loader.override_global(name::SOURCE_PORTS, &ports[..], true);
    }
}

/// Fills the maps, before the programs are attached.
///
/// # Errors
/// The kernel refuses, for lack of memory most likely.
pub(super) fn fill(probe: &Probe, pushed: &KernelPart) -> Result<(), Refusal> {
    fill_prefixes(probe, name::SOURCES, &pushed.sources)?;
    fill_prefixes(probe, name::DESTINATIONS, &pushed.destinations)?;
    if pushed.values.is_empty() {
        return Ok(());
    }
    let map = probe.map::<HashMap<filter::Value, u8>>(name::VALUES);
    map.and_then(|mut map| pushed.values.iter().try_for_each(|&value| map.insert(value, 1)))
        .map_err(refused(name::VALUES))
}

/// Fills the map of the service ports whose remote addresses are counted, before the programs are attached.
///
/// # Errors
/// The kernel refuses.
pub(super) fn fill_remote_slots(probe: &Probe, remotes: &RemoteOptions) -> Result<(), Refusal> {
    let Some(slots) = &remotes.slots else { return Ok(()) };
    let map = probe.map::<Array<u64>>(name::REMOTE_SLOTS);
    let words = (0..).zip(slots).filter(|&(_, &word)| word != 0);
    map.and_then(|mut map| words.into_iter().try_for_each(|(at, &word)| map.set(at, word)))
        .map_err(refused(name::REMOTE_SLOTS))
}

fn fill_prefixes(probe: &Probe, name: &'static str, blocks: &[Block]) -> Result<(), Refusal> {
    if blocks.is_empty() {
        return Ok(());
    }
    let mut insert = |mut set: PrefixSet| {
        blocks.iter().try_for_each(|&(first, length)| set.insert(first.to_be_bytes(), length.into()))
    };
    probe.map(name).and_then(&mut insert).map_err(refused(name))
}

fn refused(name: &str) -> impl Fn(MapError) -> Refusal {
    move |error| Refusal::with_errno(format!("the filter's map {name}: {}", chain(&error)), error.errno())
}
