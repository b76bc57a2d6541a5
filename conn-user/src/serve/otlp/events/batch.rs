//! Records that become one request, and the report of missing ones.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;

use crate::host::clock;
use crate::render::otel;
use crate::serve::otlp::events::table;
use crate::serve::otlp::resource::{self, attribute};

/// About how many bytes a request has at the most.
const MAX_BYTES: usize = 1 << 20;

/// Events that are missing. Times are nanoseconds of Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    /// How many.
    pub(crate) count: u64,
    /// None of them happened before.
    pub(crate) since_ns: u64,
    /// None of them happened after.
    pub(crate) until_ns: u64,
}

/// A time whose events may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    /// Its begin, if it is known.
    pub(crate) since_ns: Option<u64>,
    /// Its end.
    pub(crate) until_ns: u64,
}

/// A report of missing events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Lost by the stream.
    pub(crate) stream: Option<Loss>,
    /// Dropped by the export.
    pub(crate) export: Option<Loss>,
    /// There was no stream.
    pub(crate) gap: Option<Gap>,
}

/// What a request has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Note {
    /// Its events, between two moments.
    pub(crate) events: Option<Loss>,
    /// The missing events that it reports.
    pub(crate) missing: Missing,
    /// Up to then, events are in this request or in earlier ones.
    pub(crate) complete_ns: Option<u64>,
}

/// Records that wait for others.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    records: Vec<LogRecord>,
    bytes: usize,
    note: Note,
}

impl Loss {
    /// Both together.
    fn and(self, other: Option<Self>) -> Self {
        let Some(other) = other else { return self };
        Self {
            count: self.count.saturating_add(other.count),
            since_ns: self.since_ns.min(other.since_ns),
            until_ns: self.until_ns.max(other.until_ns),
        }
    }

    /// What a record of it says.
    pub(crate) fn body(&self) -> String {
        format!("LOSS {} events", self.count)
    }
}

impl Missing {
    /// True if no events are missing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds events that the stream lost.
    pub(crate) fn lose(&mut self, loss: Loss) {
        self.stream = Some(loss.and(self.stream));
    }

    /// Adds a gap. One record reports all gaps that no request has reported: what is between them has not arrived either.
    pub(crate) fn add_gap(&mut self, gap: Gap) {
        self.gap = Some(self.gap.map_or(gap, |own| Gap {
            since_ns: own.since_ns.zip(gap.since_ns).map(|(own, other)| own.min(other)),
            until_ns: own.until_ns.max(gap.until_ns),
        }));
    }

    /// Adds what a request had, which never arrived.
    pub(crate) fn take_back(&mut self, note: &Note) {
        let add =
            |own: &mut Option<Loss>, other: Option<Loss>| *own = other.map_or(*own, |it| Some(it.and(*own)));
        add(&mut self.stream, note.missing.stream);
        add(&mut self.export, note.missing.export);
        add(&mut self.export, note.events);
        if let Some(gap) = note.missing.gap {
            self.add_gap(gap);
        }
    }

    /// The records of the report.
    fn records(&self) -> Vec<LogRecord> {
        let number = |number: u64| Value::IntValue(i64::try_from(number).unwrap_or(i64::MAX));
        let loss = |loss: Loss, place: &str| {
            let attributes = vec![
                attribute(otel::LOSS_COUNT, number(loss.count)),
                attribute(otel::LOSS_SINCE, number(loss.since_ns)),
                attribute(otel::LOSS_UNTIL, number(loss.until_ns)),
                attribute(table::LOSS_PLACE, Value::StringValue(place.into())),
            ];
            warning(otel::LOSS, loss.until_ns, loss.body(), attributes)
        };
        let gap = self.gap.map(|gap| {
            let since = gap.since_ns.map(|since| attribute(table::GAP_SINCE, number(since)));
            let attributes = since.into_iter().chain([attribute(table::GAP_UNTIL, number(gap.until_ns))]);
            warning(table::GAP, gap.until_ns, "GAP in the events".into(), attributes.collect())
        });
        let stream = self.stream.map(|lost| loss(lost, table::STREAM));
        let export = self.export.map(|lost| loss(lost, table::EXPORT));
        [gap, stream, export].into_iter().flatten().collect()
    }
}

fn warning(event: &str, time_ns: u64, body: String, attributes: Vec<KeyValue>) -> LogRecord {
    LogRecord {
        time_unix_nano: time_ns,
        observed_time_unix_nano: u64::try_from(clock::unix_now_ns()).unwrap_or_default(),
        severity_number: SeverityNumber::Warn.into(),
        severity_text: "WARN".into(),
        body: Some(AnyValue { value: Some(Value::StringValue(body)) }),
        attributes,
        event_name: event.into(),
        ..LogRecord::default()
    }
}

impl Batch {
    /// Adds the record of an event, or of a loss that the stream reports.
    pub(crate) fn add(&mut self, record: LogRecord, loss: Option<Loss>) {
        if let Some(loss) = loss {
            self.note.missing.lose(loss);
        } else {
            let time_ns = record.time_unix_nano;
            let one = Loss { count: 1, since_ns: time_ns, until_ns: time_ns };
            self.note.events = Some(one.and(self.note.events));
        }
        self.bytes += record.encoded_len();
        self.records.push(record);
    }

    /// True without records.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// True if no record should be added. `most`: how many it may have.
    pub(crate) fn is_full(&self, most: usize) -> bool {
        self.records.len() >= most || self.bytes >= MAX_BYTES
    }

    /// True if it reports a loss of the stream.
    pub(crate) fn reports(&self) -> bool {
        !self.note.missing.is_empty()
    }

    /// The request, which begins with the report of `missing`.
    pub(crate) fn close(
        self,
        missing: Missing,
        complete_ns: Option<u64>,
        resource: &Resource,
    ) -> (Vec<u8>, Note) {
        let Self { records, mut note, .. } = self;
        let mut log_records = missing.records();
        log_records.extend(records);
        note.missing.take_back(&Note { missing, ..Note::default() });
        note.complete_ns = complete_ns;
        let scope_logs =
            vec![ScopeLogs { scope: Some(resource::scope()), log_records, ..ScopeLogs::default() }];
        let resource = Some(resource.clone());
        let request = ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs, ..ResourceLogs::default() }],
        };
        (request.encode_to_vec(), note)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time_unix_nano: u64) -> LogRecord {
        LogRecord { time_unix_nano, ..LogRecord::default() }
    }

    #[test]
    fn what_a_dropped_request_had_is_told_by_the_next_one() {
        let mut batch = Batch::default();
        for time in [30, 10, 20] {
            batch.add(record(time), None);
        }
        batch.add(record(25), Some(Loss { count: 5, since_ns: 21, until_ns: 25 }));
        let gap = Gap { since_ns: Some(1), until_ns: 2 };
        let (_, note) =
            batch.close(Missing { gap: Some(gap), ..Missing::default() }, Some(25), &Resource::default());
        assert_eq!(note.events, Some(Loss { count: 3, since_ns: 10, until_ns: 30 }));
        let mut pending = Missing::default();
        pending.take_back(&note);
        // A second request is dropped, which reported the first one.
        let mut batch = Batch::default();
        batch.add(record(40), None);
        let (_, note) = batch.close(pending, Some(40), &Resource::default());
        let mut pending = Missing::default();
        pending.take_back(&note);
        assert_eq!(
            pending,
            Missing {
                stream: Some(Loss { count: 5, since_ns: 21, until_ns: 25 }),
                export: Some(Loss { count: 4, since_ns: 10, until_ns: 40 }),
                gap: Some(gap),
            }
        );
        let names: Vec<_> = pending.records().into_iter().map(|record| record.event_name).collect();
        assert_eq!(names, ["conntrace.gap", "conntrace.loss", "conntrace.loss"]);
    }

    #[test]
    fn gaps_without_a_begin_have_none_together() {
        let mut missing = Missing::default();
        missing.add_gap(Gap { since_ns: Some(5), until_ns: 9 });
        missing.add_gap(Gap { since_ns: None, until_ns: 7 });
        assert_eq!(missing.gap, Some(Gap { since_ns: None, until_ns: 9 }));
        assert_eq!(missing.records()[0].attributes.len(), 1);
    }
}
