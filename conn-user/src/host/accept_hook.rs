//! Hooks that see accepts: programs on kernel functions of the accept path, or on the exits of the system calls.

use std::fs;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::complaint::{Complaint, as_typed, complaint};

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
            .ok_or_else(|| complaint!("unknown hook {}: use graft, function or syscalls", as_typed(text)))
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
    /// The function has other parameters than the programs expect.
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
pub(crate) const EXITS: [&str; 2] = ["sys_exit_accept", "sys_exit_accept4"];

/// The offset in bytes of a system call's result in the record of its exit. `None` without tracefs or without tracing
/// of system calls.
pub(crate) fn syscall_result() -> Option<u32> {
    in_tracefs(|| {
        let format = fs::read_to_string(format!("{EVENTS}/syscalls/{}/format", EXITS[0])).ok()?;
        offset_of(&format, "ret")
    })
    .ok()
    .flatten()
}

/// Runs `look` where tracefs is mounted: in this mount namespace, else in a new one, so that the mount is private.
pub(crate) fn in_tracefs<T: Send>(look: impl FnOnce() -> T + Send) -> Result<T, AcceptError> {
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
