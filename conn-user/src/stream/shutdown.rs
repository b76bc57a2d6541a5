//! What ends a command that would go on for ever.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::error::Error;
use crate::host::priority;

/// Ctrl-C, SIGTERM, or a deadline.
#[derive(Debug)]
pub(crate) struct Shutdown {
    interrupt: Signal,
    terminate: Signal,
    deadline: Option<Instant>,
    /// SIGTERM came.
    pub(crate) is_terminated: bool,
}

impl Shutdown {
    /// Begins to wait: the deadline is `timeout` from now. Needs a tokio runtime.
    ///
    /// # Errors
    /// Signals cannot be waited for.
    pub(crate) fn new(timeout: Option<Duration>) -> Result<Self, Error> {
        let error = |source| Error::Io { context: "waiting for signals".into(), source };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(error)?,
            terminate: signal(SignalKind::terminate()).map_err(error)?,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            is_terminated: false,
        })
    }

    /// Returns when it is time to end. From then on, the calling thread has priority.
    pub(crate) async fn wait(&mut self) {
        let deadline = self.deadline;
        tokio::select! {
            () = self.signal() => {}
            () = async { match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            } } => {}
        }
        priority::raise();
    }

    /// Returns at the next signal, whether the deadline has passed or not.
    pub(crate) async fn signal(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => self.is_terminated = true,
        }
    }
}
