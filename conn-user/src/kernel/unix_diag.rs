//! The Unix domain sockets of a network namespace, from the kernel's diagnosis (`net/unix/diag.c`), as ss reads them.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::event::decode::unix_diag::{Answer, messages};
use crate::event::unix::UnixSocket;

/// `SOCK_DIAG_BY_FAMILY`, `include/uapi/linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`, `include/uapi/linux/netlink.h`.
const DUMP: u16 = 0x301;
/// `UDIAG_SHOW_NAME`, `_PEER`, `_RQLEN` and `_UID`, `include/uapi/linux/unix_diag.h`.
const SHOW: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 6;
/// The length of the request: `struct nlmsghdr` and `struct unix_diag_req`.
const REQUEST: u32 = 40;
/// More than the kernel writes at once (`netlink_dump()` takes 32 KiB).
const PAGE: usize = 1 << 16;

/// The sockets of the namespace of this thread, whose inode number is `netns`.
///
/// # Errors
/// The kernel refuses, or has no diagnosis of these sockets.
pub(super) fn sockets(netns: u32) -> io::Result<Vec<UnixSocket>> {
    let diagnosis =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    send(diagnosis.as_raw_fd(), &request(), MsgFlags::empty())?;
    let (mut page, mut found) = (vec![0; PAGE], Vec::new());
    loop {
        let length = recv(diagnosis.as_raw_fd(), &mut page, MsgFlags::empty())?;
        match messages(&page[..length], netns, |socket| found.push(socket)).map_err(io::Error::other)? {
            Answer::More => {}
            Answer::Done => return Ok(found),
            Answer::Refused(errno) => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A request for all sockets in every state.
fn request() -> Vec<u8> {
    let family = [AddressFamily::Unix as u8, 0, 0, 0];
    let mut request = REQUEST.to_ne_bytes().to_vec();
    request.extend([BY_FAMILY.to_ne_bytes(), DUMP.to_ne_bytes()].concat());
    // No sequence number, and no port.
    request.extend([0; 8]);
    request.extend(family);
    // Every state, no inode number, no cookie.
    for word in [u32::MAX, 0, SHOW, 0, 0] {
        request.extend(word.to_ne_bytes());
    }
    request
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn request_has_its_length() {
        assert_eq!(request().len(), REQUEST as usize);
    }

    #[test]
    fn a_pair_of_this_process_is_found() {
        let (one, _other) = UnixStream::pair().unwrap();
        let inode = std::fs::read_link(format!("/proc/self/fd/{}", one.as_raw_fd())).unwrap();
        let found = match sockets(1) {
            // Kernels may lack it.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOENT) => return,
            found => found.unwrap(),
        };
        let names = |socket: &UnixSocket| format!("socket:[{}]", socket.inode);
        let socket = found.iter().find(|socket| names(socket) == inode.to_str().unwrap()).unwrap();
        assert!(
            found.iter().any(|other| Some(other.inode) == socket.peer && other.peer == Some(socket.inode))
        );
    }
}
