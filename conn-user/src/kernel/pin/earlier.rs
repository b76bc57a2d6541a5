//! Epochs that have ended: their last sums go from record to record as long as the host runs. Maps of another layout are
//! never read.

use conn_common::pin::{EARLIER, EarlierEpoch, EpochSums, PinRecord};

use crate::kernel::epoch::{BootId, Epoch};
use crate::kernel::pin::meta;
use crate::kernel::pin::root::LockedRoot;

/// An epoch that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Earlier {
    /// When its counting began.
    pub epoch: Epoch,
    /// The version of conntrace that made its programs.
    pub version: String,
    /// Its last sums; none if no process lived to read them.
    pub sums: Option<EpochSums>,
}

/// The earlier epochs of a record, the oldest first.
pub(super) fn of(record: &PinRecord) -> Vec<Earlier> {
    let boot_id = BootId(record.boot_id);
    let known = record.earlier.iter().filter(|one| one.began_boot_ns != 0);
    known
        .map(|one| Earlier {
            epoch: Epoch { boot_id, unix_ns: one.began_unix_ns, boot_ns: one.began_boot_ns },
            version: meta::text(&one.program),
            sums: Some(one.sums).filter(|sums| sums.noted_unix_ns != 0),
        })
        .collect()
}

/// Notes in a new record the epochs of all records that are there.
pub(super) fn carry(root: &LockedRoot, into: &mut PinRecord) {
    let directories = root.directories().unwrap_or_default();
    let records: Vec<_> =
        directories.iter().filter_map(|directory| Some(directory.meta().ok()?.record)).collect();
    (into.earlier, into.forgotten) = closed(&records);
}

/// The epochs of these records and those before them, and how many had no room.
fn closed(records: &[PinRecord]) -> ([EarlierEpoch; EARLIER], u64) {
    let mut epochs: Vec<EarlierEpoch> = records
        .iter()
        .flat_map(|record| {
            let own = EarlierEpoch {
                began_unix_ns: record.began_unix_ns,
                // A start that was interrupted has no epoch.
                began_boot_ns: if record.complete == 0 { 0 } else { record.began_boot_ns },
                layout: record.layout,
                program: record.program,
                sums: record.sums,
                ..EarlierEpoch::default()
            };
            record.earlier.into_iter().chain([own])
        })
        .filter(|epoch| epoch.began_boot_ns != 0)
        .collect();
    epochs.sort_by_key(|epoch| (epoch.began_boot_ns, epoch.sums.noted_boot_ns));
    // An interrupted start may have noted the same epochs.
    epochs.reverse();
    epochs.dedup_by_key(|epoch| epoch.began_boot_ns);
    epochs.reverse();
    let without_room = epochs.len().saturating_sub(EARLIER);
    let mut earlier = [EarlierEpoch::default(); EARLIER];
    for (room, epoch) in earlier.iter_mut().zip(epochs.split_off(without_room)) {
        *room = epoch;
    }
    let forgotten = records.iter().map(|record| record.forgotten).max().unwrap_or_default();
    (earlier, forgotten + without_room as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(began: u64, noted: u64) -> PinRecord {
        let sums = EpochSums { noted_unix_ns: noted, noted_boot_ns: noted, ..EpochSums::default() };
        PinRecord { complete: 1, began_unix_ns: began, began_boot_ns: began, sums, ..PinRecord::EMPTY }
    }

    fn next(of: &[PinRecord], began: u64, noted: u64) -> PinRecord {
        let (earlier, forgotten) = closed(of);
        PinRecord { earlier, forgotten, ..record(began, noted) }
    }

    #[test]
    fn epochs_follow_each_other() {
        let first = record(10, 15);
        let second = next(&[first], 20, 25);
        // The next start was interrupted, and the one after it finds its record, too.
        let interrupted = PinRecord { complete: 0, ..next(&[second], 30, 0) };
        let last = next(&[interrupted, second], 40, 0);
        let found: Vec<_> = of(&last)
            .iter()
            .map(|one| (one.epoch.boot_ns, one.sums.map(|sums| sums.noted_boot_ns)))
            .collect();
        assert_eq!((found, last.forgotten), (vec![(10, Some(15)), (20, Some(25))], 0));
    }

    #[test]
    fn sums_that_no_process_read_are_unknown() {
        assert_eq!(of(&next(&[record(10, 0)], 20, 0))[0].sums, None);
    }

    #[test]
    fn the_oldest_epochs_are_forgotten_and_counted() {
        let mut last = record(1, 1);
        for began in 2..=EARLIER as u64 + 4 {
            last = next(&[last], began, began);
        }
        let found = of(&last);
        assert_eq!((found.len(), found[0].epoch.boot_ns, last.forgotten), (EARLIER, 4, 3));
    }
}
