//! Descriptors that tokio waits for.

#![expect(unsafe_code, reason = "AsyncFd asks for a promise that its type system cannot check")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An owner of one descriptor.
///
/// # Safety
/// Until the value is dropped, `as_raw_fd` answers with the same descriptor, and that stays open. This is what
/// [`AsyncFd::register_with_interest`] asks for: another descriptor could be closed while epoll still has it, and its
/// number be that of a stranger's.
pub(crate) unsafe trait OwnsFd: AsRawFd {}

// SAFETY: a file owns its descriptor and never replaces it.
unsafe impl OwnsFd for File {}

/// Lets tokio wait for `inner`. Needs a tokio runtime.
///
/// # Errors
/// Descriptors of this kind cannot be polled, those of regular files for instance.
pub(crate) fn register<T: OwnsFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: an `OwnsFd` answers with the same open descriptor until it is dropped, which tokio does after
    // deregistering it.
    unsafe { AsyncFd::register_with_interest(inner, interest) }.map_err(io::Error::from)
}
