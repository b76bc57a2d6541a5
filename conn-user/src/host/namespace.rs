//! Network namespaces of this host, and running code inside one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use nix::fcntl::{self, OFlag};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

use crate::host::mounts::{self, Mount};

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The namespaces of kthreadd, which is in the initial one, and of the first process of a container.
const FIRST: [&str; 2] = ["/proc/2/ns/net", "/proc/1/ns/net"];

/// True if the calling thread is in another network namespace than the host's first. False if one of them cannot be
/// seen.
pub(crate) fn is_inner() -> bool {
    let inode = |path: &str| fs::metadata(path).map(|found| found.ino()).ok();
    matches!((inode(OWN), FIRST.into_iter().find_map(inode)), (Some(own), Some(first)) if own != first)
}

/// A network namespace, kept alive by an open file.
#[derive(Debug)]
pub(crate) struct Namespace {
    /// Inode number, as in `/proc/PID/ns/net`.
    pub inode: u32,
    file: File,
}

impl Namespace {
    /// Runs `work` inside the namespace, on a thread of its own unless the calling thread is inside already.
    ///
    /// # Errors
    /// The thread lacks `CAP_SYS_ADMIN` in the namespace.
    pub(crate) fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
        if fs::metadata(OWN)?.ino() as u32 == self.inode {
            return Ok(work());
        }
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// The ports that `connect()` chooses from in the network namespace of this thread.
pub(crate) fn port_range() -> std::io::Result<RangeInclusive<u16>> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ports = text.split_ascii_whitespace().map(str::parse::<u16>);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(std::io::ErrorKind::InvalidData.into()),
    }
}

/// The network namespaces that could be found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The namespaces.
    pub namespaces: Vec<Namespace>,
    /// A process could not be inspected, so the list may be incomplete.
    pub denied: bool,
}

/// All namespaces with a thread inside or a file bound to them. A namespace that only sockets keep alive has no
/// handle: events alone reveal its sockets.
pub(crate) fn all() -> Found {
    let mut found = BTreeMap::new();
    let mut denied = false;
    for path in thread_namespaces().chain(bound_namespaces()) {
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) => {
                // Other errors are processes and mounts that vanished after the listing.
                denied |= error.kind() == std::io::ErrorKind::PermissionDenied;
                continue;
            }
        };
        let inode = metadata.ino() as u32;
        if let std::collections::btree_map::Entry::Vacant(entry) = found.entry(inode)
            && let Some(file) = open(&path, inode)
        {
            entry.insert(file);
        }
    }
    let namespaces = found.into_iter().map(|(inode, file)| Namespace { inode, file }).collect();
    Found { namespaces, denied }
}

impl Namespace {
    /// The network namespace behind descriptor `fd` of process `pid`. `None` if the descriptor is another file.
    pub(crate) fn held(pid: u32, fd: u32) -> Option<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
        let inode = inode_of(fs::read_link(&path).ok()?.to_str()?)?;
        Some(Self { inode, file: open(&path, inode)? })
    }
}

/// Opens the namespace with this inode number. A process may put another file behind the path after a look, so `O_PATH`
/// comes first: it opens no device and waits for no pipe. `None` if the path leads to anything else.
fn open(path: &Path, inode: u32) -> Option<File> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let found = File::from(fcntl::open(path, flags, Mode::empty()).ok()?);
    let is_namespace = fstatfs(&found).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
        && found.metadata().is_ok_and(|metadata| metadata.ino() == u64::from(inode));
    // The link leads to the file that was looked at.
    is_namespace.then(|| File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).ok()).flatten()
}

/// The inode number in what a namespace's file links to: `net:[4026531840]`.
fn inode_of(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

fn processes() -> impl Iterator<Item = PathBuf> {
    entries(Path::new("/proc"))
        .filter(|process| process.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit()))
}

/// A thread may be in another namespace than its process (`unshare(2)`, `setns(2)`).
fn thread_namespaces() -> impl Iterator<Item = PathBuf> {
    processes()
        .flat_map(|process| entries(&process.join("task")).collect::<Vec<_>>())
        .map(|thread| thread.join("ns/net"))
}

/// Namespaces that files keep: `ip netns`, docker and others bind-mount them (file system `nsfs`).
fn bound_namespaces() -> impl Iterator<Item = PathBuf> {
    let is_network = |mount: &Mount| mount.filesystem == "nsfs" && mount.root.starts_with("net:[");
    let bound = mounts::all().into_iter().filter(is_network).map(|mount| PathBuf::from(mount.point));
    bound.chain(entries(Path::new("/run/netns"))).chain(entries(Path::new("/run/docker/netns")))
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_own_namespace() {
        let own = fs::metadata("/proc/self/ns/net").map(|metadata| metadata.ino() as u32).ok();
        assert!(own.is_some());
        assert_eq!(
            all().namespaces.iter().map(|namespace| namespace.inode).find(|&inode| Some(inode) == own),
            own
        );
    }

    #[test]
    fn files_that_are_no_namespace_are_not_opened() {
        let path = std::env::temp_dir().join(format!("conntrace-pipe-{}", std::process::id()));
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let inode = fs::metadata(&path).unwrap().ino() as u32;
        // To open the pipe would wait for a writer.
        assert!(open(&path, inode).is_none());
        fs::remove_file(&path).unwrap();
        let own = fs::metadata(OWN).unwrap().ino() as u32;
        assert!(open(Path::new(OWN), own).is_some() && open(Path::new(OWN), own + 1).is_none());
    }

    #[test]
    fn a_descriptor_may_keep_a_namespace() -> std::io::Result<()> {
        use std::os::fd::AsRawFd as _;
        let file = File::open("/proc/self/ns/net")?;
        let inode = file.metadata()?.ino() as u32;
        let held = |file: &File| {
            let fd = u32::try_from(file.as_raw_fd()).ok()?;
            Namespace::held(std::process::id(), fd).map(|held| held.inode)
        };
        assert_eq!(held(&file), Some(inode));
        assert_eq!(held(&File::open("/proc/self/ns/mnt")?), None);
        assert_eq!(
            (inode_of("net:[12]"), inode_of("mnt:[12]"), inode_of("/dev/null")),
            (Some(12), None, None)
        );
        Ok(())
    }
}
