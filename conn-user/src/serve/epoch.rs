//! When counting began, as answers have it.

use serde::Serialize;

use crate::host::clock;
use crate::kernel::epoch::{self, BootId};

/// When counting began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Epoch {
    /// The boot of the host, a UUID (random(4)); `-` if the kernel does not show it.
    pub(crate) boot_id: String,
    /// Wall-clock time (RFC 3339).
    pub(crate) time: String,
    /// The same, nanoseconds of Unix time.
    #[serde(skip)]
    pub(crate) unix_ns: i64,
}

impl Epoch {
    /// That of a session.
    pub(crate) fn of(epoch: &epoch::Epoch) -> Self {
        let is_known = epoch.boot_id != BootId::default();
        let boot_id = if is_known { epoch.boot_id.to_string() } else { "-".into() };
        Self::new(boot_id, i64::try_from(epoch.unix_ns).unwrap_or(i64::MAX))
    }

    /// The epoch of this boot that began at this unix time.
    pub(crate) fn new(boot_id: String, unix_ns: i64) -> Self {
        let mut time = Vec::new();
        clock::rfc3339(unix_ns, &mut time);
        Self { boot_id, time: String::from_utf8_lossy(&time).into_owned(), unix_ns }
    }

    /// The value of the header `Conntrace-Epoch`.
    pub(crate) fn header(&self) -> String {
        format!("{}; boot_id={}", self.time, self.boot_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_a_boot_and_a_time() {
        let epoch = Epoch::new("b".into(), 1_700_000_000_000_000_000);
        assert_eq!(epoch.header(), "2023-11-14T22:13:20.000000000Z; boot_id=b");
        let unknown =
            epoch::Epoch { boot_id: BootId::default(), unix_ns: 1_700_000_000_000_000_000, boot_ns: 1 };
        let epoch = Epoch::of(&unknown);
        assert_eq!(epoch.header(), "2023-11-14T22:13:20.000000000Z; boot_id=-");
        let known = epoch::Epoch { boot_id: BootId([0xab; 16]), ..unknown };
        assert_eq!(Epoch::of(&known).boot_id, "abababab-abab-abab-abab-abababababab");
    }
}
