//! The confinement of the front: another user, no capability, no new privileges, no file, no socket of its own, few system calls.
//!
//! All of it happens before the first other thread and before the first byte of a client. What the kernel does not have is
//! left out: Landlock is new in Linux 5.13.

use std::fmt;
use std::io;

use caps::CapSet;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use nix::libc;
use nix::unistd::{Gid, Uid, geteuid, setgroups, setresgid, setresuid};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What was applied.
#[derive(Debug)]
pub(crate) struct Confined {
    uid: u32,
    landlock: &'static str,
    has_seccomp: bool,
}

impl fmt::Display for Confined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seccomp = if self.has_seccomp { "on" } else { "off" };
        write!(f, "user {}, no capabilities, Landlock {}, seccomp {seccomp}", self.uid, self.landlock)
    }
}

/// Confines this thread, which must be the only one of the process.
///
/// # Errors
/// A privilege cannot be dropped.
pub(crate) fn enter(uid: Option<u32>, gid: Option<u32>) -> io::Result<Confined> {
    drop_privileges(uid, gid)?;
    let uid = geteuid().as_raw();
    let landlock = landlock().unwrap_or("off");
    let has_seccomp = seccomp();
    Ok(Confined { uid, landlock, has_seccomp })
}

/// Becomes another user without any capability, and without a way to get one. The process ends with its parent.
///
/// # Errors
/// A privilege cannot be dropped.
pub(crate) fn drop_privileges(uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    // The back is gone: so is the reason to be.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    nix::sys::prctl::set_no_new_privs()?;
    let drop_all = |set| caps::clear(None, set).map_err(|error| io::Error::other(error.to_string()));
    if geteuid().is_root() {
        drop_all(CapSet::Bounding)?;
        if let Some(gid) = gid.map(Gid::from_raw) {
            setgroups(&[])?;
            setresgid(gid, gid, gid)?;
        }
        if let Some(uid) = uid.map(Uid::from_raw) {
            setresuid(uid, uid, uid)?;
        }
        // The kernel clears the signal of the parent's death when the user changes.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        drop_all(set)?;
    }
    Ok(())
}

/// No file, no port of TCP, no socket and no signal outside.
fn landlock() -> Option<&'static str> {
    let newest = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(newest)))
        .and_then(|rules| rules.scope(Scope::from_all(newest)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self)
        .inspect_err(|error| log::debug!("Landlock: {error}"))
        .ok()?;
    Some(match status.ruleset {
        RulesetStatus::FullyEnforced => "on",
        RulesetStatus::PartiallyEnforced => "on in part",
        RulesetStatus::NotEnforced => "off",
    })
}

/// The system calls of the front. Others fail with EPERM.
const CALLS: &[i64] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_lseek,
    // For pipes and timers of the event loop.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
    libc::SYS_socketpair,
    libc::SYS_ppoll,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    // Memory, threads, signals.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
];

/// False if the kernel has no such filters.
fn seccomp() -> bool {
    let rules = CALLS.iter().map(|&call| (call, Vec::new())).collect();
    let Ok(machine) = std::env::consts::ARCH.try_into() else { return false };
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, machine)
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())
        .and_then(|program| seccompiler::apply_filter(&program).map_err(|error| error.to_string()))
        .inspect_err(|error| log::debug!("seccomp: {error}"))
        .is_ok()
}
