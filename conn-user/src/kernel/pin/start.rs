//! The start on pins: anew, with the programs of the last process, or with other programs in their place.

use std::collections::{BTreeMap, BTreeSet};
use std::env;

use aya::maps::Map;
use aya::programs::links::{FdLink, PinnedLink};
use conn_common::layout_hash::LayoutHash;
use conn_common::name;
use conn_common::pin::HOOKS;

use crate::host::plan::Plan;
use crate::kernel::layout_hash::Layout;
use crate::kernel::load::{MapSource, OBJECT};
use crate::kernel::load_options::{HostSizes, Options};
use crate::kernel::map::{HashMap, MapError};
use crate::kernel::map_batch;
use crate::kernel::map_shape::MapShape;
use crate::kernel::pin::Opened;
use crate::kernel::pin::check::{self, Checked};
use crate::kernel::pin::directory::{Directory, Kind};
use crate::kernel::pin::earlier;
use crate::kernel::pin::error::{Flaw, PinError};
use crate::kernel::pin::meta::{self, Meta};
use crate::kernel::pin::replace;
use crate::kernel::pin::root::LockedRoot;
use crate::kernel::probe::{Probe, ProbeError};
use crate::kernel::program_stats::EarlierProgram;
use crate::kernel::session::{Prepared, Session, StartError};

/// The hooks, in the order of [`conn_common::pin::PinRecord::missed`].
const ORDER: [&str; 5] =
    [name::SET_STATE, name::SET_STATE_AGAIN, name::DESTROY_SOCK, name::SOCK_OPS, name::REFUSED];
const _: () = assert!(ORDER.len() <= HOOKS);

/// A test sets this variable to 1 for programs that differ from those without it in one global that changes nothing.
const OTHER_BUILD: &str = "CONNTRACE_TEST_BUILD";

/// The place of a hook in the record.
pub(super) fn index(hook: &str) -> Option<usize> {
    ORDER.iter().position(|&name| name == hook)
}

/// What is to be done with the pins.
#[derive(Debug)]
enum Way {
    /// Pins are made. `why` says why earlier ones are not gone on with.
    Anew { meta: Meta, why: Option<String> },
    /// The pins are gone on with.
    Resume(Checked),
}

/// Programs that count, with their pins.
#[derive(Debug)]
pub(super) struct Started {
    pub session: Session,
    pub how: Opened,
    pub directory: Directory,
    pub meta: Meta,
}

/// Starts. Removes the pins of other epochs once new programs are attached.
pub(super) fn start(root: &LockedRoot, plan: &Plan, options: &Options) -> Result<Started, StartError> {
    let mut chosen = None;
    let loaded = Probe::load_from(plan, options, |offsets| {
        let layout = Layout::new(plan, options, offsets)
            .map_err(|error| PinError::Object { reason: error.to_string() })?;
        let (directory, way) = choose(root, plan, options, &layout)?;
        let sizes = match &way {
            Way::Anew { .. } => HostSizes::planned(plan, options),
            Way::Resume(checked) => checked.sizes,
        };
        let pin = |shape: &MapShape| (shape.name.clone(), directory.pin(Kind::Map, &shape.name));
        let pins = layout.maps.iter().map(pin).collect();
        chosen = Some((directory, way));
        let log_level = u8::from(env::var_os(OTHER_BUILD).is_some_and(|value| value == "1"));
        Ok::<_, StartError>(MapSource { sizes, pins, log_level })
    });
    // Without a choice, the load has failed before it.
    let Some((directory, way)) = chosen else { return Err(loaded.err().unwrap_or_else(no_choice)) };
    match way {
        Way::Resume(checked) => resume(directory, checked, loaded?, plan, options),
        Way::Anew { meta, why } => {
            let (session, meta) = loaded
                .and_then(|probe| begin(root, &directory, meta, probe, plan, options))
                // A later start would find half of the pins.
                .inspect_err(|_| drop(directory.remove()))?;
            Ok(Started { session, how: Opened::New { why }, directory, meta })
        }
    }
}

fn no_choice() -> StartError {
    PinError::Object { reason: "no maps were chosen".into() }.into()
}

/// Compares the pins with what this run needs. Returns their directory.
fn choose(
    root: &LockedRoot,
    plan: &Plan,
    options: &Options,
    layout: &Layout,
) -> Result<(Directory, Way), PinError> {
    let directory = root.directory(&format!("{:016x}", layout.hash()));
    let why = if directory.exists() {
        match check::check(&directory, plan, options, layout) {
            Ok(checked) => return Ok((directory, Way::Resume(checked))),
            Err(flaw) => {
                directory.retire()?;
                Some(flaw.to_string())
            }
        }
    } else {
        other_layout(root, layout)
    };
    let mut record = layout.record();
    earlier::carry(root, &mut record);
    let meta = directory.create(&record)?;
    Ok((directory, Way::Anew { meta, why }))
}

/// Why the pins that are there are of another layout; none if there are none.
fn other_layout(root: &LockedRoot, layout: &Layout) -> Option<String> {
    let other = root.directories().ok()?.into_iter().find(Directory::is_ours)?;
    let difference = match other.meta() {
        // A start that was killed after it had retired the pins of another one has left those.
        Ok(meta) if meta.record.complete == 0 => return Some(Flaw::Incomplete.to_string()),
        Ok(meta) => layout
            .difference(&meta.record)
            .or_else(|| check::maps(&other, layout).err().map(|flaw| flaw.to_string()))
            .unwrap_or_else(|| "the list of maps differs".into()),
        Err(reason) => format!("their record cannot be read ({reason})"),
    };
    Some(format!("the pins in {} have another layout: {difference}", other.shown.display()))
}

/// Attaches new programs on new maps, and pins both.
fn begin(
    root: &LockedRoot,
    directory: &Directory,
    mut meta: Meta,
    probe: Probe,
    plan: &Plan,
    options: &Options,
) -> Result<(Session, Meta), StartError> {
    let build = build(&probe)?;
    let prepared = Prepared::load(probe, plan, options)?.attach(options)?;
    pin_hooks(&prepared.probe, directory)?;
    // Up to here another epoch has gone on counting.
    remove_others(root, directory);
    let session = prepared.begin(options)?;
    meta.set_epoch(session.epoch);
    meta.record.build = build;
    meta.record.program = meta::version();
    meta.record.complete = 1;
    meta.write()?;
    Ok((session, meta))
}

/// Pins the attached hooks and their programs.
fn pin_hooks(probe: &Probe, directory: &Directory) -> Result<(), PinError> {
    let mut links = probe.links();
    let unpinned = std::mem::take(&mut *links);
    for (hook, link) in unpinned {
        probe.pin_program(hook, &directory.pin(Kind::Program, hook))?;
        let pinned = link.pin(directory.pin(Kind::Link, hook));
        let pinned = pinned.map_err(|error| PinError::other("pinning a link", error))?;
        links.insert(hook, pinned.into());
    }
    Ok(())
}

/// Removes the pins of all other epochs.
fn remove_others(root: &LockedRoot, directory: &Directory) {
    for other in root.directories().unwrap_or_default() {
        if other.name != directory.name {
            for left in other.remove().left {
                log::warn!("{} was not made by conntrace, and stays", left.display());
            }
        }
    }
}

/// Goes on with the pins.
fn resume(
    directory: Directory,
    checked: Checked,
    mut probe: Probe,
    plan: &Plan,
    options: &Options,
) -> Result<Started, StartError> {
    let Checked { mut meta, hooks, .. } = checked;
    let build = build(&probe)?;
    // The hooks of a stream that are not pinned come back with its programs.
    let is_replaced = meta.record.build != build || options.is_stream();
    let prepared = if is_replaced {
        replace::replace(&directory, &mut meta, build, probe, plan, options)?
    } else {
        for &hook in &hooks {
            let link = PinnedLink::from_pin(directory.pin(Kind::Link, hook));
            let link = link.map_err(|error| PinError::other("opening a link", error))?;
            probe.links().insert(hook, FdLink::from(link));
        }
        probe.adopt_programs(earlier_programs(&directory, &meta, &hooks)?);
        Prepared::of_earlier(probe, plan, hooks.contains(&name::REFUSED))
    };
    let adopted = walked(&prepared.probe)?;
    let session = prepared.go_on(options, adopted, meta::epoch(&meta.record))?;
    let how = if is_replaced { Opened::Replaced } else { Opened::TakenOver };
    Ok(Started { session, how, directory, meta })
}

/// The programs that still run, and what the kernel skipped of those before them.
fn earlier_programs(
    directory: &Directory,
    meta: &Meta,
    hooks: &[&'static str],
) -> Result<BTreeMap<&'static str, EarlierProgram>, PinError> {
    let program = |&hook: &&'static str| {
        let what = format!("opening {}", directory.shown_pin(Kind::Program, hook).display());
        let fd = directory.open_pin(Kind::Program, hook).map_err(PinError::io(what))?;
        let missed = index(hook).map_or(0, |at| meta.record.missed[at]);
        Ok((hook, EarlierProgram { fd: Some(fd), missed }))
    };
    hooks.iter().map(program).collect()
}

/// The namespaces whose sockets are adopted.
fn walked(probe: &Probe) -> Result<BTreeSet<u32>, MapError> {
    let walked = probe.map::<HashMap<u32, u8>>(name::WALKED)?;
    Ok(walked.entries()?.into_keys().collect())
}

/// The hash of the programs and all their globals. Equal tags do not say that globals are equal.
fn build(probe: &Probe) -> Result<u64, ProbeError> {
    let ebpf = probe.ebpf();
    let mut sections: Vec<_> = ebpf.maps().filter(|(name, _)| name.starts_with('.')).collect();
    sections.sort_by_key(|&(name, _)| name.to_owned());
    let mut hash = LayoutHash::EMPTY.bytes(OBJECT);
    for (name, section) in sections {
        let Map::Array(data) = section else { continue };
        hash = hash.text(name).bytes(&map_batch::globals(data)?);
    }
    Ok(hash.value())
}
