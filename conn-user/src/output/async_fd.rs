//! Descriptors that tokio waits for.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Lets tokio wait for `inner`, which owns its descriptor. Needs a tokio runtime.
///
/// # Errors
/// Descriptors of this kind cannot be polled, files for instance.
pub fn register<T: AsFd + AsRawFd>(inner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    // SAFETY: all our callers pass owners of descriptors, which answer with the same open one until
    // they are dropped, after tokio has forgotten it.
    unsafe { AsyncFd::register_with_interest(inner, interest) }.map_err(io::Error::from)
}
