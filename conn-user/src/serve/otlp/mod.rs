//! Export of metrics by OTLP over HTTP, from a process of its own without privileges.
//!
//! The back gives it its orders (`Keeper`). Each interval, the process asks the daemon (`reading`), makes one request of the
//! names in `table` (`request`), and posts it (`send`). `queue` bounds what waits for a collector that is away.

pub(crate) mod export;
pub(crate) mod file;
pub(crate) mod queue;
pub(crate) mod reading;
pub(crate) mod request;
pub(crate) mod send;
pub mod table;

use std::convert::Infallible;
use std::io;
use std::path::PathBuf;

use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::serve::helper::Helper;
use crate::serve::otlp::export::Orders;
use crate::settings::otlp::Otlp;

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
}

impl Keeper {
    /// Exports for ever, and follows changes of the settings.
    pub(crate) async fn run(&self, settings: watch::Receiver<Option<Otlp>>) -> Infallible {
        self.helper.keep(settings, Option::is_none, |settings| self.export(settings)).await
    }

    async fn export(&self, settings: Option<Otlp>) -> io::Result<Infallible> {
        let Some(otlp) = settings else { return std::future::pending().await };
        let (socket, ports) = (self.socket.clone(), self.ports.clone());
        let mut running =
            self.helper.start(&Orders { otlp, socket, lifetimes: self.lifetimes, ports }).await?;
        // It writes nothing: this is its end.
        let mut byte = [0];
        while running.stdout.read(&mut byte).await? > 0 {}
        Err(io::Error::other(running.child.wait().await?.to_string()))
    }
}
