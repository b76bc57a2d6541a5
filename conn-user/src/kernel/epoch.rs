//! The moment at which counting began.

use std::fmt;
use std::fs;

use crate::host::clock::{self, WallClock};

/// The file of the boot's identifier.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The identifier of a boot of the host. All zeroes if the kernel does not show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootId(pub [u8; 16]);

impl BootId {
    /// The boot that this process runs in.
    pub fn probe() -> Self {
        fs::read_to_string(BOOT_ID).ok().and_then(|text| Self::parse(&text)).unwrap_or_default()
    }

    /// Reads a UUID.
    fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|&letter| letter != '-').collect();
        (digits.len() == 32).then_some(())?;
        Some(Self(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes()))
    }
}

impl fmt::Display for BootId {
    /// As a UUID, as the kernel writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", u128::from_be_bytes(self.0));
        let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
        f.write_str(&parts.join("-"))
    }
}

/// When counting began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// In which boot of the host.
    pub boot_id: BootId,
    /// Nanoseconds since 1970, as the clock said at the beginning.
    pub unix_ns: u64,
    /// Nanoseconds of `CLOCK_BOOTTIME`, which cannot be set.
    pub boot_ns: u64,
}

impl Epoch {
    /// Now.
    pub(super) fn begin() -> Self {
        let boot_ns = clock::boot_now_ns();
        let unix_ns = u64::try_from(WallClock::probe().to_unix_ns(boot_ns)).unwrap_or_default();
        Self { boot_id: BootId::probe(), unix_ns, boot_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_id_reads_back() {
        let text = "0f9e8d7c-6b5a-4933-8271-60f0e0d0c0b0";
        assert_eq!(BootId::parse(&format!("{text}\n")).unwrap().to_string(), text);
        assert_eq!(BootId::parse("0f9e"), None);
        assert_eq!(BootId::probe().to_string(), fs::read_to_string(BOOT_ID).unwrap().trim());
    }
}
