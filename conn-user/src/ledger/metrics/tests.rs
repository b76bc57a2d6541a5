//! Metrics of made-up reports.

use conn_common::connection::IN;
use conn_common::histogram::Durations;

use super::*;
use crate::ledger::attempts::{AcceptQueue, AttemptCounts};
use crate::ledger::audit::Audit;
use crate::ledger::counts::Counts;
use crate::ledger::latency::Lifetimes;
use crate::ledger::report_text::tests::report as report_of;

/// Connections to port 22, and from this host to port 443.
fn report() -> Report {
    report_of(Audit::default(), None)
}

fn exporter() -> Exporter {
    Exporter::new(NamedPorts::new(false), 1_700_000_000_500_000_000)
}

/// Metrics of this report alone.
fn of(report: &Report) -> Parts<'_> {
    Parts { tcp: Some(report), ..Parts::default() }
}

/// The lines that begin so.
fn lines(text: &str, start: &str) -> Vec<String> {
    text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
}

#[test]
fn sums_agree_within_a_reading() {
    let text = exporter().text(of(&report()));
    let sum = |family: &str| -> i64 {
        let samples = lines(&text, &format!("conntrace_{family}{{"));
        samples.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap()).sum()
    };
    let began = sum("tcp_connections_opened_total") + sum("tcp_connections_preexisting_total");
    let ended = sum("tcp_connections_failed_total") + sum("tcp_connections_ended_total");
    assert_eq!((began, ended, sum("tcp_connections")), (5, 2, 3));
    // Remote hosts choose the ports of outgoing connections.
    assert_eq!(
        lines(&text, "conntrace_tcp_connections_opened_total{"),
        [
            "conntrace_tcp_connections_opened_total{direction=\"in\",port=\"22\"} 2",
            "conntrace_tcp_connections_opened_total{direction=\"out\",port=\"other\"} 2",
        ]
    );
}

#[test]
fn comments_of_the_older_format_name_the_samples() {
    let (new, old) = (exporter().open_metrics(of(&report())), exporter().text(of(&report())));
    assert!(new.ends_with("# EOF\n") && new.contains("# UNIT conntrace_tcp_sent_bytes bytes\n"), "{new}");
    assert!(!old.contains("# EOF") && !old.contains("# UNIT"), "{old}");
    for (family, kind) in
        [("tcp_sent_bytes_total", "counter"), ("build_info", "gauge"), ("tcp_connections", "gauge")]
    {
        let comments: Vec<&str> = old
            .lines()
            .filter(|line| line.split(' ').nth(2) == Some(&format!("conntrace_{family}")))
            .collect();
        assert_eq!(comments.len(), 2, "{family}: {comments:?}");
        assert!(comments[0].starts_with("# HELP ") && comments[1].ends_with(kind), "{comments:?}");
    }
    let samples = |text: &str| lines(text, "conntrace_");
    assert_eq!(samples(&new), samples(&old));
    assert_eq!(lines(&old, "conntrace_start"), ["conntrace_start_time_seconds 1700000000.5"]);
}

#[test]
fn a_scan_of_ports_takes_no_series() {
    let mut report = report();
    let of_ssh = report.ports.iter().find(|row| row.key == RowKey::Port(IN, 22)).unwrap().clone();
    let refused = AttemptCounts { refused_by_us: Some(1), ..AttemptCounts::default() };
    let scanned = |port| PortCounts {
        key: RowKey::Port(IN, port),
        slot: Counts::ZERO,
        listeners: None,
        attempts: Some(refused),
        rates: None,
    };
    // The rows of a scan come first.
    report.ports = (1_000..10_000).map(scanned).chain([of_ssh]).collect();
    let text = exporter().text(of(&report));
    assert_eq!(
        lines(&text, "conntrace_tcp_connections_opened_total{"),
        ["conntrace_tcp_connections_opened_total{direction=\"in\",port=\"22\"} 2"]
    );
    assert_eq!(lines(&text, "conntrace_ports_folded"), ["conntrace_ports_folded 0"]);
}

#[test]
fn accept_queues_are_those_of_named_ports() {
    let queues = (1..=400).map(|port| (port, AcceptQueue { length: 3, limit: 128 }));
    let audit = Audit { accept_queues: queues.collect(), ..Audit::default() };
    let text = exporter().text(of(&report_of(audit, None)));
    let limits = lines(&text, "conntrace_tcp_accept_queue_limit{");
    assert_eq!((limits.len(), lines(&text, "conntrace_tcp_accept_queue{").len()), (256, 256));
    assert!(limits.iter().all(|line| line.ends_with(" 128") && !line.contains("other")), "{limits:?}");
}

#[test]
fn the_daemon_adds_its_own_state() {
    let own = Own::now(true, 3, 70);
    let text = exporter().text(Parts { own: Some(&own), ..Parts::default() });
    for (name, value) in [("pinned", "1"), ("commands", "3"), ("stream_lines_lost_total", "70")] {
        assert_eq!(lines(&text, &format!("conntrace_{name}")), [format!("conntrace_{name} {value}")]);
    }
    let number = |name: &str| -> f64 {
        let found = lines(&text, &format!("conntrace_self_{name} "));
        found[0].rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(number("cpu_seconds_total") > 0.0 && number("memory_bytes") > 1e6, "{text}");
}

#[test]
fn histograms_have_exact_classic_buckets() {
    let mut durations = Durations::ZERO;
    // Just within 1/4 s, just above, and longer than all bounds.
    for ns in [250_000_000, 250_000_001, u64::MAX] {
        durations.handshake.counts[histogram::bucket(ns)] += 1;
    }
    let mut report = report();
    report.lifetimes = Some(Lifetimes([((IN, Some(22)), durations)].into()));
    let text = exporter().text(of(&report));
    let bucket = |le: &str| {
        let start = format!(
            "conntrace_tcp_handshake_duration_seconds_bucket{{le=\"{le}\",direction=\"in\",port=\"22\"}} "
        );
        let other = format!(
            "conntrace_tcp_handshake_duration_seconds_bucket{{direction=\"in\",port=\"22\",le=\"{le}\"}} "
        );
        let line =
            text.lines().find_map(|line| line.strip_prefix(&start).or_else(|| line.strip_prefix(&other)));
        line.unwrap_or_else(|| panic!("{le}: {text}")).to_owned()
    };
    assert_eq!([bucket("0.0625"), bucket("0.25"), bucket("1.0"), bucket("+Inf")], ["0", "1", "2", "3"]);
}

#[test]
fn messages_have_the_samples_of_the_text() {
    let mut durations = Durations::ZERO;
    for ns in [500, 250_000_000, 250_000_001, 3_000_000_000] {
        durations.handshake.counts[histogram::bucket(ns)] += 1;
    }
    let mut report = report();
    report.lifetimes = Some(Lifetimes([((IN, Some(22)), durations)].into()));
    let own = Own::now(true, 3, 70);
    let parts = Parts { tcp: Some(&report), own: Some(&own), udp: None };
    let text = exporter().text(parts);
    let families = protobuf::tests::decoded(&exporter().encoded(parts, Format::Protobuf));

    let mut lines = Vec::new();
    for family in &families {
        let kind = protobuf::MetricType::try_from(family.kind).unwrap();
        let (name, word) = (&family.name, format!("{kind:?}").to_lowercase());
        assert!(text.contains(&format!("# TYPE {name} {word}\n")), "{name} {word}");
        for metric in &family.metrics {
            let labels: Vec<String> =
                metric.labels.iter().map(|label| format!("{}=\"{}\"", label.name, label.value)).collect();
            let mut add = |end: &str, more: Option<String>, value: f64| {
                let labels: Vec<String> = more.into_iter().chain(labels.clone()).collect();
                let labels =
                    if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
                lines.push((format!("{name}{end}{labels}"), value));
            };
            let Some(histogram) = &metric.histogram else {
                add("", None, metric.counter.or(metric.gauge).unwrap().value);
                continue;
            };
            add("_sum", None, histogram.sample_sum);
            add("_count", None, histogram.sample_count as f64);
            for bucket in &histogram.buckets {
                add(
                    "_bucket",
                    Some(format!("le=\"{}\"", bucket.upper_bound)),
                    bucket.cumulative_count as f64,
                );
            }
        }
    }
    // Bounds are written in other ways.
    let bound = |series: &str| {
        let (before, rest) = series.split_once("le=\"")?;
        let (bound, after) = rest.split_once('"')?;
        Some(format!("{before}le=\"{}\"{after}", bound.parse::<f64>().unwrap()))
    };
    let of_text: Vec<(String, f64)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(series, value)| (bound(series).unwrap_or_else(|| series.into()), value.parse().unwrap()))
        .collect();
    assert!(of_text.len() > 100);
    assert_eq!(lines, of_text);

    let of_durations = families.iter().find(|family| family.name.ends_with("handshake_duration_seconds"));
    let histogram = of_durations.unwrap().metrics[0].histogram.as_ref().unwrap();
    assert_eq!((histogram.schema, histogram.zero_count, histogram.sample_count), (2, 1, 4));
    let buckets: Vec<_> =
        protobuf::tests::native(histogram).into_iter().filter(|&(_, count)| count > 0).collect();
    // A bucket i ends at 2^(i/4) s, which belongs to it.
    assert_eq!(buckets, [(-8, 1), (-7, 1), (7, 1)]);
}
