//! The hash over all that shapes the maps of a run: [`conn_common::layout_hash`] with what is known at run time.
//!
//! Two runs with the same hash understand each other's maps. Tags of programs do not say that: a tag does not cover
//! the frozen globals.

use aya::Ebpf;
use aya::maps::{Map, MapError};
use conn_common::layout_hash::{LayoutHash, RECORDS};
use conn_common::name;

use crate::host::offsets::Offsets;
use crate::host::plan::Plan;
use crate::kernel::load_options::{HAS_TABLES, Options};

/// Maps whose size follows from the open files of the host, or from `--buffer-size`. Their size is not part of the
/// hash: a later run takes it from the map.
const SIZED_BY_HOST: [&str; 7] = [
    name::EVENTS,
    name::SOCKET_STATES,
    name::COUNTED_STATES,
    name::OVERFLOW_STATES,
    name::OVERFLOW_COUNTED,
    name::PENDING_OVERFLOW,
    name::PENDING_OWNERS,
];

/// The kernel's description of a map.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MapShape {
    name: String,
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

impl MapShape {
    /// Asks the kernel. `None` for a map of a type that holds no state.
    fn new(name: &str, map: &Map) -> Option<Result<Self, MapError>> {
        let (Map::Array(data)
        | Map::HashMap(data)
        | Map::LpmTrie(data)
        | Map::PerCpuArray(data)
        | Map::RingBuf(data)
        | Map::SkStorage(data)) = map
        else {
            return None;
        };
        let shape = |info: aya::maps::MapInfo| -> Result<Self, MapError> {
            Ok(Self {
                name: name.to_owned(),
                map_type: info.map_type()? as u32,
                key_size: info.key_size(),
                value_size: info.value_size(),
                max_entries: info.max_entries(),
                flags: info.map_flags(),
            })
        };
        // Frozen globals belong to a program and are never shared.
        (!name.starts_with('.')).then(|| data.info().and_then(shape))
    }

    fn add_to(&self, hash: LayoutHash) -> LayoutHash {
        let size = if SIZED_BY_HOST.contains(&self.name.as_str()) { 0 } else { self.max_entries };
        [self.map_type, self.key_size, self.value_size, size, self.flags]
            .into_iter()
            .fold(hash.text(&self.name), |hash, number| hash.number(number.into()))
    }
}

/// The options and the plan of a run that shape its maps, by name.
fn choices(plan: &Plan, options: &Options) -> [(&'static str, u64); 7] {
    let witnesses = plan.hooks.names().iter().fold(LayoutHash::EMPTY, |hash, name| hash.text(name));
    let has_table = options.table_bits(plan.hooks, plan.open_files) != 0;
    [
        ("only_counts", options.only_counts().into()),
        ("spans", options.durations.into()),
        ("owners", options.owners.into()),
        ("witnesses", witnesses.value()),
        ("shards", plan.shards.into()),
        ("remotes", options.remotes.as_ref().map_or(0, |remotes| u64::from(remotes.by) + 1)),
        // Whether there are tables: of sockets, and of the ledger's slots.
        ("tables", u64::from(has_table) | u64::from(options.counts && HAS_TABLES) << 1),
    ]
}

/// The hash of a run whose maps have been made.
///
/// # Errors
/// The kernel does not describe a map.
pub(super) fn layout_hash(
    ebpf: &Ebpf,
    plan: &Plan,
    options: &Options,
    layout: &Offsets,
) -> Result<u64, MapError> {
    let mut maps =
        ebpf.maps().filter_map(|(name, map)| MapShape::new(name, map)).collect::<Result<Vec<_>, _>>()?;
    maps.sort_by(|one, other| one.name.cmp(&other.name));
    let offsets = layout.globals().map(|(name, &offset)| (name, offset.into()));
    Ok(hash(&maps, choices(plan, options).into_iter().chain(offsets)))
}

fn hash<'a>(maps: &[MapShape], numbers: impl IntoIterator<Item = (&'a str, u64)>) -> u64 {
    let hash = maps.iter().fold(RECORDS, |hash, map| map.add_to(hash));
    numbers.into_iter().fold(hash, |hash, (name, number)| hash.text(name).number(number)).value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::plan::HookSet;

    fn shape(name: &str) -> MapShape {
        MapShape {
            name: name.into(),
            map_type: 1,
            key_size: 4,
            value_size: 1_536,
            max_entries: 393_216,
            flags: 1,
        }
    }

    #[test]
    fn hash_changes_with_each_number_of_a_map() {
        let base = shape(name::LEDGER);
        let changed = [
            MapShape { name: name::NETNS.into(), ..base.clone() },
            MapShape { map_type: 2, ..base.clone() },
            MapShape { key_size: 8, ..base.clone() },
            MapShape { value_size: 1_544, ..base.clone() },
            MapShape { max_entries: 196_608, ..base.clone() },
            MapShape { flags: 0, ..base.clone() },
        ];
        for map in changed {
            assert_ne!(
                hash(std::slice::from_ref(&map), []),
                hash(std::slice::from_ref(&base), []),
                "{map:?}"
            );
        }
        assert_ne!(hash(&[base.clone(), shape(name::NETNS)], []), hash(&[base], []));
    }

    #[test]
    fn hash_ignores_sizes_that_follow_from_the_host() {
        for name in SIZED_BY_HOST {
            let larger = MapShape { max_entries: 1 << 20, ..shape(name) };
            assert_eq!(hash(&[larger], []), hash(&[shape(name)], []), "{name}");
        }
    }

    #[test]
    fn hash_changes_with_each_choice_and_offset() {
        let witnesses = HookSet { set_state: true, sock_ops: true, destroy_sock: true, ..HookSet::NONE };
        let plan = Plan {
            hooks: witnesses,
            cgroup_root: None,
            cpus: 2,
            shards: 2,
            open_files: 500,
            degradations: vec![],
        };
        let of = |plan: &Plan, options: &Options, offset: u64| {
            hash(&[], choices(plan, options).into_iter().chain([("SKC_NET", offset)]))
        };
        let base = of(&plan, &Options::counting(), 48);
        let all = HookSet { set_state_again: true, ..witnesses };
        let changed = [
            of(&plan, &Options::counting(), 56),
            of(&plan, &Options { durations: true, ..Options::counting() }, 48),
            of(&plan, &Options { kinds: 1, ..Options::counting() }, 48),
            of(&plan, &Options { owners: name::HOLDERS, ..Options::counting() }, 48),
            of(&plan, &Options { counts: false, ..Options::counting() }, 48),
            of(&Plan { hooks: all, ..plan.clone() }, &Options::counting(), 48),
            of(&Plan { shards: 4, ..plan.clone() }, &Options::counting(), 48),
        ];
        assert!(changed.iter().all(|&hash| hash != base), "{base} {changed:?}");
        // A host with more open files has larger tables of the same shape.
        assert_eq!(of(&Plan { open_files: 900_000, ..plan }, &Options::counting(), 48), base);
    }
}
