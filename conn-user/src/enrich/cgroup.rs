//! Workloads of processes: what the path of a cgroup names, and the names of the container.

#![expect(
    unsafe_code,
    reason = "a cgroup is opened by its id with open_by_handle_at(2), which nix does not have"
)]

use std::ffi::c_int;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use nix::libc;

use crate::enrich::background::{Background, MAX_WAIT};
use crate::enrich::cgroup_path::{self, Maker};
use crate::enrich::container_names;
use crate::event::workload::{ContainerNames, Workload};

/// The columns that a workload fills.
pub(crate) const COLUMNS: [&str; 9] = [
    "container",
    "container_name",
    "container_user",
    "pod",
    "pod_namespace",
    "unit",
    "user_unit",
    "slice",
    "user_slice",
];

/// The cgroup v2 hierarchy, by the directory where it is mounted.
#[derive(Clone, Debug)]
pub(super) struct Hierarchy {
    path: PathBuf,
    /// The owner of the root, and its group.
    host: (u32, u32),
}

/// Write permission for the group of a file, and for all (`S_IWGRP`, `S_IWOTH`).
const GROUP_WRITES: u32 = 0o020;
const ALL_WRITE: u32 = 0o002;

impl Hierarchy {
    /// The hierarchy that is mounted at `root`. `None` if there is none.
    pub(super) fn new(root: &Path) -> Option<Self> {
        let path = fs::canonicalize(root).ok()?;
        let found = fs::metadata(&path).ok()?;
        Some(Self { path, host: (found.uid(), found.gid()) })
    }

    /// Where the hierarchy is mounted.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The workload of a cgroup, by its whole path. `None` if the path is not below the hierarchy.
    pub(super) fn workload(&self, path: &Path) -> Option<Workload> {
        let below = path.strip_prefix(&self.path).ok()?.to_string_lossy();
        Some(cgroup_path::workload(&below, |above| self.maker_in(above)))
    }

    /// The maker of the cgroups in the directory `below`, a path that begins below the root.
    fn maker_in(&self, below: &str) -> Maker {
        let path = self.path.join(below.trim_start_matches('/'));
        // The directory is gone, with all that was in it.
        let Ok(found) = fs::metadata(path) else { return Maker::Unknown };
        let (user, group) = self.host;
        let shared =
            found.mode() & ALL_WRITE != 0 || (found.mode() & GROUP_WRITES != 0 && found.gid() != group);
        match found.uid() {
            _ if shared => Maker::Unknown,
            uid if uid == user => Maker::Host,
            uid => Maker::User(uid),
        }
    }
}

/// Workloads by cgroup id. A look-up asks the kernel's memory only, never a disk or a daemon. The names of a container
/// stand in a file, which is read in the background.
#[derive(Debug)]
pub(crate) struct Workloads {
    root: Option<(Hierarchy, File)>,
    names: Option<Background<Unnamed, Named>>,
    known: LruCache<u64, Option<Arc<Workload>>>,
}

/// A container whose names are looked up.
#[derive(Debug)]
struct Unnamed {
    cgroup: u64,
    id: String,
    user: Option<u32>,
}

/// The names of the container of a cgroup.
#[derive(Debug)]
struct Named {
    cgroup: u64,
    names: ContainerNames,
}

/// How long a look-up waits for names that decide which events are shown.
const MAX_DECISIVE_WAIT: Duration = Duration::from_secs(1);
/// How many workloads are remembered, those that were seen last: memory stays bounded on a host that makes containers
/// for ever.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

impl Workloads {
    /// Looks workloads up in the hierarchy that is mounted at `root`. `are_decisive` is true if a filter asks for names
    /// of containers: an event whose container has no known name would be missing.
    pub(crate) fn new(root: Option<&Path>, are_decisive: bool) -> Self {
        let root = root.and_then(|path| Some((Hierarchy::new(path)?, File::open(path).ok()?)));
        let look_up = |Unnamed { cgroup, id, user }| Named {
            cgroup,
            names: container_names::names(Path::new("/"), &id, user),
        };
        let max_wait = if are_decisive { MAX_DECISIVE_WAIT } else { MAX_WAIT };
        let names = root.as_ref().and_then(|_| Background::new(max_wait, look_up));
        Self { root, names, known: LruCache::new(REMEMBERED) }
    }

    /// The workload of a cgroup, with the names that are known by now. `None` if the cgroup is gone or unknown, or its
    /// path names nothing.
    pub(crate) fn get(&mut self, cgroup: u64) -> Option<Arc<Workload>> {
        if cgroup == 0 {
            return None;
        }
        self.learn();
        if let Some(known) = self.known.get(&cgroup) {
            return known.clone();
        }
        let found =
            self.root.as_ref().and_then(|(hierarchy, root)| hierarchy.workload(&path_of(root, cgroup)?));
        let found = found.filter(|workload| !workload.is_empty());
        self.known.put(cgroup, found.clone().map(Arc::new));
        let unnamed = found?.container.filter(|container| container.names.is_empty());
        if let (Some(container), Some(names)) = (unnamed, &mut self.names)
            && names.ask(Unnamed { cgroup, id: container.id, user: container.user })
        {
            self.learn();
        }
        self.known.peek(&cgroup).cloned().flatten()
    }

    /// Adds the names that have been found.
    fn learn(&mut self) {
        for Named { cgroup, names } in self.names.iter_mut().flat_map(Background::take_answers) {
            if let Some(Some(workload)) = self.known.peek_mut(&cgroup)
                && let Some(container) = &mut Arc::make_mut(workload).container
            {
                container.names = names;
            }
        }
    }
}

/// `FILEID_KERNFS`, `include/linux/exportfs.h`.
const FILEID_KERNFS: c_int = 0xfe;

/// `struct file_handle` for kernfs, whose files are known by their id (since 5.5).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: c_int,
    id: [u8; 8],
}

/// The path of the directory with this id, on the file system of `root`.
fn path_of(root: &File, id: u64) -> Option<PathBuf> {
    let mut handle = Handle { bytes: 8, kind: FILEID_KERNFS, id: id.to_ne_bytes() };
    // SAFETY: a descriptor that lives on, and a handle of the size that it names.
    let fd = unsafe {
        libc::open_by_handle_at(
            root.as_raw_fd(),
            (&raw mut handle).cast(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return None;
    }
    // SAFETY: the kernel just made it, for us alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;
    use crate::event::workload::Container;
    use crate::host::facts::Host;

    /// What `open_by_handle_at` wants, `include/uapi/linux/capability.h`.
    const CAP_DAC_READ_SEARCH: u8 = 2;
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A directory in place of a hierarchy.
    struct Directory(PathBuf);

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn owners_of_directories_say_who_makes_cgroups() {
        let root = Directory(std::env::temp_dir().join(format!("conntrace-cgroups-{}", std::process::id())));
        let [plain, open, given] = ["plain", "open", "given"].map(|name| root.0.join(name));
        for directory in [&plain, &open, &given] {
            fs::create_dir_all(directory).unwrap();
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::set_permissions(&open, fs::Permissions::from_mode(0o757)).unwrap();
        let hierarchy = Hierarchy::new(&root.0).unwrap();
        assert_eq!([hierarchy.maker_in(""), hierarchy.maker_in("/plain")], [Maker::Host; 2]);
        assert_eq!([hierarchy.maker_in("/open"), hierarchy.maker_in("/none")], [Maker::Unknown; 2]);
        let container = |directory: &Path| {
            let path = directory.join(format!("docker-{ID}.scope"));
            hierarchy.workload(&path).unwrap().container.map(|container| container.user)
        };
        assert_eq!((container(&plain), container(&open)), (Some(None), None));
        let user = hierarchy.host.0 + 1;
        // Only root can give a directory away.
        if chown(&given, Some(user), None).is_ok() {
            assert_eq!(hierarchy.maker_in("/given"), Maker::User(user));
            assert_eq!(container(&given), Some(Some(user)));
        }
        assert_eq!(hierarchy.workload(Path::new("/elsewhere")), None);
    }

    #[test]
    fn an_id_leads_to_its_workload() {
        let host = Host::probe();
        let Some(root) = host.cgroup_root.as_deref() else { return };
        let may_look = host.capabilities & 1 << CAP_DAC_READ_SEARCH != 0;
        let id = fs::metadata(root).unwrap().ino();
        let found = path_of(&File::open(root).unwrap(), id);
        assert_eq!(found.as_deref(), Some(root).filter(|_| may_look));
        let mut workloads = Workloads::new(Some(root), false);
        // The root is neither a container nor a unit.
        assert_eq!([id, 0, u64::MAX].map(|id| workloads.get(id)), [None, None, None]);
        assert_eq!(Workloads::new(None, false).get(id), None);
    }

    #[test]
    fn names_that_come_later_are_added() {
        let id = ID.to_owned();
        let workload = Workload { container: Some(Container::new(id.clone(), None)), ..Workload::default() };
        let names = ContainerNames { name: Some("web".into()), ..ContainerNames::default() };
        let found = names.clone();
        let mut workloads = Workloads::new(None, false);
        workloads.known.put(7, Some(Arc::new(workload)));
        let before = workloads.get(7).unwrap();
        let mut background =
            Background::new(MAX_WAIT, move |Unnamed { cgroup, .. }| Named { cgroup, names: found.clone() });
        assert!(background.as_mut().unwrap().ask(Unnamed { cgroup: 7, id, user: None }));
        workloads.names = background;
        while workloads.get(7).unwrap().container.as_ref().unwrap().names != names {
            std::thread::yield_now();
        }
        // An event that has the workload already keeps what was known then.
        assert!(before.container.as_ref().unwrap().names.is_empty());
    }
}
