//! Numbers with Grafana's units, as short words.

/// A number in a unit of a dashboard.
pub(super) fn amount(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    match unit {
        "s" => seconds(value),
        "percentunit" => format!("{} %", short(value * 100.0)),
        "bytes" => scaled(value, 1_024.0, &["B", "KiB", "MiB", "GiB"]),
        "Bps" => scaled(value, 1_000.0, &["B/s", "kB/s", "MB/s", "GB/s"]),
        "cps" => format!("{}/s", short(value)),
        "pps" => format!("{} p/s", short(value)),
        // Milliseconds of Unix time, beside the end of the day.
        "dateTimeFromNow" => {
            let hours = (super::END as f64 - value / 1_000.0) / 3_600.0;
            if hours < 23.5 { format!("{hours:.0} hours ago") } else { "a day ago".into() }
        }
        _ => scaled(value, 1_000.0, &["", "K", "M", "G"]),
    }
}

fn seconds(value: f64) -> String {
    let (number, unit) = match value {
        _ if value >= 1.0 || value <= 0.0 => (value, "s"),
        _ if value >= 1e-3 => (value * 1e3, "ms"),
        _ => (value * 1e6, "µs"),
    };
    format!("{} {unit}", short(number))
}

fn scaled(mut value: f64, base: f64, units: &[&str]) -> String {
    let mut at = 0;
    while value.abs() >= base && at + 1 < units.len() {
        value /= base;
        at += 1;
    }
    format!("{} {}", short(value), units[at]).trim_end().to_owned()
}

/// At most three digits that matter.
fn short(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_short() {
        for (value, unit, wanted) in [
            (0.0, "cps", "0/s"),
            (0.25, "cps", "0.25/s"),
            (1_234.0, "short", "1.23 K"),
            (0.000_05, "s", "50 µs"),
            (0.5, "percentunit", "50 %"),
            (48_427_008.0, "bytes", "46.2 MiB"),
            (f64::NAN, "s", "-"),
            (100.0, "none", "100"),
        ] {
            assert_eq!(amount(value, unit), wanted);
        }
    }
}
