//! What a map looks like: as the compiled programs need it, and as the kernel describes a pin. aya opens a pin without a
//! comparison.

use aya::maps::MapInfo;
use aya_obj::{Object, ParseError};
use conn_common::layout_hash::LayoutHash;
use conn_common::name;

use crate::kernel::load::OBJECT;

/// Maps whose size follows from the open files of the host, or from `--buffer-size`. Their size is not part of the
/// layout: a later run takes it from the map.
pub(super) const SIZED_BY_HOST: [&str; 6] = [
    name::SOCKET_STATES,
    name::COUNTED_STATES,
    name::OVERFLOW_STATES,
    name::OVERFLOW_COUNTED,
    name::PENDING_OVERFLOW,
    name::PENDING_OWNERS,
];

/// Maps that belong to one process: its ring, unless it is a stream's, and its log, and its filter, which would add to that of another process.
const OWN: [&str; 6] =
    [name::EVENTS, name::READER_SLEEPS, "AYA_LOGS", name::SOURCES, name::DESTINATIONS, name::VALUES];
/// The beginnings of the names of maps that no pinned run fills: flows of UDP, and a choice of ports. Frozen globals belong
/// to a program.
const OWN_PREFIXES: [&str; 3] = ["FLOW", name::REMOTE_SLOTS, "."];

/// True if processes that follow each other share the map.
pub(super) fn is_shared(name: &str) -> bool {
    !OWN.contains(&name) && OWN_PREFIXES.iter().all(|prefix| !name.starts_with(prefix))
}

/// The shape of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MapShape {
    /// Its name in the object.
    pub name: String,
    /// `enum bpf_map_type`.
    pub map_type: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// The size.
    pub max_entries: u32,
    /// `BPF_F_…` of the creation.
    pub flags: u32,
}

impl MapShape {
    /// The shapes of all shared maps of the compiled programs, by name. `sizes` has those that the loader sets. Processes of a
    /// stream share the ring, too.
    pub(super) fn all(sizes: &[(&str, u32)], is_stream: bool) -> Result<Vec<Self>, ParseError> {
        let object = Object::parse(OBJECT)?;
        let mut shapes: Vec<Self> = object
            .maps
            .iter()
            .filter(|(name, _)| is_shared(name) || (is_stream && name.as_str() == name::EVENTS))
            .map(|(name, map)| Self {
                name: name.clone(),
                map_type: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: sizes
                    .iter()
                    .find(|(sized, _)| sized == name)
                    .map_or_else(|| map.max_entries(), |&(_, entries)| entries),
                flags: map.map_flags(),
            })
            .collect();
        shapes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(shapes)
    }

    /// The shape of a map of the kernel. `map_type` is 0 if this program does not know the type.
    pub(super) fn from_info(name: &str, info: &MapInfo) -> Self {
        Self {
            name: name.to_owned(),
            map_type: info.map_type().map_or(0, |known| known as u32),
            key_size: info.key_size(),
            value_size: info.value_size(),
            max_entries: info.max_entries(),
            flags: info.map_flags(),
        }
    }

    /// What differs in a map that is to be of this shape: the field with both numbers. A size that follows from the host may
    /// differ.
    pub(super) fn difference(&self, found: &Self) -> Option<String> {
        let fixed = !SIZED_BY_HOST.contains(&self.name.as_str());
        [
            ("type", self.map_type, found.map_type),
            ("key size", self.key_size, found.key_size),
            ("value size", self.value_size, found.value_size),
            ("number of entries", self.max_entries, found.max_entries),
            ("flags", self.flags, found.flags),
        ]
        .into_iter()
        .filter(|&(field, ..)| fixed || field != "number of entries")
        .find(|(_, expected, found)| expected != found)
        .map(|(field, expected, found)| {
            format!("the {field} of map {} is {found}, not {expected}", self.name)
        })
    }

    /// Adds the shape to the hash of a layout.
    pub(super) fn add_to(&self, hash: LayoutHash) -> LayoutHash {
        let size = if SIZED_BY_HOST.contains(&self.name.as_str()) { 0 } else { self.max_entries };
        [self.map_type, self.key_size, self.value_size, size, self.flags]
            .into_iter()
            .fold(hash.text(&self.name), |hash, number| hash.number(number.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> MapShape {
        MapShape {
            name: name::LEDGER.into(),
            map_type: 1,
            key_size: 4,
            value_size: 8,
            max_entries: 16,
            flags: 1,
        }
    }

    #[test]
    fn object_has_the_maps_that_runs_share() {
        let shapes = MapShape::all(&[(name::LEDGER, 77)], false).unwrap();
        let named = |name: &str| shapes.iter().find(|shape| shape.name == name);
        for shared in [
            name::LEDGER,
            name::SMALL_SLOTS,
            name::COUNTED_STATES,
            name::SWITCHES,
            name::WALKED,
            name::REPAIRS,
            name::COUNTERS,
            name::NETNS,
            name::ATTEMPTS,
            name::REMOTES,
        ] {
            assert!(named(shared).is_some(), "{shared}");
        }
        assert_eq!(named(name::LEDGER).unwrap().max_entries, 77);
        for own in [name::EVENTS, name::VALUES, name::FLOWS, name::REMOTE_SLOTS, ".rodata", "AYA_LOGS"] {
            assert!(named(own).is_none(), "{own}");
        }
    }

    #[test]
    fn difference_names_the_field() {
        assert_eq!(ledger().difference(&ledger()), None);
        let other = MapShape { max_entries: 8, ..ledger() };
        assert_eq!(
            ledger().difference(&other).as_deref(),
            Some("the number of entries of map LEDGER is 8, not 16")
        );
        let other = MapShape { map_type: 2, ..ledger() };
        assert_eq!(ledger().difference(&other).as_deref(), Some("the type of map LEDGER is 2, not 1"));
        // This size is taken from the map.
        let table = MapShape { name: name::COUNTED_STATES.into(), ..ledger() };
        assert_eq!(table.difference(&MapShape { max_entries: 8, ..table.clone() }), None);
    }
}
