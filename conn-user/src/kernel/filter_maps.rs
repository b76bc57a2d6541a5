//! The part of a filter that the kernel decides, into its globals and maps.

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{HashMap, Map};
use aya::{Ebpf, EbpfLoader, Pod};
use conn_common::{filter, name};

use crate::error::Error;
use crate::filter::KernelPart;
use crate::filter::value::prefix::Block;

/// A member of the map of values.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(filter::Value);

// SAFETY: integers without padding.
unsafe impl Pod for Value {}

/// Sets the globals and the sizes of the maps, before the programs are loaded.
pub fn prepare<'a>(loader: &mut EbpfLoader<'a>, pushed: &'a KernelPart) {
    // A map has room for one entry at least.
    let room = |entries: usize| u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
    loader
        .override_global(name::WANTED_DIRECTIONS, &pushed.directions, true)
        .override_global(name::WANTED_FAMILIES, &pushed.families, true)
        .override_global(name::WANTED_STATES, &pushed.states, true)
        .override_global(name::SET_MODES, &pushed.modes, true)
        .map_max_entries(name::SOURCES, room(pushed.sources.len()))
        .map_max_entries(name::DESTINATIONS, room(pushed.destinations.len()))
        .map_max_entries(name::VALUES, room(pushed.values.len()));
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
/// The kernel has no memory for them.
pub fn fill(ebpf: &mut Ebpf, pushed: &KernelPart) -> Result<(), Error> {
    prefixes(ebpf, name::SOURCES, &pushed.sources)?;
    prefixes(ebpf, name::DESTINATIONS, &pushed.destinations)?;
    if pushed.values.is_empty() {
        return Ok(());
    }
    let mut map =
        HashMap::<_, Value, u8>::try_from(map(ebpf, name::VALUES)?).map_err(refused(name::VALUES))?;
    pushed.values.iter().try_for_each(|&value| map.insert(Value(value), 1, 0)).map_err(refused(name::VALUES))
}

fn prefixes(ebpf: &mut Ebpf, name: &str, blocks: &[Block]) -> Result<(), Error> {
    if blocks.is_empty() {
        return Ok(());
    }
    let mut trie = LpmTrie::<_, [u8; 16], u8>::try_from(map(ebpf, name)?).map_err(refused(name))?;
    blocks
        .iter()
        .try_for_each(|&(first, length)| trie.insert(&Key::new(length.into(), first.to_be_bytes()), 1, 0))
        .map_err(refused(name))
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Map, Error> {
    ebpf.map_mut(name).ok_or_else(|| Error::Internal(format!("the object has no map {name}")))
}

fn refused(name: &str) -> impl Fn(aya::maps::MapError) -> Error {
    move |error| Error::Refused { what: format!("the filter's map {name}: {error}"), errno: None }
}
