//! Counts per remote address, as the kernel keeps them.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use conn_common::name;
use conn_common::remote::{CAPACITY, PREFIX_V4, PREFIX_V6, RemoteCounts, RemoteKey};

use crate::event::sort_key::{SourceGroup, SourceKey};
use crate::kernel::map::{MapError, PerCpuArray};
use crate::kernel::map_batch::Entries;
use crate::kernel::probe::Probe;

/// One reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remotes {
    /// By address and direction, sorted.
    counts: Vec<(RemoteKey, RemoteCounts)>,
    /// All events, with those whose address has no entry.
    pub total: RemoteCounts,
}

impl Remotes {
    /// Sorts what was read. `total` was read after the entries.
    pub(super) fn new(mut counts: Vec<(RemoteKey, RemoteCounts)>, total: RemoteCounts) -> Self {
        counts.sort_unstable_by_key(|&(key, _)| key);
        Self { counts, total }
    }

    /// How many addresses have an entry, each once per direction.
    pub(super) fn len(&self) -> usize {
        self.counts.len()
    }

    /// True if the table has no room for another address.
    pub(super) fn is_full(&self) -> bool {
        self.counts.len() >= CAPACITY as usize
    }

    /// The counts of an address; zeros if it has no entry.
    pub(super) fn get(&self, key: &RemoteKey) -> RemoteCounts {
        let found = self.counts.binary_search_by_key(key, |&(key, _)| key);
        found.map_or(RemoteCounts::ZERO, |at| self.counts[at].1)
    }

    /// The `most` addresses with the largest value, which is not 0, and then by address.
    pub(super) fn largest(&self, most: usize, key: SourceKey) -> Vec<(RemoteKey, RemoteCounts)> {
        let rank = |(address, counts): &(RemoteKey, RemoteCounts)| (Reverse(value(key, counts)), *address);
        let mut found: Vec<_> =
            self.counts.iter().filter(|(_, counts)| value(key, counts) != 0).copied().collect();
        if found.len() > most {
            found.select_nth_unstable_by_key(most, rank);
            found.truncate(most);
        }
        found.sort_unstable_by_key(rank);
        found
    }

    /// The counts of all addresses with an entry, added up.
    pub(super) fn listed(&self) -> RemoteCounts {
        sum(self.counts.iter().map(|(_, counts)| counts))
    }
}

/// The value by which sources are compared.
fn value(key: SourceKey, counts: &RemoteCounts) -> u64 {
    match key {
        SourceKey::All => counts.attempts + counts.refused + counts.opened,
        SourceKey::Attempts => counts.attempts,
        SourceKey::RefusedByUs => counts.refused,
        SourceKey::Opened => counts.opened,
        SourceKey::Failed => counts.failed,
    }
}

/// Counts added up.
pub(super) fn sum<'a>(counts: impl Iterator<Item = &'a RemoteCounts>) -> RemoteCounts {
    counts.fold(RemoteCounts::ZERO, |sum, one| RemoteCounts {
        attempts: sum.attempts + one.attempts,
        refused: sum.refused + one.refused,
        opened: sum.opened + one.opened,
        failed: sum.failed + one.failed,
    })
}

/// The first counts less the second ones; 0 where the second one is larger.
pub(super) fn difference(one: RemoteCounts, other: RemoteCounts) -> RemoteCounts {
    RemoteCounts {
        attempts: one.attempts.saturating_sub(other.attempts),
        refused: one.refused.saturating_sub(other.refused),
        opened: one.opened.saturating_sub(other.opened),
        failed: one.failed.saturating_sub(other.failed),
    }
}

/// The address, or the prefix.
pub(super) fn text(key: &RemoteKey, group: SourceGroup) -> String {
    let [a, b, c, d, ..] = key.address;
    let (address, bits) = if key.family == 4 {
        (IpAddr::from(Ipv4Addr::new(a, b, c, d)), PREFIX_V4)
    } else {
        (IpAddr::from(Ipv6Addr::from(key.address)), PREFIX_V6)
    };
    match group {
        SourceGroup::Address => address.to_string(),
        SourceGroup::Prefix => format!("{address}/{bits}"),
    }
}

/// Reads the counts.
#[derive(Debug)]
pub(super) struct RemoteReader {
    entries: Entries<RemoteCounts, RemoteKey>,
    totals: PerCpuArray<RemoteCounts>,
}

impl RemoteReader {
    /// Opens the maps.
    ///
    /// # Errors
    /// A map cannot be opened.
    pub(super) fn new(probe: &Probe) -> Result<Self, MapError> {
        Ok(Self { entries: probe.map(name::REMOTES)?, totals: probe.map(name::REMOTE_TOTALS)? })
    }

    /// One reading.
    ///
    /// # Errors
    /// A map cannot be read.
    pub(super) fn read(&self) -> Result<Remotes, MapError> {
        let mut counts = Vec::new();
        self.entries.each(|key, one| counts.push((key, *one)))?;
        // The programs add to the totals first, so these are never behind.
        let totals = self.totals.get(0)?;
        Ok(Remotes::new(counts, sum(totals.iter())))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use conn_common::connection::{IN, OUT};

    use super::*;

    /// The key of an IPv4 address.
    pub(in crate::ledger) fn v4(address: [u8; 4], direction: u8) -> RemoteKey {
        let mut key = RemoteKey { address: [0; 16], family: 4, direction, reserved: [0; 6] };
        key.address[..4].copy_from_slice(&address);
        key
    }

    #[test]
    fn addresses_are_ranked_by_the_chosen_count() {
        let counts = |attempts, refused, opened, failed| RemoteCounts { attempts, refused, opened, failed };
        let (one, two, three) = (v4([10, 0, 0, 1], IN), v4([10, 0, 0, 2], IN), v4([10, 0, 0, 3], OUT));
        let entries = vec![(three, counts(0, 0, 9, 9)), (one, counts(5, 0, 5, 0)), (two, counts(0, 8, 0, 0))];
        let remotes = Remotes::new(entries, RemoteCounts::ZERO);
        let ranked = |most, key| -> Vec<RemoteKey> {
            remotes.largest(most, key).into_iter().map(|(key, _)| key).collect()
        };
        assert_eq!(ranked(9, SourceKey::All), [one, three, two]);
        assert_eq!(ranked(2, SourceKey::All), [one, three]);
        assert_eq!(ranked(9, SourceKey::Attempts), [one]);
        assert_eq!(ranked(9, SourceKey::RefusedByUs), [two]);
        assert_eq!(ranked(9, SourceKey::Opened), [three, one]);
        assert_eq!(ranked(9, SourceKey::Failed), [three]);
        assert_eq!(remotes.get(&two), counts(0, 8, 0, 0));
        assert_eq!(remotes.get(&v4([10, 0, 0, 2], OUT)), RemoteCounts::ZERO);
        assert_eq!(remotes.listed(), counts(5, 8, 14, 9));
    }

    #[test]
    fn prefixes_have_their_length() {
        let mut v6 = v4([0x20, 1, 0xd, 0xb8], IN);
        v6.family = 6;
        assert_eq!(text(&v4([192, 0, 2, 0], IN), SourceGroup::Prefix), "192.0.2.0/24");
        assert_eq!(text(&v4([192, 0, 2, 7], IN), SourceGroup::Address), "192.0.2.7");
        assert_eq!(text(&v6, SourceGroup::Prefix), "2001:db8::/64");
        assert_eq!(text(&v6, SourceGroup::Address), "2001:db8::");
    }
}
