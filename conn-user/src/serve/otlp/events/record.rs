//! A line of the stream → a log record with the same attributes.

use std::fmt;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use crate::render::otel;
use crate::serve::otlp::events::batch::Loss;
use crate::serve::otlp::events::table;
use crate::serve::otlp::resource::attribute;

/// A line that was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Read {
    /// The record.
    pub(crate) record: LogRecord,
    /// The loss that it reports, if it reports one.
    pub(crate) loss: Option<Loss>,
}

/// A line of `-o json-otel`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    timestamp: u64,
    severity_text: String,
    severity_number: i32,
    event_name: String,
    attributes: Attributes,
}

struct Attributes(Vec<KeyValue>);

/// Reads a line.
///
/// # Errors
/// It is no record.
pub(crate) fn read(line: &[u8], observed_ns: u64) -> Result<Read, serde_json::Error> {
    let Line {
        timestamp,
        severity_text,
        severity_number,
        event_name,
        attributes: Attributes(mut attributes),
    } = serde_json::from_slice(line)?;
    let number = |key| match find(&attributes, key) {
        Some(&Value::IntValue(number)) => u64::try_from(number).ok(),
        _ => None,
    };
    let loss = (event_name == otel::LOSS).then(|| Loss {
        count: number(otel::LOSS_COUNT).unwrap_or(1),
        since_ns: number(otel::LOSS_SINCE).unwrap_or(timestamp),
        until_ns: number(otel::LOSS_UNTIL).unwrap_or(timestamp),
    });
    let body = match &loss {
        Some(loss) => loss.body(),
        None => body(&event_name, &attributes),
    };
    if loss.is_some() {
        attributes.push(attribute(table::LOSS_PLACE, Value::StringValue(table::STREAM.into())));
    }
    let record = LogRecord {
        time_unix_nano: timestamp,
        observed_time_unix_nano: observed_ns,
        severity_number,
        severity_text,
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes,
        event_name,
        ..LogRecord::default()
    };
    Ok(Read { record, loss })
}

/// What a record says in short: `NEW 192.0.2.7:40000 -> 192.0.2.22:22`.
fn body(event: &str, attributes: &[KeyValue]) -> String {
    let kind = event.rsplit('.').next().unwrap_or(event).to_ascii_uppercase();
    let end = |address, port| {
        let (Some(Value::StringValue(address)), Some(Value::IntValue(port))) =
            (find(attributes, address), find(attributes, port))
        else {
            return "-".to_owned();
        };
        if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
    };
    if event.starts_with(table::LISTENER) {
        return format!("{kind} {}", end("network.local.address", "network.local.port"));
    }
    let (source, destination) =
        (end("source.address", "source.port"), end("destination.address", "destination.port"));
    format!("{kind} {source} -> {destination}")
}

fn find<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut all = Vec::with_capacity(32);
                while let Some((key, Scalar(value))) = map.next_entry::<String, Scalar>()? {
                    all.push(attribute(&key, value));
                }
                Ok(Attributes(all))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a number, true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(Value::BoolValue(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(Value::IntValue(value)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                // OTLP has no larger integers.
                Ok(Scalar(
                    i64::try_from(value)
                        .map_or_else(|_| Value::StringValue(value.to_string()), Value::IntValue),
                ))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(Value::DoubleValue(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar(Value::StringValue(value.into())))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss};

    use super::*;

    fn text(record: &LogRecord, key: &str) -> Option<Value> {
        find(&record.attributes, key).cloned()
    }

    #[test]
    fn records_have_the_attributes_of_a_line() {
        let lines = lines(Format::Otel, &[new_out(), new_in_v6(), closed()]);
        let read: Vec<_> = lines.lines().map(|line| read(line.as_bytes(), 7).unwrap()).collect();
        let bodies = read.iter().map(|read| read.record.body.clone().unwrap().value.unwrap());
        let bodies: Vec<_> = bodies
            .map(|body| match body {
                Value::StringValue(text) => text,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            bodies,
            [
                "NEW 192.0.2.7:43210 -> 198.51.100.9:443",
                "NEW [2001:db8::7]:43210 -> [2001:db8::22]:22",
                "DESTROY 192.0.2.7:43210 -> 198.51.100.9:443"
            ]
        );
        let record = &read[2].record;
        assert_eq!((record.event_name.as_str(), record.severity_number), ("conntrace.connection.destroy", 9));
        assert_eq!((record.time_unix_nano, record.observed_time_unix_nano), (1_767_323_107_000_000_042, 7));
        assert_eq!(text(record, "process.pid"), Some(Value::IntValue(1234)));
        assert_eq!(text(record, "conntrace.connection.failed"), Some(Value::BoolValue(false)));
        assert_eq!(text(record, "conntrace.reason"), Some(Value::StringValue("closed_by_us".into())));
        assert_eq!(text(record, "error.type"), None);
        assert!(read.iter().all(|read| read.loss.is_none()));
        assert!(super::read(b"{}", 7).is_err());
    }

    #[test]
    fn a_loss_has_its_number() {
        let read = read(loss(Format::Otel).as_bytes(), 7).unwrap();
        let (since_ns, until_ns) = (1_767_323_046_000_000_000, 1_767_323_046_012_345_678);
        assert_eq!(read.loss, Some(Loss { count: 72, since_ns, until_ns }));
        assert_eq!(text(&read.record, table::LOSS_PLACE), Some(Value::StringValue("stream".into())));
        assert_eq!((read.record.event_name.as_str(), read.record.severity_number), ("conntrace.loss", 13));
    }
}
