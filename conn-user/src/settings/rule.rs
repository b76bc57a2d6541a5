//! A rule: what is watched, when that is an alarm, and what follows.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::sort_key::SourceGroup;

/// A rule of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Its name, which no other rule has.
    pub name: String,
    /// When it is an alarm.
    pub condition: Condition,
    /// Ranges of service ports, both ends included; empty for each port.
    pub ports: Vec<(u16, u16)>,
    /// The direction; none for both.
    pub direction: Option<Way>,
    /// How long the condition must hold before it is an alarm.
    pub hold: Duration,
    /// The shortest time between two deliveries.
    pub pause: Duration,
    /// The actions also get the end of an alarm.
    pub recovery: bool,
    /// What happens beside the log line.
    pub actions: Vec<Action>,
}

/// When a rule is an alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// A port starts or stops to listen.
    Listening(Change),
    /// More connections of a port are open.
    Open(Limits),
    /// More connections of a port begin in a second.
    New(Limits),
    /// More connections of a remote address begin in a second.
    Remote {
        /// How many.
        limits: Limits,
        /// What the daemon counts.
        by: SourceGroup,
    },
    /// A larger share of the attempts of a port fails.
    Failures {
        /// The share.
        share: Limits,
        /// Over this time.
        over: Duration,
        /// With at least so many attempts that ended or were established.
        least: u64,
    },
    /// A connection is older.
    Age(Duration),
    /// A process opens a connection to a port to which it opened none before.
    Process {
        /// How long the rule only learns after its first start.
        learn: Duration,
    },
    /// The daemon lost or missed something.
    Loss,
}

/// Where an alarm begins and ends, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// More than this is an alarm.
    pub above: u64,
    /// Less than this ends it.
    pub clear: u64,
}

/// What a listening port does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Its first socket listens.
    Starts,
    /// Its last socket ends.
    Stops,
    /// One or the other.
    Changes,
}

/// Which side opened the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The peer.
    In,
    /// This host.
    Out,
}

/// What an alarm does beside the log line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// Starts a program: its path and its arguments.
    Command(Vec<String>),
    /// Posts JSON to a URL.
    Webhook(String),
    /// Sends mail to an address.
    Mail(String),
}

impl Way {
    /// The word of the option `--direction`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
        }
    }
}

impl Rule {
    /// True if the rule watches this port and direction.
    pub(crate) fn covers(&self, way: Way, port: u16) -> bool {
        self.direction.is_none_or(|direction| direction == way)
            && (self.ports.is_empty() || self.ports.iter().any(|&(low, high)| (low..=high).contains(&port)))
    }

    /// The ports as the option `--dport` takes them; none for each.
    pub(crate) fn dport(&self) -> Option<String> {
        let range = |&(low, high): &(u16, u16)| {
            if low == high { low.to_string() } else { format!("{low}-{high}") }
        };
        let ranges: Vec<_> = self.ports.iter().map(range).collect();
        (!ranges.is_empty()).then(|| ranges.join(","))
    }

    /// `port 22`, `each port of 22,80`, `each port`.
    fn port_words(&self) -> String {
        match (self.dport(), self.ports.as_slice()) {
            (Some(list), [(low, high)]) if low == high => format!("port {list}"),
            (Some(list), _) => format!("each port of {list}"),
            (None, _) => "each port".into(),
        }
    }

    fn way_words(&self) -> &'static str {
        match self.direction {
            Some(Way::In) => " that others open",
            Some(Way::Out) => " that this host opens",
            None => "",
        }
    }
}

/// Thousandths as people write them: `2`, `0.5`.
pub(crate) fn number(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A share in percent.
pub(crate) fn percent(thousandths: u64) -> String {
    format!("{} %", number(thousandths * 100))
}

/// A duration as rules write it: `1h`, `90s`, `1.5s`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match duration {
        _ if duration.subsec_nanos() != 0 => format!("{}s", duration.as_secs_f64()),
        _ if seconds != 0 && seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds != 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ if seconds != 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => format!("{seconds}s"),
    }
}

/// The rule in a sentence.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (port, way) = (self.port_words(), self.way_words());
        write!(f, "rule \"{}\": an alarm begins when ", self.name)?;
        match &self.condition {
            Condition::Listening(Change::Starts) => write!(f, "{port} starts to listen")?,
            Condition::Listening(Change::Stops) => write!(f, "{port} stops listening")?,
            Condition::Listening(Change::Changes) => write!(f, "{port} starts to listen or stops listening")?,
            Condition::Open(limits) => {
                write!(f, "{port} has more than {} open connections{way}", number(limits.above))?;
            }
            Condition::New(limits) => {
                write!(f, "{port} has more than {} new connections a second{way}", number(limits.above))?;
            }
            Condition::Remote { limits, by } => {
                let noun = match by {
                    SourceGroup::Address => "a remote address",
                    SourceGroup::Prefix => "a prefix of remote addresses",
                };
                write!(f, "{noun} has more than {} new connections a second{way}", number(limits.above))?;
            }
            Condition::Failures { share, over, least } => write!(
                f,
                "more than {} of the connections of {port}{way} fail within {}, with {least} or more attempts",
                percent(share.above),
                span(*over),
            )?,
            Condition::Age(age) => write!(f, "a connection of {port}{way} is older than {}", span(*age))?,
            Condition::Process { learn } => write!(
                f,
                "a process opens a connection to {port} and never did before, after {} of learning",
                span(*learn)
            )?,
            Condition::Loss => f.write_str("the daemon has lost or missed something")?,
        }
        if !self.hold.is_zero() {
            write!(f, ", for {}", span(self.hold))?;
        }
        match &self.condition {
            Condition::Open(limits) | Condition::New(limits) | Condition::Remote { limits, .. } => {
                write!(f, "; it ends below {}", number(limits.clear))?;
            }
            Condition::Failures { share, .. } => write!(f, "; it ends below {}", percent(share.clear))?,
            Condition::Age(_) => f.write_str("; it ends with the connection")?,
            Condition::Listening(_) | Condition::Process { .. } | Condition::Loss => {}
        }
        f.write_str(". A log line is written")?;
        for action in &self.actions {
            match action {
                Action::Command(argv) => write!(f, ", {} runs", shell_words::join(argv))?,
                Action::Webhook(url) => write!(f, ", {url} gets a request")?,
                Action::Mail(address) => write!(f, ", {address} gets mail")?,
            }
        }
        if !self.pause.is_zero() {
            write!(f, ", at most once in {}", span(self.pause))?;
        }
        f.write_str(".")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_spans_read_back() {
        assert_eq!([0, 500, 1000, 2500, 10_000].map(number), ["0", "0.5", "1", "2.5", "10"]);
        assert_eq!(percent(205), "20.5 %");
        let spans = [0, 90, 120, 7200, 86_400].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["0s", "90s", "2m", "2h", "1d"]);
        assert_eq!(span(Duration::from_millis(1500)), "1.5s");
    }
}
