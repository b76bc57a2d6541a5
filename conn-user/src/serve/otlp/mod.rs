//! Export of metrics and events by OTLP over HTTP, from a process of its own without privileges.
//!
//! The back gives it its orders (`Keeper`). Each interval, the process asks the daemon (`reading`), makes one request of the
//! names in `table` (`request`), and sends it (`delivery`, which posts with `send`). `queue` bounds what waits for a collector
//! that is away. `events` sends what happens in between, in the same way.

pub(crate) mod delivery;
pub mod events;
pub(crate) mod export;
pub(crate) mod file;
pub(crate) mod queue;
pub(crate) mod reading;
pub(crate) mod request;
pub(crate) mod resource;
pub(crate) mod send;
pub mod table;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _};
use tokio::sync::watch;

use crate::serve::helper::Helper;
use crate::serve::otlp::events::progress::State;
use crate::serve::otlp::export::Orders;
use crate::serve::state_file::StateFile;
use crate::settings::otlp::Otlp;

/// The file with how far the export of events came, below the directory of the daemon.
const FILE: &str = "events.json";
/// The longest line with it.
const MAX_LINE: u64 = 4096;

/// The back's half: starts the process.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    /// How the process is started.
    pub(crate) helper: Helper,
    /// The socket of the daemon.
    pub(crate) socket: PathBuf,
    /// Handshakes and lifetimes are counted.
    pub(crate) lifetimes: bool,
    /// Ports that have series of their own in both directions.
    pub(crate) ports: Vec<(u16, u16)>,
    /// The directory for the state.
    pub(crate) directory: PathBuf,
}

impl Keeper {
    /// Exports for ever, and follows changes of the settings.
    pub(crate) async fn run(&self, settings: watch::Receiver<Option<Otlp>>) -> Infallible {
        self.helper.keep(settings, Option::is_none, |settings| self.export(settings)).await
    }

    /// Runs the process until it ends, and keeps each state that it writes.
    async fn export(&self, settings: Option<Otlp>) -> io::Result<Infallible> {
        let Some(otlp) = settings else { return std::future::pending().await };
        let (socket, ports) = (self.socket.clone(), self.ports.clone());
        let state = otlp.events.as_ref().and_then(|_| self.state());
        let orders = Orders { otlp, socket, lifetimes: self.lifetimes, ports, state };
        let mut running = self.helper.start(&orders).await?;
        let (mut line, mut is_kept) = (Vec::new(), true);
        loop {
            line.clear();
            let mut limited = (&mut running.stdout).take(MAX_LINE);
            if limited.read_until(b'\n', &mut line).await? == 0 {
                return Err(io::Error::other(running.child.wait().await?.to_string()));
            }
            if !line.ends_with(b"\n") || serde_json::from_slice::<State>(&line).is_err() {
                return Err(io::Error::other("it wrote no state"));
            }
            let written = self.file().write(&line);
            if let Err(error) = &written
                && is_kept
            {
                log::warn!(
                    "keeping the state of the export in {} failed: {error}. A gap may be reported with a wrong begin, or not at all",
                    self.directory.display()
                );
            }
            is_kept = written.is_ok();
        }
    }

    fn file(&self) -> StateFile {
        StateFile { directory: self.directory.clone(), name: FILE }
    }

    /// How far the last export came; none if there was none.
    fn state(&self) -> Option<State> {
        match self.file().read() {
            Ok(state) => Some(state),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("{} is not used ({error}): the gap has no begin", self.file().path().display());
                Some(State::default())
            }
        }
    }
}
