//! The back's half of the alarms: starts the process that watches the rules, and keeps its state.

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;

use tokio::io::AsyncBufReadExt as _;
use tokio::sync::watch;

use crate::serve::alarm::watch::{Orders, State};
use crate::serve::helper::Helper;
use crate::serve::state_file::{MAX_STATE, StateFile};
use crate::settings::rule::Rule;

/// The file with the state, below the directory of the daemon.
const FILE: &str = "alarms.json";

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
            match (self.file().write(&line), is_kept) {
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

    fn file(&self) -> StateFile {
        StateFile { directory: self.directory.clone(), name: FILE }
    }

    /// The state of the last run. A file that is none is named, and not used.
    fn read(&self) -> State {
        match self.file().read() {
            Ok(state) => state,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                log::warn!("{} is not used ({error}): alarms may be repeated", self.file().path().display());
                State::default()
            }
        }
    }
}
