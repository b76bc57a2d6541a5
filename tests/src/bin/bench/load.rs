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
pub struct Field {
    pub ns: NetNs,
    pub port: Port,
}

/// What was made while it was looked at.
pub struct Window<T> {
    /// Connections, two ends each.
    pub made: u64,
    pub seconds: f64,
    /// Also those before and after.
    pub total: u64,
    pub before: T,
    pub after: T,
}

impl<T> Window<T> {
    pub fn per_second(&self) -> f64 {
        self.made as f64 / self.seconds
    }
}

impl Field {
    pub fn new() -> Self {
        Self { ns: NetNs::new().expect("a network namespace"), port: Port::take() }
    }

    /// Floods from so many threads for a time, and looks when it begins and ends. Each connection carries a
    /// byte and is closed by its client, then by its server.
    pub fn flood<T>(&self, threads: u64, span: Duration, mut look: impl FnMut() -> T) -> Window<T> {
        let flood = Flood { threads, ..Flood::new(self.port.number(), u64::MAX, Ending::ClientFirst) };
        let running = self.ns.run(|| flood.start());
        thread::sleep(WARM_UP);
        let (before, from, begin) = (look(), running.made(), Instant::now());
        thread::sleep(span);
        let (seconds, made, after) = (begin.elapsed().as_secs_f64(), running.made() - from, look());
        let total = running.stop().outgoing(self.port.number()).opened;
        Window { made, seconds, total, before, after }
    }
}
