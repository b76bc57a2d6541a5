//! Standard error. Its errors are ignored: a full disk or a closed descriptor must not end a run, or change its result.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a reader that does not read delays a text, in milliseconds. Then the text is dropped.
const MAX_WAIT_MS: u16 = 100;

/// Writes a text as it is. A text that standard error does not take is dropped.
pub fn print(text: impl Display) {
    let text = text.to_string();
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::from(MAX_WAIT_MS)) != Ok(0) {
        let _ = stderr.lock().write_all(text.as_bytes());
    }
}
