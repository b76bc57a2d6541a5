//! The pins of streams: the ring of a client goes on while the daemon is away, each in a directory of its own beside the counts.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::kernel::pin::error::{PinError, Unfit};
use crate::kernel::pin::found::{self, Found};
use crate::kernel::pin::root::{self, Root};
use crate::kernel::pin::{Removed, detach_counts, progress};

/// The directory below the mount point.
const NAME: &str = "conntrace-streams";

/// How long the removal of all streams waits for their readers, and how often it looks.
const MAX_WAIT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(10);

/// The directories of all streams below a mount point.
#[derive(Debug)]
pub(crate) struct Streams(Root);

impl Streams {
    /// Makes the directory of all streams.
    ///
    /// # Errors
    /// The mount point holds no pins.
    pub(crate) fn make(point: &Path) -> Result<Self, Unfit> {
        Root::make(point, NAME).map(Self)
    }

    pub(super) fn existing(point: &Path) -> Result<Option<Self>, Unfit> {
        Ok(Root::existing(point, NAME)?.map(Self))
    }

    /// Makes the directory of one stream, if it is not there. It is the mount point for the pins of the stream.
    ///
    /// # Errors
    /// The system's answer.
    pub(crate) fn directory(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.path(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(path),
        }
    }

    /// The names of all streams.
    pub(crate) fn names(&self) -> Vec<String> {
        // Without a list there is nothing to remove.
        self.0.names().unwrap_or_default()
    }

    /// True if a process reads the stream.
    pub(crate) fn is_in_use(&self, name: &str) -> bool {
        Root::existing(&self.path(name), root::NAME)
            .is_ok_and(|root| root.is_some_and(|root| root.is_in_use()))
    }

    /// Takes the pins of a stream away.
    ///
    /// # Errors
    /// A process reads the stream, or another user owns its directory.
    pub(crate) fn remove(&self, name: &str) -> Result<Removed, PinError> {
        let path = self.path(name);
        let mut removed = detach_counts(&path)?;
        if fs::remove_file(path.join(progress::NAME)).is_ok() {
            removed.maps += 1;
        }
        if fs::remove_dir(&path).is_err() && path.exists() {
            removed.left.push(path);
        }
        Ok(removed)
    }

    /// Takes the pins of all streams away, and the directory.
    pub(super) fn remove_all(self) -> Result<Removed, PinError> {
        let mut removed = Removed::default();
        let deadline = Instant::now() + MAX_WAIT;
        for name in self.names() {
            // A reader ends a moment after its daemon.
            while self.is_in_use(&name) && Instant::now() < deadline {
                thread::sleep(PAUSE);
            }
            removed.add(self.remove(&name)?);
        }
        // What is left in it has been named.
        let _ = fs::remove_dir(self.0.shown());
        Ok(removed)
    }

    /// What is pinned of all streams.
    pub(super) fn found(&self) -> Vec<Found> {
        // What cannot be read has no pins of conntrace.
        self.names().iter().filter_map(|name| found::of_counts(&self.path(name)).ok()).flatten().collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.shown().join(name)
    }
}
