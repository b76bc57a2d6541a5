//! Network namespaces of this host: where each can be opened, and entering one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
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
/// How many ways of a kind into one namespace are kept, each through another process. A thread may end before it is used.
const MAX_WAYS: usize = 4;

/// The namespaces of kthreadd, which is in the initial one, and of the first process of a container.
const FIRST: [&str; 2] = ["/proc/2/ns/net", "/proc/1/ns/net"];

/// True if the calling thread is in another network namespace than the host's first. False if one of them cannot be
/// seen.
pub(crate) fn is_inner() -> bool {
    let inode = |path: &str| fs::metadata(path).map(|found| found.ino()).ok();
    matches!((inode(OWN), FIRST.into_iter().find_map(inode)), (Some(own), Some(first)) if own != first)
}

/// A network namespace that was found. It keeps no descriptor, so there is no limit to how many are found.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    /// Inode number, as in `/proc/PID/ns/net`.
    pub inode: u32,
    ways: Vec<Way>,
}

/// A file that leads to a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Way {
    /// A thread that is inside.
    Thread { pid: u32, tid: u32 },
    /// A descriptor of a process, which keeps the namespace.
    Descriptor { pid: u32, fd: u32 },
    /// A mount.
    Mount(PathBuf),
}

impl Way {
    fn path(&self) -> PathBuf {
        match self {
            Self::Thread { pid, tid } => format!("/proc/{pid}/task/{tid}/ns/net").into(),
            Self::Descriptor { pid, fd } => format!("/proc/{pid}/fd/{fd}").into(),
            Self::Mount(path) => path.clone(),
        }
    }

    const fn is_thread(&self) -> bool {
        matches!(self, Self::Thread { .. })
    }

    /// The process that the way leads through.
    const fn pid(&self) -> Option<u32> {
        match self {
            Self::Thread { pid, .. } | Self::Descriptor { pid, .. } => Some(*pid),
            Self::Mount(_) => None,
        }
    }
}

/// Why a namespace cannot be entered.
#[derive(Debug)]
pub(crate) enum EnterError {
    /// No way leads to it any more: its threads have ended and its files are closed.
    Gone,
    /// The system refused.
    Refused(io::Error),
}

impl Namespace {
    /// The namespace with this inode number, through process `pid` or a mount. `None` if neither is in it.
    pub(crate) fn find(inode: u32, pid: u32) -> Option<Self> {
        let mut found = Self { inode, ways: Vec::new() };
        let thread = Way::Thread { pid, tid: pid };
        for way in std::iter::once(thread).chain(bound_namespaces()) {
            if fs::metadata(way.path()).is_ok_and(|file| file.ino() == u64::from(inode)) {
                found.add(way);
            }
        }
        let is_own = fs::metadata(OWN).is_ok_and(|own| own.ino() == u64::from(inode));
        (is_own || !found.ways.is_empty()).then_some(found)
    }

    /// Adds a way, unless there are enough of its kind. A descriptor or a mount often stays when threads have ended.
    fn add(&mut self, way: Way) {
        let is_kind = |known: &&Way| known.is_thread() == way.is_thread();
        let is_new = |known: &Way| way.pid().map_or(*known != way, |pid| known.pid() != Some(pid));
        if self.ways.iter().filter(is_kind).count() < MAX_WAYS && self.ways.iter().filter(is_kind).all(is_new)
        {
            self.ways.push(way);
        }
    }

    /// Moves the calling thread into the namespace, for good. One descriptor is open meanwhile.
    ///
    /// # Errors
    /// The namespace is gone, the thread lacks `CAP_SYS_ADMIN` there, or there are no more descriptors.
    pub(crate) fn enter(&self) -> Result<(), EnterError> {
        if fs::metadata(OWN).map_err(EnterError::Refused)?.ino() as u32 == self.inode {
            return Ok(());
        }
        let mut refused = None;
        for way in &self.ways {
            match open(&way.path(), self.inode) {
                Ok(Some(file)) => {
                    return setns(&file, CloneFlags::CLONE_NEWNET)
                        .map_err(|errno| EnterError::Refused(errno.into()));
                }
                // The path leads elsewhere by now.
                Ok(None) => {}
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.map_or(EnterError::Gone, EnterError::Refused))
    }
}

/// The answers of `each` in these namespaces, by inode number, on a thread that enters one after the other. A namespace that
/// cannot be entered is left out, and one without an answer.
pub(crate) fn in_each<T: Send>(
    namespaces: &[Namespace],
    each: impl Fn() -> Option<T> + Sync,
) -> BTreeMap<u32, T> {
    in_each_of(namespaces, |_| each())
}

/// The same with the inode number of the namespace.
pub(crate) fn in_each_of<T: Send>(
    namespaces: &[Namespace],
    each: impl Fn(u32) -> Option<T> + Sync,
) -> BTreeMap<u32, T> {
    let answer = |namespace: &Namespace| {
        namespace.enter().ok()?;
        Some((namespace.inode, each(namespace.inode)?))
    };
    thread::scope(|scope| {
        let visitor = scope.spawn(|| namespaces.iter().filter_map(answer).collect());
        visitor.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The ports that `connect()` chooses from in the network namespace with this inode number, which must be that of the
/// calling thread.
///
/// # Errors
/// The thread is elsewhere, or the system refuses.
pub(crate) fn port_range(inode: u32) -> io::Result<RangeInclusive<u16>> {
    if fs::metadata(OWN)?.ino() as u32 != inode {
        return Err(io::ErrorKind::NotFound.into());
    }
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let mut ports = text.split_ascii_whitespace().map(str::parse::<u16>);
    match (ports.next(), ports.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok(first..=last),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The network namespaces that could be found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The namespaces, by inode number.
    pub namespaces: Vec<Namespace>,
    /// Namespaces that nothing but their sockets shows, by inode number. None of them can be entered.
    pub hidden: BTreeSet<u32>,
    /// A process could not be inspected, so the list may be incomplete.
    pub denied: bool,
}

impl Found {
    /// True if a way into the namespace is known.
    pub(crate) fn has(&self, inode: u32) -> bool {
        self.position(inode).is_ok()
    }

    fn position(&self, inode: u32) -> Result<usize, usize> {
        self.namespaces.binary_search_by_key(&inode, |namespace| namespace.inode)
    }

    /// Adds the network namespace with this inode number, which descriptor `fd` of process `pid` keeps. Does nothing if
    /// the descriptor is another file, such as a namespace of another kind.
    pub(crate) fn add_held(&mut self, inode: u32, pid: u32, fd: u32) {
        let way = Way::Descriptor { pid, fd };
        match self.position(inode) {
            Ok(at) => self.namespaces[at].add(way),
            Err(at) => {
                let link = fs::read_link(way.path()).ok();
                if link.as_deref().and_then(Path::to_str).and_then(inode_of) == Some(inode) {
                    self.namespaces.insert(at, Namespace { inode, ways: vec![way] });
                }
            }
        }
    }
}

/// The inode number in what a namespace's file links to: `net:[4026531840]`.
fn inode_of(link: &str) -> Option<u32> {
    link.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// All namespaces with a thread inside or a file bound to them, by inode number.
pub(crate) fn all() -> Found {
    let mut found: BTreeMap<u32, Namespace> = BTreeMap::new();
    let mut denied = false;
    for way in thread_namespaces().chain(bound_namespaces()) {
        match fs::metadata(way.path()) {
            Ok(metadata) => {
                let inode = metadata.ino() as u32;
                found.entry(inode).or_insert(Namespace { inode, ways: Vec::new() }).add(way);
            }
            // Other errors are processes and mounts that vanished after the listing.
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    Found { namespaces: found.into_values().collect(), hidden: BTreeSet::new(), denied }
}

/// Whether the network namespace of the calling thread may have a full TCP socket, or one in TIME_WAIT. The kernel
/// adds up counters of all CPUs, and a socket that moves between CPUs meanwhile may hide another one. So only two empty
/// readings count as none.
pub(crate) fn may_have_sockets() -> bool {
    !counted_twice(counts_no_sockets)
}

/// The same for UDP sockets with a port.
pub(crate) fn may_have_udp_sockets() -> bool {
    !counted_twice(counts_no_udp_sockets)
}

/// True if two readings of the kernel's counters, those of IPv4 and those of IPv6, pass.
fn counted_twice(passes: fn(&str, &str) -> bool) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let passes = || {
        let Ok(counts) = read("sockstat") else { return false };
        // A kernel without IPv6 has no such file.
        let counts6 = read("sockstat6").unwrap_or_default();
        passes(&counts, &counts6)
    };
    passes() && passes()
}

/// True if `/proc/net/sockstat` and `sockstat6` say that no TCP socket is in use or in TIME_WAIT.
fn counts_no_sockets(counts: &str, counts6: &str) -> bool {
    counted(counts, "TCP:", "inuse") == Some(0)
        && counted(counts, "TCP:", "tw") == Some(0)
        && counted(counts6, "TCP6:", "inuse").unwrap_or(0) == 0
}

/// True if they say that no UDP socket is in use.
fn counts_no_udp_sockets(counts: &str, counts6: &str) -> bool {
    counted(counts, "UDP:", "inuse") == Some(0) && counted(counts6, "UDP6:", "inuse").unwrap_or(0) == 0
}

/// The number behind a name, in the line of a protocol.
fn counted(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(protocol))?;
    let mut words = line.split_ascii_whitespace().skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

/// Opens the namespace with this inode number. A process may put another file behind the path after a look, so `O_PATH`
/// comes first: it opens no device and waits for no pipe. `None` if the path leads to anything else, or nowhere.
///
/// # Errors
/// The system refuses: there are no more descriptors, or the process may not be looked at.
fn open(path: &Path, inode: u32) -> io::Result<Option<File>> {
    let gone = |error: io::Error| match error.raw_os_error() {
        Some(nix::libc::ENOENT | nix::libc::ESRCH | nix::libc::ENOTDIR) => Ok(None),
        _ => Err(error),
    };
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let found = match fcntl::open(path, flags, Mode::empty()) {
        Ok(found) => File::from(found),
        Err(errno) => return gone(errno.into()),
    };
    let is_namespace = fstatfs(&found).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC)
        && found.metadata().is_ok_and(|metadata| metadata.ino() == u64::from(inode));
    if !is_namespace {
        return Ok(None);
    }
    // The link leads to the file that was looked at.
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd())).map(Some).or_else(gone)
}

fn processes() -> impl Iterator<Item = u32> {
    numbers(Path::new("/proc"))
}

/// A thread may be in another namespace than its process (`unshare(2)`, `setns(2)`).
fn thread_namespaces() -> impl Iterator<Item = Way> {
    processes().flat_map(|pid| {
        let threads = numbers(Path::new(&format!("/proc/{pid}/task"))).collect::<Vec<_>>();
        threads.into_iter().map(move |tid| Way::Thread { pid, tid })
    })
}

/// Namespaces that files keep: `ip netns`, docker and others bind-mount them (file system `nsfs`).
fn bound_namespaces() -> impl Iterator<Item = Way> {
    let is_network = |mount: &Mount| mount.filesystem == "nsfs" && mount.root.starts_with("net:[");
    let bound = mounts::all().into_iter().filter(is_network).map(|mount| PathBuf::from(mount.point));
    let bound = bound.chain(entries(Path::new("/run/netns"))).chain(entries(Path::new("/run/docker/netns")));
    bound.map(Way::Mount)
}

/// The entries of a directory whose names are numbers.
fn numbers(directory: &Path) -> impl Iterator<Item = u32> + use<> {
    entries(directory).filter_map(|entry| entry.file_name()?.to_str()?.parse().ok())
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> u32 {
        fs::metadata(OWN).unwrap().ino() as u32
    }

    #[test]
    fn finds_its_own_namespace() {
        let found = all();
        let own = found.namespaces.iter().find(|namespace| namespace.inode == own()).unwrap();
        assert!((1..=2 * MAX_WAYS).contains(&own.ways.len()), "{own:?}");
        assert!(own.enter().is_ok());
    }

    #[test]
    fn files_that_are_no_namespace_are_not_opened() {
        let path = std::env::temp_dir().join(format!("conntrace-pipe-{}", std::process::id()));
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        let inode = fs::metadata(&path).unwrap().ino() as u32;
        // To open the pipe would wait for a writer.
        assert!(open(&path, inode).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(open(&path, inode).unwrap().is_none());
        let own = own();
        assert!(open(Path::new(OWN), own).unwrap().is_some());
        assert!(open(Path::new(OWN), own + 1).unwrap().is_none());
    }

    #[test]
    fn a_descriptor_may_keep_a_namespace() {
        let (net, mnt) = (File::open("/proc/self/ns/net").unwrap(), File::open("/proc/self/ns/mnt").unwrap());
        let fd = |file: &File| file.as_raw_fd().cast_unsigned();
        let (pid, inode) = (std::process::id(), own());
        let mut found = Found::default();
        found.add_held(mnt.metadata().unwrap().ino() as u32, pid, fd(&mnt));
        found.add_held(inode + 1, pid, fd(&net));
        assert!(found.namespaces.is_empty(), "{found:?}");
        for pid in [pid, pid, 1, 2, 3, 4] {
            found.add_held(inode, pid, fd(&net));
        }
        assert!(found.has(inode) && !found.has(inode + 1));
        assert_eq!(found.namespaces[0].ways.len(), MAX_WAYS);
        assert!(open(&found.namespaces[0].ways[0].path(), inode).unwrap().is_some());
        // The descriptor leads to another namespace.
        let gone = Namespace { inode: inode + 1, ways: vec![Way::Descriptor { pid, fd: fd(&net) }] };
        assert!(matches!(gone.enter(), Err(EnterError::Gone)));
        assert_eq!(
            (inode_of("net:[12]"), inode_of("mnt:[12]"), inode_of("/dev/null")),
            (Some(12), None, None)
        );
    }

    #[test]
    fn namespaces_without_sockets_are_known_by_the_counts_of_the_kernel() {
        let counts = |inuse: u32, tw: u32| {
            format!(
                "sockets: used 12\nTCP: inuse {inuse} orphan 0 tw {tw} alloc 3 mem 0\nUDP: inuse 9 mem 0\n"
            )
        };
        let counts6 = |inuse: u32| format!("TCP6: inuse {inuse}\nUDP6: inuse 4\n");
        assert!(counts_no_sockets(&counts(0, 0), &counts6(0)));
        assert!(counts_no_sockets(&counts(0, 0), ""));
        assert!(!counts_no_sockets(&counts(1, 0), &counts6(0)));
        assert!(!counts_no_sockets(&counts(0, 1), &counts6(0)));
        assert!(!counts_no_sockets(&counts(0, 0), &counts6(1)));
        assert!(!counts_no_sockets("", ""));
        assert!(!counts_no_udp_sockets(&counts(0, 0), &counts6(0)) && !counts_no_udp_sockets("", ""));
        assert!(counts_no_udp_sockets("UDP: inuse 0 mem 7\nUDPLITE: inuse 3\n", "UDP6: inuse 0\n"));
    }

    #[test]
    fn own_namespace_has_a_socket_while_one_listens() {
        let _listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(may_have_sockets());
    }
}
