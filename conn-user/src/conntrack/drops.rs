//! How many messages a socket had no room for.

#![expect(unsafe_code, reason = "nix has no SO_MEMINFO")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use nix::libc;

/// How many numbers `SO_MEMINFO` gives (`SK_MEMINFO_VARS`, `include/uapi/linux/sock_diag.h`), since 4.12.
const VARIABLES: usize = 9;
/// `SK_MEMINFO_DROPS`.
const DROPS: usize = 8;

/// The number of messages that found the socket full, or that the kernel did not deliver after that, modulo 2³²
/// (`netlink_overrun()`, `net/netlink/af_netlink.c`).
///
/// # Errors
/// The kernel refuses.
pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut numbers = [0_u32; VARIABLES];
    let mut length = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `numbers`, and both outlive the call.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(numbers[DROPS]) } else { Err(io::Error::last_os_error()) }
}
