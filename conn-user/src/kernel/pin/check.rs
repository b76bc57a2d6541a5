//! The check of pins before any of them is used: that they are whole, of root, of the shapes that this program needs, and
//! that the attached programs work on these very maps.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use aya::maps::{Map, MapData, MapInfo};
use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, LinkType, PinnedLink};
use conn_common::assoc_table::SCRATCH_SLOTS;
use conn_common::name::{self, Switches};

use crate::host::plan::Plan;
use crate::host::refusal::chain;
use crate::kernel::attach::tracepoints;
use crate::kernel::epoch::BootId;
use crate::kernel::layout_hash::Layout;
use crate::kernel::load_options::{HostSizes, Options};
use crate::kernel::map::{Array, Handle as _};
use crate::kernel::map_shape::{MapShape, is_shared};
use crate::kernel::pin::directory::{Directory, Kind};
use crate::kernel::pin::error::Flaw;
use crate::kernel::pin::meta::Meta;

/// The end of the name of a program that is about to take the place of another.
pub(super) const NEW: &str = "_new";
/// The kernel keeps so many bytes of a name (`BPF_OBJ_NAME_LEN`).
const NAME_LENGTH: usize = 15;

/// Pins that can be gone on with.
#[derive(Debug)]
pub(super) struct Checked {
    /// The record.
    pub meta: Meta,
    /// The sizes of the maps.
    pub sizes: HostSizes,
    /// The hooks that are attached.
    pub hooks: Vec<&'static str>,
}

/// The names of the hooks that a plan has. That of refused attempts is not among them: a kernel may lack it.
pub(super) fn hooks(plan: &Plan) -> impl Iterator<Item = &'static str> {
    tracepoints(plan.hooks).chain(plan.hooks.sock_ops.then_some(name::SOCK_OPS))
}

/// Checks all pins of an epoch.
pub(super) fn check(
    directory: &Directory,
    plan: &Plan,
    options: &Options,
    layout: &Layout,
) -> Result<Checked, Flaw> {
    let meta = directory.meta().map_err(Flaw::Record)?;
    directory.check_owners().map_err(Flaw::Mismatch)?;
    let record = &meta.record;
    if record.complete == 0 {
        return Err(Flaw::Incomplete);
    }
    if record.boot_id != BootId::probe().0 {
        return Err(Flaw::Record("it is of another boot".into()));
    }
    if record.layout != layout.hash() {
        return Err(Flaw::Record("it is of another layout".into()));
    }
    let infos = maps(directory, layout)?;
    let sizes = sizes(plan, options, |name| infos.get(name).map_or(1, MapInfo::max_entries))?;
    let switches = first_value::<Switches>(&directory.pin(Kind::Map, name::SWITCHES), name::SWITCHES)?;
    if switches.enabled != 1 {
        return Err(Flaw::Mismatch("counting is switched off".into()));
    }
    let refused = directory.pins(Kind::Link).iter().any(|name| name == name::REFUSED);
    let hooks: Vec<_> = hooks(plan).chain(refused.then_some(name::REFUSED)).collect();
    for &hook in &hooks {
        check_hook(directory, hook, record.build == 0, &infos, plan)
            .map_err(|reason| Flaw::Hook { hook, reason })?;
    }
    Ok(Checked { meta, sizes, hooks })
}

/// Compares each map with its shape. Returns the kernel's description, by name.
pub(super) fn maps<'a>(
    directory: &Directory,
    layout: &'a Layout,
) -> Result<BTreeMap<&'a str, MapInfo>, Flaw> {
    let mut infos = BTreeMap::new();
    for shape in &layout.maps {
        let (name, pin) = (shape.name.as_str(), directory.pin(Kind::Map, &shape.name));
        if pin.symlink_metadata().is_err() {
            return Err(Flaw::Missing(format!("map {name}")));
        }
        directory.check_owner(&pin).map_err(Flaw::Mismatch)?;
        directory.open_pin(Kind::Map, name).map_err(|error| Flaw::Mismatch(error.to_string()))?;
        let info = MapInfo::from_pin(&pin).map_err(|error| Flaw::Mismatch(chain(&error)))?;
        if let Some(difference) = shape.difference(&MapShape::from_info(name, &info)) {
            return Err(Flaw::Mismatch(difference));
        }
        if info.name() != short(name).as_bytes() {
            let found = String::from_utf8_lossy(info.name()).into_owned();
            return Err(Flaw::Mismatch(format!("the pin of map {name} is of a map {found}")));
        }
        infos.insert(name, info);
    }
    Ok(infos)
}

/// The sizes that the maps have. A size that no loader gives a map is a flaw.
fn sizes(plan: &Plan, options: &Options, entries: impl Fn(&str) -> u32) -> Result<HostSizes, Flaw> {
    let (states, overflow) = if options.only_counts() {
        (name::COUNTED_STATES, name::OVERFLOW_COUNTED)
    } else {
        (name::SOCKET_STATES, name::OVERFLOW_STATES)
    };
    let slots =
        entries(states).checked_sub(plan.cpus * SCRATCH_SLOTS).filter(|slots| slots.is_power_of_two());
    let slots = slots.ok_or_else(|| {
        Flaw::Mismatch(format!("map {states} has {} entries, which is no size of a table", entries(states)))
    })?;
    let planned = HostSizes::planned(plan, options);
    if (slots == 1) != (planned.table_bits == 0) {
        return Err(Flaw::Mismatch(format!("map {states} has {slots} slots")));
    }
    Ok(HostSizes {
        ring_bytes: planned.ring_bytes,
        table_bits: slots.ilog2(),
        overflow: entries(overflow),
        pending: entries(name::PENDING_OVERFLOW),
    })
}

/// Checks that the link of a hook runs the pinned program, and that the program works on the pinned maps. While programs are
/// replaced, the link may run the one that comes.
fn check_hook(
    directory: &Directory,
    hook: &'static str,
    is_being_replaced: bool,
    infos: &BTreeMap<&str, MapInfo>,
    plan: &Plan,
) -> Result<(), String> {
    let pin = directory.pin(Kind::Link, hook);
    if pin.symlink_metadata().is_err() {
        return Err("its link is missing".into());
    }
    directory.check_owner(&pin)?;
    let fd = directory.open_pin(Kind::Link, hook).map_err(|error| error.to_string())?;
    let link: FdLink = PinnedLink::from_pin(&pin).map_err(|error| chain(&error))?.into();
    let info = link.info().map_err(|error| chain(&error))?;
    let link_type = info.link_type().map_err(|error| chain(&error))?;
    let is_cgroup = hook == name::SOCK_OPS;
    match link_type {
        LinkType::Cgroup if is_cgroup => check_cgroup(&fd, plan)?,
        LinkType::RawTracePoint | LinkType::Tracing if !is_cgroup => {}
        _ => return Err("its link is of another kind".into()),
    }
    let coming = format!("{hook}{NEW}");
    let candidates = [hook, &coming].into_iter().take(1 + usize::from(is_being_replaced));
    for name in candidates {
        let pin = directory.pin(Kind::Program, name);
        if directory.open_pin(Kind::Program, name).is_err() {
            continue;
        }
        directory.check_owner(&pin)?;
        let program = ProgramInfo::from_pin(&pin).map_err(|error| chain(&error))?;
        if program.id() == info.program_id() {
            return check_program(hook, &program, infos);
        }
    }
    Err(format!("its link runs program {}, which is not the pinned one", info.program_id()))
}

/// The program of a hook has its name and uses these maps, and no other map of the name of one of these.
fn check_program(hook: &str, program: &ProgramInfo, infos: &BTreeMap<&str, MapInfo>) -> Result<(), String> {
    if program.name() != short(hook).as_bytes() {
        return Err(format!("its program is {}", String::from_utf8_lossy(program.name())));
    }
    let used = program.map_ids().map_err(|error| chain(&error))?.unwrap_or_default();
    let is_pinned = |id: &u32| infos.values().any(|info| info.id() == *id);
    if !infos.get(name::SWITCHES).is_some_and(|switches| used.contains(&switches.id())) {
        return Err("its program does not use the pinned map SWITCHES".into());
    }
    for &id in used.iter().filter(|id| !is_pinned(id)) {
        let other = MapInfo::from_id(id).map_err(|error| chain(&error))?;
        let name = String::from_utf8_lossy(other.name()).into_owned();
        // The names of all own maps are short enough, or begin with one of the prefixes.
        if is_shared(&name) && !name.contains(".rodata") {
            return Err(format!("its program counts in another map {name}"));
        }
    }
    Ok(())
}

/// The link is attached to the root of the hierarchy. It has no cgroup any more if that is gone (`cgroup_bpf_release()`).
fn check_cgroup(link: &OwnedFd, plan: &Plan) -> Result<(), String> {
    let attached = attached_cgroup(link).map_err(|error| error.to_string())?;
    let root = plan.cgroup_root.as_deref().and_then(|root| fs::metadata(root).ok()).map(|facts| facts.ino());
    match (attached, root) {
        (Some(0), _) => Err("it is detached from the root of the cgroup v2 hierarchy".into()),
        (Some(attached), Some(root)) if attached != root => {
            Err(format!("it is attached to cgroup {attached}, not to the root of the hierarchy"))
        }
        _ => Ok(()),
    }
}

/// The cgroup that a link is attached to: 0 if it was detached; none if the kernel does not say so.
pub(super) fn attached_cgroup(link: &OwnedFd) -> io::Result<Option<u64>> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", link.as_raw_fd()))?;
    let id = info.lines().find_map(|line| line.strip_prefix("cgroup_id:"));
    Ok(id.and_then(|id| id.trim().parse().ok()))
}

/// The first value of a pinned array.
fn first_value<V: crate::kernel::plain::Plain>(path: &Path, name: &'static str) -> Result<V, Flaw> {
    let read = MapData::from_pin(path).and_then(Map::from_map_data).map_err(|error| chain(&error));
    let map = read.and_then(|map| Array::<V>::open(name, map).map_err(|error| chain(&error)));
    map.and_then(|map| map.get(0).map_err(|error| chain(&error))).map_err(Flaw::Mismatch)
}

/// A name as the kernel keeps it.
fn short(name: &str) -> &str {
    &name[..name.len().min(NAME_LENGTH)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::plan::HookSet;

    fn plan() -> Plan {
        let hooks = HookSet { set_state: true, sock_ops: true, destroy_sock: true, ..HookSet::NONE };
        Plan { hooks, cgroup_root: None, cpus: 2, shards: 2, open_files: 500, degradations: vec![] }
    }

    #[test]
    fn bits_of_the_table_come_from_the_map() {
        if !crate::kernel::load_options::HAS_TABLES {
            return;
        }
        let bits = |states| {
            let entries = |name: &str| if name == name::COUNTED_STATES { states } else { 9 };
            sizes(&plan(), &Options::counting(), entries).map(|sizes| (sizes.table_bits, sizes.overflow))
        };
        let scratch = 2 * SCRATCH_SLOTS;
        assert_eq!(bits((1 << 16) + scratch), Ok((16, 9)));
        assert_eq!(bits((1 << 18) + scratch), Ok((18, 9)));
        assert!(bits((1 << 16) + scratch + 1).is_err() && bits(1).is_err());
        assert!(bits(1 + scratch).is_err(), "a run with a table goes on without one");
    }

    #[test]
    fn names_are_cut_as_in_the_kernel() {
        assert_eq!((short("OVERFLOW_COUNTED"), short("LEDGER")), ("OVERFLOW_COUNTE", "LEDGER"));
        assert_eq!(short(name::SET_STATE_AGAIN), name::SET_STATE_AGAIN);
    }
}
