//! How much slower than a usual machine this one is.

use std::{env, sync::LazyLock, time::Duration};

/// The environment variable by which every limit in time is multiplied: a machine that is emulated needs 8 s
/// for what others do in 0.2 s.
pub const PATIENCE: &str = "CONNTRACE_TEST_PATIENCE";

static FACTOR: LazyLock<u32> = LazyLock::new(|| {
    let chosen = env::var(PATIENCE).ok();
    chosen.map_or(1, |factor| factor.parse().unwrap_or_else(|_| panic!("{PATIENCE} is a number: {factor:?}")))
});

/// So many seconds of a usual machine, in seconds of this one.
pub fn seconds(usual: u64) -> Duration {
    Duration::from_secs(usual) * *FACTOR
}
