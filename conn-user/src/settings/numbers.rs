//! Numbers and durations, as typed.

use std::time::Duration;

use crate::complaint::{Complaint, as_typed, complaint};
use crate::filter::value::duration;

/// The shortest time between two reports, since each of them reads all sockets.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// A number of events.
pub(super) fn count(text: &str) -> Result<u64, Complaint> {
    match text.trim().parse() {
        Ok(0) => Err("0 is too small: write 1 or more, or leave the option out to run until Ctrl-C".into()),
        Ok(count) => Ok(count),
        Err(_) => {
            Err(complaint!("{} is not a number of events: write a whole number, 1 or more", as_typed(text)))
        }
    }
}

/// A number of groups.
pub(super) fn top(text: &str) -> Result<usize, Complaint> {
    match text.trim().parse() {
        Ok(0) => Err("0 groups are nothing to print: write 1 or more, or leave it out for all".into()),
        Ok(top) => Ok(top),
        Err(_) => Err(complaint!("{text:?} is no number of groups: write a whole number, 1 or more")),
    }
}

/// A number of addresses.
pub(super) fn sources(text: &str) -> Result<usize, Complaint> {
    match text.trim().parse() {
        Ok(0) => Err("0 addresses are nothing to print: write 1 or more".into()),
        Ok(most) => Ok(most),
        Err(_) => {
            Err(complaint!("{} is no number of addresses: write a whole number, 1 or more", as_typed(text)))
        }
    }
}

/// The length of a run.
pub(super) fn timeout(text: &str) -> Result<Duration, Complaint> {
    let timeout = duration::parse(text)?;
    if timeout.is_zero() {
        return Err("0 is too short: leave the option out to run until Ctrl-C".into());
    }
    Ok(timeout)
}

/// The time between two reports.
pub(super) fn interval(text: &str) -> Result<Duration, Complaint> {
    let interval = duration::parse(text)?;
    if interval < MIN_INTERVAL {
        return Err("the interval is too short: write 100ms or more".into());
    }
    Ok(interval)
}
