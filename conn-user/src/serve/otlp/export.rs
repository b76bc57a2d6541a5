//! The process that sends metrics. It is a client of the daemon, and has no privilege.

use std::path::PathBuf;
use std::time::Duration;

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::error::Error;
use crate::host::clock;
use crate::serve::helper;
use crate::serve::otlp::queue::{MOST, Queue};
use crate::serve::otlp::reading;
use crate::serve::otlp::request::{Maker, Own};
use crate::serve::otlp::send::{Outcome, Sender};
use crate::settings::otlp::Otlp;

/// How long the process waits before it sends a request again; twice as long after each failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What the back gives to the process: a line of JSON on its standard input.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    /// Where metrics go.
    pub(crate) otlp: Otlp,
    /// The socket of the daemon.
    pub(crate) socket: PathBuf,
    /// Handshakes and lifetimes are counted.
    pub(crate) lifetimes: bool,
    /// Ports that have points of their own in both directions.
    pub(crate) ports: Vec<(u16, u16)>,
}

/// Runs the process, with its orders on standard input, until the back ends.
///
/// # Errors
/// It cannot become another user, or the orders are none.
pub(crate) fn run(user: Option<u32>, group: Option<u32>) -> Result<(), Error> {
    let error = |source| Error::Io { context: "starting the export by OTLP".into(), source };
    let orders: Orders = helper::orders(user, group).map_err(error)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(error)?;
    runtime.block_on(Export::new(orders).run());
    Ok(())
}

struct Export {
    orders: Orders,
    maker: Maker,
    sender: Sender,
    queue: Queue,
    own: Own,
    /// Why the last request did not arrive. It is logged once.
    trouble: Option<String>,
    /// Why the last reading failed.
    complaint: Option<String>,
    pause: Duration,
    /// Nothing is sent before.
    not_before: Instant,
}

impl Export {
    fn new(orders: Orders) -> Self {
        let host = nix::unistd::gethostname()
            .map_or_else(|_| "-".into(), |name| name.to_string_lossy().into_owned());
        Self {
            maker: Maker::new(orders.ports.clone(), &host, &orders.otlp.resource),
            sender: Sender::new(orders.otlp.clone()),
            orders,
            queue: Queue::default(),
            own: Own {
                start_unix_ns: u64::try_from(clock::unix_now_ns()).unwrap_or_default(),
                ..Own::default()
            },
            trouble: None,
            complaint: None,
            pause: PAUSE,
            not_before: Instant::now(),
        }
    }

    /// Reads and sends for ever. A reading never waits for the collector.
    async fn run(mut self) {
        let mut ticks = interval(self.orders.otlp.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sending: Option<JoinHandle<Outcome>> = None;
        loop {
            if sending.is_none()
                && Instant::now() >= self.not_before
                && let Some(body) = self.queue.begin()
            {
                let sender = self.sender.clone();
                sending = Some(tokio::task::spawn_blocking(move || sender.post(&body)));
            }
            let waits = sending.is_none() && self.queue.len() > 0;
            let sent = async {
                match &mut sending {
                    Some(task) => task.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = ticks.tick() => self.read().await,
                outcome = sent => {
                    sending = None;
                    let failed = |error: tokio::task::JoinError| Outcome::Again { after: None, why: error.to_string() };
                    self.judge(outcome.unwrap_or_else(failed));
                }
                () = sleep_until(self.not_before), if waits => {}
            }
        }
    }

    /// Makes a request of a reading.
    async fn read(&mut self) {
        match reading::stats(&self.orders.socket, self.orders.lifetimes).await {
            Ok(stats) => {
                self.complaint = None;
                self.own.dropped = self.queue.dropped;
                let request = self.maker.request(&stats, self.own);
                let dropped = self.queue.push(request.encode_to_vec().into());
                if dropped > 0 {
                    log::warn!(
                        "{} does not take metrics: {dropped} of more than {MOST} requests that wait dropped, {} in all. \
                         The counts are in the next one",
                        self.orders.otlp.url,
                        self.queue.dropped
                    );
                }
            }
            Err(error) => {
                let text = error.to_string();
                if self.complaint.as_ref() != Some(&text) {
                    log::warn!("no reading to export: {text}");
                }
                self.complaint = Some(text);
            }
        }
    }

    /// Acts on the answer of the collector.
    fn judge(&mut self, outcome: Outcome) {
        let url = &self.orders.otlp.url;
        match outcome {
            Outcome::Arrived { rejected, message } => {
                self.queue.arrived();
                self.pause = PAUSE;
                self.own.rejected = self.own.rejected.saturating_add(rejected);
                let text = format!("{url} rejects {rejected} data points: {message}");
                if rejected == 0 && message.is_empty() {
                    if self.trouble.take().is_some() {
                        log::warn!("{url} takes metrics again");
                    }
                } else if self.trouble.as_ref() != Some(&text) {
                    log::warn!("{text}");
                    self.trouble = Some(text);
                }
            }
            Outcome::Again { after, why } => {
                self.queue.again();
                self.not_before = Instant::now() + after.unwrap_or_else(|| jittered(self.pause));
                self.pause = (self.pause * 2).min(MAX_PAUSE);
                if self.trouble.as_ref() != Some(&why) {
                    log::warn!("sending metrics to {url} failed ({why}); it is tried again");
                    self.trouble = Some(why);
                }
            }
            Outcome::Refused(why) => {
                self.queue.refused();
                if self.trouble.as_ref() != Some(&why) {
                    log::warn!("{url} refuses metrics ({why}): the request is dropped");
                    self.trouble = Some(why);
                }
            }
        }
    }
}

/// Between half of a pause and all of it, so that hosts do not come back at the same time.
fn jittered(pause: Duration) -> Duration {
    let part = (clock::boot_now_ns() / 1000 % 1000) as u32;
    pause / 2 + pause / 2 * part / 1000
}
