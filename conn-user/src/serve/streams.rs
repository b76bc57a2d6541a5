//! The streams of clients that outlive the daemon: each has pins of its own, until its client leaves.
//!
//! A client chooses the name of its stream at random. After the daemon was away, the client asks for the same
//! stream, behind the lines that it has. A stream that no client asks for is taken away.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};

use crate::kernel::pin;
use crate::serve::places::MAX_COMMANDS;
use crate::serve::query::Query;

/// How long a stream waits for its client.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Digits of a name.
const DIGITS: usize = 32;

/// The stream that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Stream {
    /// Its name: 32 hexadecimal digits.
    pub(crate) name: String,
    /// How many lines the client has of it; none if it begins.
    pub(crate) from: Option<u64>,
}

/// True for the name of a stream.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The pins of all streams.
#[derive(Debug)]
pub(crate) struct Streams {
    pins: Option<Arc<pin::Streams>>,
    /// Streams without a reader, and since when.
    unused: RefCell<HashMap<String, Instant>>,
}

/// The pins of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Their directory.
    pub(crate) point: PathBuf,
    /// The lines that the client has.
    pub(crate) from: Option<u64>,
    pins: Arc<pin::Streams>,
    name: String,
}

impl Streams {
    /// Below a mount point; none if the daemon itself pins nothing.
    pub(crate) fn new(point: Option<&Path>) -> Self {
        let pins = point.and_then(|point| match pin::Streams::make(point) {
            Ok(pins) => Some(Arc::new(pins)),
            Err(unfit) => {
                log::warn!("events do not outlive the daemon: {unfit}");
                None
            }
        });
        Self { pins, unused: RefCell::default() }
    }

    /// The pins of the stream that a user asks for. None if the stream ends with the daemon.
    pub(crate) fn place(&self, uid: u32, query: &Query) -> Option<Place> {
        let stream = query.kept_stream().filter(|stream| is_name(&stream.name))?;
        let pins = self.pins.as_ref()?;
        // No user gets the stream of another one.
        let name = format!("{uid}-{}", stream.name);
        let names = pins.names();
        if !names.contains(&name) && names.len() >= MAX_COMMANDS {
            return None;
        }
        match pins.directory(&name) {
            Ok(point) => Some(Place { point, from: stream.from, pins: Arc::clone(pins), name }),
            Err(error) => {
                log::warn!("a stream does not outlive the daemon: {error}");
                None
            }
        }
    }

    /// Takes away the streams that no client has asked for.
    pub(crate) fn sweep(&self) {
        let Some(pins) = &self.pins else { return };
        let (mut unused, now) = (self.unused.borrow_mut(), Instant::now());
        let names: Vec<_> = pins.names().into_iter().filter(|name| !pins.is_in_use(name)).collect();
        unused.retain(|name, _| names.contains(name));
        for name in names {
            if now - *unused.entry(name.clone()).or_insert(now) >= PATIENCE {
                remove(pins, &name);
            }
        }
    }
}

impl Place {
    /// Takes the pins away: the client has left.
    pub(crate) fn release(&self) {
        remove(&self.pins, &self.name);
    }
}

fn remove(pins: &pin::Streams, name: &str) {
    match pins.remove(name) {
        Ok(removed) => {
            for left in removed.left {
                log::warn!("{} was not made by conntrace, and stays", left.display());
            }
        }
        Err(error) => log::warn!("the pins of a stream stay: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_digits() {
        assert!(is_name("0123456789abcdef0123456789abcdef"));
        for wrong in ["", "../x", "0123456789ABCDEF0123456789abcdef", "0123456789abcdef0123456789abcdef0"] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
