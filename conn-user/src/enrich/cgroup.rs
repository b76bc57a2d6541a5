//! Workloads of processes: the container and the systemd unit that the path of a cgroup names, and the names of the
//! container.

#![expect(
    unsafe_code,
    reason = "a cgroup is opened by its id with open_by_handle_at(2), which nix does not have"
)]

use std::ffi::c_int;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lru::LruCache;
use nix::libc;

use crate::enrich::background::Background;
use crate::enrich::container_names;
use crate::event::workload::{Container, ContainerNames, Workload, is_id};

/// The columns that a workload fills.
pub(crate) const COLUMNS: [&str; 5] = ["container", "container_name", "pod", "pod_namespace", "unit"];

/// The words before the id in the name of a scope: of docker, podman, containerd twice, and CRI-O.
const PREFIXES: [&str; 5] = ["docker-", "libpod-", "cri-containerd-", "nerdctl-", "crio-"];
/// The word before the name of a machine of systemd-nspawn in the name of a scope.
const MACHINE: &str = "machine-";
/// The directory of lxc whose children are containers, with their names.
const LXC: &str = "lxc";
/// Kinds of units that have processes.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

/// The workload that the path of a cgroup names: the innermost container and the innermost unit. The path begins
/// below the root of the hierarchy.
fn workload(path: &str) -> Workload {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let container = (0..parts.len()).rev().find_map(|at| {
        let parent = at.checked_sub(1).map(|above| parts[above]);
        container(parts[at], parent)
    });
    let unit = parts.iter().rev().find(|part| UNITS.iter().any(|kind| part.ends_with(kind)));
    Workload { container: container.map(Container::new), unit: unit.map(|unit| unescape(unit)) }
}

/// The id of the container that a directory is, or its name where the runtime has no ids.
fn container(part: &str, parent: Option<&str>) -> Option<String> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    if let Some(id) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)).filter(|id| is_id(id)) {
        return Some(id.to_owned());
    }
    if let Some(machine) = name.strip_prefix(MACHINE).filter(|machine| name != part || is_id(machine)) {
        return Some(unescape(machine));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(name.to_owned());
    }
    (is_id(name) || parent == Some(LXC)).then(|| name.to_owned())
}

/// systemd writes what may not stand in a unit's name as `\x2d`.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|after| after.get(..2));
        let byte = digits
            .filter(|_| first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The user whose service manager is above a path: `/user.slice/user-1000.slice/user@1000.service/…`.
fn user(path: &str) -> Option<u32> {
    path.split('/').find_map(|part| part.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok())
}

/// Workloads by cgroup id. A look-up asks the kernel's memory only, never a disk or a daemon. The names of a container
/// stand in a file, which is read in the background.
#[derive(Debug)]
pub(crate) struct Workloads {
    root: Option<(PathBuf, File)>,
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

/// How many workloads are remembered, those that were seen last: memory stays bounded on a host that makes containers
/// for ever.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

impl Workloads {
    /// Looks workloads up in the hierarchy that is mounted at `root`.
    pub(crate) fn new(root: Option<&Path>) -> Self {
        let root = root.and_then(|path| Some((fs::canonicalize(path).ok()?, File::open(path).ok()?)));
        let look_up = |Unnamed { cgroup, id, user }| Named {
            cgroup,
            names: container_names::names(Path::new("/"), &id, user),
        };
        let names = root.as_ref().and_then(|_| Background::new(look_up));
        Self { root, names, known: LruCache::new(REMEMBERED) }
    }

    /// The workload of a cgroup, with the names that are known by now; `None` if the cgroup is gone or unknown, or
    /// its path names neither a container nor a unit.
    pub(crate) fn get(&mut self, cgroup: u64) -> Option<Arc<Workload>> {
        if cgroup == 0 {
            return None;
        }
        self.learn();
        if let Some(known) = self.known.get(&cgroup) {
            return known.clone();
        }
        let found = self.root.as_ref().and_then(|(path, root)| {
            let below = path_of(root, cgroup)?.strip_prefix(path).ok()?.to_string_lossy().into_owned();
            Some((workload(&below), user(&below)))
        });
        let found = found.filter(|(workload, _)| !workload.is_empty());
        self.known.put(cgroup, found.as_ref().map(|(workload, _)| Arc::new(workload.clone())));
        let (workload, user) = found?;
        let unnamed = workload.container.filter(|container| container.names.is_empty());
        if let (Some(container), Some(names)) = (unnamed, &mut self.names)
            && names.ask(Unnamed { cgroup, id: container.id, user })
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
    use std::os::unix::fs::MetadataExt as _;

    use super::*;
    use crate::host::facts::Host;

    /// What `open_by_handle_at` wants, `include/uapi/linux/capability.h`.
    const CAP_DAC_READ_SEARCH: u8 = 2;
    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn named(path: &str) -> (String, String) {
        let workload = workload(&path.replace("ID", ID));
        // The id as people write it: the first twelve digits.
        let short = |id: &str| if is_id(id) { id[..12].to_owned() } else { id.to_owned() };
        let id = workload.container.map_or("-".into(), |container| short(&container.id));
        (id, workload.unit.unwrap_or("-".into()))
    }

    #[test]
    fn paths_name_containers_and_units() {
        let short = "0123456789ab";
        for (path, id, unit) in [
            ("/system.slice/docker-ID.scope", short, &format!("docker-{ID}.scope")[..]),
            ("/docker/ID", short, "-"),
            ("/machine.slice/libpod-ID.scope/container", short, &format!("libpod-{ID}.scope")),
            (
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope",
                short,
                &format!("cri-containerd-{ID}.scope"),
            ),
            ("/kubepods/burstable/pod12/ID", short, "-"),
            ("/kubepods.slice/crio-ID.scope", short, &format!("crio-{ID}.scope")),
            ("/lxc.payload.web/system.slice/nginx.service", "web", "nginx.service"),
            ("/lxc/web", "web", "-"),
            (r"/machine.slice/machine-my\x2dbox.scope/payload", "my-box", "machine-my-box.scope"),
            ("/system.slice/ssh.service", "-", "ssh.service"),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.scope",
                "-",
                "app-firefox.scope",
            ),
            ("/user.slice/user-1000.slice", "-", "-"),
            ("/", "-", "-"),
            (r"/system.slice/odd\xzz\x2.service", "-", r"odd\xzz\x2.service"),
        ] {
            assert_eq!(named(path), (id.into(), unit.into()), "{path}");
        }
    }

    #[test]
    fn a_name_in_place_of_an_id_needs_no_look_up() {
        let names = |path| workload(path).container.unwrap().names;
        assert_eq!(names("/lxc/web").name.as_deref(), Some("web"));
        assert!(names(&format!("/docker/{ID}")).is_empty());
    }

    #[test]
    fn users_are_those_of_their_service_manager() {
        let path = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope/container";
        assert_eq!(user(path), Some(1_000));
        assert_eq!(user("/user.slice/user-1000.slice/session-1.scope"), None);
        assert_eq!(user("/system.slice/user@x.service"), None);
    }

    #[test]
    fn an_id_leads_to_its_workload() {
        let host = Host::probe();
        let Some(root) = host.cgroup_root.as_deref() else { return };
        let may_look = host.capabilities & 1 << CAP_DAC_READ_SEARCH != 0;
        let id = fs::metadata(root).unwrap().ino();
        let found = path_of(&File::open(root).unwrap(), id);
        assert_eq!(found.as_deref(), Some(root).filter(|_| may_look));
        let mut workloads = Workloads::new(Some(root));
        // The root is neither a container nor a unit.
        assert_eq!([id, 0, u64::MAX].map(|id| workloads.get(id)), [None, None, None]);
        assert_eq!(Workloads::new(None).get(id), None);
    }

    #[test]
    fn names_that_come_later_are_added() {
        let id = ID.to_owned();
        let workload = Workload { container: Some(Container::new(id.clone())), unit: None };
        let names = ContainerNames { name: Some("web".into()), ..ContainerNames::default() };
        let found = names.clone();
        let mut workloads = Workloads::new(None);
        workloads.known.put(7, Some(Arc::new(workload)));
        let before = workloads.get(7).unwrap();
        let mut background =
            Background::new(move |Unnamed { cgroup, .. }| Named { cgroup, names: found.clone() });
        assert!(background.as_mut().unwrap().ask(Unnamed { cgroup: 7, id, user: None }));
        workloads.names = background;
        while workloads.get(7).unwrap().container.as_ref().unwrap().names != names {
            std::thread::yield_now();
        }
        // An event that has the workload already keeps what was known then.
        assert!(before.container.as_ref().unwrap().names.is_empty());
    }
}
