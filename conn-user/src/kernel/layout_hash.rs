//! The layout of a run: all that shapes its maps, with a hash over it: [`conn_common::layout_hash`] with what is known
//! before the maps are made.
//!
//! Two runs with the same hash understand each other's maps. Tags of programs do not say that: a tag does not cover
//! the frozen globals.

use aya_obj::ParseError;
use conn_common::layout_hash::{LayoutHash, RECORDS};
use conn_common::pin::{CHOICES, PinRecord};

use crate::host::offsets::Offsets;
use crate::host::plan::Plan;
use crate::kernel::load;
use crate::kernel::load_options::{HAS_TABLES, HostSizes, Options};
use crate::kernel::map_shape::MapShape;

/// The options and the plan of a run that shape its maps, by name.
type Choices = [(&'static str, u64); 8];
const _: () = assert!(size_of::<Choices>() <= CHOICES * size_of::<(&str, u64)>());

/// The layout of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The maps that runs share.
    pub maps: Vec<MapShape>,
    /// What the run is for.
    choices: Choices,
    /// A hash over the offsets in the kernel's structures.
    offsets: u64,
}

fn choices(plan: &Plan, options: &Options) -> Choices {
    let witnesses = plan.hooks.names().iter().fold(LayoutHash::EMPTY, |hash, name| hash.text(name));
    let has_table = options.table_bits(plan.hooks, plan.open_files) != 0;
    [
        ("only_counts", options.only_counts().into()),
        ("lifetimes", options.durations.into()),
        ("owners", options.owners.into()),
        ("witnesses", witnesses.value()),
        ("shards", plan.shards.into()),
        ("sources", options.remotes.as_ref().map_or(0, |remotes| u64::from(remotes.by) + 1)),
        // What goes into the ring. All runs that count have the same filter.
        (
            "stream",
            if options.is_stream() { options.filter.fingerprint() ^ u64::from(options.kinds) } else { 0 },
        ),
        // Whether there are tables: of sockets, and of the ledger's slots.
        ("tables", u64::from(has_table) | u64::from(options.counts && HAS_TABLES) << 1),
    ]
}

impl Layout {
    /// The layout of a run with these offsets.
    pub(super) fn new(plan: &Plan, options: &Options, layout: &Offsets) -> Result<Self, ParseError> {
        let sizes = load::sizes(plan, options, &HostSizes::planned(plan, options));
        let offsets = layout
            .globals()
            .fold(LayoutHash::EMPTY, |hash, (name, &offset)| hash.text(name).number(offset.into()));
        Ok(Self {
            maps: MapShape::all(&sizes, options.is_stream())?,
            choices: choices(plan, options),
            offsets: offsets.value(),
        })
    }

    /// The hash over all of it.
    pub(super) fn hash(&self) -> u64 {
        let hash = self.maps.iter().fold(RECORDS, |hash, map| map.add_to(hash));
        let named = self.choices.into_iter().chain([("offsets", self.offsets)]);
        named.fold(hash, |hash, (name, number)| hash.text(name).number(number)).value()
    }

    /// A record of the parts.
    pub(super) fn record(&self) -> PinRecord {
        let mut choices = [0; CHOICES];
        for (room, (_, number)) in choices.iter_mut().zip(self.choices) {
            *room = number;
        }
        PinRecord {
            layout: self.hash(),
            records: RECORDS.value(),
            offsets: self.offsets,
            choices,
            ..PinRecord::EMPTY
        }
    }

    /// What differs in the layout of a record, for people; none if only the shapes of maps do.
    pub(super) fn difference(&self, record: &PinRecord) -> Option<String> {
        if record.records != RECORDS.value() {
            return Some("the records in the maps differ".into());
        }
        for ((name, ours), theirs) in self.choices.into_iter().zip(record.choices) {
            if ours != theirs {
                return Some(format!("the option {name} was {theirs:x} and is {ours:x}"));
            }
        }
        (record.offsets != self.offsets).then(|| "the offsets in the kernel's structures differ".into())
    }
}

#[cfg(test)]
mod tests {
    use conn_common::name;

    use super::*;
    use crate::host::plan::HookSet;
    use crate::kernel::map_shape::SIZED_BY_HOST;

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

    fn plan_with(hooks: HookSet, shards: u32, open_files: u32) -> Plan {
        Plan { hooks, cgroup_root: None, cpus: 2, shards, open_files, degradations: vec![] }
    }

    const WITNESSES: HookSet =
        HookSet { set_state: true, sock_ops: true, destroy_sock: true, ..HookSet::NONE };

    fn layout(maps: Vec<MapShape>, plan: &Plan, options: &Options) -> Layout {
        Layout { maps, choices: choices(plan, options), offsets: 48 }
    }

    #[test]
    fn hash_changes_with_each_number_of_a_map() {
        let plan = plan_with(WITNESSES, 2, 500);
        let hash = |maps: &[MapShape]| layout(maps.to_vec(), &plan, &Options::counting()).hash();
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
            assert_ne!(hash(std::slice::from_ref(&map)), hash(std::slice::from_ref(&base)), "{map:?}");
        }
        assert_ne!(hash(&[base.clone(), shape(name::NETNS)]), hash(&[base]));
    }

    #[test]
    fn hash_ignores_sizes_that_follow_from_the_host() {
        let plan = plan_with(WITNESSES, 2, 500);
        let hash = |map: MapShape| layout(vec![map], &plan, &Options::counting()).hash();
        for name in SIZED_BY_HOST {
            let larger = MapShape { max_entries: 1 << 20, ..shape(name) };
            assert_eq!(hash(larger), hash(shape(name)), "{name}");
        }
    }

    #[test]
    fn hash_changes_with_each_choice_and_offset_which_is_named() {
        let plan = plan_with(WITNESSES, 2, 500);
        let counting = Options::counting();
        let base = layout(vec![], &plan, &counting);
        let all = HookSet { set_state_again: true, ..WITNESSES };
        let changed = [
            (Layout { offsets: 56, ..base.clone() }, "the offsets in the kernel's structures differ"),
            (
                layout(vec![], &plan, &Options { durations: true, ..Options::counting() }),
                "the option only_counts",
            ),
            (layout(vec![], &plan, &Options { kinds: 1, ..Options::counting() }), "the option only_counts"),
            (
                layout(vec![], &plan, &Options { owners: 2, ..Options::counting() }),
                "the option owners was 2 and is 0",
            ),
            (layout(vec![], &plan, &Options { counts: false, ..Options::counting() }), "the option tables"),
            (layout(vec![], &plan_with(all, 2, 500), &counting), "the option witnesses"),
            (layout(vec![], &plan_with(WITNESSES, 4, 500), &counting), "the option shards was 4 and is 2"),
        ];
        for (other, named) in changed {
            assert_ne!(other.hash(), base.hash(), "{named}");
            let difference = base.difference(&other.record()).unwrap();
            assert!(difference.starts_with(named), "{difference}");
        }
        assert_eq!(base.difference(&base.record()), None);
        let other = PinRecord { records: 1, ..base.record() };
        assert_eq!(base.difference(&other).as_deref(), Some("the records in the maps differ"));
        // A host with more open files has larger tables of the same shape.
        assert_eq!(layout(vec![], &plan_with(WITNESSES, 2, 900_000), &counting).hash(), base.hash());
    }
}
