//! A process of the daemon without privileges, which is a client like any other. The back starts it, gives it orders as a line of
//! JSON, and starts it again when it ends.

use std::convert::Infallible;
use std::io::{self, BufRead as _};
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::serve::child::SELF;
use crate::serve::confine;

/// How long the back waits before it starts the process again; twice as long after each failure.
const RESTART: Duration = Duration::from_millis(200);
/// The longest such wait. A process that ran for so long begins with the shortest.
const MAX_RESTART: Duration = Duration::from_secs(30);

/// How the process is started.
#[derive(Clone, Debug)]
pub(crate) struct Helper {
    /// The hidden command.
    pub(crate) command: &'static str,
    /// What it does, in messages.
    pub(crate) noun: &'static str,
    /// The user of the process.
    pub(crate) user: u32,
    /// The group that may ask the daemon.
    pub(crate) group: Option<u32>,
    /// How often `-v` was given.
    pub(crate) verbose: u8,
}

/// A process that has its orders.
#[derive(Debug)]
pub(crate) struct Running {
    /// The process. Dropping it ends it.
    pub(crate) child: Child,
    /// What it writes.
    pub(crate) stdout: BufReader<ChildStdout>,
    /// Stays open: the process reads one line.
    _stdin: ChildStdin,
}

/// The other side: drops the privileges of this process, and reads its orders from standard input.
///
/// # Errors
/// The process cannot become another user, or the orders are none.
pub(crate) fn orders<T: DeserializeOwned>(user: Option<u32>, group: Option<u32>) -> io::Result<T> {
    confine::drop_privileges(user, group)?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    serde_json::from_str(&line).map_err(|wrong| io::Error::other(wrong.to_string()))
}

impl Helper {
    /// Runs sessions for ever, each with the newest orders. A change of the orders ends the session; without orders there is none.
    pub(crate) async fn keep<T: Clone>(
        &self,
        mut orders: watch::Receiver<T>,
        is_idle: impl Fn(&T) -> bool,
        session: impl AsyncFn(T) -> io::Result<Infallible>,
    ) -> Infallible {
        let mut pause = RESTART;
        loop {
            let now = orders.borrow_and_update().clone();
            let idle = is_idle(&now);
            if idle || self.group.is_none() {
                if !idle {
                    log::warn!("{} does not run: the group that may ask the daemon is missing", self.noun);
                }
                if orders.changed().await.is_err() {
                    return std::future::pending().await;
                }
                continue;
            }
            let begun = Instant::now();
            tokio::select! {
                Err(error) = session(now) => {
                    log::warn!("{} has ended ({error}), and is started again", self.noun);
                    pause = if begun.elapsed() > MAX_RESTART { RESTART } else { (pause * 2).min(MAX_RESTART) };
                    sleep(pause).await;
                }
                Ok(()) = orders.changed() => pause = RESTART,
            }
        }
    }

    /// Starts the process, and gives it its orders.
    ///
    /// # Errors
    /// The system's answer.
    pub(crate) async fn start(&self, orders: &impl Serialize) -> io::Result<Running> {
        let group = self.group.ok_or_else(|| io::Error::other("no group may ask the daemon"))?;
        let mut command = Command::new(SELF);
        command.arg0("conntrace").arg(self.command).env_clear();
        command.args([format!("--user={}", self.user), format!("--group={group}")]);
        command.args(std::iter::repeat_n("-v", usize::from(self.verbose)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(io::Error::other("no pipe"));
        };
        let mut line = serde_json::to_vec(orders)?;
        line.push(b'\n');
        stdin.write_all(&line).await?;
        Ok(Running { child, stdout: BufReader::new(stdout), _stdin: stdin })
    }
}
