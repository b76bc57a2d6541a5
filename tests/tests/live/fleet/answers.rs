//! What the questions must answer about the scene.

use super::{
    DB, EDGE, WEB,
    scene::{ABANDONED, CALLS, CRON, DOWN, Known, REFUSED, SHOP, THEN, UP},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr, time::Instant};

/// What is known of the scene when its events are there.
pub(super) struct Truth<'a> {
    pub(super) known: &'a Known,
    /// The addresses of both hosts.
    pub(super) ips: [IpAddr; 2],
    /// When the last event had come.
    pub(super) seen: Instant,
    /// The first and the last minute of it, since 1970.
    pub(super) minutes: [u64; 2],
}

/// What the lines of one format say.
pub(super) struct Lines {
    /// How many events were lost, by the account of the stream.
    pub(super) lost: u64,
    /// Lines about losses, and about gaps.
    pub(super) losses: usize,
    pub(super) gaps: usize,
    /// Segments that the clients' host sent again: the sum of its lines.
    pub(super) again: u64,
}

/// The rows, as texts of these columns.
fn rows(answer: &Value, columns: &[&str]) -> Vec<String> {
    let row = |row: &Value| columns.iter().map(|column| row[column].clone()).collect::<Value>().to_string();
    answer.as_array().unwrap().iter().map(row).collect()
}

fn assert_rows(answer: &Value, columns: &[&str], expected: impl IntoIterator<Item = Value>) {
    let expected: BTreeSet<_> = expected.into_iter().map(|row| row.to_string()).collect();
    let found = rows(answer, columns);
    assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), expected, "{columns:?}");
    assert_eq!(found.len(), expected.len(), "{columns:?}");
}

impl Truth<'_> {
    /// Checks the ten answers.
    pub(super) fn check(&self, answers: &Value, lines: &Lines) {
        assert_eq!(answers.as_array().unwrap().len(), 10);
        self.opened(&answers[0], &answers[6]);
        self.failed(&answers[1]);
        self.longest(&answers[2]);
        self.scans(&answers[3]);
        self.bytes(&answers[4]);
        self.minutes(&answers[5]);
        self.again(&answers[7], lines);
        let losses = answers[8].as_array().unwrap();
        let expected = json!([EDGE, lines.lost, lines.losses, lines.gaps]);
        assert_rows(&answers[8], &["host", "events", "losses", "gaps"], [expected]);
        assert!(losses[0]["since"].as_str() <= losses[0]["until"].as_str(), "{losses:?}");
        self.lifetimes(&answers[9]);
    }

    /// What each process of the clients' host opened: port, name, number.
    fn by_process(&self) -> Vec<(u16, &str, u64)> {
        let known = self.known;
        let own = known.own.as_str();
        let mut rows = vec![
            (known.busy, "shop", SHOP),
            (known.busy, "cron", CRON),
            (known.calls, own, CALLS),
            (known.failing, own, REFUSED + THEN),
            (known.deaf, own, ABANDONED),
            (known.open, own, 1),
            (known.lossy, own, 1),
        ];
        rows.extend(known.scanned.iter().map(|&port| (port, own, 1)));
        rows
    }

    /// What each port got from other hosts, and how many of these have ended.
    fn by_service(&self) -> [(u16, u64, u64); 5] {
        let known = self.known;
        [
            (known.busy, SHOP + CRON, SHOP + CRON),
            (known.calls, CALLS, CALLS),
            (known.failing, THEN, THEN),
            (known.open, 1, 0),
            (known.lossy, 1, 1),
        ]
    }

    fn opened(&self, most: &Value, first: &Value) {
        let expected =
            self.by_process().into_iter().map(|(port, comm, count)| json!([port, WEB, comm, count]));
        assert_rows(most, &["dport", "host", "comm", "opened"], expected);
        // In the order of the statement: the busiest of a port is the first.
        let of_port = |row: &&Value| row["dport"] == self.known.busy;
        let names: Vec<_> = most.as_array().unwrap().iter().filter(of_port).map(|row| &row["comm"]).collect();
        assert_eq!(names, ["shop", "cron"]);
        // What `shop` did was there before.
        let new = self.by_process().into_iter().filter(|(_, comm, _)| *comm != "shop");
        let expected = new.map(|(port, comm, count)| json!([WEB, comm, self.ips[1], port, count]));
        assert_rows(first, &["host", "comm", "destination", "dport", "opened"], expected);
    }

    fn failed(&self, answer: &Value) {
        let known = self.known;
        let row = |port: u16, reason: &str, failures: u64, share: Value| {
            json!([self.ips[1], port, reason, failures, share])
        };
        // A whole number is printed as one.
        let share = json!(REFUSED as f64 / (REFUSED + THEN) as f64);
        let mut expected = vec![
            row(known.failing, "refused", REFUSED, share),
            row(known.deaf, "abandoned", ABANDONED, json!(1)),
        ];
        expected.extend(known.scanned.iter().map(|&port| row(port, "refused", 1, json!(1))));
        assert_rows(answer, &["service", "dport", "reason", "failures", "share"], expected);
    }

    /// The connection that is open is the oldest, at both ends; then the first call.
    fn longest(&self, answer: &Value) {
        let rows = answer.as_array().unwrap();
        let seconds = |row: &Value| row["seconds"].as_f64().unwrap();
        assert!(rows.len() == 20 && rows.is_sorted_by(|one, next| seconds(one) >= seconds(next)), "{rows:?}");
        let [earliest, latest] = self.known.opened;
        let bounds = [(self.seen - latest).as_secs_f64() - 0.001, earliest.elapsed().as_secs_f64() + 0.001];
        for (row, (port, ended)) in
            rows.iter().zip([(self.known.open, 0), (self.known.open, 0), (self.known.calls, 1)])
        {
            assert_eq!((&row["service_port"], &row["ended"]), (&port.into(), &ended.into()), "{rows:?}");
            assert!(ended == 1 || (bounds[0]..bounds[1]).contains(&seconds(row)), "{bounds:?}: {row}");
        }
        let ends: BTreeSet<_> = rows[..2].iter().map(|row| row["host"].as_str().unwrap()).collect();
        assert_eq!(ends, BTreeSet::from([WEB, DB]));
        assert!(rows[2..].iter().all(|row| row["ended"] == 1), "{rows:?}");
    }

    /// All ports at which an attempt was in vain.
    fn scans(&self, answer: &Value) {
        let ports = self.known.scanned.len() + 2;
        assert_rows(answer, &["source", "target", "ports"], [json!([self.ips[0], self.ips[1], ports])]);
    }

    fn bytes(&self, answer: &Value) {
        let (known, [web, db]) = (self.known, self.ips);
        let (up, down) = (CALLS * UP, CALLS * DOWN);
        let columns = ["host", "comm", "direction", "peer", "dport", "sent", "received"];
        let expected = [
            json!([DB, known.own, "in", web, known.calls, down, up]),
            json!([WEB, known.own, "out", db, known.calls, up, down]),
        ];
        assert_eq!(rows(answer, &columns)[..2], expected.map(|row| row.to_string()));
    }

    fn minutes(&self, answer: &Value) {
        let mut opened = std::collections::BTreeMap::new();
        for row in answer.as_array().unwrap() {
            assert_eq!(row["host"], DB);
            *opened.entry(row["dport"].as_u64().unwrap()).or_insert(0) += row["opened"].as_u64().unwrap();
            let minute = row["minute"].as_str().unwrap().parse::<u64>().unwrap() / 60;
            assert!((self.minutes[0]..=self.minutes[1]).contains(&minute), "{row}");
        }
        let expected = self.by_service().map(|(port, count, _)| (u64::from(port), count));
        assert_eq!(opened, expected.into());
    }

    fn again(&self, answer: &Value, lines: &Lines) {
        let of_web = |row: &&Value| row["host"] == WEB;
        let row = answer.as_array().unwrap().iter().find(of_web).expect("retransmits");
        assert_eq!((&row["peer"], &row["again"]), (&json!(self.ips[1]), &json!(lines.again)), "{row}");
        assert!(lines.again >= self.known.again && self.known.again >= 2, "{row}: {}", self.known.again);
        let share = lines.again as f64 / row["segments"].as_f64().unwrap();
        assert!((row["share"].as_f64().unwrap() - share).abs() < 0.0001, "{row}");
    }

    fn lifetimes(&self, answer: &Value) {
        let expected = self.by_service().into_iter().filter(|(.., ended)| *ended > 0);
        let expected = expected.map(|(port, _, ended)| json!([DB, port, ended]));
        assert_rows(answer, &["host", "dport", "ended"], expected);
        let calls = |row: &&Value| row["dport"] == self.known.calls;
        let row = answer.as_array().unwrap().iter().find(calls).unwrap();
        let [p50, p90, p99, longest] =
            ["p50", "p90", "p99", "longest"].map(|name| row[name].as_f64().unwrap());
        assert!(p50 <= p90 && p90 <= p99 && p99 <= longest, "{row}");
        // One call lived as long as all else took; the two others are shorter than what was left.
        let (begun, least) = self.known.lived[0];
        let most = (self.seen - begun).as_secs_f64();
        assert!((least.as_secs_f64()..most).contains(&longest), "{least:?}: {row}");
        assert!(p50 <= most - least.as_secs_f64(), "{least:?} of {most}: {row}");
        // With three values, p90 is four fifths of the way from the middle to the largest.
        assert!((p90 - (p50 + 0.8 * (longest - p50))).abs() < 1e-6, "{row}");
    }
}
