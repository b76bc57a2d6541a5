//! Times and durations for people.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::host::clock::digits;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000 * MICROSECOND;
const SECOND: u64 = 1_000 * MILLISECOND;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long the look for the time zone may take. Files in memory take a thousandth of that.
const PATIENCE: Duration = Duration::from_secs(1);
/// The largest file of a time zone that is read, bytes. A real one has some kilobytes.
const MAX_FILE: u64 = 1 << 20;

/// A time zone.
#[derive(Clone, Debug)]
pub(crate) struct Zone(TimeZone);

impl Zone {
    /// UTC.
    pub(crate) fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Local time, by `TZ` or `/etc/localtime`. Both may name a file that is none of a time zone, or that never ends: UTC
    /// then, with a warning.
    pub(crate) fn local() -> Self {
        let named = std::env::var_os("TZ");
        if let Some(path) = named.as_deref().filter(|value| !is_readable(value)) {
            log::warn!("TZ={} is not a file of a time zone: times are UTC", path.display());
            return Self::utc();
        }
        Self::of(TimeZone::system)
    }

    /// What `look` finds within [`PATIENCE`].
    fn of(look: fn() -> TimeZone) -> Self {
        let (found, zone) = mpsc::channel();
        let spawned = thread::Builder::new().name("time zone".into()).spawn(move || found.send(look()));
        let zone = spawned.ok().and_then(|_| zone.recv_timeout(PATIENCE).ok());
        zone.map_or_else(
            || {
                log::warn!("the time zone was not found in {PATIENCE:?}: times are UTC");
                Self::utc()
            },
            Self,
        )
    }

    fn is_utc(&self) -> bool {
        self.0 == TimeZone::UTC
    }

    /// Date and time in the zone.
    pub(crate) fn civil(&self, unix_ns: i64) -> DateTime {
        // Every 64-bit number of nanoseconds is a timestamp of jiff's.
        let moment = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
        self.0.to_datetime(moment)
    }

    /// Appends the time of the day: `03:04:05.000006`, with a `Z` for UTC.
    pub(crate) fn time(&self, unix_ns: i64, out: &mut Vec<u8>) {
        let time = self.civil(unix_ns);
        clock(&time, out);
        out.push(b'.');
        digits::<6>(u64::from(time.subsec_nanosecond().unsigned_abs()) / MICROSECOND, out);
        self.mark(out);
    }

    /// Appends date and time: `2026-01-02 03:04:05`, with a `Z` for UTC.
    pub(crate) fn date(&self, unix_ns: i64, out: &mut Vec<u8>) {
        let time = self.civil(unix_ns);
        // Writing into a vector does not fail.
        _ = write!(out, "{:04}-{:02}-{:02} ", time.year(), time.month(), time.day());
        clock(&time, out);
        self.mark(out);
    }

    /// Appends the text of the C library's `ctime()` without line end: `Fri Jan  2 03:04:05 2026`.
    pub(crate) fn ctime(&self, unix_ns: i64, out: &mut Vec<u8>) {
        let time = self.civil(unix_ns);
        _ = write!(out, "{}", time.strftime("%a %b %e %H:%M:%S %Y"));
    }

    fn mark(&self, out: &mut Vec<u8>) {
        if self.is_utc() {
            out.push(b'Z');
        }
    }
}

/// False for a value of `TZ` that names a pipe, a device or a large file. Names of time zones and rules name no file,
/// usually, and a directory cannot be read.
fn is_readable(value: &OsStr) -> bool {
    let value = value.as_bytes();
    let path = Path::new(OsStr::from_bytes(value.strip_prefix(b":").unwrap_or(value)));
    fs::metadata(path).map_or(true, |found| found.is_dir() || found.is_file() && found.len() <= MAX_FILE)
}

fn clock(time: &DateTime, out: &mut Vec<u8>) {
    for (number, after) in [(time.hour(), ":"), (time.minute(), ":"), (time.second(), "")] {
        digits::<2>(number.unsigned_abs().into(), out);
        out.extend_from_slice(after.as_bytes());
    }
}

/// Appends a duration of three digits, rounded, or of its two largest units: `85ns`, `1.50ms`, `61.0s`, `3h02m`.
pub(crate) fn duration(ns: u64, out: &mut Vec<u8>) {
    // A duration that rounds up to the next unit is written in that unit.
    let rounds_below = |ns: u64, unit: u64, limit: u64| ns < unit * limit - unit / 2;
    // Writing into a vector does not fail.
    _ = match ns {
        0..MICROSECOND => write!(out, "{ns}ns"),
        _ if rounds_below(ns, MICROSECOND, 1_000) => three_digits(ns, MICROSECOND, "us", out),
        _ if rounds_below(ns, MILLISECOND, 1_000) => three_digits(ns, MILLISECOND, "ms", out),
        _ if rounds_below(ns, SECOND / 10, 600) => three_digits(ns, SECOND, "s", out),
        _ if ns < MINUTE => write!(out, "1m00s"),
        MINUTE..HOUR => write!(out, "{}m{:02}s", ns / MINUTE, ns % MINUTE / SECOND),
        HOUR..DAY => write!(out, "{}h{:02}m", ns / HOUR, ns % HOUR / MINUTE),
        _ => write!(out, "{}d{:02}h", ns / DAY, ns % DAY / HOUR),
    };
}

/// Appends a number of bytes, of three digits and rounded from a kibibyte on: `517B`, `64.0KiB`, `1.21MiB`.
pub(crate) fn bytes(number: u64, out: &mut Vec<u8>) {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if number < 1 << 10 {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        return out.push(b'B');
    }
    // A number that rounds up to 1,024 is written in the next unit.
    let mut shift = 10;
    while shift < 60 && number >= (1_u64 << (shift + 10)) - (1 << (shift - 1)) {
        shift += 10;
    }
    let parts = |parts: u128| (u128::from(number) * parts + (1 << (shift - 1))) >> shift;
    let (whole, tenths, hundredths) = (parts(1), parts(10), parts(100));
    let unit = UNITS[shift / 10 - 1];
    // Writing into a vector does not fail.
    _ = if hundredths < 1_000 {
        write!(out, "{}.{:02}{unit}", hundredths / 100, hundredths % 100)
    } else if tenths < 1_000 {
        write!(out, "{}.{}{unit}", tenths / 10, tenths % 10)
    } else {
        write!(out, "{whole}{unit}")
    };
}

/// A number of bytes as text of its own, see [`bytes()`].
pub(crate) fn bytes_text(number: u64) -> String {
    let mut out = Vec::new();
    bytes(number, &mut out);
    // `bytes` writes ASCII only.
    String::from_utf8_lossy(&out).into_owned()
}

/// A duration as text of its own, see [`duration`].
pub(crate) fn duration_text(ns: u64) -> String {
    let mut out = Vec::new();
    duration(ns, &mut out);
    // `duration` writes ASCII only.
    String::from_utf8_lossy(&out).into_owned()
}

/// Three digits, half a digit rounded up. At most 1,000 units.
fn three_digits(ns: u64, unit: u64, name: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
    let rounded = |parts: u64| (ns * parts + unit / 2) / unit;
    let (whole, tenths, hundredths) = (rounded(1), rounded(10), rounded(100));
    if hundredths < 1_000 {
        write!(out, "{}.{:02}{name}", hundredths / 100, hundredths % 100)
    } else if tenths < 1_000 {
        write!(out, "{}.{}{name}", tenths / 10, tenths % 10)
    } else {
        write!(out, "{whole}{name}")
    }
}

/// Appends seconds with nine decimals.
pub(crate) fn seconds(ns: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(ns / SECOND).as_bytes());
    out.push(b'.');
    digits::<9>(ns % SECOND, out);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:04:05.000006789Z
    const MOMENT: i64 = 1_767_323_045_000_006_789;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_have_their_zone() {
        let berlin = Zone(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        assert_eq!(text(|out| Zone::utc().time(MOMENT, out)), "03:04:05.000006Z");
        assert_eq!(text(|out| berlin.time(MOMENT, out)), "04:04:05.000006");
        assert_eq!(text(|out| berlin.date(MOMENT, out)), "2026-01-02 04:04:05");
        assert_eq!(text(|out| Zone::utc().ctime(MOMENT, out)), "Fri Jan  2 03:04:05 2026");
        for ns in [i64::MIN, -1, i64::MAX] {
            text(|out| berlin.date(ns, out));
        }
    }

    #[test]
    fn a_zone_that_is_not_found_in_time_is_utc() {
        let hangs = || loop {
            thread::park();
        };
        assert!(Zone::of(hangs).is_utc());
        assert!(!Zone::of(|| TimeZone::posix("CET-1").unwrap()).is_utc());
    }

    #[test]
    fn pipes_and_devices_are_no_time_zones() {
        let path = std::env::temp_dir().join(format!("conntrace-zone-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for value in
            [path.clone().into_os_string(), format!(":{}", path.display()).into(), "/dev/zero".into()]
        {
            assert!(!is_readable(&value), "{}", value.display());
        }
        fs::remove_file(&path).unwrap();
        for value in ["", "UTC", ":Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3", "/etc", "/proc/self/maps"] {
            assert!(is_readable(OsStr::new(value)), "{value}");
        }
    }

    #[test]
    fn bytes_have_units_of_1024() {
        for (number, expected) in [
            (0, "0B"),
            (1_023, "1023B"),
            (1_024, "1.00KiB"),
            (65_536, "64.0KiB"),
            (10_235, "10.0KiB"),
            (102_348, "99.9KiB"),
            (1_048_063, "1023KiB"),
            (1_048_064, "1.00MiB"),
            (1_270_000, "1.21MiB"),
            (5 << 40, "5.00TiB"),
            (u64::MAX, "16.0EiB"),
        ] {
            assert_eq!(bytes_text(number), expected, "{number}");
        }
    }

    #[test]
    fn durations_round_to_three_digits_or_two_units() {
        for (ns, expected) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_000, "1.00us"),
            (9_994, "9.99us"),
            (9_995, "10.0us"),
            (12_345, "12.3us"),
            (99_950, "100us"),
            (999_499, "999us"),
            (999_500, "1.00ms"),
            (999_999, "1.00ms"),
            (1_504_999, "1.50ms"),
            (61_500_000, "61.5ms"),
            (999_499_999, "999ms"),
            (999_999_999, "1.00s"),
            (SECOND, "1.00s"),
            (59_940_000_000, "59.9s"),
            (59_949_999_999, "59.9s"),
            (59_950_000_000, "1m00s"),
            (MINUTE, "1m00s"),
            (61 * SECOND, "1m01s"),
            (HOUR - 1, "59m59s"),
            (3 * HOUR + 2 * MINUTE, "3h02m"),
            (4 * DAY + 11 * HOUR, "4d11h"),
            (u64::MAX, "213503d23h"),
        ] {
            assert_eq!(duration_text(ns), expected, "{ns}");
        }
    }
}
