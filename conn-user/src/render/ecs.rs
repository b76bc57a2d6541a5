//! `-o json-ecs`: documents of the Elastic Common Schema, one object a line. Fields without a conventional name begin
//! with `conntrace.`; unknown values are left out.

use conn_common::connection::{IN, OUT};

use super::json_writer::Object;
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::host::clock::WallClock;
use crate::render::Lost;

/// The version of the schema whose fields are used.
const ECS_VERSION: &str = "9.0.0";

/// Appends a document of the Elastic Common Schema.
pub(super) fn event(event: &Enriched, clock: &WallClock, out: &mut Vec<u8>) {
    let mut document = Object::open(out);
    let time_ns = clock.to_unix_ns(event.time_ns);
    document.time("@timestamp", time_ns);
    document.word("ecs.version", ECS_VERSION);
    document.word("event.kind", "event");
    document.raw("event.category", r#"["network"]"#);
    document.raw(
        "event.type",
        match event.kind {
            Kind::New | Kind::Attempt => r#"["connection","start"]"#,
            Kind::Update => r#"["connection","change"]"#,
            Kind::Destroy => r#"["connection","end"]"#,
            Kind::Listen => r#"["start"]"#,
            Kind::Closed => r#"["end"]"#,
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
    if event.is_directed() {
        document.client_and_server(event, ["client.ip", "client.port", "server.ip", "server.port"]);
    }
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
    document.native_columns(event, clock, |column| column.names.ecs);
    document.close();
}

/// Appends a loss as a document.
pub(super) fn lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
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

#[cfg(test)]
mod tests {
    use nix::libc::ECONNREFUSED;

    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss};

    #[test]
    fn documents_have_ecs_names() {
        insta::assert_snapshot!(lines(Format::Ecs, &[new_out(), failed(ECONNREFUSED, 1_000), closed(), open()]), @r#"
        {"@timestamp":"2026-01-02T03:04:06.000000000Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","start"],"event.action":"new","event.module":"conntrace","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"conntrace.connection.id":41,"conntrace.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"syn_sent","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false}
        {"@timestamp":"2026-01-02T03:04:06.000001000Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","end"],"event.action":"destroy","event.module":"conntrace","event.outcome":"failure","event.end":"2026-01-02T03:04:06.000001000Z","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"source.bytes":0,"source.packets":0,"destination.bytes":0,"destination.packets":0,"conntrace.connection.id":41,"conntrace.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"close","conntrace.connection.old_state":"syn_sent","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"event.duration":1000,"conntrace.connection.failed":true,"event.reason":"refused","error.code":"ECONNREFUSED","conntrace.retransmits":0}
        {"@timestamp":"2026-01-02T03:05:07.000000042Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","end"],"event.action":"destroy","event.module":"conntrace","event.outcome":"success","event.end":"2026-01-02T03:05:07.000000042Z","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"source.bytes":517,"source.packets":49,"destination.bytes":65536,"destination.packets":51,"conntrace.connection.id":41,"conntrace.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"close","conntrace.connection.old_state":"fin_wait2","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.established_ns":1767323046001500000,"conntrace.connection.handshake_ns":1500000,"event.duration":61000000042,"conntrace.connection.failed":false,"event.reason":"closed_by_us","conntrace.retransmits":2,"conntrace.srtt_us":1480,"conntrace.min_rtt_us":1390,"conntrace.connection.idle_ns":2004000000}
        {"@timestamp":"2026-01-02T03:04:16.000000000Z","ecs.version":"9.0.0","event.kind":"event","event.category":["network"],"event.type":["connection","info"],"event.action":"open","event.module":"conntrace","event.start":"2026-01-02T03:04:06.000000000Z","network.direction":"egress","client.ip":"192.0.2.7","client.port":43210,"server.ip":"198.51.100.9","server.port":443,"source.bytes":517,"source.packets":49,"destination.bytes":65536,"destination.packets":51,"conntrace.connection.id":41,"conntrace.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.state":"established","source.ip":"192.0.2.7","source.port":43210,"destination.ip":"198.51.100.9","destination.port":443,"source.domain":"laptop.example","destination.domain":"web.example","process.pid":1234,"process.thread.id":1235,"process.user.id":1000,"process.name":"curl","process.thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.holders":2,"conntrace.owner.cgroup.id":6789,"container.id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","container.name":"app","conntrace.container.user.id":1000,"kubernetes.pod.name":"web-1","kubernetes.namespace":"prod","conntrace.owner.unit":"docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope","conntrace.owner.user_unit":"app.service","conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.established_ns":1767323046001500000,"conntrace.connection.handshake_ns":1500000,"conntrace.connection.age_ns":10000000000,"conntrace.retransmits":2,"conntrace.srtt_us":1480,"conntrace.min_rtt_us":1390,"conntrace.connection.idle_ns":4000000,"conntrace.receive_queue":12,"conntrace.send_queue":3456}
        "#);
        insta::assert_snapshot!(loss(Format::Ecs), @r#"{"@timestamp":"2026-01-02T03:04:06.012345678Z","ecs.version":"9.0.0","event.kind":"pipeline_error","event.action":"lost","event.module":"conntrace","event.start":"2026-01-02T03:04:06.000000000Z","event.end":"2026-01-02T03:04:06.012345678Z","conntrace.lost":72}"#);
    }
}
