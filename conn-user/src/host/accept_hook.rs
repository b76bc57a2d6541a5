//! Hooks that see accepts: programs on kernel functions of the accept path, or on the exits of the system calls.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;

use aya::Btf;
use aya::programs::{FEntry, FExit, Program, ProgramError, TracePoint};
use conn_common::layout::{ACCEPT, GRAFT};
use conn_common::name;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::complaint::{Complaint, complaint};

/// A hook that sees the accepting task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptHook {
    /// `fentry` on `security_sock_graft()`: every accept, also by `io_uring`. Needs BPF trampolines and a kernel with
    /// security modules for sockets.
    Graft,
    /// `fexit` on `inet_csk_accept()`, for kernels without such modules. A call under way while a program is attached
    /// or detached returns without running it (`bpf_tramp_image_put()`). The hook misses the next accept of a task
    /// that waited then.
    Function,
    /// The exits of `accept` and `accept4`. The hook costs every system call of the host some nanoseconds and misses
    /// accepts by `io_uring`.
    Syscalls,
}

impl AcceptHook {
    /// All hooks, the best first.
    pub const ALL: [Self; 3] = [Self::Graft, Self::Function, Self::Syscalls];

    /// The name in `--accept-hook`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Graft => "graft",
            Self::Function => "function",
            Self::Syscalls => "syscalls",
        }
    }

    /// Parses a name.
    ///
    /// # Errors
    /// The word is not the name of a hook.
    pub fn parse(text: &str) -> Result<Self, Complaint> {
        Self::ALL
            .into_iter()
            .find(|hook| hook.name() == text)
            .ok_or_else(|| complaint!("unknown hook {text:?}: use graft, function or syscalls"))
    }
}

/// Why this host does not let a hook be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The object has no program for the hook.
    #[error("the object has no such program")]
    NoProgram,
    /// The kernel has no `inet_csk_accept()`, or does not describe the function.
    #[error("this kernel has no inet_csk_accept()")]
    NoFunction,
    /// The function has other parameters than the programs know.
    #[error("inet_csk_accept() has {0} parameters here")]
    Parameters(u32),
    /// The kernel refused the program.
    #[error("{0}")]
    Refused(String),
    /// tracefs cannot be mounted.
    #[error("mounting tracefs: {0}")]
    Tracefs(nix::Error),
}

/// The outcome of the search for a hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The hook in use, if any.
    pub hook: Option<AcceptHook>,
    /// Better hooks, and why this host refuses each.
    pub refused: Vec<(AcceptHook, AcceptError)>,
}

/// The directory of event descriptions in tracefs.
const EVENTS: &str = "/sys/kernel/tracing/events";
/// The tracepoints at the exits of accepting system calls.
const EXITS: [&str; 2] = ["sys_exit_accept", "sys_exit_accept4"];

/// The offset in bytes of a system call's result in the record of its exit. `None` without tracefs or without tracing
/// of system calls.
pub fn syscall_result() -> Option<u32> {
    in_tracefs(|| {
        let format = fs::read_to_string(format!("{EVENTS}/syscalls/{}/format", EXITS[0])).ok()?;
        offset_of(&format, "ret")
    })
    .ok()
    .flatten()
}

type Programs<'a> = BTreeMap<&'a str, &'a mut Program>;

impl Search {
    /// Attaches the program of the best hook that this host allows, or of the forced one. Without a hook, a
    /// connection keeps its listener as owner. `parameters` is the number of parameters of `inet_csk_accept()`, if
    /// the kernel has the function.
    pub fn run(
        forced: Option<AcceptHook>,
        parameters: Option<u32>,
        mut programs: Programs<'_>,
        btf: &Btf,
    ) -> Self {
        let mut search = Self::default();
        for hook in AcceptHook::ALL.into_iter().filter(|&hook| forced.is_none_or(|forced| forced == hook)) {
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
}

/// Attaches the program of a hook.
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

/// A refusal without the verifier's log, which is long and for developers.
fn refused(error: impl std::error::Error) -> AcceptError {
    let whole = error.to_string();
    let first = whole.lines().next().unwrap_or_default();
    let text = first.split(". Verifier output").next().unwrap_or(first);
    AcceptError::Refused(match error.source().map(ToString::to_string) {
        Some(source) if !text.contains(&source) => format!("{text}: {source}"),
        _ => text.to_owned(),
    })
}

/// Runs `look` where tracefs is mounted. If necessary, a thread mounts tracefs in a mount namespace of its own, so
/// that the host does not change.
fn in_tracefs<T: Send>(look: impl FnOnce() -> T + Send) -> Result<T, AcceptError> {
    if Path::new(EVENTS).exists() {
        return Ok(look());
    }
    let private = || {
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS)?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some("tracefs"), "/sys/kernel/tracing", Some("tracefs"), MsFlags::empty(), none)
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            private().map_err(AcceptError::Tracefs)?;
            Ok(look())
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The offset of a field in a tracepoint's description:
/// `field:long ret;\toffset:16;\tsize:8;\tsigned:1;`.
fn offset_of(format: &str, field: &str) -> Option<u32> {
    format.lines().find_map(|line| {
        let (declaration, rest) = line.trim().strip_prefix("field:")?.split_once(';')?;
        if declaration.split_ascii_whitespace().next_back()? != field {
            return None;
        }
        rest.trim().strip_prefix("offset:")?.split(';').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The descriptions of stock kernels, see `offsets::tests`. Records of real-time kernels begin with one field
    /// more.
    #[test]
    fn results_have_the_offset_of_stock_kernels() {
        for (kernel, format) in [
            ("5.10", include_str!("../../tests/kernel/5.10.format")),
            ("6.1", include_str!("../../tests/kernel/6.1.format")),
            ("6.12", include_str!("../../tests/kernel/6.12.format")),
            ("6.18", include_str!("../../tests/kernel/6.18.format")),
            ("7.2", include_str!("../../tests/kernel/7.2.format")),
        ] {
            assert_eq!(offset_of(format, "ret"), Some(16), "{kernel}");
            assert_eq!(offset_of(format, "common_pid"), Some(4), "{kernel}");
            let shifted =
                format.replace("offset:16;", "offset:24;").replace("offset:8;", "offset:16;").replace(
                    "\tfield:int __syscall_nr;",
                    "\tfield:unsigned char common_preempt_lazy_count;\toffset:8;\tsize:1;\tsigned:0;\n\n\
                 \tfield:int __syscall_nr;",
                );
            assert_eq!(offset_of(&shifted, "ret"), Some(24), "{kernel}");
        }
    }

    #[test]
    fn results_have_the_described_offset() {
        let ordinary = "name: sys_exit_accept4\nID: 1\nformat:\n\
                        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
                        \tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n\
                        \tfield:long ret;\toffset:16;\tsize:8;\tsigned:1;\n";
        assert_eq!(offset_of(ordinary, "ret"), Some(16));
        assert_eq!(offset_of(&ordinary.replace("offset:16", "offset:24"), "ret"), Some(24));
        assert_eq!(offset_of("field:long return;\toffset:16;", "ret"), None);
        assert_eq!(offset_of("", "ret"), None);
    }

    #[test]
    fn hooks_have_names() {
        for hook in AcceptHook::ALL {
            assert_eq!(AcceptHook::parse(hook.name()), Ok(hook));
        }
        assert!(AcceptHook::parse("kprobe").is_err());
    }
}
