//! Which of the formats of metrics a client takes, by its header `Accept`.

use crate::ledger::metrics::Format;

/// `OpenMetrics` 1.0.
pub(crate) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The text of before, which every version of Prometheus reads.
pub(crate) const OLDER_METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Messages, which Prometheus asks for if it keeps native histograms.
pub(crate) const PROTOBUF_METRICS: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// The format that the header asks for, and prefers nothing else to. Without a header, a client gets the older text, which
/// people read, too.
pub(crate) fn chosen(accept: &str) -> Format {
    let (mut messages, mut open, mut older) = (0.0_f32, 0.0_f32, 0.0_f32);
    for item in accept.split(',') {
        let mut parts = item.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media = parts.next().unwrap_or_default();
        let (mut quality, mut version, mut proto, mut encoding) = (1.0_f32, None, None, None);
        for parameter in parts {
            match parameter.split_once('=') {
                Some(("q", number)) => quality = number.parse().unwrap_or(0.0),
                Some(("version", number)) => version = Some(unquoted(number)),
                Some(("proto", name)) => proto = Some(unquoted(name)),
                Some(("encoding", name)) => encoding = Some(unquoted(name)),
                _ => {}
            }
        }
        match media.as_str() {
            "application/vnd.google.protobuf"
                if proto.as_deref() == Some("io.prometheus.client.metricfamily")
                    && encoding.as_deref() == Some("delimited") =>
            {
                messages = messages.max(quality);
            }
            "application/openmetrics-text" if version.as_deref().is_none_or(|version| version == "1.0.0") => {
                open = open.max(quality);
            }
            "text/plain" => older = older.max(quality),
            _ => {}
        }
    }
    if messages > 0.0 && messages >= open.max(older) {
        Format::Protobuf
    } else if open > 0.0 && open >= older {
        Format::Open
    } else {
        Format::Older
    }
}

fn unquoted(word: &str) -> String {
    word.trim_matches('"').to_owned()
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
                Format::Open,
            ),
            // Prometheus 3, which also reads names in UTF-8.
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,*/*;q=0.2",
                Format::Open,
            ),
            ("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8", Format::Open),
            ("application/openmetrics-text", Format::Open),
            ("application/openmetrics-text;version=0.0.1", Format::Older),
            ("application/openmetrics-text;q=0, text/plain", Format::Older),
            ("application/openmetrics-text;q=0.3, text/plain;q=0.4", Format::Older),
            ("text/plain;version=0.0.4", Format::Older),
            // Prometheus 2.42 with native histograms, and Prometheus 3.
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                 application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::Protobuf,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
                 escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 text/plain;version=0.0.4;q=0.2",
                Format::Protobuf,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
                Format::Older,
            ),
            ("application/vnd.google.protobuf", Format::Older),
            (
                "application/vnd.google.protobuf;proto=other;encoding=delimited,text/plain;q=0.1",
                Format::Older,
            ),
            ("*/*", Format::Older),
            ("", Format::Older),
            (";,;q=,application/openmetrics-text;q=x", Format::Older),
        ] {
            assert_eq!(chosen(accept), wanted, "{accept}");
        }
    }
}
