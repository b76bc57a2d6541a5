//! Other programs in the place of those that run, on the same maps and without a gap.
//!
//! All tracepoints get the new program beside the old one for a moment: both see the same state of a socket, so the second
//! one finds each step done. Socket operations, which also count attempts, are replaced in the link, at one stroke.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use aya::programs::ProgramInfo;
use aya::programs::links::{FdLink, PinnedLink};
use conn_common::name;

use crate::host::plan::Plan;
use crate::kernel::attach::tracepoints;
use crate::kernel::load_options::Options;
use crate::kernel::pin::check::NEW;
use crate::kernel::pin::directory::{Directory, Kind};
use crate::kernel::pin::error::PinError;
use crate::kernel::pin::meta::{self, Meta};
use crate::kernel::pin::start::index;
use crate::kernel::probe::Probe;
use crate::kernel::program_stats::{Cost, EarlierProgram};
use crate::kernel::session::{Prepared, StartError};
use crate::kernel::syscall;

/// Loads the programs of this build and replaces those that run. An interruption leaves hooks of both builds, which count
/// together, and the next start replaces them all.
pub(super) fn replace(
    directory: &Directory,
    meta: &mut Meta,
    build: u64,
    probe: Probe,
    plan: &Plan,
    options: &Options,
) -> Result<Prepared, StartError> {
    let mut prepared = Prepared::load(probe, plan, options)?;
    meta.record.build = 0;
    meta.write()?;
    let probe = &prepared.probe;
    let refused = probe.is_loaded(name::REFUSED).then_some(name::REFUSED);
    let mut hooks = Vec::new();
    for hook in tracepoints(plan.hooks).chain(refused) {
        let coming = pin_coming(directory, meta, probe, hook)?;
        replace_tracepoint(directory, probe, hook, &coming)?;
        retire(directory, meta, hook, &coming)?;
        hooks.push(hook);
    }
    if plan.hooks.sock_ops {
        let hook = name::SOCK_OPS;
        let coming = pin_coming(directory, meta, probe, hook)?;
        update_link(directory, probe, hook, &coming)?;
        retire(directory, meta, hook, &coming)?;
        hooks.push(hook);
    }
    meta.record.build = build;
    meta.record.program = meta::version();
    meta.write()?;
    let earlier = |hook| {
        let missed = index(hook).map_or(0, |at| meta.record.missed[at]);
        (hook, EarlierProgram { fd: None, missed })
    };
    let earlier: BTreeMap<_, _> = hooks.into_iter().map(earlier).collect();
    prepared.probe.adopt_programs(earlier);
    Ok(prepared)
}

/// Ends what an interrupted start left of a hook: the program that its link runs is the one without [`NEW`].
fn settle(directory: &Directory, meta: &mut Meta, hook: &'static str) -> Result<(), PinError> {
    let coming = format!("{hook}{NEW}");
    let Ok(program) = ProgramInfo::from_pin(directory.pin(Kind::Program, &coming)) else { return Ok(()) };
    let link = FdLink::from(open_link(directory, hook)?);
    if link.info().is_ok_and(|info| info.program_id() == program.id()) {
        return retire(directory, meta, hook, &coming);
    }
    directory.remove_pin(Kind::Program, &coming);
    Ok(())
}

/// Pins the new program of a hook beside the old one. Returns its name.
fn pin_coming(
    directory: &Directory,
    meta: &mut Meta,
    probe: &Probe,
    hook: &'static str,
) -> Result<String, PinError> {
    settle(directory, meta, hook)?;
    let coming = format!("{hook}{NEW}");
    probe.pin_program(hook, &directory.pin(Kind::Program, &coming))?;
    Ok(coming)
}

/// Attaches the new program, then lets its link take the place of the old one, which detaches the old program.
fn replace_tracepoint(
    directory: &Directory,
    probe: &Probe,
    hook: &'static str,
    coming: &str,
) -> Result<(), StartError> {
    directory.remove_pin(Kind::Link, coming);
    let link = probe.attach_tracepoint(hook)?;
    let link = link.pin(directory.pin(Kind::Link, coming));
    let link = link.map_err(|error| PinError::other("pinning a link", error))?;
    directory.rename_pin(Kind::Link, coming, hook)?;
    probe.links().insert(hook, link.into());
    Ok(())
}

/// Puts the new program into the link that is there.
fn update_link(
    directory: &Directory,
    probe: &Probe,
    hook: &'static str,
    coming: &str,
) -> Result<(), PinError> {
    let link = open(directory, Kind::Link, hook)?;
    let program = open(directory, Kind::Program, coming)?;
    syscall::update_link(link.as_fd(), program.as_fd()).map_err(PinError::io(format!("replacing {hook}")))?;
    probe.links().insert(hook, FdLink::from(open_link(directory, hook)?));
    Ok(())
}

fn open_link(directory: &Directory, hook: &str) -> Result<PinnedLink, PinError> {
    let link = PinnedLink::from_pin(directory.pin(Kind::Link, hook));
    link.map_err(|error| PinError::other("opening a link", error))
}

/// Lets the pin of the new program take the place of the old one, and notes what the kernel skipped of the old one.
fn retire(directory: &Directory, meta: &mut Meta, hook: &'static str, coming: &str) -> Result<(), PinError> {
    let old = open(directory, Kind::Program, hook);
    directory.rename_pin(Kind::Program, coming, hook)?;
    let missed = old.ok().and_then(|old| Cost::read(old.as_fd())).map_or(0, |cost| cost.missed);
    if let Some(at) = index(hook) {
        meta.record.missed[at] += missed;
        meta.write()?;
    }
    Ok(())
}

fn open(directory: &Directory, kind: Kind, name: &str) -> Result<OwnedFd, PinError> {
    let what = format!("opening {}", directory.shown_pin(kind, name).display());
    directory.open_pin(kind, name).map_err(PinError::io(what))
}
