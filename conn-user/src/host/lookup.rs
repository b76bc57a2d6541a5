//! Names on the command line that stand for numbers on this host.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::complaint::{Complaint, as_typed, complaint};
use crate::host::facts::Host;
use crate::host::name_service;
use crate::host::services::Services;

/// Where `ip netns` and container engines mount namespaces by name.
const NETNS_DIRECTORIES: [&str; 2] = ["/run/netns", "/run/docker/netns"];
/// The network namespace that conntrace runs in.
const OWN_NETNS: (&str, &str) = (".", "/proc/self/ns/net");
/// The range of ports that the kernel chooses from, of the network namespace of the reading thread.
const LOCAL_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// Largest process id (`PID_MAX_LIMIT`). Inode numbers of namespaces are larger (`PROC_DYNAMIC_FIRST`, and since 6.17
/// fixed numbers just below).
const LAST_PROCESS: u32 = 1 << 22;

/// Finds the number that a name stands for. The error names the remedy.
pub trait Lookup {
    /// The names of ports.
    fn services(&self) -> &Services;
    /// The user id of a login name. `None` if the host has no such user.
    fn user(&self, name: &str) -> Result<Option<u32>, Complaint>;
    /// The inode number of a network namespace by path, name or process id; `.` is the own one.
    fn netns(&self, name: &str) -> Result<u32, Complaint>;
    /// The id of a cgroup by its path.
    fn cgroup(&self, path: &str) -> Result<u64, Complaint>;
    /// The addresses of a host.
    fn host(&self, name: &str) -> Result<Vec<IpAddr>, Complaint>;
    /// The first and the last port that the kernel chooses for sockets without one.
    fn local_ports(&self) -> (u16, u16);
}

/// True if a number in place of a namespace is that of a process.
pub(crate) const fn is_process(number: u32) -> bool {
    number <= LAST_PROCESS
}

/// The names of this host.
#[derive(Debug)]
pub struct HostLookup {
    services: Services,
    cgroup_root: Option<PathBuf>,
}

impl HostLookup {
    /// Reads the table of services. Other names are looked up on demand.
    pub fn new(host: &Host) -> Self {
        Self { services: Services::load(), cgroup_root: host.cgroup_root.clone() }
    }
}

impl Lookup for HostLookup {
    fn services(&self) -> &Services {
        &self.services
    }

    fn user(&self, name: &str) -> Result<Option<u32>, Complaint> {
        name_service::user(name)
            .map(|user| user.map(|user| user.id))
            .map_err(|error| complaint!("looking up the user {}: {error}", as_typed(name)))
    }

    fn netns(&self, name: &str) -> Result<u32, Complaint> {
        if name == OWN_NETNS.0 {
            return inode(Path::new(OWN_NETNS.1))
                .map_err(|error| complaint!("the own network namespace: {error}"));
        }
        if let Ok(number) = name.parse::<u32>() {
            if !is_process(number) {
                return Ok(number);
            }
            return inode(Path::new(&format!("/proc/{number}/ns/net")))
                .map_err(|error| complaint!("the network namespace of process {number}: {error}"));
        }
        if name.contains('/') {
            return inode(Path::new(name)).map_err(|error| complaint!("network namespace {name}: {error}"));
        }
        NETNS_DIRECTORIES
            .iter()
            .find_map(|directory| inode(&Path::new(directory).join(name)).ok())
            .ok_or_else(|| {
                complaint!(
                    "no network namespace {} in {}: write a name, a path, a process id or an inode number",
                    as_typed(name),
                    NETNS_DIRECTORIES.join(" or ")
                )
            })
    }

    fn cgroup(&self, path: &str) -> Result<u64, Complaint> {
        let root = self.cgroup_root.as_ref().ok_or("no cgroup v2 hierarchy is mounted here")?;
        let typed = Path::new(path);
        let full = if typed.starts_with(root) {
            typed.to_path_buf()
        } else {
            root.join(typed.strip_prefix("/").unwrap_or(typed))
        };
        match fs::metadata(&full) {
            // The id of a cgroup is the inode number of its directory (kernfs).
            Ok(found) if found.is_dir() => Ok(found.ino()),
            Ok(_) => Err(complaint!("{} is no cgroup: write the path of its directory", full.display())),
            Err(error) => Err(complaint!("no cgroup {}: {error}", full.display())),
        }
    }

    fn host(&self, name: &str) -> Result<Vec<IpAddr>, Complaint> {
        let remedy = "write an address or a prefix";
        let found = name_service::addresses(name)
            .map_err(|error| complaint!("looking up the host {}: {error}: {remedy}", as_typed(name)))?;
        if found.is_empty() {
            return Err(complaint!("no address of the host {}: {remedy}", as_typed(name)));
        }
        Ok(found)
    }

    fn local_ports(&self) -> (u16, u16) {
        // As ss: without the file, the range of Linux 2.2.
        fs::read_to_string(LOCAL_PORTS).ok().and_then(|text| port_range(&text)).unwrap_or((1024, 4999))
    }
}

/// The two numbers of a range of ports.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.trim().split_once(char::is_whitespace)?;
    Some((low.parse().ok()?, high.trim().parse().ok()?))
}

/// The inode number of a namespace's file.
fn inode(path: &Path) -> Result<u32, Complaint> {
    let found = fs::metadata(path).map_err(|error| error.to_string())?;
    u32::try_from(found.ino())
        .ok()
        .filter(|&inode| inode > LAST_PROCESS)
        .ok_or_else(|| "this file is no namespace".into())
}

#[cfg(test)]
pub mod fixed {
    //! Names for tests.

    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{Complaint, Lookup, Services, complaint};

    /// A host with few names.
    #[derive(Debug)]
    pub struct FixedLookup(Services);

    impl Default for FixedLookup {
        /// ssh, http, https and iscsi-target; root and www-data; the namespace blue; /web.
        fn default() -> Self {
            Self(Services::parse("ssh 22/tcp\nhttp 80/tcp www\niscsi-target 3260/tcp\nhttps 443/tcp\n"))
        }
    }

    impl Lookup for FixedLookup {
        fn services(&self) -> &Services {
            &self.0
        }
        fn user(&self, name: &str) -> Result<Option<u32>, Complaint> {
            Ok(match name {
                "root" => Some(0),
                "www-data" => Some(33),
                _ => None,
            })
        }
        fn netns(&self, name: &str) -> Result<u32, Complaint> {
            match name.parse() {
                Ok(number) if number > super::LAST_PROCESS => Ok(number),
                _ if name == "blue" || name == "/run/netns/blue" => Ok(4_026_532_177),
                _ => Err(complaint!("no network namespace {name:?}")),
            }
        }
        fn cgroup(&self, path: &str) -> Result<u64, Complaint> {
            if path == "/web" { Ok(77) } else { Err(complaint!("no cgroup {path}")) }
        }
        fn host(&self, name: &str) -> Result<Vec<IpAddr>, Complaint> {
            if name == "localhost" {
                Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
            } else {
                Err(complaint!("no address of the host {name}"))
            }
        }
        fn local_ports(&self) -> (u16, u16) {
            (32_768, 60_999)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_this_host_have_numbers() {
        let names = HostLookup::new(&Host::probe());
        let own = inode(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(names.netns("/proc/self/ns/net"), Ok(own));
        assert_eq!(names.netns("."), Ok(own));
        assert_eq!(names.netns(&std::process::id().to_string()), Ok(own));
        assert_eq!(names.netns(&own.to_string()), Ok(own));
        assert_eq!(names.user("root"), Ok(Some(0)));
        assert_eq!(names.user("no such user"), Ok(None));
        for wrong in ["no-such-name", "/etc/passwd", "/no/such", "0", ""] {
            assert!(names.netns(wrong).is_err(), "{wrong:?}");
        }
        assert!(names.cgroup("/no/such/cgroup").is_err());
    }
}
