//! Time limits, scaled to the speed of the machine.

use std::{env, sync::LazyLock, time::Duration};

/// The environment variable with the factor of every time limit. An emulated machine needs 8 s for 0.2 s of another.
pub const FACTOR_VARIABLE: &str = "CONNTRACE_TEST_TIMEOUT_FACTOR";

static FACTOR: LazyLock<u32> = LazyLock::new(|| {
    let chosen = env::var(FACTOR_VARIABLE).ok();
    let parse = |factor: String| {
        factor.parse().unwrap_or_else(|_| panic!("{FACTOR_VARIABLE} is a number: {factor:?}"))
    };
    chosen.map_or(1, parse)
});

/// A limit of so many seconds on a usual machine.
pub fn seconds(usual: u64) -> Duration {
    Duration::from_secs(usual) * *FACTOR
}

/// True on a slow machine, whose limits are longer than usual.
pub fn is_scaled() -> bool {
    *FACTOR > 1
}
