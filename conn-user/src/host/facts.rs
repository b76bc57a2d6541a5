//! Facts of this host, gathered once at start. [`crate::host::plan`] draws the conclusions.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use crate::host::{capabilities, mounts};

/// The kernel's type information.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// `CAP_NET_ADMIN`, `include/uapi/linux/capability.h`.
const CAP_NET_ADMIN: u8 = 12;
/// `CAP_SYS_PTRACE`.
const CAP_SYS_PTRACE: u8 = 19;
/// `CAP_SYS_ADMIN`.
const CAP_SYS_ADMIN: u8 = 21;
/// `CAP_PERFMON`.
const CAP_PERFMON: u8 = 38;
/// `CAP_BPF`.
const CAP_BPF: u8 = 39;

/// Inode number of the initial pid namespace, `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Facts about the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The kernel's release and architecture, as in `uname -rm`.
    pub kernel: String,
    /// This process sees all processes of the host.
    pub sees_all_processes: bool,
    /// Programs are compiled, not interpreted; `None` if that cannot be read.
    pub has_jit: Option<bool>,
    /// The kernel's lockdown mode (`none`, `integrity`, `confidentiality`), if known.
    pub lockdown: Option<String>,
    /// Effective capabilities, one bit each.
    pub capabilities: u64,
    /// The file system of processes is mounted on `/proc`.
    pub has_proc: bool,
    /// The kernel describes its types.
    pub has_btf: bool,
    /// Mount point of the root of the cgroup v2 hierarchy, if mounted.
    pub cgroup_root: Option<PathBuf>,
    /// CPUs that may ever come online.
    pub possible_cpus: u32,
    /// Number of open files of all processes together; 0 if unknown.
    pub open_files: u32,
}

impl Host {
    /// Reads the facts. A fact that cannot be read counts as absent.
    pub fn probe() -> Self {
        Self {
            kernel: kernel(),
            sees_all_processes: sees_all_processes(),
            has_jit: fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
                .ok()
                .map(|enabled| enabled.trim() != "0"),
            lockdown: fs::read_to_string("/sys/kernel/security/lockdown")
                .ok()
                .and_then(|modes| chosen(&modes).map(str::to_owned)),
            capabilities: capabilities::effective(),
            has_proc: Path::new("/proc/self/ns").exists(),
            has_btf: Path::new(KERNEL_BTF).exists(),
            cgroup_root: cgroup_root(),
            possible_cpus: fs::read_to_string("/sys/devices/system/cpu/possible")
                .ok()
                .and_then(|list| cpus(&list))
                .unwrap_or(1),
            open_files: fs::read_to_string("/proc/sys/fs/file-nr")
                .ok()
                .and_then(|numbers| numbers.split_whitespace().next()?.parse().ok())
                .unwrap_or(0),
        }
    }

    /// True if this process has the privileges to inspect every process. Some hosts hide single processes even from
    /// root.
    pub fn may_look_everywhere(&self) -> bool {
        let both = 1 << CAP_SYS_ADMIN | 1 << CAP_SYS_PTRACE;
        self.capabilities & both == both
    }

    /// Names of the capabilities that loading needs and that this process lacks.
    pub fn missing_capabilities(&self) -> Vec<&'static str> {
        [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")]
            .into_iter()
            .filter(|&(bit, _)| !self.may(bit))
            .map(|(_, name)| name)
            .collect()
    }

    /// True if this process may load networking programs, beside tracing programs.
    pub fn may_change_network(&self) -> bool {
        self.may(CAP_NET_ADMIN)
    }

    /// `CAP_SYS_ADMIN` includes the capabilities that bpf(2) checks (include/linux/capability.h,
    /// kernel/bpf/syscall.c).
    fn may(&self, capability: u8) -> bool {
        self.capabilities & (1 << capability | 1 << CAP_SYS_ADMIN) != 0
    }
}

/// True in the initial pid namespace: this process sees all processes, under the ids that the kernel programs see.
pub fn sees_all_processes() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|metadata| metadata.ino() == INITIAL_PID_NAMESPACE)
}

/// The release of the running kernel.
pub fn release() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "unknown".into(), |uts| uts.release().to_string_lossy().into_owned())
}

/// Release and machine.
fn kernel() -> String {
    let word = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
    nix::sys::utsname::uname()
        .map_or_else(|_| "-".into(), |uts| format!("{} {}", word(uts.release()), word(uts.machine())))
}

/// How many CPUs a list such as `0-3,8` names (Documentation/admin-guide/cputopology.rst).
fn cpus(list: &str) -> Option<u32> {
    list.trim().split(',').try_fold(0, |sum: u32, range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let length = to.parse::<u32>().ok()?.checked_sub(from.parse().ok()?)?.checked_add(1)?;
        sum.checked_add(length)
    })
}

/// The word in brackets of `none [integrity] confidentiality`.
fn chosen(modes: &str) -> Option<&str> {
    Some(modes.split_once('[')?.1.split_once(']')?.0)
}

/// Mount point of the root of the cgroup v2 hierarchy. In a cgroup namespace, a part of the hierarchy looks like the
/// whole.
fn cgroup_root() -> Option<PathBuf> {
    let mounts = mounts::all().into_iter().filter(|mount| mount.filesystem == "cgroup2");
    mounts.map(|mount| PathBuf::from(mount.point)).find(|point| is_cgroup_v2_root(point))
}

/// The root has inode number 1 (`kernfs_create_root()`) in every namespace. Another file system may be mounted on
/// top of it.
fn is_cgroup_v2_root(point: &Path) -> bool {
    statfs(point).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC)
        && fs::metadata(point).is_ok_and(|metadata| metadata.ino() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_of_a_list_are_counted() {
        assert_eq!((cpus("0\n"), cpus("0-127\n"), cpus("0-3,8,10-11")), (Some(1), Some(128), Some(7)));
        assert_eq!((cpus(""), cpus("a-b"), cpus("3-1")), (None, None, None));
    }

    impl Host {
        /// A host that has everything.
        pub(crate) fn good() -> Self {
            Self {
                kernel: "6.1.0 x86_64".into(),
                sees_all_processes: true,
                has_jit: Some(true),
                lockdown: None,
                capabilities: u64::MAX,
                has_proc: true,
                has_btf: true,
                cgroup_root: Some(PathBuf::from("/sys/fs/cgroup")),
                possible_cpus: 2,
                open_files: 1_000,
            }
        }
    }

    #[test]
    fn other_file_systems_are_no_cgroup_root() {
        assert!(!is_cgroup_v2_root(Path::new("/proc")) && !is_cgroup_v2_root(Path::new("/nowhere")));
    }

    #[test]
    fn lockdown_is_the_word_in_brackets() {
        assert_eq!(chosen("none [integrity] confidentiality\n"), Some("integrity"));
        assert_eq!(chosen("none integrity"), None);
    }

    #[test]
    fn names_missing_capabilities() {
        let host = |capabilities| Host { capabilities, ..Host::good() };
        assert_eq!(host(0).missing_capabilities(), ["CAP_BPF", "CAP_PERFMON"]);
        assert_eq!(host(1 << CAP_PERFMON).missing_capabilities(), ["CAP_BPF"]);
        for enough in [1 << CAP_BPF | 1 << CAP_PERFMON, 1 << CAP_SYS_ADMIN] {
            assert!(host(enough).missing_capabilities().is_empty());
        }
        assert!(
            host(1 << CAP_NET_ADMIN).may_change_network() && host(1 << CAP_SYS_ADMIN).may_change_network()
        );
        assert!(!host(1 << CAP_BPF | 1 << CAP_PERFMON).may_change_network());
        assert!(host(u64::MAX).may_look_everywhere() && !host(1 << CAP_SYS_ADMIN).may_look_everywhere());
    }
}
