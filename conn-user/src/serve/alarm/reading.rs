//! What rules look at: answers of the daemon, as any client gets them.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::event::sort_key::SourceGroup;
use crate::serve::answers;
use crate::settings::rule::{Rule, Way};

/// The addresses of requests, to which parameters are added.
const LIST: &str = "/v1/list?output=json&";
const NEW: &str = "/v1/events?output=json&event-mask=new&";

/// The part of `/v1/stats` that rules look at.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct Stats {
    /// Counts by direction and service port.
    pub(crate) ports: Vec<PortStats>,
    /// Listening sockets by port.
    pub(crate) listeners: Vec<ListenerStats>,
    /// What the kernel programs count about themselves.
    pub(crate) witness: std::collections::BTreeMap<String, u64>,
    /// Connections whose end no program saw.
    pub(crate) repaired: u64,
}

/// The counts of a direction and service port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct PortStats {
    /// The service port.
    pub(crate) port: u16,
    /// `in` or `out`.
    pub(crate) direction: String,
    /// Connections that began.
    pub(crate) opened: u64,
    /// Handshakes completed.
    pub(crate) established: u64,
    /// Connections that failed.
    pub(crate) failed: u64,
    /// Open now.
    pub(crate) open: i64,
}

/// The listening sockets of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ListenerStats {
    /// The port.
    pub(crate) port: u16,
    /// Sockets that began to listen.
    pub(crate) opened: u64,
    /// Sockets that ended.
    pub(crate) closed: u64,
    /// Sockets that listen now.
    pub(crate) open: u64,
}

/// The connections of a direction and remote address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Remote {
    /// The address or prefix; `unlisted` for all that have no entry.
    pub(crate) address: String,
    /// `in` or `out`; `both` for all that have no entry.
    pub(crate) direction: String,
    /// Connections that began.
    pub(crate) opened: u64,
}

impl Remote {
    /// Which side opened the connections; none for all that have no entry.
    pub(crate) fn way(&self) -> Option<Way> {
        way(&self.direction)
    }
}

fn way(direction: &str) -> Option<Way> {
    match direction {
        "in" => Some(Way::In),
        "out" => Some(Way::Out),
        _ => None,
    }
}

impl PortStats {
    /// Which side opened the connections.
    pub(crate) fn way(&self) -> Option<Way> {
        way(&self.direction)
    }
}

impl Stats {
    /// How many steps the kernel programs could not count, and how many ends no program saw.
    pub(crate) fn missed(&self) -> u64 {
        use conn_common::counter;
        let failed = |&at: &u32| self.witness.get(counter::NAMES[at as usize]).copied().unwrap_or_default();
        counter::FAILURES.iter().map(failed).sum::<u64>() + self.repaired
    }
}

/// A connection as `/v1/list` and `/v1/events` have it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Line {
    /// The word of the event.
    pub(crate) event: String,
    /// How many events were lost, in a line of a loss.
    pub(crate) lost: Option<u64>,
    /// Which side opened the connection.
    pub(crate) direction: Option<Way>,
    /// The end that opened the connection, and the other one.
    pub(crate) src: Option<String>,
    /// Its port.
    pub(crate) sport: Option<u16>,
    /// The address of the other end.
    pub(crate) dst: Option<String>,
    /// The service port.
    pub(crate) dport: Option<u16>,
    /// The network namespace.
    pub(crate) netns: Option<u32>,
    /// The process.
    pub(crate) pid: Option<u32>,
    /// The name of the process.
    pub(crate) comm: Option<String>,
}

/// Asks the daemon for counts.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn stats(socket: &Path) -> io::Result<Stats> {
    answers::json(socket, "/v1/stats?output=json").await
}

/// Asks the daemon for the connections of each remote address or prefix, with those that have no entry in a row of their own.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn remotes(socket: &Path, by: SourceGroup) -> io::Result<Vec<Remote>> {
    #[derive(Deserialize)]
    struct Answer {
        sources: Sources,
    }
    #[derive(Deserialize)]
    struct Sources {
        rows: Vec<Remote>,
        unlisted: Remote,
    }
    let target = format!(
        "/v1/stats?output=json&total&sources={}&sources-sort=opened&sources-by={}",
        conn_common::remote::CAPACITY,
        by.name()
    );
    let Sources { mut rows, unlisted } = answers::json::<Answer>(socket, &target).await?.sources;
    rows.push(unlisted);
    Ok(rows)
}

/// Asks the daemon for the connections of a rule that are older than `age`.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn older(socket: &Path, rule: &Rule, age: Duration) -> io::Result<Vec<Line>> {
    let min_age = format!("{}ns", age.as_nanos());
    let target = target(LIST, rule.direction, rule.dport().as_deref(), &[("min-age", &min_age)]);
    let body = answers::whole(answers::begin(socket, &target).await?).await?;
    body.split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).map_err(io::Error::other))
        .collect()
}

/// Asks the daemon for a stream of the connections that this host opens to some ports; to all without a list.
///
/// # Errors
/// The daemon does not answer, or refuses.
pub(crate) async fn opened(socket: &Path, dport: Option<&str>) -> io::Result<Lines> {
    let target = target(NEW, Some(Way::Out), dport, &[]);
    Ok(Lines { body: answers::begin(socket, &target).await?, kept: Vec::new() })
}

/// The address of a request with its parameters.
fn target(begin: &str, way: Option<Way>, dport: Option<&str>, more: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::for_suffix(begin.to_owned(), begin.len());
    let own = [("direction", way.map(Way::name)), ("dport", dport)];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    query.extend_pairs(own.chain(more.iter().copied()));
    query.finish()
}

/// A stream of lines.
#[derive(Debug)]
pub(crate) struct Lines {
    body: Incoming,
    kept: Vec<u8>,
}

impl Lines {
    /// The next line; none at the end.
    ///
    /// # Errors
    /// The stream is broken, or a line is none of the daemon's.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(end) = self.kept.iter().position(|&byte| byte == b'\n') {
                let rest = self.kept.split_off(end + 1);
                let line = std::mem::replace(&mut self.kept, rest);
                return serde_json::from_slice(&line).map(Some).map_err(io::Error::other);
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Some(bytes) = frame.map_err(io::Error::other)?.data_ref() {
                self.kept.extend_from_slice(bytes);
            }
        }
    }
}
