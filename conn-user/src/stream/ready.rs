//! The signal that conntrace traces, for the process that started it.

#![expect(unsafe_code, reason = "the descriptor is handed over by its number")]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::FromRawFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

/// The environment variable that names the descriptor to be written to.
pub const READY_FD: &str = "CONNTRACE_READY_FD";

/// The descriptor that the starter waits on. The process has one, so there is one value of this type at most.
#[derive(Debug)]
pub struct Ready(Option<File>);

impl Ready {
    /// Takes the descriptor over. Without [`READY_FD`], and when it was taken before, nothing is signalled later.
    pub fn take() -> Self {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        if TAKEN.swap(true, Ordering::Relaxed) {
            return Self(None);
        }
        let fd = std::env::var(READY_FD).ok().and_then(|fd| fd.parse().ok());
        // The first three belong to the program itself.
        // SAFETY: the starter handed this descriptor over by naming it, and the flag above lets one caller take it.
        Self(fd.filter(|&fd| fd > 2).map(|fd| unsafe { File::from_raw_fd(fd) }))
    }

    /// Writes a newline, and closes the descriptor: all hooks are attached and all sockets adopted.
    pub fn signal(self) {
        if let Some(mut file) = self.0
            && let Err(error) = file.write_all(b"\n")
        {
            log::warn!("{READY_FD} cannot be written: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptor_is_taken_once() {
        // The environment of the tests names no descriptor; a second value has none in any case.
        drop(Ready::take());
        assert!(Ready::take().0.is_none());
    }
}
