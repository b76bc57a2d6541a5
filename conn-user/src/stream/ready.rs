//! Telling whoever started conntrace that it watches.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::FromRawFd as _;

/// The environment variable that names the descriptor to be told.
pub const READY_FD: &str = "CONNTRACE_READY_FD";

/// Writes a newline to the descriptor that [`READY_FD`] names, and closes it. To be called once, when
/// all hooks are attached and all sockets adopted.
pub fn tell() {
    // The first three belong to the program itself.
    let Some(fd) = std::env::var(READY_FD).ok().and_then(|fd| fd.parse().ok()).filter(|&fd| fd > 2) else {
        return;
    };
    // SAFETY: the starter handed this descriptor over by naming it, and nobody else here uses it.
    let mut ready = unsafe { File::from_raw_fd(fd) };
    if let Err(error) = ready.write_all(b"\n") {
        log::warn!("{READY_FD}={fd} cannot be written: {error}");
    }
}
