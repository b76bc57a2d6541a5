//! Debian's Prometheus with the readings of the day at their scripted times.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{END, HOSTS, START, STEP, STEPS};
use crate::command;

/// A sample that says when counting began: it has the beginning of the scripted day.
const BEGUN: &str = "conntrace_start_time_seconds";

/// A server that answers queries.
pub(super) struct Prometheus {
    child: Child,
    address: SocketAddr,
}

/// A series of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) labels: BTreeMap<String, String>,
    /// Times in seconds since the beginning of the day, and values.
    pub(super) points: Vec<(u64, f64)>,
}

/// The label `instance` of a host.
pub(super) fn instance(host: &str) -> String {
    format!("{host}:9436")
}

impl Prometheus {
    /// Starts a server on the readings of all hosts.
    pub(super) fn start(programs: &Path, readings: &Path, work: &Path) -> Result<Self> {
        let (text, data) = (work.join("samples"), work.join("data"));
        fs::write(&text, samples(readings)?)?;
        let mut backfill = Command::new(programs.join("promtool"));
        backfill.args(["tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=24h"]);
        backfill.arg(&text).arg(&data);
        command::run(command::quiet(&mut backfill))?;
        let config = work.join("prometheus.yml");
        fs::write(&config, "global: {}\n")?;
        // Nobody else takes a port of the loopback address that was free a moment ago.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut server = Command::new(programs.join("prometheus"));
        server
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn");
        let child = command::quiet(&mut server).spawn().context("cannot start Prometheus")?;
        let server = Self { child, address };
        let begun = Instant::now();
        while let Err(error) = server.get("/-/ready") {
            ensure!(begun.elapsed() < Duration::from_secs(60), "Prometheus does not answer: {error:#}");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// The answer to a query over the day, a point for each `step` seconds.
    pub(super) fn over_the_day(&self, query: &str, step: u64) -> Result<Vec<Series>> {
        let range = format!("start={}&end={END}&step={step}", START + step);
        self.ask(&format!("/api/v1/query_range?query={}&{range}", encoded(query)), "values")
    }

    /// The answer at the end of the day.
    pub(super) fn at_the_end(&self, query: &str) -> Result<Vec<Series>> {
        self.ask(&format!("/api/v1/query?query={}&time={END}", encoded(query)), "value")
    }

    fn ask(&self, target: &str, key: &str) -> Result<Vec<Series>> {
        let answer: Value = serde_json::from_str(&self.get(target)?)?;
        let series = answer["data"]["result"].as_array().with_context(|| format!("{target}: {answer}"))?;
        let point = |point: &Value| -> Option<(u64, f64)> {
            let time = point[0].as_f64()? as i64;
            Some((u64::try_from(time).ok()?.checked_sub(START)?, point[1].as_str()?.parse().ok()?))
        };
        let series = series.iter().map(|one| {
            let labels = serde_json::from_value(one["metric"].clone())?;
            let points = match key {
                "value" => point(&one[key]).into_iter().collect(),
                _ => one[key].as_array().into_iter().flatten().filter_map(point).collect(),
            };
            Ok(Series { labels, points })
        });
        series.collect()
    }

    /// The body of an answer.
    fn get(&self, target: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(format!("GET {target} HTTP/1.0\r\nhost: x\r\n\r\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").context("no answer of HTTP")?;
        let status = head.lines().next().unwrap_or_default();
        if !status.contains(" 200 ") {
            bail!("{target}: {status}: {body}");
        }
        Ok(body.to_owned())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The readings of all hosts in `OpenMetrics`, with labels and times as of scrapes.
fn samples(readings: &Path) -> Result<String> {
    let mut text = String::new();
    for (host, _, _) in HOSTS {
        for step in 0..STEPS {
            let path = readings.join(host).join(format!("{step:03}.prom"));
            let reading =
                fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let time = START + (step + 1) * STEP;
            let lines = reading.lines().filter(|line| !line.starts_with('#'));
            for line in lines.chain(["up 1"]) {
                let sample = scraped(line, host, time).with_context(|| format!("no sample: {line}"))?;
                text.push_str(&sample);
            }
        }
    }
    text.push_str("# EOF\n");
    Ok(text)
}

/// A sample with the labels and the time of a scrape.
fn scraped(line: &str, host: &str, time: u64) -> Option<String> {
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}')?;
    let comma = if labels.is_empty() { "" } else { "," };
    let begun = START.to_string();
    let value = if name == BEGUN { &begun } else { value };
    let instance = instance(host);
    Some(format!("{name}{{instance=\"{instance}\",job=\"conntrace\"{comma}{labels}}} {value} {time}\n"))
}

fn encoded(query: &str) -> String {
    let mut text = String::new();
    for byte in query.bytes() {
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            // A String takes any text.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_get_the_labels_of_a_scrape() {
        let wanted = "up{instance=\"a:9436\",job=\"conntrace\"} 1 7\n";
        assert_eq!(scraped("up 1", "a", 7).as_deref(), Some(wanted));
        let wanted = "x{instance=\"a:9436\",job=\"conntrace\",port=\"22\"} 1.5 7\n";
        assert_eq!(scraped("x{port=\"22\"} 1.5", "a", 7).as_deref(), Some(wanted));
        let begun = scraped("conntrace_start_time_seconds 9", "a", 7).unwrap();
        assert!(begun.ends_with(&format!(" {START} 7\n")), "{begun}");
        assert_eq!(encoded("a{b=\"c\"}"), "a%7Bb%3D%22c%22%7D");
    }
}
