//! Standard output: whole batches of lines, written at once.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::error::Error;
use crate::output::async_fd::register;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// All of it was written.
    All,
    /// Nobody reads any more (`| head -1`): time to stop, not an error.
    Closed,
}

/// Standard output without the line buffer of the standard library.
#[derive(Debug)]
pub struct Sink {
    file: File,
    closed: Option<AsyncFd<File>>,
}

impl Sink {
    /// Needs a tokio runtime.
    ///
    /// # Errors
    /// Standard output is not open.
    pub fn stdout() -> Result<Self, Error> {
        let open = || io::stdout().as_fd().try_clone_to_owned().map(File::from);
        let file = open().map_err(context)?;
        // Files cannot be polled; then there is also no reader who could leave.
        let closed = open().ok().and_then(|file| register(file, Interest::ERROR).ok());
        Ok(Self { file, closed })
    }

    /// Writes a batch.
    ///
    /// # Errors
    /// The file cannot be written: the disk is full, for instance.
    pub fn write(&mut self, batch: &[u8]) -> Result<Written, Error> {
        match self.file.write_all(batch) {
            Ok(()) => Ok(Written::All),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Closed),
            Err(error) => Err(context(error)),
        }
    }

    /// Waits until the reader of a pipe is gone; for ever if there is none.
    pub async fn closed(&mut self) {
        match &self.closed {
            // An error condition is all this descriptor is polled for.
            Some(closed) => drop(closed.ready(Interest::ERROR).await),
            None => std::future::pending().await,
        }
    }
}

/// Writes a whole answer to standard output, for commands that give one and end. A reader who left
/// has seen what it wanted.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Error> {
    print_part(text.as_ref()).map(|_| ())
}

/// The same for a part of an answer; the caller makes the next part if somebody still reads.
///
/// # Errors
/// Standard output cannot be written.
pub fn print_part(text: &[u8]) -> Result<Written, Error> {
    match io::stdout().lock().write_all(text).and_then(|()| io::stdout().flush()) {
        Ok(()) => Ok(Written::All),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::Closed),
        Err(error) => Err(context(error)),
    }
}

fn context(source: io::Error) -> Error {
    Error::Io { context: "writing to standard output".into(), source }
}
