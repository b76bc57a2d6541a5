//! When counting began, as answers have it.

use std::fs;

use serde::Serialize;

use crate::host::clock;

/// The identifier of the boot, a UUID (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// When counting began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Epoch {
    /// The boot of the host; `-` if the kernel does not show it.
    pub(crate) boot_id: String,
    /// Wall-clock time (RFC 3339).
    pub(crate) time: String,
}

impl Epoch {
    /// The epoch that begins now.
    pub(crate) fn now() -> Self {
        let boot_id = fs::read_to_string(BOOT_ID).map_or_else(|_| "-".into(), |text| text.trim().to_owned());
        Self::new(boot_id, clock::unix_now_ns())
    }

    /// The epoch of this boot that began at this unix time.
    pub(crate) fn new(boot_id: String, unix_ns: i64) -> Self {
        let mut time = Vec::new();
        clock::rfc3339(unix_ns, &mut time);
        Self { boot_id, time: String::from_utf8_lossy(&time).into_owned() }
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
        assert_eq!(Epoch::now().boot_id.len(), 36);
    }
}
