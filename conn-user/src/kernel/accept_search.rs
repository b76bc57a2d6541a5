//! The search for a hook that sees accepts: the best one whose program this host loads and attaches.

use std::collections::BTreeMap;

use aya::Btf;
use aya::programs::{FEntry, FExit, Program, ProgramError, TracePoint};
use conn_common::layout::{ACCEPT, GRAFT};
use conn_common::name;

use crate::host::accept_hook::{AcceptError, AcceptHook, EXITS, Search, in_tracefs};

type Programs<'a> = BTreeMap<&'a str, &'a mut Program>;

/// Attaches the program of the first of these hooks that this host allows. Without a hook, a connection keeps its listener
/// as owner. `parameters` is how many `inet_csk_accept()` has, if it is there.
pub(super) fn search(
    hooks: &[AcceptHook],
    parameters: Option<u32>,
    mut programs: Programs<'_>,
    btf: &Btf,
) -> Search {
    let mut search = Search::default();
    for &hook in hooks {
        match attach(hook, parameters, &mut programs, btf) {
            Ok(()) => {
                search.hook = Some(hook);
                break;
            }
            Err(error) => {
                log::debug!("no program for accepts on {}: {error}", hook.name());
                search.refused.push((hook, error));
            }
        }
    }
    search
}

/// Attaches the program of a hook. The error says why this host does not allow it.
fn attach(
    hook: AcceptHook,
    parameters: Option<u32>,
    programs: &mut Programs<'_>,
    btf: &Btf,
) -> Result<(), AcceptError> {
    match hook {
        AcceptHook::Graft => {
            let program: &mut FEntry = find(programs, name::GRAFTED)?;
            program.load(GRAFT, btf).map_err(refused)?;
            program.attach().map_err(refused)?;
        }
        AcceptHook::Function => {
            let name = match parameters {
                Some(2) => name::ACCEPTED_TWO,
                Some(4) => name::ACCEPTED_FOUR,
                Some(other) => return Err(AcceptError::Parameters(other)),
                None => return Err(AcceptError::NoFunction),
            };
            let program: &mut FExit = find(programs, name)?;
            program.load(ACCEPT, btf).map_err(refused)?;
            program.attach().map_err(refused)?;
        }
        AcceptHook::Syscalls => {
            let program: &mut TracePoint = find(programs, name::ACCEPT_EXIT)?;
            program.load().map_err(refused)?;
            in_tracefs(|| {
                EXITS.iter().try_for_each(|exit| program.attach("syscalls", exit).map(drop).map_err(refused))
            })??;
        }
    }
    Ok(())
}

fn find<'a, T>(programs: &'a mut Programs<'_>, name: &str) -> Result<&'a mut T, AcceptError>
where
    &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = programs.get_mut(name).ok_or(AcceptError::NoProgram)?;
    <&mut T>::try_from(&mut **program).map_err(refused)
}

/// A refusal: the first line of an error with its source, without the verifier's log, which is long and for developers.
fn refused(error: impl std::error::Error) -> AcceptError {
    let said = error.to_string();
    let first = said.lines().next().unwrap_or_default();
    let text = first.split(". Verifier output").next().unwrap_or(first);
    AcceptError::Refused(match error.source().map(ToString::to_string) {
        Some(source) if !text.contains(&source) => format!("{text}: {source}"),
        _ => text.to_owned(),
    })
}
