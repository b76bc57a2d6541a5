//! Attacks by an ordinary user: processes of uid 65534, most of them in user and network namespaces of their own.
//!
//! An attack is a function that a [`Attacker`] runs in its own process. It reports once that it is under way, and goes on
//! until it is dropped.

#![expect(unsafe_code, reason = "what becomes another user has no safe form")]

pub mod namespaces;
pub mod sockets;

use crate::{
    harness::Skip,
    netns::{NetNs, loopback_up},
    traffic::{
        crew::{Line, Worker},
        process::Process,
    },
};
use nix::{
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use std::{
    io,
    os::fd::{AsRawFd as _, RawFd},
    path::Path,
};

/// The user and the group that own nothing.
pub const USER: u32 = 65_534;
/// Open files of an attacking process, as far as the machine allows. An attack that needs more has several processes.
pub const FILES: u64 = 20_000;

/// A process of an attacker. Dropped, it is killed.
#[derive(Debug)]
pub struct Attacker(Worker);

impl Attacker {
    /// Starts an attack in user and network namespaces of its own, with the loopback link up.
    pub fn start(name: &str, attack: impl FnOnce(&Line)) -> Self {
        Self::start_with(name, &[], |line| {
            own_network().expect("namespaces");
            attack(line);
        })
    }

    /// Starts an attack in the namespaces of the calling thread.
    pub fn start_here(name: &str, attack: impl FnOnce(&Line)) -> Self {
        Self::start_with(name, &[], attack)
    }

    /// [`Attacker::start_here`] with these descriptors.
    pub fn start_with(name: &str, kept: &[RawFd], attack: impl FnOnce(&Line)) -> Self {
        Self(Worker::start(name, kept, |line| {
            become_user().expect("another user");
            attack(line);
        }))
    }

    /// Waits until the attack is under way.
    pub fn await_ready(&self) {
        self.0.await_ready();
    }

    /// Lets an attack go on that waits.
    pub fn resume(&self) {
        self.0.resume();
    }

    /// Waits until the attack ends by itself.
    ///
    /// # Panics
    /// It ended badly.
    pub fn join(self) {
        self.0.join();
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }
}

/// Whether an ordinary user may make namespaces here.
///
/// # Errors
/// This machine does not allow that.
pub fn may_attack() -> Result<(), Skip> {
    let (reader, writer) = io::pipe().expect("a pipe");
    let kept = [writer.as_raw_fd()];
    let process = Process::run("conn-probe", &kept, || {
        use io::Write as _;
        let tried = become_user().and_then(|()| own_network());
        let answer = tried.err().map_or_else(String::new, |error| error.to_string());
        (&writer).write_all(answer.as_bytes()).expect("the test reads");
    });
    process.join();
    drop(writer);
    let refusal = io::read_to_string(reader).expect("an answer");
    if refusal.is_empty() {
        return Ok(());
    }
    Err(Skip(format!("an ordinary user cannot make namespaces here: {refusal}")))
}

/// Whether the owner of a network namespace sets the memory for socket storage of its sockets (`net.core.optmem_max`). Older
/// kernels have one limit, which is the host's.
///
/// # Errors
/// The reason to skip the test.
///
/// # Panics
/// The kernel refuses a namespace.
pub fn may_starve() -> Result<(), Skip> {
    may_attack()?;
    let netns = NetNs::new().expect("a namespace");
    if netns.run(|| Path::new("/proc/sys/net/core/optmem_max").exists()) {
        return Ok(());
    }
    Err(Skip("this kernel has one optmem_max for all network namespaces, which no user may set".into()))
}

/// The calling process becomes an ordinary user, with room for its files.
fn become_user() -> io::Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, FILES.min(most), most)?;
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(USER.into(), USER.into(), USER.into())?;
    nix::unistd::setresuid(USER.into(), USER.into(), USER.into())?;
    // As after an exec: other processes of the user may look at this one.
    // SAFETY: plain numbers.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes user and network namespaces for the calling process, which has one thread.
fn own_network() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    loopback_up()
}
