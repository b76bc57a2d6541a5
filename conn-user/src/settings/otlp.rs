//! Where metrics and events go by OTLP: the configuration file first, then the variables that OpenTelemetry specifies.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How often metrics are sent, unless another time is chosen.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long an event waits for others, unless another time is chosen.
const DELAY: Duration = Duration::from_secs(1);
/// How many events a request has at the most, unless another number is chosen.
const BATCH: usize = 512;
/// How many a request may have.
const MOST_BATCH: usize = 8192;
/// How long a request may take, unless another time is chosen.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest and the longest of all times.
const LIMITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(86_400));

/// An export that is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otlp {
    /// Attributes of the resource that the environment names.
    pub resource: BTreeMap<String, String>,
    /// The export of metrics.
    pub metrics: Option<Metrics>,
    /// The export of events.
    pub events: Option<Events>,
}

/// An export of metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metrics {
    /// Takes the requests.
    pub target: Target,
    /// How often a reading is sent.
    pub interval: Duration,
}

/// An export of events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    /// Takes the requests.
    pub target: Target,
    /// Parameters of the daemon's stream of events.
    pub query: String,
    /// How long an event waits for others.
    pub delay: Duration,
    /// How many events a request has at the most.
    pub batch: usize,
}

/// The end that takes requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its URL.
    pub url: String,
    /// How long a request may take.
    pub timeout: Duration,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
}

/// What the file says of an end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChosenTarget {
    /// The base URL.
    pub(crate) endpoint: Option<String>,
    /// How long a request may take.
    pub(crate) timeout: Option<Duration>,
    /// Headers of each request.
    pub(crate) headers: Option<BTreeMap<String, String>>,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The end for all.
    pub(crate) target: ChosenTarget,
    /// How often a reading is sent.
    pub(crate) interval: Option<Duration>,
    /// Events are exported, too.
    pub(crate) events: Option<ChosenEvents>,
}

/// What the file says of events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChosenEvents {
    /// The end for events alone.
    pub(crate) target: ChosenTarget,
    /// Parameters of the daemon's stream of events.
    pub(crate) query: String,
    /// How long an event waits for others.
    pub(crate) delay: Option<Duration>,
    /// How many events a request has at the most.
    pub(crate) batch: Option<usize>,
}

/// A variable that is wrong, and why.
pub(crate) type WrongVariable = (&'static str, String);

/// A kind of data, with its variables.
struct Signal {
    /// The path below a base URL.
    path: &'static str,
    /// The variable that turns it off.
    exporter: &'static str,
    endpoint: &'static str,
    protocol: &'static str,
    timeout: &'static str,
    headers: &'static str,
}

const METRICS: Signal = Signal {
    path: "/v1/metrics",
    exporter: "OTEL_METRICS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    timeout: "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    headers: "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
};
const LOGS: Signal = Signal {
    path: "/v1/logs",
    exporter: "OTEL_LOGS_EXPORTER",
    endpoint: "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    protocol: "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
    timeout: "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
    headers: "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
};

/// The environment. An empty variable is as good as none, by the specification.
struct Variables<F>(F);

impl<F: Fn(&'static str) -> Option<String>> Variables<F> {
    fn get(&self, name: &'static str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// A variable and its name. That of one signal wins over that of all signals.
    fn either(&self, one: &'static str, all: &'static str) -> Option<(&'static str, String)> {
        let named = |name| self.get(name).map(|value| (name, value));
        named(one).or_else(|| named(all))
    }

    fn is(&self, name: &'static str, word: &str) -> bool {
        self.get(name).is_some_and(|value| value.eq_ignore_ascii_case(word))
    }

    /// The end for a signal; none without an endpoint.
    fn target(&self, signal: &Signal, chosen: ChosenTarget) -> Result<Option<Target>, WrongVariable> {
        let below = |base: &str| format!("{}{}", base.trim_end_matches('/'), signal.path);
        let url = if let Some(base) = chosen.endpoint {
            below(&base)
        } else {
            if self.is("OTEL_SDK_DISABLED", "true") || self.is(signal.exporter, "none") {
                return Ok(None);
            }
            let Some((name, value)) = self.either(signal.endpoint, "OTEL_EXPORTER_OTLP_ENDPOINT") else {
                return Ok(None);
            };
            url(&value).map_err(|why| (name, why))?;
            if let Some((name, protocol)) = self.either(signal.protocol, "OTEL_EXPORTER_OTLP_PROTOCOL")
                && protocol != "http/protobuf"
            {
                return Err((name, "conntrace speaks http/protobuf only".into()));
            }
            if name == signal.endpoint { value } else { below(&value) }
        };
        let timeout = self.either(signal.timeout, "OTEL_EXPORTER_OTLP_TIMEOUT");
        let timeout = time(chosen.timeout, timeout, TIMEOUT)?;
        let headers = self.either(signal.headers, "OTEL_EXPORTER_OTLP_HEADERS");
        let headers = match (chosen.headers, headers) {
            (Some(chosen), _) => chosen,
            (None, Some((name, value))) => {
                let found = pairs(&value).map_err(|why| (name, why))?;
                found.iter().try_for_each(|(key, value)| header(key, value)).map_err(|why| (name, why))?;
                found
            }
            (None, None) => BTreeMap::new(),
        };
        Ok(Some(Target { url, timeout, headers }))
    }

    fn events(&self, chosen: ChosenEvents, target: Target) -> Result<Events, WrongVariable> {
        let name = "OTEL_BLRP_SCHEDULE_DELAY";
        let delay = time(chosen.delay, self.get(name).map(|value| (name, value)), DELAY)?;
        let name = "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE";
        let batch = match (chosen.batch, self.get(name)) {
            (Some(chosen), _) => chosen,
            (None, Some(value)) => {
                let number = value.parse().map_err(|_| (name, "write a number of events".to_owned()))?;
                batch(number).map_err(|why| (name, why))?
            }
            (None, None) => BATCH,
        };
        Ok(Events { target, query: chosen.query, delay, batch })
    }
}

impl Chosen {
    /// The export with what the environment says where the file says nothing; none without an endpoint.
    ///
    /// # Errors
    /// The first variable that is wrong.
    pub(crate) fn with(
        self,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Otlp>, WrongVariable> {
        let variables = Variables(variable);
        let events = match self.events {
            None => None,
            Some(chosen) => {
                let target = chosen.target.clone().or(&self.target);
                let target = variables.target(&LOGS, target)?;
                target.map(|target| variables.events(chosen, target)).transpose()?
            }
        };
        let metrics = match variables.target(&METRICS, self.target)? {
            None => None,
            Some(target) => {
                let name = "OTEL_METRIC_EXPORT_INTERVAL";
                let found = variables.get(name).map(|value| (name, value));
                Some(Metrics { target, interval: time(self.interval, found, INTERVAL)? })
            }
        };
        if metrics.is_none() && events.is_none() {
            return Ok(None);
        }
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let found = variables.get(name).map(|value| pairs(&value).map_err(|why| (name, why))).transpose()?;
        let mut resource = found.unwrap_or_default();
        if let Some(service) = variables.get("OTEL_SERVICE_NAME") {
            resource.insert("service.name".into(), service);
        }
        Ok(Some(Otlp { resource, metrics, events }))
    }
}

impl ChosenTarget {
    /// This end, with what it does not say from another one. Headers may be secrets: they go to their own endpoint only.
    fn or(self, other: &Self) -> Self {
        let headers = if self.endpoint.is_some() { None } else { other.headers.clone() };
        Self {
            endpoint: self.endpoint.or_else(|| other.endpoint.clone()),
            timeout: self.timeout.or(other.timeout),
            headers: self.headers.or(headers),
        }
    }
}

/// The chosen time, else that of a variable in milliseconds.
fn time(
    chosen: Option<Duration>,
    found: Option<(&'static str, String)>,
    usual: Duration,
) -> Result<Duration, WrongVariable> {
    match (chosen, found) {
        (Some(chosen), _) => Ok(chosen),
        (None, Some((name, value))) => {
            let number = value.parse().map_err(|_| (name, "write a number of milliseconds".to_owned()))?;
            limited(Duration::from_millis(number)).map_err(|why| (name, why))
        }
        (None, None) => Ok(usual),
    }
}

/// Checks how many events a request may have.
///
/// # Errors
/// It is none, or too many.
pub(crate) fn batch(number: i64) -> Result<usize, String> {
    usize::try_from(number)
        .ok()
        .filter(|number| (1..=MOST_BATCH).contains(number))
        .ok_or_else(|| format!("{number} is not between 1 and {MOST_BATCH}"))
}

/// Checks a URL.
///
/// # Errors
/// Why it is none.
pub(crate) fn url(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain
        && rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#']))
    {
        return Ok(());
    }
    Err("an endpoint is a URL: http://127.0.0.1:4318, or one that begins with https://".into())
}

/// Checks a time.
///
/// # Errors
/// It is too short or too long.
pub(crate) fn limited(time: Duration) -> Result<Duration, String> {
    if (LIMITS.0..=LIMITS.1).contains(&time) {
        return Ok(time);
    }
    Err("the time is not between 100ms and 1d".into())
}

/// Checks a header.
///
/// # Errors
/// Why HTTP does not take it. The value may be a secret, and is not repeated.
pub(crate) fn header(name: &str, value: &str) -> Result<(), String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is not a name of a header"));
    }
    if !value.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte)) {
        return Err(format!("the value of the header {name} has a byte that is not printable ASCII"));
    }
    Ok(())
}

/// `key=value` pairs with commas between, values percent-encoded.
fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
        let unclear =
            || "write key=value pairs with commas between, and percent signs before codes".to_owned();
        let (key, value) = member.split_once('=').ok_or_else(unclear)?;
        let (key, value) =
            (decoded(key.trim()).ok_or_else(unclear)?, decoded(value.trim()).ok_or_else(unclear)?);
        if key.is_empty() {
            return Err(unclear());
        }
        pairs.insert(key, value);
    }
    Ok(pairs)
}

/// Text without percent-encoding.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let code = digit(rest.next())? * 16 + digit(rest.next())?;
        bytes.push(u8::try_from(code).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
