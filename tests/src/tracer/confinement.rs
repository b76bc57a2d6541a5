//! What is taken from a program between fork and exec: privileges, directories, or the whole rest of the host.

#![expect(unsafe_code, reason = "what a child does between fork and exec has no safe form")]

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::resource::{Resource, setrlimit},
};
use std::{
    ffi::{CStr, CString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

/// The user and the group that own nothing.
const NOBODY: libc::c_long = 65_534;
/// What programs that are not static need of a host.
const LIBRARIES: [&str; 3] = ["lib", "lib64", "usr"];

/// The program has less than everything. Prepared before the fork: nothing is allocated after it.
#[derive(Debug, Clone, Default)]
pub(super) struct Confinement {
    /// The user `nobody` with these capabilities, a bit each.
    pub(super) capabilities: Option<u64>,
    /// What is mounted for it alone: a kind of file system, and where.
    pub(super) mounts: Vec<(&'static CStr, CString)>,
    /// A container.
    pub(super) container: Option<Container>,
    /// The most open files.
    pub(super) files: Option<u64>,
}

/// Namespaces of its own but for the network's, and a file system with nothing but the program, `/proc` and a
/// `/sys` that cannot be written.
#[derive(Debug, Clone)]
pub(super) struct Container {
    root: CString,
    proc: CString,
    sys: CString,
    libraries: Vec<(CString, CString)>,
}

impl Confinement {
    /// Goes there. Only system calls.
    pub(super) fn enter(&self) -> io::Result<()> {
        if let Some(files) = self.files {
            setrlimit(Resource::RLIMIT_NOFILE, files, files)?;
        }
        if !self.mounts.is_empty() {
            leave_mounts(CloneFlags::empty())?;
        }
        for (kind, directory) in &self.mounts {
            mount(Some(c"none"), directory.as_c_str(), Some(*kind), MsFlags::empty(), None::<&CStr>)?;
        }
        if let Some(container) = &self.container {
            container.enter()?;
        }
        self.capabilities.map_or(Ok(()), drop_privileges)
    }
}

impl Container {
    /// One with this directory as root, in which the program is.
    pub(super) fn new(root: &Path) -> io::Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
        let directory = |name: &str| -> io::Result<CString> {
            let path = root.join(name);
            fs::create_dir(&path)?;
            text(&path)
        };
        let mut libraries = Vec::new();
        for name in LIBRARIES {
            let of_host = Path::new("/").join(name);
            if of_host.exists() {
                libraries.push((text(&of_host)?, directory(name)?));
            }
        }
        Ok(Self { root: text(root)?, proc: directory("proc")?, sys: directory("sys")?, libraries })
    }

    fn enter(&self) -> io::Result<()> {
        let none = None::<&CStr>;
        leave_mounts(
            CloneFlags::CLONE_NEWPID
                | CloneFlags::CLONE_NEWUTS
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWCGROUP,
        )?;
        let root = self.root.as_c_str();
        mount(Some(root), root, none, MsFlags::MS_BIND, none)?;
        for (from, to) in &self.libraries {
            mount(Some(from.as_c_str()), to.as_c_str(), none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
        }
        mount(Some(c"sysfs"), self.sys.as_c_str(), Some(c"sysfs"), MsFlags::MS_RDONLY, none)?;
        become_first()?;
        mount(Some(c"proc"), self.proc.as_c_str(), Some(c"proc"), MsFlags::empty(), none)?;
        // Not pivot_root(2), which a machine that runs from its initramfs does not have.
        nix::unistd::chdir(root)?;
        mount(Some(c"."), c"/", none, MsFlags::MS_MOVE, none)?;
        nix::unistd::chroot(c".")?;
        Ok(nix::unistd::chdir(c"/")?)
    }
}

/// New namespaces, that of mounts among them. What is mounted there stays there.
fn leave_mounts(also: CloneFlags) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | also)?;
    let none = None::<&CStr>;
    Ok(mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
}

/// Continues as the first process of the new pid namespace. The parent sees a process that ends the same way.
fn become_first() -> io::Result<()> {
    // SAFETY: of this process there is one thread, and only system calls follow.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: plain numbers.
        0 => match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        },
        child => {
            let mut status = 0;
            // SAFETY: nothing here uses those descriptors, and others wait for their end; the status is ours.
            unsafe {
                libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0);
                while libc::waitpid(child, &raw mut status, 0) == -1 {}
                let code = if libc::WIFEXITED(status) {
                    libc::WEXITSTATUS(status)
                } else {
                    128 + libc::WTERMSIG(status)
                };
                libc::_exit(code)
            }
        }
    }
}

/// Becomes the user `nobody` with exactly these capabilities, which an exec keeps. It may not lock memory.
fn drop_privileges(capabilities: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    let header = Header { version: VERSION_3, pid: 0 };
    let data = [capabilities as u32, (capabilities >> 32) as u32].map(|half| Data {
        effective: half,
        permitted: half,
        inheritable: half,
    });
    let memory = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null::<libc::gid_t>();
    // SAFETY: plain numbers, and structures that the kernel only reads.
    unsafe {
        done(libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const memory).into())?;
        done(libc::prctl(libc::PR_SET_KEEPCAPS, 1).into())?;
        done(libc::syscall(libc::SYS_setgroups, 0, none))?;
        done(libc::syscall(libc::SYS_setresgid, NOBODY, NOBODY, NOBODY))?;
        done(libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY))?;
        done(libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()))?;
        for capability in (0..64).filter(|bit| capabilities & 1 << bit != 0) {
            done(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0).into())?;
        }
    }
    Ok(())
}

fn done(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
