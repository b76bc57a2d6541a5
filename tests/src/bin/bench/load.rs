//! The load: as many connections as the machine can make, in a namespace of their own.

use conn_tests::{
    flood::{Ending, Flood},
    netns::NetNs,
    port::Port,
};
use std::{
    thread,
    time::{Duration, Instant},
};

/// Before anything is measured: caches are warm, the first source ports are taken.
const WARM_UP: Duration = Duration::from_millis(200);

/// Where connections are made.
pub(crate) struct Field {
    pub(crate) ns: NetNs,
    pub(crate) port: Port,
}

/// What was made while it was looked at.
pub(crate) struct Window<T> {
    /// Connections, two ends each.
    pub(crate) made: u64,
    pub(crate) seconds: f64,
    /// Also those before and after.
    pub(crate) total: u64,
    pub(crate) before: T,
    pub(crate) after: T,
}

impl<T> Window<T> {
    pub(crate) fn per_second(&self) -> f64 {
        self.made as f64 / self.seconds
    }
}

impl Field {
    pub(crate) fn new() -> Self {
        Self { ns: NetNs::new().expect("a network namespace"), port: Port::claim() }
    }

    /// Floods from so many threads for a time, and looks when it begins and ends. Each connection carries a
    /// byte and is closed by its client, then by its server.
    pub(crate) fn flood<T>(
        &self,
        threads: u64,
        duration: Duration,
        mut observe: impl FnMut() -> T,
    ) -> Window<T> {
        let flood = Flood { threads, ..Flood::new(self.port.number(), u64::MAX, Ending::ClientFirst) };
        let running = self.ns.run(|| flood.start());
        thread::sleep(WARM_UP);
        let (before, from, begin) = (observe(), running.made(), Instant::now());
        thread::sleep(duration);
        let (seconds, made, after) = (begin.elapsed().as_secs_f64(), running.made() - from, observe());
        let total = running.stop().outgoing(self.port.number()).opened;
        Window { made, seconds, total, before, after }
    }
}
