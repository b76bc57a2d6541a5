//! The directory of all pins: found, mounted and made if needed, checked, and locked.
//!
//! A user may own the directory that `--bpffs` names, or a bpf file system of a user namespace. So every directory is opened
//! without following a link, its owner is read from the descriptor, and pins are reached through the descriptor.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::geteuid;

use crate::kernel::pin::directory::Directory;
use crate::kernel::pin::error::{PinError, Unfit};

/// The directory of the counts below the mount point.
pub(super) const NAME: &str = "conntrace";
/// How often the directory is opened anew if another process removes it meanwhile.
const TRIES: usize = 5;

/// The open directory of all pins.
#[derive(Debug)]
pub(super) struct Root {
    directory: File,
    /// Its path for people.
    shown: PathBuf,
}

/// The open directory, which no other process uses as long as this lives.
#[derive(Debug)]
pub(super) struct LockedRoot {
    directory: Flock<File>,
    shown: PathBuf,
}

impl Root {
    /// Opens the directory `name` below a mount point. Mounts a bpf file system if the mount point is an empty directory, and
    /// makes the directory.
    pub(super) fn make(point: &Path, name: &str) -> Result<Self, Unfit> {
        let mut top = open(point, point)?;
        if !is_bpf(&top) {
            mount_bpf(&top, point)?;
            top = open(point, point)?;
            if !is_bpf(&top) {
                return Err(Unfit::NotBpf { path: point.into(), reason: "another mount is above".into() });
            }
        }
        check_top(&top, point)?;
        if fstatvfs(&top).is_ok_and(|facts| facts.flags().contains(FsFlags::ST_RDONLY)) {
            return Err(Unfit::ReadOnly { path: point.into() });
        }
        let (path, shown) = (through(&top).join(name), point.join(name));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Unfit::Unreadable { path: shown, source });
            }
            _ => {}
        }
        let directory = open(&path, &shown)?;
        check_private(&directory, &shown)?;
        Ok(Self { directory, shown })
    }

    /// Opens the directory `name` below a mount point, if it is there. Changes nothing.
    pub(super) fn existing(point: &Path, name: &str) -> Result<Option<Self>, Unfit> {
        let top = match open(point, point) {
            Err(Unfit::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            opened => opened?,
        };
        if !is_bpf(&top) {
            return Ok(None);
        }
        check_top(&top, point)?;
        let shown = point.join(name);
        match open(&through(&top).join(name), &shown) {
            Err(Unfit::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => {
                let directory = opened?;
                check_private(&directory, &shown)?;
                Ok(Some(Self { directory, shown }))
            }
        }
    }

    /// Keeps other processes away. The lock is on the directory itself: two paths to the same pins meet, and nothing is left
    /// behind.
    pub(super) fn lock(self) -> Result<LockedRoot, PinError> {
        let Self { directory, shown } = self;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(directory) => Ok(LockedRoot { directory, shown }),
            Err((_, Errno::EWOULDBLOCK)) => Err(PinError::InUse { path: shown }),
            Err((_, errno)) => {
                Err(PinError::Io { what: format!("locking {}", shown.display()), source: errno.into() })
            }
        }
    }

    /// True if another process has the lock.
    pub(super) fn is_in_use(&self) -> bool {
        let Ok(directory) = File::open(through(&self.directory)) else { return false };
        matches!(Flock::lock(directory, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
    }

    /// The directories of all epochs, by name.
    pub(super) fn directories(&self) -> io::Result<Vec<Directory>> {
        directories(&self.directory, &self.shown)
    }

    /// The names of all that is in it.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        names(&self.directory)
    }

    /// The path for people.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }
}

impl LockedRoot {
    /// Opens, makes and locks.
    pub(super) fn make(point: &Path) -> Result<Self, PinError> {
        let mut root = Root::make(point, NAME)?.lock()?;
        for _ in 1..TRIES {
            // Another process may have removed the directory between both.
            if root.is_in_place() {
                break;
            }
            root = Root::make(point, NAME)?.lock()?;
        }
        Ok(root)
    }

    /// True if the path still leads to this directory.
    pub(super) fn is_in_place(&self) -> bool {
        fs::metadata(&self.shown).is_ok_and(|now| self.is_at(&now))
    }

    /// True if the file system takes no pins.
    pub(super) fn is_read_only(&self) -> bool {
        fstatvfs(&*self.directory).is_ok_and(|facts| facts.flags().contains(FsFlags::ST_RDONLY))
    }

    /// The path for people.
    pub(super) fn shown(&self) -> &Path {
        &self.shown
    }

    fn is_at(&self, now: &fs::Metadata) -> bool {
        self.directory.metadata().is_ok_and(|own| (own.dev(), own.ino()) == (now.dev(), now.ino()))
    }

    /// The directory of an epoch, which may not exist.
    pub(super) fn directory(&self, name: &str) -> Directory {
        Directory::new(&through(&self.directory), &self.shown, name)
    }

    /// The directories of all epochs, by name.
    pub(super) fn directories(&self) -> io::Result<Vec<Directory>> {
        directories(&self.directory, &self.shown)
    }

    /// Removes the directory itself, if it is empty.
    pub(super) fn remove(self) {
        // What is left in it has been named.
        let _ = fs::remove_dir(&self.shown);
    }
}

fn names(root: &File) -> io::Result<Vec<String>> {
    let mut names = fs::read_dir(through(root))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

fn directories(root: &File, shown: &Path) -> io::Result<Vec<Directory>> {
    Ok(names(root)?.iter().map(|name| Directory::new(&through(root), shown, name)).collect())
}

/// A path that leads to an open directory wherever its names lead by now.
fn through(directory: &File) -> PathBuf {
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

/// Opens a directory, but no link to one.
fn open(path: &Path, shown: &Path) -> Result<File, Unfit> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
    opened.map_err(|source| match source.raw_os_error() {
        Some(libc::ENOTDIR | libc::ELOOP) => Unfit::NoDirectory { path: shown.into() },
        _ => Unfit::Unreadable { path: shown.into(), source },
    })
}

/// True if an owner may be trusted: root, or the user of this process.
pub(super) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}

fn facts(directory: &File, shown: &Path) -> Result<fs::Metadata, Unfit> {
    let facts = directory.metadata().map_err(|source| Unfit::Unreadable { path: shown.into(), source })?;
    if is_trusted(facts.uid()) {
        Ok(facts)
    } else {
        Err(Unfit::Owner { path: shown.into(), uid: facts.uid() })
    }
}

/// The mount point belongs to root, and no other user can replace what is in it.
fn check_top(directory: &File, shown: &Path) -> Result<(), Unfit> {
    let mode = facts(directory, shown)?.mode() & 0o7777;
    // By default the kernel makes it writable for all, with the sticky bit.
    if mode & 0o022 != 0 && mode & 0o1000 == 0 {
        return Err(Unfit::Mode { path: shown.into(), mode, wanted: 0o700 });
    }
    Ok(())
}

/// The directory belongs to root, and no other user reaches what is in it.
fn check_private(directory: &File, shown: &Path) -> Result<(), Unfit> {
    let mode = facts(directory, shown)?.mode() & 0o7777;
    if mode & 0o077 != 0 { Err(Unfit::Mode { path: shown.into(), mode, wanted: 0o700 }) } else { Ok(()) }
}

fn is_bpf(directory: &File) -> bool {
    fstatfs(directory).is_ok_and(|facts| facts.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts a bpf file system on an empty directory.
fn mount_bpf(directory: &File, shown: &Path) -> Result<(), Unfit> {
    facts(directory, shown)?;
    let refuse = |reason: String| Unfit::NotBpf { path: shown.into(), reason };
    let mut entries = fs::read_dir(through(directory)).map_err(|error| refuse(error.to_string()))?;
    if entries.next().is_some() {
        return Err(refuse("it is not empty".into()));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), &through(directory), Some("bpf"), flags, Some("mode=0700"))
        .map_err(|errno| refuse(io::Error::from(errno).to_string()))?;
    log::warn!("conntrace has mounted a bpf file system on {}", shown.display());
    Ok(())
}
