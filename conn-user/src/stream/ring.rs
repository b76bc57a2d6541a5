//! The ring of events, and when to look into it.
//!
//! A reader that is awake looks on a timer; only a sleeping one is woken, by the first event. So a
//! wake-up, the dearest part of an event, is paid once per quiet period, and no event waits longer
//! than [`PATIENCE`].

use std::time::{Duration, Instant};

use aya::maps::{Array, MapData, RingBuf};
use conn_common::name;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::kernel::probe::Probe;
use crate::output::async_fd::register;

/// How long the reader waits between two looks while events are few.
pub const PATIENCE: Duration = Duration::from_millis(40);
/// How short that gets when events are many.
const HASTE: Duration = Duration::from_millis(1);

/// The reader's end of the ring.
pub struct RingReader {
    ring: AsyncFd<RingBuf<MapData>>,
    sleeps: Array<MapData, u32>,
    /// Look again before this many bytes have come.
    mark: usize,
    looked: Instant,
    next: Duration,
}

impl RingReader {
    /// Takes the ring of `probe`, which has `ring_bytes`. Needs a tokio runtime.
    ///
    /// # Errors
    /// The ring cannot be polled.
    pub fn new(probe: &mut Probe, ring_bytes: u32) -> Result<Self, Error> {
        let ring = register(probe.take_ring()?, Interest::READABLE)
            .map_err(|source| Error::Io { context: "polling the ring of events".into(), source })?;
        Ok(Self {
            ring,
            sleeps: probe.take_array(name::READER_SLEEPS)?,
            mark: ring_bytes as usize / 8,
            looked: Instant::now(),
            next: PATIENCE,
        })
    }

    /// Hands every record in the ring to `each` and tells how many there were. Stops early when
    /// `each` says so.
    pub fn drain(&mut self, mut each: impl FnMut(&[u8]) -> bool) -> usize {
        let (mut records, mut bytes) = (0, 0);
        let ring = self.ring.get_mut();
        while let Some(record) = ring.next() {
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

    /// Waits until another look is worthwhile. `quiet` says that the last one found nothing.
    ///
    /// # Errors
    /// The ring cannot be polled any more.
    pub async fn wait(&mut self, quiet: bool) -> Result<(), Error> {
        if !quiet {
            sleep(self.next).await;
            return Ok(());
        }
        if self.is_asleep()? {
            // Looked twice, PATIENCE apart, with the mark set: what comes now wakes us.
            return self.woken().await;
        }
        self.set_asleep()?;
        // An event that read the mark just before it was set may still be on its way into the ring.
        match timeout(PATIENCE, self.woken()).await {
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
        self.sleeps.get(&0, 0).map(|sleeps| sleeps != 0).map_err(|error| Error::Internal(error.to_string()))
    }

    fn set_asleep(&mut self) -> Result<(), Error> {
        self.sleeps.set(0, 1, 0).map_err(|error| Error::Internal(error.to_string()))
    }
}

/// When to look again, if `bytes` came in `elapsed` and the ring is to hold no more than `mark`.
fn until_mark(bytes: usize, elapsed: Duration, mark: usize) -> Duration {
    if bytes == 0 {
        return PATIENCE;
    }
    elapsed.mul_f64(mark as f64 / bytes as f64).clamp(HASTE, PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_sooner_the_faster_events_come() {
        assert_eq!(until_mark(0, PATIENCE, 1 << 20), PATIENCE);
        assert_eq!(until_mark(1_000, PATIENCE, 1 << 20), PATIENCE);
        assert_eq!(until_mark(2 << 20, PATIENCE, 1 << 20), PATIENCE / 2);
        assert_eq!(until_mark(usize::MAX, PATIENCE, 1), HASTE);
    }
}
