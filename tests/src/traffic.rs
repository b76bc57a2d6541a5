//! Real TCP, made by the test itself, with an exact account of what was done.
//!
//! Every function works in the network namespace of the calling thread, takes the service address, and is
//! bounded in time: no call on any socket waits longer than [`LIMIT`].

pub mod close;
pub mod crew;
pub mod fail;
pub mod handshake;
pub mod held;
pub mod kill;
pub mod listen;
pub mod process;
pub mod ring;
pub mod socket;
pub mod syn;

use crate::timeout;
use std::{sync::LazyLock, time::Duration};

/// The longest wait for anything that should happen at once.
pub static LIMIT: LazyLock<Duration> = LazyLock::new(|| timeout::seconds(10));

pub use socket::{Pair, Server};
