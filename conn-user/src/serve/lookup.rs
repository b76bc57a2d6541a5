//! The names that clients may use. A client must not make the daemon look at any file, ask DNS or start a process.

use std::net::IpAddr;

use crate::complaint::{Complaint, complaint};
use crate::host::lookup::{HostLookup, Lookup, is_process};
use crate::host::services::Services;
use crate::serve::peer::Rights;

/// Looks up names for a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientLookup<'a> {
    /// The names of this host.
    pub(crate) names: &'a HostLookup,
    /// What the client may see.
    pub(crate) rights: Rights,
}

impl Lookup for ClientLookup<'_> {
    fn services(&self) -> &Services {
        self.names.services()
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
            // ptrace(2) guards the namespaces of processes.
            _ if self.rights != Rights::All && name.parse::<u32>().is_ok_and(is_process) => {
                Err("the namespace of a process is for root and the group of the daemon: write the inode number of the \
                     namespace"
                    .into())
            }
            _ => self.names.netns(name),
        }
    }

    fn cgroup(&self, path: &str) -> Result<u64, Complaint> {
        if path.split('/').any(|part| part == "..") {
            return Err("the path of a cgroup has no ..: begin it at the root".into());
        }
        self.names.cgroup(path)
    }

    fn host(&self, _: &str) -> Result<Vec<IpAddr>, Complaint> {
        Err("the daemon asks no DNS for clients: write the address".into())
    }

    fn local_ports(&self) -> (u16, u16) {
        self.names.local_ports()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::facts::Host;

    #[test]
    fn names_lead_to_no_file_and_no_server() {
        let own = std::process::id().to_string();
        let names = HostLookup::new(&Host::good());
        let lookup = ClientLookup { names: &names, rights: Rights::All };
        assert_eq!(lookup.user("root").unwrap(), Some(0));
        assert_eq!(lookup.netns("4026531840").unwrap(), 4_026_531_840);
        let complaints = [
            lookup.user("no-such-user").map(drop),
            lookup.netns(".").map(drop),
            lookup.netns("/tmp/x").map(drop),
            lookup.cgroup("/../../etc").map(drop),
            lookup.host("example.com").map(drop),
            ClientLookup { rights: Rights::Own(7), ..lookup }.netns(&own).map(drop),
        ];
        assert!(lookup.netns(&own).is_ok());
        assert!(complaints.iter().all(Result::is_err), "{complaints:?}");
    }
}
