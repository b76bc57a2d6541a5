//! Mount points of this process's mount namespace, from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).

use std::fs;

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The mounted directory or file, within its file system: a directory, or `net:[4026532200]` for a namespace.
    pub root: String,
    /// The mount point.
    pub point: String,
    /// The type of the file system.
    pub filesystem: String,
}

/// All mounts. Empty if the file cannot be read.
pub(crate) fn all() -> Vec<Mount> {
    fs::read_to_string("/proc/self/mountinfo").map(|text| parse(&text).collect()).unwrap_or_default()
}

/// The mounts in the text of a mountinfo file. Malformed lines are left out.
pub(crate) fn parse(text: &str) -> impl Iterator<Item = Mount> {
    text.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let filesystem = filesystem.split(' ').next()?;
        Some(Mount { root: unescape(root), point: unescape(point), filesystem: filesystem.to_owned() })
    })
}

/// Blanks, tabs, line feeds and backslashes are octal numbers (`mangle()`, `fs/proc_namespace.c`).
fn unescape(path: &str) -> String {
    if !path.contains('\\') {
        return path.to_owned();
    }
    path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(text: &str, filesystem: &str) -> Vec<String> {
        parse(text).filter(|mount| mount.filesystem == filesystem).map(|mount| mount.point).collect()
    }

    #[test]
    fn mounts_are_found_by_their_file_system() {
        let hybrid = "30 23 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/uni\\040fied rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(points(hybrid, "cgroup2"), ["/sys/fs/cgroup/uni fied"]);
        let parts = "32 30 0:28 /some/slice /mnt rw - cgroup2 cgroup2 rw\n\
                     33 30 0:28 /../.. /host rw - cgroup2 cgroup2 rw\n";
        assert_eq!(points(parts, "cgroup2"), ["/mnt", "/host"]);
        assert!(points("nonsense", "cgroup2").is_empty());
    }

    #[test]
    fn the_root_of_a_bound_namespace_is_its_name() {
        let net = "97 28 0:4 net:[4026532200] /run/netns/blue rw shared:50 - nsfs nsfs rw";
        let mount = Mount {
            root: "net:[4026532200]".into(),
            point: "/run/netns/blue".into(),
            filesystem: "nsfs".into(),
        };
        assert_eq!(parse(net).collect::<Vec<_>>(), [mount]);
    }
}
