//! A file with what a helper of the daemon knows, for the next one. Only root reads and writes it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use nix::libc;
use serde::de::DeserializeOwned;

/// The largest state, in bytes.
pub(crate) const MAX_STATE: u64 = 16 << 20;

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct StateFile {
    /// The directory of the daemon.
    pub(crate) directory: PathBuf,
    /// The name below it.
    pub(crate) name: &'static str,
}

impl StateFile {
    /// Its path.
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join(self.name)
    }

    /// Replaces the state as a whole.
    ///
    /// # Errors
    /// The system's answer.
    pub(crate) fn write(&self, state: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.path();
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&new)?;
        file.write_all(state)?;
        file.sync_data()?;
        fs::rename(&new, &path)
    }

    /// The state that was written last.
    ///
    /// # Errors
    /// There is none, others than the user of the daemon could write it, or it is no such state.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> io::Result<T> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(self.path())?;
        let found = file.metadata()?;
        let own = nix::unistd::geteuid().as_raw();
        if !found.is_file() || found.uid() != own || found.mode() & 0o022 != 0 {
            return Err(io::Error::other(
                "it is not a file that only its owner, the user of the daemon, may write",
            ));
        }
        let mut text = String::new();
        file.take(MAX_STATE).read_to_string(&mut text)?;
        serde_json::from_str(&text).map_err(io::Error::other)
    }
}
