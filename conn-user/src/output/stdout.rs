//! Standard output: whole lines, and an end that is no error when the reader leaves.

#![expect(clippy::disallowed_methods, reason = "the one writer of standard output")]
#![expect(
    unsafe_code,
    reason = "a closed standard output is noticed before the standard library replaces it"
)]

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

use crate::error::Error;

/// The fate of written text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it was written, or will be.
    All,
    /// The reader is gone (`| head -1`): time to end, not an error.
    Closed,
}

/// Takes lines.
pub trait Sink: Send {
    /// True if there is room for another line behind `waiting` bytes.
    fn has_room(&mut self, waiting: usize) -> bool;

    /// Takes lines, and empties both arguments. Events end in front of the offsets `ends`.
    ///
    /// # Errors
    /// The output failed.
    fn push(&mut self, lines: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<Written, Error>;
}

/// Standard output for a command that gives one answer: the command waits until the reader takes it.
#[derive(Clone, Copy, Debug)]
pub struct Answer;

impl Sink for Answer {
    fn has_room(&mut self, _: usize) -> bool {
        true
    }

    fn push(&mut self, lines: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<Written, Error> {
        let written = print_part(lines);
        lines.clear();
        ends.clear();
        written
    }
}

/// Set if the process was started without standard output.
static CLOSED_AT_START: AtomicBool = AtomicBool::new(false);

/// Notes a closed standard output. The standard library opens `/dev/null` in its place before `main`, which would
/// swallow all output and report success.
extern "C" fn note_closed() {
    // SAFETY: F_GETFD has no argument and changes nothing.
    if unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) } < 0 {
        CLOSED_AT_START.store(true, Ordering::Relaxed);
    }
}

/// The C library calls the functions of this section before the start of the standard library (ELF gABI, chapter 5).
// SAFETY: the section holds pointers to functions without arguments; the function needs nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_CLOSED: extern "C" fn() = note_closed;

/// A descriptor of standard output without the line buffer of the standard library.
///
/// # Errors
/// Standard output is closed.
pub(super) fn open() -> Result<File, Error> {
    check_open()?;
    io::stdout().as_fd().try_clone_to_owned().map(File::from).map_err(context)
}

/// Checks that the process was started with a standard output, for commands that may have nothing to write.
///
/// # Errors
/// Standard output is closed.
pub fn check_open() -> Result<(), Error> {
    if CLOSED_AT_START.load(Ordering::Relaxed) {
        return Err(context(io::Error::from_raw_os_error(libc::EBADF)));
    }
    Ok(())
}

/// Writes a whole answer to standard output, for commands that give one and end. A closed pipe is no error.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Error> {
    print_part(text.as_ref()).map(|_| ())
}

/// The same for a part of an answer; the caller makes the next part if the reader is still there.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_part(text: &[u8]) -> Result<Written, Error> {
    check_open()?;
    match io::stdout().lock().write_all(text).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(Written::All),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Closed),
        Err(error) => Err(context(error)),
    }
}

/// An error of standard output.
pub(super) fn context(source: io::Error) -> Error {
    Error::Io { context: "writing to standard output".into(), source }
}

#[cfg(test)]
pub(crate) mod memory {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Lines in memory, with room for so many bytes.
    #[derive(Clone, Debug)]
    pub(crate) struct Memory {
        pub(crate) text: Arc<Mutex<String>>,
        pub(crate) capacity: usize,
    }

    impl Memory {
        pub(crate) fn new() -> Self {
            Self { text: Arc::default(), capacity: usize::MAX }
        }

        pub(crate) fn text(&self) -> String {
            self.text.lock().unwrap().clone()
        }
    }

    impl Sink for Memory {
        fn has_room(&mut self, waiting: usize) -> bool {
            self.text.lock().unwrap().len() + waiting < self.capacity
        }

        fn push(&mut self, lines: &mut Vec<u8>, ends: &mut Vec<usize>) -> Result<Written, Error> {
            self.text.lock().unwrap().push_str(std::str::from_utf8(lines).unwrap());
            lines.clear();
            ends.clear();
            Ok(Written::All)
        }
    }
}
