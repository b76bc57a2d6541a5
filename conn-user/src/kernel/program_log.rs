//! The programs' own log lines, for `-vv`.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use aya_log::EbpfLogger;
use log::Log;

use crate::output::async_fd::OwnsFd;

/// Hands the programs' log lines to this process's logger.
pub struct ProgramLog(pub(super) EbpfLogger<&'static dyn Log>);

impl ProgramLog {
    /// Logs the lines that wait.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for ProgramLog {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for ProgramLog {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

// SAFETY: a logger owns the ring of its lines, which it cannot replace.
#[expect(unsafe_code, reason = "the promise that AsyncFd asks for")]
unsafe impl OwnsFd for ProgramLog {}

impl fmt::Debug for ProgramLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ProgramLog").field(&self.as_raw_fd()).finish()
    }
}
