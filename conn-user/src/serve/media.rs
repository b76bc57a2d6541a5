//! Which of two formats of metrics a client takes, by its header `Accept`.

/// `OpenMetrics` 1.0.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The text of before, which every version of Prometheus reads.
pub(crate) const OLDER_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// True if the header asks for `OpenMetrics` of this version, and prefers nothing else to it. Without a header, a client
/// gets the older text, which people read, too.
pub(crate) fn wants_open_metrics(accept: &str) -> bool {
    let (mut open, mut older) = (0.0_f32, 0.0_f32);
    for item in accept.split(',') {
        let mut parts = item.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        let (mut quality, mut version) = (1.0_f32, None);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", number)) => quality = number.parse().unwrap_or(0.0),
                Some(("version", number)) => version = Some(number.trim_matches('"').to_owned()),
                _ => {}
            }
        }
        match media.as_str() {
            "application/openmetrics-text" if version.as_deref().is_none_or(|version| version == "1.0.0") => {
                open = open.max(quality);
            }
            "text/plain" => older = older.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= older
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scraper_gets_what_it_prefers() {
        for (accept, wanted) in [
            // Prometheus 2.42.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                true,
            ),
            // Prometheus 3, which also reads names in UTF-8.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2",
                true,
            ),
            ("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8", true),
            ("application/openmetrics-text", true),
            ("application/openmetrics-text;version=0.0.1", false),
            ("application/openmetrics-text;q=0, text/plain", false),
            ("application/openmetrics-text;q=0.3, text/plain;q=0.4", false),
            ("text/plain;version=0.0.4", false),
            ("*/*", false),
            ("", false),
            (";,;q=,application/openmetrics-text;q=x", false),
        ] {
            assert_eq!(wants_open_metrics(accept), wanted, "{accept}");
        }
    }
}
