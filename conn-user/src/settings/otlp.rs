//! Where metrics go by OTLP: the configuration file first, then the variables that OpenTelemetry specifies.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The path of metrics below a base URL.
const PATH: &str = "/v1/metrics";
/// How often metrics are sent, unless another time is chosen.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long a request may take, unless another time is chosen.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The shortest and the longest of both.
const LIMITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(86_400));

/// An export that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otlp {
    /// Takes the requests.
    pub url: String,
    /// How often a reading is sent.
    pub interval: Duration,
    /// How long a request may take.
    pub timeout: Duration,
    /// Headers of each request.
    pub headers: BTreeMap<String, String>,
    /// Attributes of the resource that the environment names.
    pub resource: BTreeMap<String, String>,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The base URL.
    pub(crate) endpoint: Option<String>,
    /// How often a reading is sent.
    pub(crate) interval: Option<Duration>,
    /// How long a request may take.
    pub(crate) timeout: Option<Duration>,
    /// Headers of each request.
    pub(crate) headers: Option<BTreeMap<String, String>>,
}

/// A variable that is wrong, and why.
pub(crate) type WrongVariable = (&'static str, String);

impl Chosen {
    /// The export with what the environment says where the file says nothing; none without an endpoint.
    ///
    /// # Errors
    /// The first variable that is wrong.
    pub(crate) fn with(
        self,
        variable: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Otlp>, WrongVariable> {
        // An empty variable is as good as none, by the specification.
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        // That of metrics wins over that of all signals.
        let either =
            |one, all| variable(one).map(|value| (one, value)).or_else(|| Some((all, variable(all)?)));
        let is_off = |name, word: &str| variable(name).is_some_and(|value| value.eq_ignore_ascii_case(word));
        let url = if let Some(base) = self.endpoint {
            below(&base)
        } else {
            if is_off("OTEL_SDK_DISABLED", "true") || is_off("OTEL_METRICS_EXPORTER", "none") {
                return Ok(None);
            }
            let (one, all) = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT");
            let Some((name, value)) = either(one, all) else { return Ok(None) };
            url(&value).map_err(|why| (name, why))?;
            let names = ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL");
            if let Some((name, protocol)) = either(names.0, names.1)
                && protocol != "http/protobuf"
            {
                return Err((name, "conntrace speaks http/protobuf only".into()));
            }
            if name == one { value } else { below(&value) }
        };
        let milliseconds = |name: &'static str, value: &str| {
            let number = value.parse().map_err(|_| (name, "write a number of milliseconds".to_owned()))?;
            limited(Duration::from_millis(number)).map_err(|why| (name, why))
        };
        let time =
            |chosen: Option<Duration>, found: Option<(&'static str, String)>, usual| match (chosen, found) {
                (Some(chosen), _) => Ok(chosen),
                (None, Some((name, value))) => milliseconds(name, &value),
                (None, None) => Ok(usual),
            };
        let name = "OTEL_METRIC_EXPORT_INTERVAL";
        let interval = time(self.interval, variable(name).map(|value| (name, value)), INTERVAL)?;
        let names = ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT");
        let timeout = time(self.timeout, either(names.0, names.1), TIMEOUT)?;
        let names = ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS");
        let headers = match (self.headers, either(names.0, names.1)) {
            (Some(chosen), _) => chosen,
            (None, Some((name, value))) => {
                let found = pairs(&value).map_err(|why| (name, why))?;
                found.iter().try_for_each(|(key, value)| header(key, value)).map_err(|why| (name, why))?;
                found
            }
            (None, None) => BTreeMap::new(),
        };
        let name = "OTEL_RESOURCE_ATTRIBUTES";
        let found = variable(name).map(|value| pairs(&value).map_err(|why| (name, why))).transpose()?;
        let mut resource = found.unwrap_or_default();
        if let Some(service) = variable("OTEL_SERVICE_NAME") {
            resource.insert("service.name".into(), service);
        }
        Ok(Some(Otlp { url, interval, timeout, headers, resource }))
    }
}

/// The URL of metrics below a base URL.
fn below(base: &str) -> String {
    format!("{}{PATH}", base.trim_end_matches('/'))
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
mod tests {
    use super::*;

    fn with(chosen: Chosen, environment: &[(&str, &str)]) -> Result<Option<Otlp>, WrongVariable> {
        chosen.with(|name| Some(environment.iter().find(|(key, _)| *key == name)?.1.to_owned()))
    }

    #[test]
    fn the_file_wins_over_the_environment() {
        let all = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%20c, d=e"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "5000"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,deployment.environment.name=test"),
            ("OTEL_SERVICE_NAME", "edge"),
        ];
        let found = with(Chosen::default(), &all).unwrap().unwrap();
        assert_eq!(found.url, "http://c:4318/v1/metrics");
        assert_eq!((found.interval, found.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
        assert_eq!((found.headers["a"].as_str(), found.headers["d"].as_str()), ("b c", "e"));
        assert_eq!(found.resource["service.name"], "edge");
        assert_eq!(found.resource["deployment.environment.name"], "test");
        let chosen = Chosen {
            endpoint: Some("https://f".into()),
            interval: Some(Duration::from_secs(9)),
            ..Chosen::default()
        };
        let found = with(chosen, &all).unwrap().unwrap();
        assert_eq!((found.url.as_str(), found.interval), ("https://f/v1/metrics", Duration::from_secs(9)));
        let one = [all[0], ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://m/x")];
        assert_eq!(with(Chosen::default(), &one).unwrap().unwrap().url, "http://m/x");
    }

    #[test]
    fn without_an_endpoint_nothing_is_sent() {
        assert_eq!(with(Chosen::default(), &[("OTEL_METRIC_EXPORT_INTERVAL", "x")]), Ok(None));
        let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        assert_eq!(with(Chosen::default(), &[on, ("OTEL_METRICS_EXPORTER", "none")]), Ok(None));
        assert_eq!(with(Chosen::default(), &[on, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(with(Chosen::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "60s"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%0a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%zz"),
        ] {
            let environment = [(name, value), on];
            assert_eq!(with(Chosen::default(), &environment).unwrap_err().0, name, "{value}");
        }
    }
}
