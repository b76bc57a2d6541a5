//! From the kernel's clock to the time of day.
//!
//! The kernel programs stamp events with `CLOCK_BOOTTIME`, which cannot be set. [`WallClock`] maps these stamps to
//! the time of day, by a measured offset.

use std::fs;
use std::sync::OnceLock;

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;
/// Readings per measurement, since preemption may delay a reading.
const READINGS: usize = 8;

/// Maps `CLOCK_BOOTTIME` to unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WallClock {
    offset_ns: i64,
    accuracy_ns: u64,
}

impl WallClock {
    /// A clock that is `offset_ns` ahead of `CLOCK_BOOTTIME`, exactly.
    pub const fn with_offset(offset_ns: i64) -> Self {
        Self { offset_ns, accuracy_ns: 0 }
    }

    /// Measures the offset by the shortest of several readings. Takes one or two microseconds where the vDSO reads
    /// clocks.
    pub fn probe() -> Self {
        let ahead = namespace_offset_ns();
        let reading = || {
            let before = read(ClockId::CLOCK_BOOTTIME);
            let real = read(ClockId::CLOCK_REALTIME);
            let after = read(ClockId::CLOCK_BOOTTIME);
            let half = after.saturating_sub(before) / 2;
            Self { offset_ns: real - before - half + ahead, accuracy_ns: half.unsigned_abs() + 1 }
        };
        (1..READINGS)
            .map(|_| reading())
            .fold(reading(), |best, next| if next.accuracy_ns < best.accuracy_ns { next } else { best })
    }

    /// Measures again, and replaces the offset only if the time of day was set or has drifted. Otherwise times would
    /// jitter by the accuracy of measurements.
    pub fn refresh(&mut self) {
        *self = self.corrected_by(Self::probe());
    }

    fn corrected_by(self, newer: Self) -> Self {
        let agree = self.offset_ns.abs_diff(newer.offset_ns) <= self.accuracy_ns + newer.accuracy_ns;
        if agree { self } else { newer }
    }

    /// The largest error of a mapped time, in nanoseconds.
    pub const fn accuracy_ns(&self) -> u64 {
        self.accuracy_ns
    }

    /// Unix time in nanoseconds of a moment of `CLOCK_BOOTTIME`. Saturates in the year 2262.
    pub fn to_unix_ns(&self, boot_ns: u64) -> i64 {
        i64::try_from(boot_ns).unwrap_or(i64::MAX).saturating_add(self.offset_ns)
    }
}

impl WallClock {
    /// The moment of `CLOCK_BOOTTIME` of a unix time in nanoseconds; `None` before the boot.
    pub fn to_boot_ns(&self, unix_ns: i64) -> Option<u64> {
        u64::try_from(unix_ns.checked_sub(self.offset_ns)?).ok()
    }
}

/// How far `CLOCK_BOOTTIME` of this process's time namespace is ahead of the initial one, which the programs
/// read. 0 in the initial namespace. A process cannot change the offset of its own namespace.
fn namespace_offset_ns() -> i64 {
    static OFFSET: OnceLock<i64> = OnceLock::new();
    *OFFSET.get_or_init(|| {
        let offsets = fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default();
        boottime_offset_ns(&offsets).unwrap_or(0)
    })
}

/// A moment of the initial `CLOCK_BOOTTIME` as this time namespace shows it, in nanoseconds.
pub fn own_boot_ns(boot_ns: u64) -> u64 {
    boot_ns.saturating_add_signed(namespace_offset_ns())
}

/// The offset in a line like `boottime 86400 0`: seconds and nanoseconds.
fn boottime_offset_ns(offsets: &str) -> Option<i64> {
    offsets.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "boottime").then_some(())?;
        let (seconds, nanos): (i64, i64) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        seconds.checked_mul(SECOND)?.checked_add(nanos)
    })
}

/// The clock in nanoseconds. Reading cannot fail: Linux has had both clocks since 2.6.39.
fn read(clock: ClockId) -> i64 {
    clock_gettime(clock).map_or(0, |time| time.tv_sec() * SECOND + time.tv_nsec())
}

/// Now, nanoseconds of Unix time.
pub fn unix_now_ns() -> i64 {
    read(ClockId::CLOCK_REALTIME)
}

/// Now, nanoseconds of the initial `CLOCK_BOOTTIME`, which the programs read: another one in a time namespace.
pub fn boot_now_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(namespace_offset_ns()).unsigned_abs()
}

/// Appends a unix time as RFC 3339 in UTC with nanoseconds: `2026-01-02T03:04:05.000000006Z`.
pub fn rfc3339(unix_ns: i64, out: &mut Vec<u8>) {
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(9));
    // Every 64-bit number of nanoseconds, from 1677 to 2262, is a timestamp of jiff's.
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
    // Writing into a vector does not fail.
    _ = PRINTER.print_timestamp(&time, out);
}

/// Appends the last `N` decimal digits of a number.
pub fn digits<const N: usize>(number: u64, out: &mut Vec<u8>) {
    let limit = const { 10_u64.pow(N as u32) };
    // A leading 1 keeps the zeros.
    let mut text = itoa::Buffer::new();
    out.extend_from_slice(&text.format(limit + number % limit).as_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(unix_ns: i64) -> String {
        let mut out = Vec::new();
        rfc3339(unix_ns, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_rfc_3339() {
        assert_eq!(text(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(text(-1), "1969-12-31T23:59:59.999999999Z");
        assert_eq!(text(951_782_400 * SECOND + 1), "2000-02-29T00:00:00.000000001Z");
        assert_eq!(text(i64::MAX), "2262-04-11T23:47:16.854775807Z");
        assert_eq!(text(i64::MIN), "1677-09-21T00:12:43.145224192Z");
    }

    #[test]
    fn maps_by_the_offset() {
        let clock = WallClock::with_offset(1_000);
        assert_eq!(clock.to_unix_ns(5), 1_005);
        assert_eq!(clock.to_unix_ns(u64::MAX), i64::MAX);
        assert_eq!([1_005, 1_000, 999].map(|unix_ns| clock.to_boot_ns(unix_ns)), [Some(5), Some(0), None]);
    }

    #[test]
    fn time_namespaces_have_offsets() {
        let offset = |text| boottime_offset_ns(text);
        assert_eq!(
            offset("monotonic           5         6\nboottime        86400         7\n"),
            Some(86_400 * SECOND + 7)
        );
        assert_eq!(offset("monotonic  0 0\nboottime  -2 500000000"), Some(-3 * SECOND / 2));
        for text in ["", "monotonic 1 2", "boottime", "boottime x 0", "boottime 9223372036854775807 0"] {
            assert_eq!(offset(text), None, "{text}");
        }
    }

    #[test]
    fn measures_the_time_of_day() {
        let clock = WallClock::probe();
        let now = clock.to_unix_ns(read(ClockId::CLOCK_BOOTTIME).unsigned_abs());
        let difference = now.abs_diff(read(ClockId::CLOCK_REALTIME));
        assert!(difference < SECOND.unsigned_abs(), "{difference} ns off");
        assert!(clock.accuracy_ns() > 0);
    }

    #[test]
    fn offset_changes_only_if_wrong() {
        let clock = WallClock { offset_ns: 1_000, accuracy_ns: 20 };
        let near = WallClock { offset_ns: 1_030, accuracy_ns: 10 };
        let far = WallClock { offset_ns: 1_031, accuracy_ns: 10 };
        assert_eq!(clock.corrected_by(near), clock);
        assert_eq!(clock.corrected_by(far), far);
    }

    proptest! {
        #[test]
        fn times_keep_their_nanoseconds(unix_ns: i64) {
            let text = text(unix_ns);
            let parsed: Timestamp = text.parse().unwrap();
            prop_assert_eq!((parsed.as_nanosecond(), text.len()), (unix_ns.into(), 30));
        }
    }
}
