//! Epochs that have ended, as `/v1/stats` has them.

use conn_common::pin::{DirectionSums, EpochSums};
use serde::Serialize;

use crate::host::clock;
use crate::kernel::pin::{self, Service};
use crate::serve::epoch::Epoch;

/// An epoch that has ended, with closed numbers. They are never added to those of the current epoch.
#[derive(Debug, Serialize)]
struct Earlier {
    /// When its counting began.
    epoch: Epoch,
    /// When its sums were last read (RFC 3339); none if they never were.
    until: Option<String>,
    /// The version of conntrace that made its programs.
    version: String,
    /// Its sums by direction; none if they were never read.
    counts: Option<Counts>,
}

/// The sums of an epoch over all ports.
#[derive(Debug, Serialize)]
struct Counts {
    r#in: Sums,
    out: Sums,
    /// Of connections that were counted while no port had room.
    unattributed: Option<Sums>,
}

/// The sums of one direction.
#[derive(Debug, Serialize)]
struct Sums {
    opened: u64,
    preexisting: u64,
    established: u64,
    failed: u64,
    closed: u64,
    /// Open when they were read: the next epoch has these as preexisting, if they still were open when it began.
    open: i64,
    bytes_sent: u64,
    bytes_received: u64,
}

/// Members of a JSON object: the list of earlier epochs, and how many before these are forgotten.
pub(crate) fn members(service: &Service) -> String {
    let (earlier, forgotten) = service.pinned.as_ref().map(pin::Pinned::earlier).unwrap_or_default();
    let earlier: Vec<Earlier> = earlier.iter().map(Earlier::new).collect();
    // Text and numbers always become JSON.
    let list = serde_json::to_string(&earlier).unwrap_or_else(|_| "[]".into());
    format!("\"earlier\":{list},\"earlier_forgotten\":{forgotten}")
}

impl Earlier {
    fn new(one: &pin::Earlier) -> Self {
        let until = one.sums.map(|sums| {
            let mut time = Vec::new();
            clock::rfc3339(i64::try_from(sums.noted_unix_ns).unwrap_or(i64::MAX), &mut time);
            String::from_utf8_lossy(&time).into_owned()
        });
        let counts = one.sums.map(|EpochSums { directions: [inward, out, none], .. }| Counts {
            r#in: Sums::new(inward),
            out: Sums::new(out),
            unattributed: (none != DirectionSums::default()).then(|| Sums::new(none)),
        });
        Self { epoch: Epoch::of(&one.epoch), until, version: one.version.clone(), counts }
    }
}

impl Sums {
    fn new(sums: DirectionSums) -> Self {
        let DirectionSums {
            opened,
            preexisting,
            established,
            failed,
            closed,
            bytes_sent,
            bytes_received,
            reserved: _,
        } = sums;
        let open = (opened + preexisting).wrapping_sub(failed + closed).cast_signed();
        Self { opened, preexisting, established, failed, closed, open, bytes_sent, bytes_received }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::epoch::{self, BootId};

    #[test]
    fn an_earlier_epoch_is_closed_numbers() {
        let mut sums = EpochSums { noted_unix_ns: 1_700_000_009_000_000_000, ..EpochSums::default() };
        sums.directions[0] = DirectionSums {
            opened: 5,
            preexisting: 2,
            failed: 1,
            closed: 3,
            bytes_sent: 7,
            ..DirectionSums::default()
        };
        let epoch =
            epoch::Epoch { boot_id: BootId([0xab; 16]), unix_ns: 1_700_000_000_000_000_000, boot_ns: 1 };
        let earlier = |sums| {
            let one = Earlier::new(&pin::Earlier { epoch, version: "0.1.0".into(), sums });
            serde_json::to_string(&one).unwrap()
        };
        insta::assert_snapshot!(earlier(Some(sums)) + "\n" + &earlier(None));
    }
}
