//! Where a process runs: its cgroup's path, the container or systemd unit that the path names, and what the
//! container is called.

use std::ffi::c_int;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use lru::LruCache;
use nix::libc;

use crate::enrich::background::Aside;
use crate::enrich::container_names::{self, Names};

/// The columns that tell of places.
pub const COLUMNS: [&str; 5] = ["container", "container_name", "pod", "pod_namespace", "unit"];

/// A place that processes run in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Path of the cgroup below the root of the hierarchy, `/` for the root itself.
    pub path: String,
    /// The container, if the path is one's.
    pub container: Option<Container>,
    /// The systemd unit, if the path is one's: the innermost service, scope, or what else has processes.
    pub unit: Option<String>,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// docker, podman, containerd, cri-o, lxc or nspawn; `None` if the path does not tell.
    pub runtime: Option<&'static str>,
    /// The id, or the name where the runtime has no ids.
    pub id: String,
    /// What its runtime calls it, once that has been looked up.
    names: OnceLock<Names>,
}

/// The fewest digits that name a container.
const FEWEST_DIGITS: usize = 4;

impl Container {
    fn new(runtime: Option<&'static str>, id: String) -> Self {
        let name = Some(id.clone()).filter(|id| !is_id(id));
        let names = name.map(|name| Names { name: Some(name), ..Names::default() });
        Self { runtime, id, names: names.map_or_else(OnceLock::new, OnceLock::from) }
    }

    /// Notes what it is called. The first word counts.
    pub(crate) fn set_names(&self, names: Names) {
        let _ = self.names.set(names);
    }

    /// What it is called, if that is known by now.
    pub fn names(&self) -> Option<&Names> {
        self.names.get()
    }

    /// True if `wanted` is its id, the first digits of it, or its name.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        let name = self.names().and_then(|names| names.name.as_deref());
        self.id == wanted
            || name == Some(wanted)
            || (is_id(&self.id) && wanted.len() >= FEWEST_DIGITS && self.id.starts_with(wanted))
    }
}

/// What the runtimes put before the id in the name of a scope.
const PREFIXES: [(&str, &str); 6] = [
    ("docker-", "docker"),
    ("libpod-", "podman"),
    ("cri-containerd-", "containerd"),
    ("nerdctl-", "containerd"),
    ("crio-", "cri-o"),
    ("machine-", "nspawn"),
];
/// Directories whose children are containers, with their ids as names.
const PARENTS: [(&str, &str); 3] = [("docker", "docker"), ("libpod_parent", "podman"), ("lxc", "lxc")];
/// Kinds of units that have processes.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

impl Place {
    /// What a path tells.
    pub fn of_path(path: &str) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let container = (0..parts.len()).rev().find_map(|at| {
            let parent = at.checked_sub(1).map(|above| parts[above]);
            container(parts[at], parent)
        });
        let unit = parts.iter().rev().find(|part| UNITS.iter().any(|kind| part.ends_with(kind)));
        Self { path: path.to_owned(), container, unit: unit.map(|unit| unescape(unit)) }
    }
}

fn container(part: &str, parent: Option<&str>) -> Option<Container> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    for (prefix, runtime) in PREFIXES {
        if let Some(id) = name.strip_prefix(prefix)
            && (is_id(id) || (runtime == "nspawn" && name != part))
        {
            return Some(Container::new(Some(runtime), unescape(id)));
        }
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(Container::new(Some("lxc"), name.to_owned()));
    }
    let runtime = PARENTS.iter().find(|(directory, _)| Some(*directory) == parent).map(|&(_, name)| name);
    (is_id(name) || runtime == Some("lxc")).then(|| Container::new(runtime, name.to_owned()))
}

/// Ids of containers are 64 hexadecimal digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
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

/// Places by cgroup id. Looking one up asks the kernel's memory only, never a disk or a daemon. What a container
/// is called stands in a file, which is read aside.
#[derive(Debug)]
pub struct Places {
    root: Option<(PathBuf, File)>,
    names: Option<Aside<Arc<Place>>>,
    known: LruCache<u64, Option<Arc<Place>>>,
}

/// How many places are remembered, those that were seen last: a host that makes containers for ever must not
/// fill our memory.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

impl Places {
    /// Looks them up in the hierarchy that is mounted at `root`.
    pub fn new(root: Option<&Path>) -> Self {
        let root = root.and_then(|path| Some((fs::canonicalize(path).ok()?, File::open(path).ok()?)));
        let look = |place: Arc<Place>| {
            if let Some(container) = &place.container {
                container.set_names(container_names::names(Path::new("/"), &container.id, user(&place.path)));
            }
        };
        let names = root.as_ref().and_then(|_| Aside::new(look));
        Self { root, names, known: LruCache::new(REMEMBERED) }
    }

    /// The place with a cgroup id; `None` if it is gone or not known.
    pub fn get(&mut self, cgroup: u64) -> Option<Arc<Place>> {
        if cgroup == 0 {
            return None;
        }
        if let Some(known) = self.known.get(&cgroup) {
            return known.clone();
        }
        let place = self.root.as_ref().and_then(|(path, root)| {
            let below = path_of(root, cgroup)?.strip_prefix(path).ok()?.to_string_lossy().into_owned();
            Some(Arc::new(Place::of_path(&format!("/{below}"))))
        });
        let unnamed = |place: &&Arc<Place>| place.container.as_ref().is_some_and(|one| one.names().is_none());
        if let (Some(place), Some(aside)) = (place.as_ref().filter(unnamed), &mut self.names) {
            aside.ask(Arc::clone(place));
        }
        self.known.put(cgroup, place.clone());
        place
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

    fn told(path: &str) -> (Option<&'static str>, String, String) {
        let place = Place::of_path(&path.replace("ID", ID));
        // The id as people write it: the first twelve digits.
        let short = |id: &str| if is_id(id) { id[..12].to_owned() } else { id.to_owned() };
        let (runtime, id) = place.container.map_or((None, "-".into()), |one| (one.runtime, short(&one.id)));
        (runtime, id, place.unit.unwrap_or("-".into()))
    }

    #[test]
    fn paths_name_containers_and_units() {
        let short = "0123456789ab";
        for (path, runtime, id, unit) in [
            ("/system.slice/docker-ID.scope", Some("docker"), short, &format!("docker-{ID}.scope")[..]),
            ("/docker/ID", Some("docker"), short, "-"),
            (
                "/machine.slice/libpod-ID.scope/container",
                Some("podman"),
                short,
                &format!("libpod-{ID}.scope"),
            ),
            (
                "/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope",
                Some("containerd"),
                short,
                &format!("cri-containerd-{ID}.scope"),
            ),
            ("/kubepods/burstable/pod12/ID", None, short, "-"),
            ("/kubepods.slice/crio-ID.scope", Some("cri-o"), short, &format!("crio-{ID}.scope")),
            ("/lxc.payload.web/system.slice/nginx.service", Some("lxc"), "web", "nginx.service"),
            ("/lxc/web", Some("lxc"), "web", "-"),
            (
                r"/machine.slice/machine-my\x2dbox.scope/payload",
                Some("nspawn"),
                "my-box",
                "machine-my-box.scope",
            ),
            ("/system.slice/ssh.service", None, "-", "ssh.service"),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox.scope",
                None,
                "-",
                "app-firefox.scope",
            ),
            ("/user.slice/user-1000.slice", None, "-", "-"),
            ("/", None, "-", "-"),
            (r"/system.slice/odd\xzz\x2.service", None, "-", r"odd\xzz\x2.service"),
        ] {
            assert_eq!(told(path), (runtime, id.into(), unit.into()), "{path}");
        }
    }

    #[test]
    fn users_are_those_of_their_service_manager() {
        let path = "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-1.scope/container";
        assert_eq!(user(path), Some(1_000));
        assert_eq!(user("/user.slice/user-1000.slice/session-1.scope"), None);
        assert_eq!(user("/system.slice/user@x.service"), None);
    }

    #[test]
    fn an_id_leads_to_its_path() {
        let host = Host::probe();
        let root = host.cgroup_root.as_deref();
        let id = root.map_or(1, |root| fs::metadata(root).unwrap().ino());
        let mut places = Places::new(root);
        let may_look = host.capabilities & 1 << CAP_DAC_READ_SEARCH != 0;
        let expected = root.filter(|_| may_look).map(|_| "/");
        assert_eq!(places.get(id).as_deref().map(|place| place.path.as_str()), expected);
        assert_eq!(places.get(0), None);
        assert_eq!(places.get(u64::MAX), None);
        assert_eq!(Places::new(None).get(id), None);
    }
}
