//! The way of requests to one collector: they wait, are sent one after the other, and are sent again if need be.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::host::clock;
use crate::serve::otlp::queue::Queue;
use crate::serve::otlp::send::{Outcome, Sender};
use crate::settings::otlp::Target;

/// How long a request waits before it is sent again; twice as long after each failure.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest such wait.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// What requests have, in log lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nouns {
    /// All of it.
    pub(crate) all: &'static str,
    /// What a collector may reject.
    pub(crate) parts: &'static str,
}

/// A request that waits no longer, with its note.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done<T> {
    /// The collector has it.
    Arrived {
        /// What it had.
        note: T,
        /// How many parts the collector did not want.
        rejected: u64,
    },
    /// The collector does not want it.
    Refused(T),
}

/// The requests for one collector.
#[derive(Debug)]
pub(crate) struct Delivery<T> {
    url: String,
    nouns: Nouns,
    sender: Sender,
    queue: Queue<T>,
    sending: Option<JoinHandle<Outcome>>,
    /// Why the last request did not arrive. It is logged once.
    trouble: Option<String>,
    pause: Duration,
    /// Nothing is sent before.
    not_before: Instant,
}

impl<T> Delivery<T> {
    /// To this end.
    pub(crate) fn new(target: Target, nouns: Nouns) -> Self {
        Self {
            url: target.url.clone(),
            nouns,
            sender: Sender::new(target),
            queue: Queue::default(),
            sending: None,
            trouble: None,
            pause: PAUSE,
            not_before: Instant::now(),
        }
    }

    /// The URL of the collector.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The requests that wait, or are sent.
    pub(crate) fn queue(&self) -> &Queue<T> {
        &self.queue
    }

    /// Adds a request. Returns the notes of older ones that were dropped for it.
    pub(crate) fn push(&mut self, body: Bytes, note: T) -> Vec<T> {
        self.queue.push(body, note)
    }

    /// Sends requests until one is done. Nothing is lost if the caller waits for something else in between.
    pub(crate) async fn next(&mut self) -> Done<T> {
        loop {
            if self.sending.is_none() {
                if self.queue.len() == 0 {
                    // The caller adds one, and waits again.
                    pending::<()>().await;
                }
                sleep_until(self.not_before).await;
                if let Some(body) = self.queue.begin() {
                    let sender = self.sender.clone();
                    self.sending = Some(tokio::task::spawn_blocking(move || sender.post(&body)));
                }
            }
            let Some(task) = &mut self.sending else { continue };
            let outcome = task.await;
            self.sending = None;
            let failed =
                |error: tokio::task::JoinError| Outcome::Again { after: None, why: error.to_string() };
            if let Some(done) = self.judge(outcome.unwrap_or_else(failed)) {
                return done;
            }
        }
    }

    /// Acts on the answer of the collector.
    fn judge(&mut self, outcome: Outcome) -> Option<Done<T>> {
        let (url, Nouns { all, parts }) = (&self.url, self.nouns);
        match outcome {
            Outcome::Arrived { rejected, message } => {
                self.pause = PAUSE;
                let text = format!("{url} rejects {rejected} {parts}: {message}");
                if rejected == 0 && message.is_empty() {
                    if self.trouble.take().is_some() {
                        log::warn!("{url} takes {all} again");
                    }
                } else if self.trouble.as_ref() != Some(&text) {
                    log::warn!("{text}");
                    self.trouble = Some(text);
                }
                self.queue.done().map(|note| Done::Arrived { note, rejected })
            }
            Outcome::Again { after, why } => {
                self.queue.again();
                self.not_before = Instant::now() + after.unwrap_or_else(|| jittered(self.pause));
                self.pause = (self.pause * 2).min(MAX_PAUSE);
                if self.trouble.as_ref() != Some(&why) {
                    log::warn!("sending {all} to {url} failed ({why}); it is tried again");
                    self.trouble = Some(why);
                }
                None
            }
            Outcome::Refused(why) => {
                if self.trouble.as_ref() != Some(&why) {
                    log::warn!("{url} refuses {all} ({why}): the request is dropped");
                    self.trouble = Some(why);
                }
                self.queue.done().map(Done::Refused)
            }
        }
    }
}

/// Between half of a pause and all of it, so that hosts do not come back at the same time.
pub(crate) fn jittered(pause: Duration) -> Duration {
    let part = (clock::boot_now_ns() / 1000 % 1000) as u32;
    pause / 2 + pause / 2 * part / 1000
}
