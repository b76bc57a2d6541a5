//! Which user a client is, and what it may see.

#![expect(unsafe_code, reason = "getsockopt(2) with SO_PEERGROUPS has no safe form")]

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc;
use nix::sys::socket::{getsockopt, sockopt};

use crate::serve::message::Setup;
use crate::settings::Access;

/// The most groups of a process, `NGROUPS_MAX` in include/uapi/linux/limits.h.
const MAX_GROUPS: usize = 1 << 16;

/// A client's process at the time of connect(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The effective user.
    pub(crate) uid: u32,
    /// All groups, the supplementary ones included.
    groups: Vec<u32>,
}

impl Peer {
    /// The other end of a Unix socket, as the kernel noted it.
    ///
    /// # Errors
    /// The system's answer.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(socket, sockopt::PeerCredentials)?;
        let mut groups = peer_groups(socket)?;
        groups.push(credentials.gid());
        Ok(Self { uid: credentials.uid(), groups })
    }

    /// What it may see; `None` if it may not ask at all.
    pub(crate) fn rights(&self, setup: &Setup) -> Option<Rights> {
        if self.uid == 0 || setup.group.is_some_and(|group| self.groups.contains(&group)) {
            return Some(Rights::All);
        }
        match setup.access {
            Access::Group => None,
            Access::Everyone => Some(Rights::Own(self.uid)),
        }
    }
}

/// What a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Rights {
    /// All connections with their processes.
    All,
    /// All connections, and the processes of this user.
    Own(u32),
}

impl Rights {
    /// Of a client that no kernel vouches for: it owns no process.
    pub(crate) const NOBODY: Self = Self::Own(u32::MAX);

    /// The user whose processes it may see; `None` for all.
    pub(crate) const fn viewer(self) -> Option<u32> {
        match self {
            Self::All => None,
            Self::Own(uid) => Some(uid),
        }
    }
}

/// The supplementary groups. Since Linux 4.13 (net/core/sock.c); an older kernel would name none.
fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(&groups[..])).unwrap_or(0);
        // SAFETY: the kernel writes at most `length` bytes, which the vector has; each pattern of bits is a number.
        let answer = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast::<c_void>(),
                &raw mut length,
            )
        };
        let needed = length as usize / size_of::<u32>();
        if answer == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ERANGE) if needed > groups.len() && needed <= MAX_GROUPS => groups.resize(needed, 0),
            Some(libc::ENOPROTOOPT) => return Ok(Vec::new()),
            _ => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn setup(group: Option<u32>, access: Access) -> Setup {
        Setup { group, access, clients: 1, per_user: 1, epoch: String::new() }
    }

    #[test]
    fn a_peer_is_the_process_at_the_other_end() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        let own: Vec<u32> =
            nix::unistd::getgroups().unwrap().into_iter().map(nix::unistd::Gid::as_raw).collect();
        assert!(own.iter().all(|group| peer.groups.contains(group)), "{peer:?} {own:?}");
        assert!(peer.groups.contains(&nix::unistd::getegid().as_raw()));
    }

    #[test]
    fn root_and_the_group_see_all() {
        let of = |uid, groups: &[u32], group, access| {
            Peer { uid, groups: groups.to_vec() }.rights(&setup(group, access))
        };
        for (access, stranger) in [(Access::Group, None), (Access::Everyone, Some(Rights::Own(7)))] {
            assert_eq!(of(0, &[], None, access), Some(Rights::All));
            assert_eq!(of(7, &[8, 9], Some(9), access), Some(Rights::All));
            assert_eq!(of(7, &[8], Some(9), access), stranger);
            assert_eq!(of(7, &[0], None, access), stranger);
        }
    }
}
