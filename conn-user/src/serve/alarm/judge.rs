//! Decides when an alarm begins and ends. Pure: times come from the caller.

mod remotes;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::serve::alarm::reading::{Line, ListenerStats, PortStats, Stats};
use crate::settings::rule::{Change, Condition, Limits, Rule, Way, number, percent, span};

/// How many processes a rule remembers.
const MAX_KNOWN: usize = 4096;
/// How many connections of a rule of ages are alarms at the same time.
const MAX_OLD: usize = 1024;

/// What an alarm is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Subject {
    /// The service port.
    pub(crate) port: Option<u16>,
    /// Which side opened the connections.
    pub(crate) way: Option<Way>,
    /// The connection.
    pub(crate) connection: Option<String>,
    /// The process.
    pub(crate) process: Option<String>,
    /// The remote address.
    #[serde(default)]
    pub(crate) remote: Option<String>,
}

/// The begin or the end of an alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Edge {
    /// What it is about.
    pub(crate) subject: Subject,
    /// False at the end.
    pub(crate) fires: bool,
    /// The measured value, if there is one.
    pub(crate) value: Option<String>,
    /// The fact in words.
    pub(crate) text: String,
}

/// A condition that holds, or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Standing {
    /// It holds since then, and is no alarm yet.
    Holds {
        /// Nanoseconds since the boot.
        since_ns: u64,
    },
    /// It is an alarm.
    Fires,
}

/// What a rule remembers, also over a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// What is over its limit.
    #[serde(with = "pairs")]
    standing: BTreeMap<Subject, Standing>,
    /// The ports with listeners, by sockets that began and ended; none before the first reading.
    listeners: Option<BTreeMap<u16, (u64, u64, u64)>>,
    /// The processes that opened connections, with the port.
    known: BTreeSet<(String, u16)>,
    /// Nanoseconds of Unix time at which learning ends.
    learns_until: Option<u64>,
    /// What was missed before; none before the first reading.
    missed: Option<u64>,
}

/// Maps whose keys are no text, as lists of pairs.
mod pairs {
    use super::{BTreeMap, Standing, Subject};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<Subject, Standing>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        map.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<Subject, Standing>, D::Error> {
        Ok(Vec::<(Subject, Standing)>::deserialize(deserializer)?.into_iter().collect())
    }
}

/// Attempts of a port at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tried {
    opened: u64,
    established: u64,
    failed: u64,
}

/// An earlier reading: nanoseconds since the boot, and counts by direction and port.
type Past = (u64, BTreeMap<(Way, u16), Tried>);

/// A rule with what it has seen.
#[derive(Debug)]
pub(crate) struct Judge {
    /// The rule.
    pub(crate) rule: Rule,
    /// What it remembers.
    pub(crate) memory: Memory,
    /// Earlier readings, the newest last.
    past: VecDeque<Past>,
    /// Earlier readings of remote addresses.
    remotes: remotes::Remotes,
    /// The memory of processes is full, and that was reported.
    is_full: bool,
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    /// What it is about.
    pub(crate) subject: Subject,
    /// The value, in thousandths; none if it is not known.
    pub(crate) value: Option<u64>,
    /// The fact in words.
    pub(crate) text: String,
}

impl Judge {
    /// A rule with its memory.
    pub(crate) fn new(rule: Rule, memory: Memory) -> Self {
        Self { rule, memory, past: VecDeque::new(), remotes: remotes::Remotes::default(), is_full: false }
    }

    /// What a reading says. `now_ns`: nanoseconds since the boot.
    pub(crate) fn look(&mut self, stats: &Stats, now_ns: u64) -> Vec<Edge> {
        match self.rule.condition.clone() {
            Condition::Listening(change) => self.listening(change, &stats.listeners),
            Condition::Loss => self.lost(stats.missed()),
            Condition::Open(limits) | Condition::New(limits) | Condition::Failures { share: limits, .. } => {
                let measured = self.measure(stats, now_ns);
                self.judge(measured, limits, now_ns)
            }
            Condition::Remote { .. } | Condition::Age(_) | Condition::Process { .. } => Vec::new(),
        }
    }

    /// The values of a reading, by direction and port.
    pub(crate) fn measure(&mut self, stats: &Stats, now_ns: u64) -> Vec<Measured> {
        let over = match &self.rule.condition {
            Condition::Failures { over, .. } => *over,
            // Of the last reading.
            _ => Duration::ZERO,
        };
        let limit = now_ns.saturating_sub(u64::try_from(over.as_nanos()).unwrap_or(u64::MAX));
        // The newest reading that is old enough, or the oldest one.
        while self.past.len() > 1 && self.past[1].0 <= limit {
            self.past.pop_front();
        }
        let (mut measured, mut counts) = (Vec::new(), BTreeMap::new());
        for port in &stats.ports {
            let Some(way) = port.way().filter(|&way| self.rule.covers(way, port.port)) else { continue };
            let tried = Tried { opened: port.opened, established: port.established, failed: port.failed };
            counts.insert((way, port.port), tried);
            let before = self.past.front().map(|(then_ns, ports)| {
                let tried = ports.get(&(way, port.port)).copied().unwrap_or_default();
                (now_ns.saturating_sub(*then_ns), tried)
            });
            let (value, text) = value(&self.rule.condition, port, way, tried, before);
            let subject = Subject { port: Some(port.port), way: Some(way), ..Subject::default() };
            measured.push(Measured { subject, value, text });
        }
        if over.is_zero() {
            self.past.clear();
        }
        self.past.push_back((now_ns, counts));
        measured
    }

    /// Alarms of values. What is not measured any more ends.
    fn judge(&mut self, measured: Vec<Measured>, limits: Limits, now_ns: u64) -> Vec<Edge> {
        let mut edges = Vec::new();
        let mut seen = BTreeSet::new();
        for Measured { subject, value, text } in measured {
            seen.insert(subject.clone());
            let Some(value) = value else { continue };
            let shown = match self.rule.condition {
                Condition::Failures { .. } => percent(value),
                _ => number(value),
            };
            let fires = match self.memory.standing.get(&subject) {
                Some(Standing::Fires) if value >= limits.clear && value > 0 => continue,
                Some(Standing::Fires) => {
                    self.memory.standing.remove(&subject);
                    false
                }
                _ if value <= limits.above => {
                    self.memory.standing.remove(&subject);
                    continue;
                }
                standing => {
                    let since_ns = match standing {
                        Some(&Standing::Holds { since_ns }) => since_ns.min(now_ns),
                        _ => now_ns,
                    };
                    if u128::from(now_ns - since_ns) < self.rule.hold.as_nanos() {
                        self.memory.standing.insert(subject, Standing::Holds { since_ns });
                        continue;
                    }
                    self.memory.standing.insert(subject.clone(), Standing::Fires);
                    true
                }
            };
            edges.push(Edge { subject, fires, value: Some(shown), text });
        }
        edges.extend(self.end_others(&seen));
        edges
    }

    /// The ends of alarms whose subject is gone.
    fn end_others(&mut self, seen: &BTreeSet<Subject>) -> Vec<Edge> {
        let gone: Vec<_> =
            self.memory.standing.keys().filter(|subject| !seen.contains(subject)).cloned().collect();
        let mut edges = Vec::new();
        for subject in gone {
            if self.memory.standing.remove(&subject) == Some(Standing::Fires) {
                let text = match &subject.connection {
                    Some(connection) => format!("the connection {connection} has ended"),
                    None => match &subject.remote {
                        Some(remote) => format!("{remote} has no new connections any more"),
                        None => "the port has no counts any more".into(),
                    },
                };
                edges.push(Edge { subject, fires: false, value: None, text });
            }
        }
        edges
    }

    /// Ports that started or stopped to listen since the last reading, however short.
    fn listening(&mut self, change: Change, listeners: &[ListenerStats]) -> Vec<Edge> {
        let now: BTreeMap<u16, (u64, u64, u64)> = listeners
            .iter()
            .filter(|one| self.rule.covers(Way::In, one.port))
            .map(|one| (one.port, (one.opened, one.closed, one.open)))
            .collect();
        let Some(before) = self.memory.listeners.replace(now.clone()) else { return Vec::new() };
        let mut edges = Vec::new();
        for port in before.keys().chain(now.keys()).copied().collect::<BTreeSet<_>>() {
            let zero = (0, 0, 0);
            let (was, is) = (before.get(&port).unwrap_or(&zero), now.get(&port).unwrap_or(&zero));
            // An epoch that began anew counts from zero.
            let began = is.0 > was.0 || (is.2 > 0 && was.2 == 0);
            let starts = was.2 == 0 && began;
            let stops = is.2 == 0 && (was.2 > 0 || starts);
            let subject = Subject { port: Some(port), ..Subject::default() };
            let mut add = |wanted: bool, text: String| {
                if wanted {
                    let value = Some(is.2.to_string());
                    edges.push(Edge { subject: subject.clone(), fires: true, value, text });
                }
            };
            add(starts && change != Change::Stops, format!("port {port} starts to listen"));
            add(stops && change != Change::Starts, format!("port {port} stops listening"));
        }
        edges
    }

    fn lost(&mut self, missed: u64) -> Vec<Edge> {
        match self.memory.missed.replace(missed) {
            Some(before) if missed > before => {
                let more = missed - before;
                let text = format!(
                    "the daemon has missed {more} more steps of connections: see conntrace stats --proof"
                );
                vec![Edge { subject: Subject::default(), fires: true, value: Some(more.to_string()), text }]
            }
            _ => Vec::new(),
        }
    }

    /// What a list of connections over the age says.
    pub(crate) fn look_at_old(&mut self, age: Duration, lines: &[Line], now_ns: u64) -> Vec<Edge> {
        let measured = lines.iter().filter_map(|line| {
            let connection = format!(
                "{}:{} -> {}:{}",
                line.src.as_deref()?,
                line.sport?,
                line.dst.as_deref()?,
                line.dport?
            );
            let owner = match (&line.comm, line.pid) {
                (Some(comm), Some(pid)) => format!(" of {comm} (pid {pid})"),
                _ => String::new(),
            };
            let text = format!("the connection {connection}{owner} is older than {}", span(age));
            let netns = line.netns.map(|netns| format!(" netns {netns}")).unwrap_or_default();
            let subject = Subject {
                port: line.dport,
                way: line.direction,
                connection: Some(connection + &netns),
                process: line.comm.clone(),
                ..Subject::default()
            };
            Some(Measured { subject, value: Some(1000), text })
        });
        let measured: Vec<_> = measured.take(MAX_OLD).collect();
        let edges = self.judge(measured, Limits { above: 0, clear: 1 }, now_ns);
        edges.into_iter().map(|edge| Edge { value: None, ..edge }).collect()
    }

    /// What a connection that this host opens says. `unix_ns`: nanoseconds of Unix time.
    pub(crate) fn look_at_process(&mut self, line: &Line, learn: Duration, unix_ns: u64) -> Option<Edge> {
        let learn_ns = u64::try_from(learn.as_nanos()).unwrap_or(u64::MAX);
        let until = *self.memory.learns_until.get_or_insert(unix_ns.saturating_add(learn_ns));
        let (comm, port) = (line.comm.clone()?, line.dport?);
        if self.memory.known.contains(&(comm.clone(), port)) {
            return None;
        }
        let owner = line.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let mut text = format!("{comm}{owner} opens its first connection to port {port}");
        if self.memory.known.len() < MAX_KNOWN {
            self.memory.known.insert((comm.clone(), port));
        } else if self.is_full {
            return None;
        } else {
            self.is_full = true;
            text = format!(
                "{MAX_KNOWN} processes and ports are known, and no more are watched: narrow the rule"
            );
        }
        let subject =
            Subject { port: Some(port), way: Some(Way::Out), process: Some(comm), ..Subject::default() };
        (unix_ns >= until || self.is_full).then_some(Edge { subject, fires: true, value: None, text })
    }
}

/// The value of a port in thousandths, and the fact in words. `before`: the time since an earlier reading in nanoseconds,
/// and its counts.
fn value(
    condition: &Condition,
    port: &PortStats,
    way: Way,
    now: Tried,
    before: Option<(u64, Tried)>,
) -> (Option<u64>, String) {
    let place = format!("port {} ({})", port.port, way.name());
    // An epoch that began anew counts from zero.
    let since = before.filter(|(age_ns, then)| *age_ns > 0 && then.opened <= now.opened);
    match condition {
        Condition::Open(_) => {
            let open = u64::try_from(port.open).unwrap_or(0);
            (Some(open * 1000), format!("{place} has {open} open connections"))
        }
        Condition::New(_) => {
            let Some((age_ns, then)) = since else { return (None, format!("{place} has one reading")) };
            let rate = u128::from(now.opened - then.opened) * 1_000_000_000_000 / u128::from(age_ns);
            let rate = u64::try_from(rate).unwrap_or(u64::MAX);
            (Some(rate), format!("{place} has {} new connections a second", number(rate)))
        }
        Condition::Failures { least, .. } => {
            let Some((_, then)) = since else { return (None, format!("{place} has one reading")) };
            let failed = now.failed.saturating_sub(then.failed);
            let tried = failed + now.established.saturating_sub(then.established);
            let text = format!("{failed} of {tried} connections of {place} have failed");
            // With too few attempts, an alarm neither begins nor goes on.
            let share = if tried == 0 || tried < *least { 0 } else { failed * 1000 / tried };
            (Some(share), text)
        }
        _ => (None, String::new()),
    }
}
