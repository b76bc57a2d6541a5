//! A request to the collector, and what its answer means.

use std::time::Duration;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use prost::Message as _;

use crate::host::clock;
use crate::settings::otlp::Target;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;
/// How many characters of an answer are shown.
const MAX_SHOWN: usize = 200;
/// The longest wait that a collector may ask for.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The collector has it.
    Arrived {
        /// How many data points or log records it did not want.
        rejected: u64,
        /// What it says.
        message: String,
    },
    /// It is to be sent again.
    Again {
        /// Not before.
        after: Option<Duration>,
        /// Why.
        why: String,
    },
    /// The collector will never take it.
    Refused(String),
}

/// Posts requests, over one connection as long as the collector keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    agent: ureq::Agent,
    target: Target,
}

impl Sender {
    /// To this end.
    pub(crate) fn new(target: Target) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(target.timeout))
            .max_redirects(0)
            .http_status_as_error(false)
            .build();
        Self { agent: ureq::Agent::new_with_config(config), target }
    }

    /// Posts a request, and waits for the answer.
    pub(crate) fn post(&self, body: &Bytes) -> Outcome {
        let mut request = self.agent.post(&self.target.url);
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        let sent = request
            .header("content-type", "application/x-protobuf")
            .header("user-agent", concat!("conntrace/", env!("CARGO_PKG_VERSION")))
            .send(&body[..]);
        let mut response = match sent {
            Ok(response) => response,
            Err(error) => return Outcome::Again { after: None, why: error.to_string() },
        };
        let after = response.headers().get("retry-after").and_then(|value| retry_after(value.to_str().ok()?));
        let status = response.status().as_u16();
        match response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec() {
            Ok(answer) => outcome(status, after, &answer),
            // The head has said it.
            Err(_) => outcome(status, after, &[]),
        }
    }
}

/// What an answer means, by the specification of OTLP/HTTP.
fn outcome(status: u16, after: Option<Duration>, body: &[u8]) -> Outcome {
    match status {
        200..=299 => {
            // Another body than the specified one means that nothing is known of rejected points. The answer to logs has the
            // same fields with the same numbers.
            let partial = ExportMetricsServiceResponse::decode(body).ok().and_then(|it| it.partial_success);
            let (rejected, message) =
                partial.map_or((0, String::new()), |it| (it.rejected_data_points, it.error_message));
            Outcome::Arrived {
                rejected: u64::try_from(rejected).unwrap_or_default(),
                message: shown(&message),
            }
        }
        429 | 502 | 503 | 504 => Outcome::Again { after, why: format!("status {status}") },
        _ => {
            // The body is a Status message of protobuf, whose text is readable.
            let text = shown(&String::from_utf8_lossy(body));
            Outcome::Refused(format!("status {status}{}{text}", if text.is_empty() { "" } else { ": " }))
        }
    }
}

/// Text of another program, for a log line.
fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(MAX_SHOWN).collect::<String>().trim().to_owned()
}

/// The header `Retry-After`: seconds, or a date.
fn retry_after(value: &str) -> Option<Duration> {
    let wait = if let Ok(seconds) = value.trim().parse() {
        Duration::from_secs(seconds)
    } else {
        let date = jiff::fmt::rfc2822::parse(value.trim()).ok()?.timestamp();
        let left = date.as_nanosecond() - i128::from(clock::unix_now_ns());
        // A date that is over asks for no wait.
        Duration::from_nanos(u64::try_from(left).unwrap_or_default())
    };
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsPartialSuccess;

    use super::*;

    #[test]
    fn answers_mean_what_the_specification_says() {
        let arrived = |rejected, message: &str| Outcome::Arrived { rejected, message: message.into() };
        assert_eq!(outcome(200, None, &[]), arrived(0, ""));
        let partial = ExportMetricsPartialSuccess { rejected_data_points: 3, error_message: "old".into() };
        let answer = ExportMetricsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(outcome(200, None, &answer), arrived(3, "old"));
        let partial = ExportLogsPartialSuccess { rejected_log_records: 4, error_message: "big".into() };
        let answer = ExportLogsServiceResponse { partial_success: Some(partial) }.encode_to_vec();
        assert_eq!(outcome(200, None, &answer), arrived(4, "big"));
        let after = Some(Duration::from_secs(7));
        assert_eq!(outcome(503, after, &[]), Outcome::Again { after, why: "status 503".into() });
        assert_eq!(outcome(400, None, b"\x12\x03bad"), Outcome::Refused("status 400: bad".into()));
        assert_eq!(outcome(302, None, b""), Outcome::Refused("status 302".into()));
    }

    #[test]
    fn a_collector_says_when_to_come_again() {
        assert_eq!(retry_after("7"), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("99999999"), Some(MAX_WAIT));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after("Thu, 06 Nov 2194 08:49:37 GMT"), Some(MAX_WAIT));
        assert_eq!(retry_after("soon"), None);
    }
}
