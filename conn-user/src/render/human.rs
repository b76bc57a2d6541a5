//! Times and lengths of time as people read them.

use std::io::Write as _;

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

/// Where it is which time.
#[derive(Clone, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    /// Greenwich.
    pub fn utc() -> Self {
        Self(TimeZone::UTC)
    }

    /// Here, as `TZ` or `/etc/localtime` say.
    pub fn local() -> Self {
        Self(TimeZone::system())
    }

    fn is_utc(&self) -> bool {
        self.0 == TimeZone::UTC
    }

    /// The date and the time there.
    pub fn civil(&self, unix_ns: i64) -> DateTime {
        // Every 64-bit number of nanoseconds is a moment that jiff knows.
        let moment = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or_default();
        self.0.to_datetime(moment)
    }

    /// Appends the time of the day: `03:04:05.000006`, with a `Z` for UTC.
    pub fn time(&self, unix_ns: i64, out: &mut Vec<u8>) {
        let time = self.civil(unix_ns);
        clock(&time, out);
        out.push(b'.');
        digits::<6>(u64::from(time.subsec_nanosecond().unsigned_abs()) / MICROSECOND, out);
        self.mark(out);
    }

    /// Appends date and time: `2026-01-02 03:04:05`, with a `Z` for UTC.
    pub fn date(&self, unix_ns: i64, out: &mut Vec<u8>) {
        let time = self.civil(unix_ns);
        // Writing into a vector does not fail.
        _ = write!(out, "{:04}-{:02}-{:02} ", time.year(), time.month(), time.day());
        clock(&time, out);
        self.mark(out);
    }

    /// Appends what the C library's `ctime()` gives, without the line end: `Fri Jan  2 03:04:05 2026`.
    pub fn ctime(&self, unix_ns: i64, out: &mut Vec<u8>) {
        let time = self.civil(unix_ns);
        _ = write!(out, "{}", time.strftime("%a %b %e %H:%M:%S %Y"));
    }

    fn mark(&self, out: &mut Vec<u8>) {
        if self.is_utc() {
            out.push(b'Z');
        }
    }
}

fn clock(time: &DateTime, out: &mut Vec<u8>) {
    for (number, after) in [(time.hour(), ":"), (time.minute(), ":"), (time.second(), "")] {
        digits::<2>(number.unsigned_abs().into(), out);
        out.extend_from_slice(after.as_bytes());
    }
}

/// Appends a length of time with three digits or so: `85ns`, `1.50ms`, `61.0s`, `3h02m`, `4d11h`.
pub fn span(ns: u64, out: &mut Vec<u8>) {
    // Writing into a vector does not fail.
    _ = match ns {
        0..MICROSECOND => write!(out, "{ns}ns"),
        MICROSECOND..MILLISECOND => fraction(ns, MICROSECOND, "us", out),
        MILLISECOND..SECOND => fraction(ns, MILLISECOND, "ms", out),
        SECOND..MINUTE => fraction(ns, SECOND, "s", out),
        MINUTE..HOUR => write!(out, "{}m{:02}s", ns / MINUTE, ns % MINUTE / SECOND),
        HOUR..DAY => write!(out, "{}h{:02}m", ns / HOUR, ns % HOUR / MINUTE),
        _ => write!(out, "{}d{:02}h", ns / DAY, ns % DAY / HOUR),
    };
}

/// Three digits, cut off and not rounded: what is shown has passed.
fn fraction(ns: u64, unit: u64, name: &str, out: &mut Vec<u8>) -> std::io::Result<()> {
    let (whole, rest) = (ns / unit, ns % unit);
    match whole {
        0..10 => write!(out, "{whole}.{:02}{name}", rest * 100 / unit),
        10..100 => write!(out, "{whole}.{}{name}", rest * 10 / unit),
        _ => write!(out, "{whole}{name}"),
    }
}

/// Appends seconds with nine decimals.
pub fn seconds(ns: u64, out: &mut Vec<u8>) {
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
    fn times_are_told_where_they_are() {
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
    fn spans_have_three_digits_or_so() {
        let spans = [
            0,
            999,
            1_000,
            1_509_999,
            61_500_000,
            999_999_999,
            SECOND,
            59_999_999_999,
            MINUTE,
            HOUR - 1,
            3 * HOUR + 2 * MINUTE,
            4 * DAY + 11 * HOUR,
            u64::MAX,
        ];
        assert_eq!(
            spans.map(|ns| text(|out| span(ns, out))).join(" "),
            "0ns 999ns 1.00us 1.50ms 61.5ms 999ms 1.00s 59.9s 1m00s 59m59s 3h02m 4d11h 213503d23h"
        );
    }
}
