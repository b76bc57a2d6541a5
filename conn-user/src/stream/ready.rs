//! The signal that conntrace traces, for the process that started it.

#![expect(unsafe_code, reason = "the descriptor is handed over by its number")]

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{FromRawFd as _, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::libc;

use crate::complaint::{Complaint, complaint};

/// The environment variable that names the descriptor to be written to.
pub const READY_FD: &str = "CONNTRACE_READY_FD";

/// The descriptor between [`inherit`] and [`Ready::take`].
static INHERITED: Mutex<Option<File>> = Mutex::new(None);

/// Takes the descriptor of [`READY_FD`] over from the starter. Call it first in `main`: each open descriptor is an
/// inherited one then. Later the same number may be that of a map or of a file of conntrace's own.
///
/// # Errors
/// The value is no number of an open descriptor that can be written to. Nothing is signalled then.
pub fn inherit() -> Result<(), Complaint> {
    let Some(value) = std::env::var_os(READY_FD) else { return Ok(()) };
    let fd = value.to_str().and_then(|text| text.parse().ok());
    // The first three belong to the program itself.
    let Some(fd) = fd.filter(|&fd| fd > 2 && is_writable(fd)) else {
        return Err(complaint!(
            "{READY_FD}={value:?} names no open descriptor to write to, so none is signalled"
        ));
    };
    // SAFETY: the starter handed the open descriptor over by naming it, and nothing of this process has it yet.
    let file = unsafe { File::from_raw_fd(fd) };
    *INHERITED.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
    Ok(())
}

/// True if the number is that of a descriptor that is open for writing.
fn is_writable(fd: RawFd) -> bool {
    // SAFETY: the call reads flags, and fails for a number that is no open descriptor.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    flags >= 0 && flags & libc::O_PATH == 0 && flags & libc::O_ACCMODE != libc::O_RDONLY
}

/// The descriptor that the starter waits on. The process has one, so there is one value of this type at most.
#[derive(Debug)]
pub struct Ready(Option<File>);

impl Ready {
    /// Takes the descriptor that [`inherit`] took over. Without one, and when it was taken before, nothing is signalled
    /// later.
    pub fn take() -> Self {
        Self(INHERITED.lock().unwrap_or_else(PoisonError::into_inner).take())
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
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn the_descriptor_is_taken_once() {
        // The environment of the tests names no descriptor; a second value has none in any case.
        drop(Ready::take());
        assert!(Ready::take().0.is_none());
    }

    #[test]
    fn only_open_descriptors_for_writing_are_taken() -> std::io::Result<()> {
        let (reader, writer) = std::io::pipe()?;
        assert!(is_writable(writer.as_raw_fd()) && !is_writable(reader.as_raw_fd()));
        assert!(!is_writable(-1) && !is_writable(RawFd::MAX));
        Ok(())
    }
}
