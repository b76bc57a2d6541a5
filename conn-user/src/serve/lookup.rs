//! The names that clients may use. A client must not make the daemon look at any file, ask DNS or start a process.

use std::net::IpAddr;

use crate::complaint::{Complaint, complaint};
use crate::host::facts::Host;
use crate::host::lookup::{HostLookup, Lookup};
use crate::host::services::Services;

/// Looks up names for clients.
#[derive(Debug)]
pub(crate) struct ClientLookup(HostLookup);

impl ClientLookup {
    /// The names of this host.
    pub(crate) fn new(host: &Host) -> Self {
        Self(HostLookup::new(host))
    }
}

impl Lookup for ClientLookup {
    fn services(&self) -> &Services {
        self.0.services()
    }

    fn user(&self, name: &str) -> Result<Option<u32>, Complaint> {
        crate::host::name_service::local_user(name).map(|user| Some(user.id)).ok_or_else(|| {
            complaint!("the daemon knows the users of /etc/passwd only: write the number of the user")
        })
    }

    fn netns(&self, name: &str) -> Result<u32, Complaint> {
        match name {
            "." => Err("the namespace would be that of the daemon: write its inode number, as readlink /proc/self/ns/net \
                        prints it"
                .into()),
            _ if name.contains('/') => {
                Err("the daemon opens no paths of clients: write the inode number of the namespace".into())
            }
            _ => self.0.netns(name),
        }
    }

    fn cgroup(&self, path: &str) -> Result<u64, Complaint> {
        if path.split('/').any(|part| part == "..") {
            return Err("the path of a cgroup has no ..: begin it at the root".into());
        }
        self.0.cgroup(path)
    }

    fn host(&self, _: &str) -> Result<Vec<IpAddr>, Complaint> {
        Err("the daemon asks no DNS for clients: write the address".into())
    }

    fn local_ports(&self) -> (u16, u16) {
        self.0.local_ports()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_no_file_and_no_server() {
        let lookup = ClientLookup::new(&Host::good());
        assert_eq!(lookup.user("root").unwrap(), Some(0));
        assert_eq!(lookup.netns("4026531840").unwrap(), 4_026_531_840);
        let complaints = [
            lookup.user("no-such-user").map(drop),
            lookup.netns(".").map(drop),
            lookup.netns("/tmp/x").map(drop),
            lookup.cgroup("/../../etc").map(drop),
            lookup.host("example.com").map(drop),
        ];
        assert!(complaints.iter().all(Result::is_err), "{complaints:?}");
    }
}
