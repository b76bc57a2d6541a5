//! `-o json-otel`: OpenTelemetry's log record with the attributes of its semantic conventions, one object a line.
//! Attributes without a conventional name begin with `conntrace.`; unknown values are left out.

use super::json_writer::Object;
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::host::clock::WallClock;
use crate::render::Lost;

/// The event of a loss.
pub(crate) const LOSS: &str = "conntrace.loss";
/// How many events were lost.
pub(crate) const LOSS_COUNT: &str = "conntrace.loss.count";
/// The earliest moment of a lost event, nanoseconds of Unix time.
pub(crate) const LOSS_SINCE: &str = "conntrace.loss.since";
/// The latest such moment.
pub(crate) const LOSS_UNTIL: &str = "conntrace.loss.until";

/// Appends a log record of OpenTelemetry's data model.
pub(super) fn event(event: &Enriched, clock: &WallClock, out: &mut Vec<u8>) {
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
            Kind::Attempt => "conntrace.connection.attempt",
            Kind::Listen => "conntrace.listener.listen",
            Kind::Closed => "conntrace.listener.closed",
            Kind::Open => "conntrace.connection.open",
        },
    );
    let mut attributes = record.object("Attributes");
    if let Some(state) = event.state().map(state_name) {
        attributes.word("network.connection.state", state);
    }
    if event.is_directed() {
        attributes
            .client_and_server(event, ["client.address", "client.port", "server.address", "server.port"]);
    }
    let (local, peer) = (event.local(), event.peer());
    attributes.address("network.local.address", local.ip());
    attributes.integer("network.local.port", local.port());
    attributes.address("network.peer.address", peer.ip());
    attributes.integer("network.peer.port", peer.port());
    attributes.native_columns(event, clock, |column| column.names.otel);
    attributes.close();
    record.close();
}

/// Appends a loss as a log record.
pub(super) fn lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
    let mut record = Object::open(out);
    record.integer("Timestamp", clock.to_unix_ns(lost.until_ns));
    record.word("SeverityText", "WARN");
    record.integer("SeverityNumber", 13_u8);
    record.word("EventName", LOSS);
    let mut attributes = record.object("Attributes");
    attributes.integer(LOSS_COUNT, lost.count);
    attributes.integer(LOSS_SINCE, clock.to_unix_ns(lost.since_ns));
    attributes.integer(LOSS_UNTIL, clock.to_unix_ns(lost.until_ns));
    attributes.close();
    record.close();
}

/// The values of `network.connection.state`.
fn state_name(name: &'static str) -> &'static str {
    match name {
        "syn_recv" => "syn_received",
        "fin_wait1" => "fin_wait_1",
        "fin_wait2" => "fin_wait_2",
        "close" | "unconnected" => "closed",
        same => same,
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::ECONNREFUSED;

    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss};

    #[test]
    fn records_have_opentelemetry_names() {
        insta::assert_snapshot!(lines(Format::Otel, &[new_out(), failed(ECONNREFUSED, 1_000), new_in_v6(), open()]), @r#"
        {"Timestamp":1767323046000000000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.new","Attributes":{"network.connection.state":"syn_sent","client.address":"192.0.2.7","client.port":43210,"server.address":"198.51.100.9","server.port":443,"network.local.address":"192.0.2.7","network.local.port":43210,"network.peer.address":"198.51.100.9","network.peer.port":443,"conntrace.connection.id":41,"conntrace.direction":"out","network.type":"ipv4","network.transport":"tcp","source.address":"192.0.2.7","source.port":43210,"destination.address":"198.51.100.9","destination.port":443,"process.pid":1234,"thread.id":1235,"process.user.id":1000,"process.executable.name":"curl","thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000}}
        {"Timestamp":1767323046000001000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.destroy","Attributes":{"network.connection.state":"closed","client.address":"192.0.2.7","client.port":43210,"server.address":"198.51.100.9","server.port":443,"network.local.address":"192.0.2.7","network.local.port":43210,"network.peer.address":"198.51.100.9","network.peer.port":443,"conntrace.connection.id":41,"conntrace.direction":"out","network.type":"ipv4","network.transport":"tcp","conntrace.connection.old_state":"syn_sent","source.address":"192.0.2.7","source.port":43210,"destination.address":"198.51.100.9","destination.port":443,"process.pid":1234,"thread.id":1235,"process.user.id":1000,"process.executable.name":"curl","thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.cgroup.id":6789,"conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000,"conntrace.connection.duration":1000,"conntrace.connection.failed":true,"conntrace.reason":"refused","error.type":"ECONNREFUSED","conntrace.bytes_sent":0,"conntrace.bytes_received":0,"conntrace.segments_sent":0,"conntrace.segments_received":0,"conntrace.retransmits":0}}
        {"Timestamp":1767323046000000000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.new","Attributes":{"network.connection.state":"syn_received","client.address":"2001:db8::7","client.port":43210,"server.address":"2001:db8::22","server.port":22,"network.local.address":"2001:db8::22","network.local.port":22,"network.peer.address":"2001:db8::7","network.peer.port":43210,"conntrace.connection.id":41,"conntrace.direction":"in","network.type":"ipv6","network.transport":"tcp","source.address":"2001:db8::7","source.port":43210,"destination.address":"2001:db8::22","destination.port":22,"conntrace.owner.source":"-","conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000}}
        {"Timestamp":1767323056000000000,"SeverityText":"INFO","SeverityNumber":9,"EventName":"conntrace.connection.open","Attributes":{"network.connection.state":"established","client.address":"192.0.2.7","client.port":43210,"server.address":"198.51.100.9","server.port":443,"network.local.address":"192.0.2.7","network.local.port":43210,"network.peer.address":"198.51.100.9","network.peer.port":443,"conntrace.connection.id":41,"conntrace.direction":"out","network.type":"ipv4","network.transport":"tcp","source.address":"192.0.2.7","source.port":43210,"destination.address":"198.51.100.9","destination.port":443,"conntrace.source.name":"laptop.example","conntrace.destination.name":"web.example","process.pid":1234,"thread.id":1235,"process.user.id":1000,"process.executable.name":"curl","thread.name":"resolver","conntrace.owner.source":"connect","conntrace.owner.holders":2,"conntrace.owner.cgroup.id":6789,"container.id":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","container.name":"app","conntrace.container.user.id":1000,"k8s.pod.name":"web-1","k8s.namespace.name":"prod","conntrace.owner.unit":"docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope","conntrace.owner.user_unit":"app.service","conntrace.netns.inode":4026531840,"conntrace.connection.preexisting":false,"conntrace.connection.attempt":1767323046000000000,"conntrace.connection.established":1767323046001500000,"conntrace.connection.handshake_duration":1500000,"conntrace.connection.age":10000000000,"conntrace.bytes_sent":517,"conntrace.bytes_received":65536,"conntrace.segments_sent":49,"conntrace.segments_received":51,"conntrace.retransmits":2,"conntrace.srtt":1480,"conntrace.min_rtt":1390,"conntrace.connection.idle":4000000,"conntrace.receive_queue":12,"conntrace.send_queue":3456}}
        "#);
        insta::assert_snapshot!(loss(Format::Otel), @r#"{"Timestamp":1767323046012345678,"SeverityText":"WARN","SeverityNumber":13,"EventName":"conntrace.loss","Attributes":{"conntrace.loss.count":72,"conntrace.loss.since":1767323046000000000,"conntrace.loss.until":1767323046012345678}}"#);
    }
}
