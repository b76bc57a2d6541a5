//! JSON with the names of two conventions, one object a line: OpenTelemetry's log record with the
//! attributes of its semantic conventions, and the Elastic Common Schema. What neither has a name for
//! is under `conntrace.`. What is not known is left out.

use conn_common::connection::{IN, OUT};

use super::Lost;
use super::json_writer::Object;
use crate::column::{Cell, Column};
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::event::state_name;
use crate::host::clock::WallClock;

/// The version of the schema whose fields are used.
const ECS_VERSION: &str = "9.0.0";

/// Appends a log record of OpenTelemetry's data model.
pub(super) fn otel(event: &Enriched, clock: &WallClock, out: &mut Vec<u8>) {
    let mut record = Object::open(out);
    record.integer("Timestamp", clock.to_unix_ns(event.time_ns));
    record.word("SeverityText", "INFO");
    record.integer("SeverityNumber", 9_u8);
    record.word(
        "EventName",
        match event.kind {
            Kind::New => "conntrace.connection.new",
            Kind::Update => "conntrace.connection.update",
            Kind::Destroy => "conntrace.connection.destroy",
            Kind::Open => "conntrace.connection.open",
        },
    );
    let mut attributes = record.object("Attributes");
    if let Some(state) = otel_state(event.connection.state) {
        attributes.word("network.connection.state", state);
    }
    ends(event, ["client.address", "client.port", "server.address", "server.port"], &mut attributes);
    let (local, peer) = (event.local(), event.peer());
    attributes.address("network.local.address", local.ip());
    attributes.integer("network.local.port", local.port());
    attributes.address("network.peer.address", peer.ip());
    attributes.integer("network.peer.port", peer.port());
    members(event, clock, |column| column.names.otel, &mut attributes);
    attributes.close();
    record.close();
}

/// Appends a loss as a log record.
pub(super) fn otel_lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
    let mut record = Object::open(out);
    record.integer("Timestamp", clock.to_unix_ns(lost.until_ns));
    record.word("SeverityText", "WARN");
    record.integer("SeverityNumber", 13_u8);
    record.word("EventName", "conntrace.lost");
    let mut attributes = record.object("Attributes");
    attributes.integer("conntrace.lost", lost.count);
    attributes.integer("conntrace.lost.since", clock.to_unix_ns(lost.since_ns));
    attributes.integer("conntrace.lost.until", clock.to_unix_ns(lost.until_ns));
    attributes.close();
    record.close();
}

/// Appends a document of the Elastic Common Schema.
pub(super) fn ecs(event: &Enriched, clock: &WallClock, out: &mut Vec<u8>) {
    let mut document = Object::open(out);
    let time_ns = clock.to_unix_ns(event.time_ns);
    document.time("@timestamp", time_ns);
    document.word("ecs.version", ECS_VERSION);
    document.word("event.kind", "event");
    document.raw("event.category", r#"["network"]"#);
    document.raw(
        "event.type",
        match event.kind {
            Kind::New => r#"["connection","start"]"#,
            Kind::Update => r#"["connection","change"]"#,
            Kind::Destroy => r#"["connection","end"]"#,
            Kind::Open => r#"["connection","info"]"#,
        },
    );
    document.word("event.action", event.kind.name());
    document.word("event.module", "conntrace");
    if event.kind == Kind::Destroy {
        document.word("event.outcome", if event.is_failed() { "failure" } else { "success" });
        document.time("event.end", time_ns);
    }
    if let Some(attempt) = event.attempt_ns() {
        document.time("event.start", clock.to_unix_ns(attempt));
    }
    match event.connection.direction {
        OUT => document.word("network.direction", "egress"),
        IN => document.word("network.direction", "ingress"),
        _ => {}
    }
    ends(event, ["client.ip", "client.port", "server.ip", "server.port"], &mut document);
    if event.has_traffic() {
        let traffic = &event.traffic;
        let sent = (traffic.bytes_sent, traffic.segments_sent);
        let received = (traffic.bytes_received, traffic.segments_received);
        let (source, destination) = if event.is_src_ours() { (sent, received) } else { (received, sent) };
        document.integer("source.bytes", source.0);
        document.integer("source.packets", source.1);
        document.integer("destination.bytes", destination.0);
        document.integer("destination.packets", destination.1);
    }
    members(event, clock, |column| column.names.ecs, &mut document);
    document.close();
}

/// Appends a loss as a document.
pub(super) fn ecs_lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
    let mut document = Object::open(out);
    document.time("@timestamp", clock.to_unix_ns(lost.until_ns));
    document.word("ecs.version", ECS_VERSION);
    document.word("event.kind", "pipeline_error");
    document.word("event.action", "lost");
    document.word("event.module", "conntrace");
    document.time("event.start", clock.to_unix_ns(lost.since_ns));
    document.time("event.end", clock.to_unix_ns(lost.until_ns));
    document.integer("conntrace.lost", lost.count);
    document.close();
}

/// The initiator is the client, the responder the server.
fn ends(event: &Enriched, [client, client_port, server, server_port]: [&str; 4], object: &mut Object<'_>) {
    let (initiator, responder) = (event.initiator(), event.responder());
    object.address(client, initiator.ip());
    object.integer(client_port, initiator.port());
    object.address(server, responder.ip());
    object.integer(server_port, responder.port());
}

fn members(event: &Enriched, clock: &WallClock, name: fn(&Column) -> &'static str, object: &mut Object<'_>) {
    for column in Column::native().filter(|column| column.is_in(event.kind)) {
        let (name, cell) = (name(column), (column.get)(event, clock));
        if !name.is_empty() && cell != Cell::Unknown {
            object.cell(name, cell);
        }
    }
}

/// The values of `network.connection.state`.
fn otel_state(number: u8) -> Option<&'static str> {
    Some(match state_name::name(number)? {
        "syn_recv" => "syn_received",
        "fin_wait1" => "fin_wait_1",
        "fin_wait2" => "fin_wait_2",
        "close" => "closed",
        same => same,
    })
}

#[cfg(test)]
mod tests {
    use nix::libc::ECONNREFUSED;
    use std::slice;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::event::tests::*;
    use crate::render::Format;
    use crate::render::tests::{lines, loss};

    #[test]
    fn as_opentelemetry() {
        insta::assert_snapshot!(lines(Format::Otel, &[new_out(), failed(ECONNREFUSED, 1_000), new_in_v6(), open()]), @r#"
        {"Timestamp":1767323046000000000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.new","Attributes":{"network.connection.state":"syn_sent","client.address":"192.0.2.7","client.port":43210,"server.address":"198.51.100.9","server.port":443,"network.local.address":"192.0.2.7","network.local.port":43210,"network.peer.address":"198.51.100.9","network.peer.port":443,"conntrace.connection.id":41,"conntrace.connection.direction":"out","network.type":"ipv4","network.transport":"tcp","source.address":"192.0.2.7","source.port":43210,"destination.address":"198.51.100.9","destination.port":443,"process.pid":1234,"thread.id":1235,"process.user.id":1000,"process.executable.name":"curl","thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000}}
        {"Timestamp":1767323046000001000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.destroy","Attributes":{"network.connection.state":"closed","client.address":"192.0.2.7","client.port":43210,"server.address":"198.51.100.9","server.port":443,"network.local.address":"192.0.2.7","network.local.port":43210,"network.peer.address":"198.51.100.9","network.peer.port":443,"conntrace.connection.id":41,"conntrace.connection.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.old_state":"syn_sent","source.address":"192.0.2.7","source.port":43210,"destination.address":"198.51.100.9","destination.port":443,"process.pid":1234,"thread.id":1235,"process.user.id":1000,"process.executable.name":"curl","thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000,"conntrace.connection.duration":1000,"conntrace.connection.failed":true,"conntrace.connection.end_reason":"refused","error.type":"ECONNREFUSED","conntrace.bytes_sent":0,"conntrace.bytes_received":0,"conntrace.segments_sent":0,"conntrace.segments_received":0,"conntrace.retransmits":0}}
        {"Timestamp":1767323046000000000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.new","Attributes":{"network.connection.state":"syn_received","client.address":"2001:db8::7","client.port":43210,"server.address":"2001:db8::22","server.port":22,"network.local.address":"2001:db8::22","network.local.port":22,"network.peer.address":"2001:db8::7","network.peer.port":43210,"conntrace.connection.id":41,"conntrace.connection.direction":"in","network.type":"ipv6","network.transport":"tcp","source.address":"2001:db8::7","source.port":43210,"destination.address":"2001:db8::22","destination.port":22,"conntrace.owner.source":"-","conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000}}
        {"Timestamp":1767323056000000000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.open","Attributes":{"network.connection.state":"established","client.address":"192.0.2.7","client.port":43210,"server.address":"198.51.100.9","server.port":443,"network.local.address":"192.0.2.7","network.local.port":43210,"network.peer.address":"198.51.100.9","network.peer.port":443,"conntrace.connection.id":41,"conntrace.connection.direction":"out","network.type":"ipv4","network.transport":"tcp","source.address":"192.0.2.7","source.port":43210,"destination.address":"198.51.100.9","destination.port":443,"conntrace.source.name":"laptop.example","conntrace.destination.name":"web.example","process.pid":1234,"thread.id":1235,"process.user.id":1000,"process.executable.name":"curl","thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"container.id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","container.name":"app","k8s.pod.name":"web-1","k8s.namespace.name":"prod","conntrace.owner.unit":"docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope","conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000,"conntrace.connection.established":1767323046001500000,"conntrace.connection.handshake_duration":1500000,"conntrace.connection.age":10000000000,"conntrace.bytes_sent":517,"conntrace.bytes_received":65536,"conntrace.segments_sent":49,"conntrace.segments_received":51,"conntrace.retransmits":2,"conntrace.srtt":1480,"conntrace.min_rtt":1390,"conntrace.connection.idle":4000000,"conntrace.receive_queue":12,"conntrace.send_queue":3456}}
        "#);
        insta::assert_snapshot!(loss(Format::Otel), @r#"{"Timestamp":1767323046012345678,"SeverityText":"WARN","SeverityNumber":13,"EventName":"conntrace.lost","Attributes":{"conntrace.lost":72,"conntrace.lost.since":1767323046000000000,"conntrace.lost.until":1767323046012345678}}"#);
    }

    #[test]
    fn as_ecs() {
        insta::assert_snapshot!(lines(Format::Ecs, &[new_out(), failed(ECONNREFUSED, 1_000), closed(), open()]), @r#"
        {"@timestamp":"2026-01-02T03:04:06.000000000Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","start"],"event.action":"new","event.module":"conntrace","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"conntrace.connection.id":41,"conntrace.connection.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"syn_sent","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false}
        {"@timestamp":"2026-01-02T03:04:06.000001000Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","end"],"event.action":"destroy","event.module":"conntrace","event.outcome":"failure","event.end":"2026-01-02T03:04:06.000001000Z","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"source.bytes":0,"source.packets":0,"destination.bytes":0,"destination.packets":0,"conntrace.connection.id":41,"conntrace.connection.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"close","conntrace.connection.old_state":"syn_sent","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"event.duration":1000,"conntrace.connection.failed":true,"event.reason":"refused","error.code":"ECONNREFUSED","conntrace.retransmits":0}
        {"@timestamp":"2026-01-02T03:05:07.000000042Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","end"],"event.action":"destroy","event.module":"conntrace","event.outcome":"success","event.end":"2026-01-02T03:05:07.000000042Z","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"source.bytes":517,"source.packets":49,"destination.bytes":65536,"destination.packets":51,"conntrace.connection.id":41,"conntrace.connection.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"close","conntrace.connection.old_state":"fin_wait2","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.established_ns":1767323046001500000,"conntrace.connection.handshake_ns":1500000,"event.duration":61000000042,"conntrace.connection.failed":false,"event.reason":"closed_by_us","conntrace.retransmits":2,"conntrace.srtt_us":1480,"conntrace.min_rtt_us":1390,"conntrace.connection.idle_ns":2004000000}
        {"@timestamp":"2026-01-02T03:04:16.000000000Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","info"],"event.action":"open","event.module":"conntrace","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"source.bytes":517,"source.packets":49,"destination.bytes":65536,"destination.packets":51,"conntrace.connection.id":41,"conntrace.connection.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"established","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"source.domain":"laptop.example","destination.domain":"web.example","process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"container.id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","container.name":"app","kubernetes.pod.name":"web-1","kubernetes.namespace":"prod","conntrace.owner.unit":"docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope","conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.established_ns":1767323046001500000,"conntrace.connection.handshake_ns":1500000,"conntrace.connection.age_ns":10000000000,"conntrace.retransmits":2,"conntrace.srtt_us":1480,"conntrace.min_rtt_us":1390,"conntrace.connection.idle_ns":4000000,"conntrace.receive_queue":12,"conntrace.send_queue":3456}
        "#);
        insta::assert_snapshot!(loss(Format::Ecs), @r#"{"@timestamp":"2026-01-02T03:04:06.012345678Z","ecs.version":"9.0.0","event.kind":"pipeline_error","event.action":"lost","event.module":"conntrace","event.start":"2026-01-02T03:04:06.000000000Z","event.end":"2026-01-02T03:04:06.012345678Z","conntrace.lost":72}"#);
    }

    #[test]
    fn every_column_has_its_place_in_both() {
        for column in Column::native() {
            let told_elsewhere = ["event", "time", "time_ns", "state"].contains(&column.id);
            assert_eq!(column.names.otel.is_empty(), told_elsewhere, "{column:?}");
        }
        assert!(
            Column::native().all(|column| column.names.ecs.is_empty() || !column.names.ecs.ends_with('.'))
        );
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_whose_keys_are_unique(event in any_event()) {
            for format in [Format::Otel, Format::Ecs] {
                let text = lines(format, slice::from_ref(&event));
                let line = text.strip_suffix('\n').unwrap();
                prop_assert!(!line.chars().any(char::is_control));
                let object: Value = serde_json::from_str(line).unwrap();
                let keys = |value: &Value| value.as_object().unwrap().len();
                let parsed = keys(&object) + object.get("Attributes").map_or(0, keys);
                // serde_json keeps one of two equal keys, the text has both.
                let outside = strings_cut(line);
                prop_assert_eq!(parsed, outside.matches("\":").count());
            }
        }
    }

    /// The line with what stands in its strings replaced.
    fn strings_cut(line: &str) -> String {
        let mut out = String::new();
        let (mut inside, mut escaped) = (false, false);
        for c in line.chars() {
            let quote = c == '"' && !escaped;
            escaped = inside && c == '\\' && !escaped;
            if quote {
                inside = !inside;
            }
            out.push(if inside && !quote { 'x' } else { c });
        }
        out
    }
}
