//! The ring of events, and when to look into it.
//!
//! A wake-up costs more than all else of an event. So the reader has a budget of wake-ups. While the budget lasts, the
//! reader sets a mark after each look, and the next event wakes it. When the budget is used up, the reader looks on a
//! timer, and no event waits longer than [`IDLE_POLL`].

use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use conn_common::name;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::kernel::map::Array;
use crate::kernel::probe::Probe;
use crate::kernel::ring;
use crate::output::async_fd::register;

/// The longest time between two looks on the timer.
pub(crate) const IDLE_POLL: Duration = Duration::from_millis(10);
/// The shortest time between two looks on the timer.
const MIN_POLL: Duration = Duration::from_millis(1);

/// The reader's end of the ring.
pub(crate) struct RingReader {
    ring: AsyncFd<ring::Ring>,
    sleeps: Array<u32>,
    /// Look again before this many bytes have come.
    mark: usize,
    looked: Instant,
    next: Duration,
    budget: Budget,
}

impl RingReader {
    /// Takes the ring of `probe`, which has `ring_bytes`. Needs a tokio runtime.
    ///
    /// # Errors
    /// The ring cannot be polled.
    pub(crate) fn new(probe: &Probe, ring_bytes: u32) -> Result<Self, Error> {
        let ring = register(probe.ring()?, Interest::READABLE)
            .map_err(|source| Error::Io { context: "polling the ring of events".into(), source })?;
        let now = Instant::now();
        Ok(Self {
            ring,
            sleeps: probe.map(name::READER_SLEEPS)?,
            mark: ring_bytes as usize / 8,
            looked: now,
            next: IDLE_POLL,
            budget: Budget::new(now),
        })
    }

    /// Passes every record in the ring to `each` and returns how many there were. Stops early when `each` returns
    /// false.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(&[u8]) -> bool) -> usize {
        let (mut records, mut bytes) = (0, 0);
        let ring = self.ring.get_mut();
        while let Some(record) = ring.record() {
            records += 1;
            bytes += record.len();
            if !each(&record) {
                break;
            }
        }
        let now = Instant::now();
        self.next = until_mark(bytes, now - self.looked, self.mark);
        self.looked = now;
        records
    }

    /// Waits until another look is worthwhile. `quiet`: the last look found nothing.
    ///
    /// # Errors
    /// The ring cannot be polled any more.
    pub(crate) async fn wait(&mut self, quiet: bool) -> Result<(), Error> {
        // Under a flood there always is a record, and no future would wait: the runtime would see no signal and no
        // deadline.
        yield_now().await;
        if quiet && self.is_asleep()? {
            return self.woken().await;
        }
        if !self.budget.spend(self.looked) {
            sleep(self.next).await;
            return Ok(());
        }
        self.set_asleep()?;
        if self.ring.get_mut().has_record() {
            return Ok(());
        }
        // One more look in a while: an event may find the mark and a full ring, and cannot wake the reader then.
        match timeout(IDLE_POLL, self.woken()).await {
            Ok(woken) => woken,
            Err(_elapsed) => Ok(()),
        }
    }

    async fn woken(&mut self) -> Result<(), Error> {
        let mut guard = self
            .ring
            .readable_mut()
            .await
            .map_err(|source| Error::Io { context: "polling the ring of events".into(), source })?;
        guard.clear_ready();
        Ok(())
    }

    fn is_asleep(&self) -> Result<bool, Error> {
        Ok(self.sleeps.get(0)? != 0)
    }

    fn set_asleep(&mut self) -> Result<(), Error> {
        self.sleeps.set(0, 1)?;
        // The mark is written before the ring is read: an event submits its record and then reads the mark, with a
        // full barrier in between. So the reader sees the record, or the event sees the mark.
        fence(Ordering::SeqCst);
        Ok(())
    }
}

/// Wake-ups that the reader may ask for: a token bucket.
struct Budget {
    tokens: u32,
    /// Up to when tokens have been added.
    filled: Instant,
}

impl Budget {
    /// Time in which a token is added: 1,000 a second.
    const PERIOD: Duration = Duration::from_millis(1);
    /// How many tokens can be saved.
    const CAPACITY: u32 = 100;

    const fn new(now: Instant) -> Self {
        Self { tokens: Self::CAPACITY, filled: now }
    }

    /// Takes a token, if there is one.
    fn spend(&mut self, now: Instant) -> bool {
        let periods = (now - self.filled).as_nanos() / Self::PERIOD.as_nanos();
        let missing = Self::CAPACITY - self.tokens;
        match u32::try_from(periods) {
            Ok(periods) if periods < missing => {
                self.tokens += periods;
                self.filled += Self::PERIOD * periods;
            }
            _ => *self = Self::new(now),
        }
        let has_token = self.tokens > 0;
        self.tokens -= u32::from(has_token);
        has_token
    }
}

/// When to look again, if `bytes` came in `elapsed` and the ring is to hold no more than `mark`.
fn until_mark(bytes: usize, elapsed: Duration, mark: usize) -> Duration {
    if bytes == 0 {
        return IDLE_POLL;
    }
    elapsed.mul_f64(mark as f64 / bytes as f64).clamp(MIN_POLL, IDLE_POLL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_is_shorter_when_events_come_faster() {
        assert_eq!(until_mark(0, IDLE_POLL, 1 << 20), IDLE_POLL);
        assert_eq!(until_mark(1_000, IDLE_POLL, 1 << 20), IDLE_POLL);
        assert_eq!(until_mark(2 << 20, IDLE_POLL, 1 << 20), IDLE_POLL / 2);
        assert_eq!(until_mark(usize::MAX, IDLE_POLL, 1), MIN_POLL);
    }

    #[test]
    fn budget_is_a_thousand_wakeups_a_second() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut spent = |from: u64, to: u64| {
            (from..to).filter(|us| budget.spend(start + Duration::from_micros(*us))).count()
        };
        // The saved ones are spent at once, and then one in each millisecond.
        assert_eq!(spent(0, 1_000), Budget::CAPACITY as usize);
        assert_eq!(spent(1_000, 101_000), 100);
        // No more is saved in an hour than at first.
        assert_eq!(spent(3_600_000_000, 3_600_000_500), Budget::CAPACITY as usize);
    }
}
