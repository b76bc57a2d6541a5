//! The back's half of the alarms: starts the process that watches the rules, and keeps its state.

use std::convert::Infallible;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;
use tokio::io::AsyncBufReadExt as _;
use tokio::sync::watch;

use crate::serve::alarm::watch::{Orders, State};
use crate::serve::helper::Helper;
use crate::settings::rule::Rule;

/// The file with the state, below the directory of the daemon.
const FILE: &str = "alarms.json";
/// The largest state, in bytes.
const MAX_STATE: u64 = 16 << 20;
/// What the process needs.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    /// The socket of the daemon.
    pub(crate) socket: PathBuf,
    /// The program that takes mail.
    pub(crate) sendmail: PathBuf,
    /// The directory for the state.
    pub(crate) directory: PathBuf,
    /// How the process is started.
    pub(crate) helper: Helper,
}

impl Keeper {
    /// Watches the rules for ever, and follows their changes.
    pub(crate) async fn run(&self, rules: watch::Receiver<Vec<Rule>>) -> Infallible {
        self.helper.keep(rules, Vec::is_empty, |rules| self.watch(rules)).await
    }

    /// Runs the process until it ends, and keeps each state that it writes.
    async fn watch(&self, rules: Vec<Rule>) -> io::Result<Infallible> {
        let state = self.read();
        let orders = Orders { rules, socket: self.socket.clone(), sendmail: self.sendmail.clone(), state };
        let mut running = self.helper.start(&orders).await?;
        let mut line = Vec::new();
        let mut is_kept = true;
        loop {
            line.clear();
            let mut limited = tokio::io::AsyncReadExt::take(&mut running.stdout, MAX_STATE);
            if limited.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::Error::other(running.child.wait().await?.to_string()));
            }
            if !line.ends_with(b"\n") || serde_json::from_slice::<State>(&line).is_err() {
                return Err(io::Error::other("it wrote no state"));
            }
            match (self.write(&line), is_kept) {
                (Err(error), true) => {
                    is_kept = false;
                    log::warn!(
                        "keeping the state of the rules in {} failed: {error}. A restart may repeat alarms",
                        self.directory.display()
                    );
                }
                (Ok(()), false) => is_kept = true,
                _ => {}
            }
        }
    }

    /// The state of the last run. A file that is none is named, and not used.
    fn read(&self) -> State {
        let path = self.directory.join(FILE);
        match read(&path) {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                log::warn!("{} is not used ({error}): alarms may be repeated", path.display());
                State::default()
            }
        }
    }

    /// Replaces the state as a whole.
    fn write(&self, state: &[u8]) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        let path = self.directory.join(FILE);
        let new = path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let mut file = options.open(&new)?;
        file.write_all(state)?;
        file.sync_data()?;
        fs::rename(&new, &path)
    }
}

/// Reads a state that only root could write.
fn read(path: &Path) -> io::Result<State> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
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
