//! One JSON object a line. Names are stable: fields may be added, none changes its meaning. An unknown value is
//! `null`; a field that only an end has is absent before. A line reads back as its event, see
//! [`super::json_read`].

use conn_common::attempt::Attempt;
use conn_common::connection::PREEXISTING;
use conn_common::protocol;
use conn_common::reset::Reset;

use super::Lost;
use super::json_writer::Object;
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::event::state_name;
use crate::event::tracked::{Nat, Offload};
use crate::event::workload::ContainerNames;
use crate::host::clock::WallClock;

/// The version of the lines. A reader of one version understands all lines of it; only a change of the meaning of a
/// field makes a new one.
pub(super) const SCHEMA: u64 = 1;

/// Appends the object without a line end.
pub(super) fn event(event: &Enriched, clock: &WallClock, out: &mut Vec<u8>) {
    let connection = &event.connection;
    let unix_ns = |boot_ns| clock.to_unix_ns(boot_ns);
    let time_ns = unix_ns(event.time_ns);
    let mut object = Object::open(out);
    object.word("event", event.kind.name());
    object.time("time", time_ns);
    object.integer("time_ns", time_ns);
    object.optional("id", event.id(), Object::integer);
    object.optional("direction", event.direction(), Object::word);
    object.word("family", if connection.family == 6 { "ipv6" } else { "ipv4" });
    object.optional("protocol", protocol::name(event.protocol), Object::word);
    object.optional("state", event.state(), Object::word);
    if matches!(event.kind, Kind::New | Kind::Update | Kind::Destroy) {
        object.optional("old_state", state_name::name(event.old_state), Object::word);
    }
    object.address("src", event.src());
    object.integer("sport", connection.sport);
    object.address("dst", event.dst());
    object.integer("dport", connection.dport);
    object.optional("src_name", event.src_name.as_deref().map(str::as_bytes), Object::name);
    object.optional("dst_name", event.dst_name.as_deref().map(str::as_bytes), Object::name);
    let owner = event.owner();
    object.optional("pid", owner.map(|owner| owner.pid), Object::integer);
    object.optional("tid", owner.map(|owner| owner.tid), Object::integer);
    object.optional("uid", owner.map(|owner| owner.uid), Object::integer);
    object.optional("comm", owner.map(|owner| owner.comm), Object::name);
    object.optional("thread", owner.map(|owner| owner.thread), Object::name);
    object.word("owner", event.owner_source());
    object.optional("holders", event.holders(), Object::integer);
    let cgroup = owner.map(|owner| owner.cgroup).filter(|&id| id != 0);
    object.optional("cgroup", cgroup, Object::integer);
    object.optional("container", event.container().map(str::as_bytes), Object::name);
    let names = event.container_names();
    let text = |part: fn(&ContainerNames) -> Option<&String>| names.and_then(part).map(String::as_bytes);
    object.optional("container_name", text(|names| names.name.as_ref()), Object::name);
    object.optional("container_user", event.container_user(), Object::integer);
    object.optional("pod", text(|names| names.pod.as_ref()), Object::name);
    object.optional("pod_namespace", text(|names| names.namespace.as_ref()), Object::name);
    object.optional("unit", event.unit().map(str::as_bytes), Object::name);
    object.optional("user_unit", event.user_unit().map(str::as_bytes), Object::name);
    object.integer("netns", connection.netns);
    object.optional("interface", event.interface.as_deref().map(str::as_bytes), Object::name);
    object.optional("interface_index", event.interface_index(), Object::integer);
    object.boolean("preexisting", connection.is(PREEXISTING));
    object.optional("attempt_ns", event.attempt_ns().map(unix_ns), Object::integer);
    object.optional("established_ns", event.established_ns().map(unix_ns), Object::integer);
    object.optional("handshake_ns", event.handshake_ns(), Object::integer);
    match event.kind {
        Kind::New | Kind::Update | Kind::Listen | Kind::Closed => {}
        Kind::Destroy => end(event, &mut object),
        Kind::Attempt => object.optional("attempt", event.attempt.map(Attempt::name), Object::word),
        Kind::Open => now(event, &mut object),
    }
    if let Some(owner) = owner {
        object.hex("comm_hex", owner.comm);
        object.hex("thread_hex", owner.thread);
    }
    tracked(event, &mut object);
    if let Some(app) = event.app() {
        object.word("app", app);
    }
    let start_ns = owner.map(|owner| owner.start_ns).filter(|&ns| ns != 0);
    object.optional("process_start_ns", start_ns.map(unix_ns), Object::integer);
    if !event.is_directed() {
        object.word("local_end", if event.is_src_ours() { "src" } else { "dst" });
    }
    object.integer("schema", SCHEMA);
    object.close();
}

/// What a flow has, and an entry of connection tracking. Lines of sockets of TCP have none of it.
fn tracked(event: &Enriched, object: &mut Object<'_>) {
    if let Some(timeout_s) = event.tracked.timeout_s {
        object.integer("timeout_s", timeout_s);
    }
    let Some(facts) = event.tracked.entry else { return };
    let [source, destination] = event.reply();
    object.integer("protocol_number", event.protocol);
    object.address("reply_src", source.ip());
    object.integer("reply_sport", source.port());
    object.address("reply_dst", destination.ip());
    object.integer("reply_dport", destination.port());
    object.optional("nat", event.nat().map(Nat::name), Object::word);
    object.optional("mark", event.tracked.mark, Object::integer);
    object.optional("zone", event.tracked.zone, Object::integer);
    object.optional("zone_orig", facts.zones[0], Object::integer);
    object.optional("zone_reply", facts.zones[1], Object::integer);
    object.boolean("replied", facts.replied);
    object.boolean("assured", facts.assured);
    object.optional("offload", facts.offload.map(Offload::name), Object::word);
    if let Some(state) = facts.sctp {
        object.word("sctp_state", state.name());
    }
    if let Some([original, reply]) = facts.icmp {
        object.integer("icmp_type", original.kind);
        object.integer("icmp_code", original.code);
        object.integer("icmp_id", original.id);
        object.integer("reply_icmp_type", reply.kind);
        object.integer("reply_icmp_code", reply.code);
        object.integer("reply_icmp_id", reply.id);
    }
    object.word("time_source", facts.clock.name());
}

fn end(event: &Enriched, object: &mut Object<'_>) {
    object.optional("lifetime_ns", event.lifetime_ns(), Object::integer);
    object.optional("at_least_ns", event.at_least_ns, Object::integer);
    object.optional("failed", Some(event.is_failed()).filter(|_| !event.is_entry()), Object::boolean);
    object.optional("reason", event.end_name(), Object::word);
    object.optional("reset", event.reset.map(Reset::name), Object::word);
    object.error("error", event.error);
    traffic(event, object);
}

fn now(event: &Enriched, object: &mut Object<'_>) {
    object.optional("age_ns", event.age_ns(), Object::integer);
    object.optional("at_least_ns", event.at_least_ns, Object::integer);
    traffic(event, object);
    object.optional("receive_queue", event.queue_of(|traffic| traffic.receive_queue), Object::integer);
    object.optional("send_queue", event.queue_of(|traffic| traffic.send_queue), Object::integer);
    object.optional("half_open", event.half_open, Object::integer);
    object.optional("dropped", event.dropped, Object::integer);
}

fn traffic(event: &Enriched, object: &mut Object<'_>) {
    let traffic = &event.traffic;
    object.optional("bytes_sent", event.traffic_of(|traffic| traffic.bytes_sent), Object::integer);
    object.optional("bytes_received", event.traffic_of(|traffic| traffic.bytes_received), Object::integer);
    object.optional("segments_sent", event.packets_sent(), Object::integer);
    object.optional("segments_received", event.packets_received(), Object::integer);
    object.optional("retransmits", event.tcp_traffic_of(|traffic| traffic.retransmits), Object::integer);
    object.optional("srtt_us", measured(traffic.srtt_us), Object::integer);
    object.optional("min_rtt_us", measured(traffic.min_rtt_us), Object::integer);
    object.optional("idle_ns", event.idle_ns, Object::integer);
}

/// A round trip time; `None` before the first measurement.
fn measured(us: u32) -> Option<u32> {
    (us != 0).then_some(us)
}

/// Appends a loss without a line end.
pub(crate) fn lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
    let until_ns = clock.to_unix_ns(lost.until_ns);
    let mut object = Object::open(out);
    object.word("event", "lost");
    object.time("time", until_ns);
    object.integer("time_ns", until_ns);
    object.integer("lost", lost.count);
    object.integer("since_ns", clock.to_unix_ns(lost.since_ns));
    object.integer("until_ns", until_ns);
    if let Some(of) = lost.of {
        object.word("lost_event", of.kind.name());
        object.integer("netns", of.netns);
    }
    object.integer("schema", SCHEMA);
    object.close();
}

#[cfg(test)]
mod tests {
    use nix::libc;
    use std::slice;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::column::Column;
    use crate::event::tests::*;
    use crate::render::tests::{CLOCK, lines, loss};
    use crate::render::{Format, json_writer};

    #[test]
    fn every_kind_of_event_is_written() {
        insta::assert_snapshot!(lines(Format::Json, &[
            new_out(),
            established(),
            closed(),
            reset(),
            new_in_v6(),
            preexisting(),
            nasty(),
            open(),
            listening(),
            attempt(),
            listen(),
            listener_closed(),
        ]), @r#"
        {"event":"new","time":"2026-01-02T03:04:06.000000000Z","time_ns":1767323046000000000,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"syn_sent","old_state":null,"src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"update","time":"2026-01-02T03:04:06.001500000Z","time_ns":1767323046001500000,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"established","old_state":"syn_sent","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":1767323046001500000,"handshake_ns":1500000,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"destroy","time":"2026-01-02T03:05:07.000000042Z","time_ns":1767323107000000042,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"close","old_state":"fin_wait2","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":1767323046001500000,"handshake_ns":1500000,"lifetime_ns":61000000042,"at_least_ns":null,"failed":false,"reason":"closed_by_us","reset":null,"error":null,"bytes_sent":517,"bytes_received":65536,"segments_sent":49,"segments_received":51,"retransmits":2,"srtt_us":1480,"min_rtt_us":1390,"idle_ns":2004000000,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"destroy","time":"2026-01-02T03:05:07.000000042Z","time_ns":1767323107000000042,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"close","old_state":"established","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":1767323046001500000,"handshake_ns":1500000,"lifetime_ns":61000000042,"at_least_ns":null,"failed":false,"reason":"reset_by_us","reset":"unread_data","error":null,"bytes_sent":517,"bytes_received":65536,"segments_sent":49,"segments_received":51,"retransmits":2,"srtt_us":1480,"min_rtt_us":1390,"idle_ns":2004000000,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"new","time":"2026-01-02T03:04:06.000000000Z","time_ns":1767323046000000000,"id":41,"direction":"in","family":"ipv6","protocol":"tcp","state":"syn_recv","old_state":null,"src":"2001:db8::7","sport":43210,"dst":"2001:db8::22","dport":22,"src_name":null,"dst_name":null,"pid":null,"tid":null,"uid":null,"comm":null,"thread":null,"owner":"-","holders":null,"cgroup":null,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"process_start_ns":null,"schema":1}
        {"event":"destroy","time":"2026-01-02T03:05:07.000000042Z","time_ns":1767323107000000042,"id":1024000000003,"direction":"out","family":"ipv4","protocol":"tcp","state":"close","old_state":"close_wait","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":null,"tid":null,"uid":null,"comm":null,"thread":null,"owner":"-","holders":null,"cgroup":null,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":true,"attempt_ns":null,"established_ns":null,"handshake_ns":null,"lifetime_ns":null,"at_least_ns":61000000042,"failed":false,"reason":"reset_by_peer","reset":null,"error":null,"bytes_sent":517,"bytes_received":65536,"segments_sent":49,"segments_received":51,"retransmits":2,"srtt_us":1480,"min_rtt_us":1390,"idle_ns":2004000000,"process_start_ns":null,"schema":1}
        {"event":"new","time":"2026-01-02T03:04:06.000000000Z","time_ns":1767323046000000000,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"syn_sent","old_state":null,"src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":"x dst=1\n\u001b[2J","dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"x\n[NEW] pid=1\u001b�","thread":"\"\\ \u202e","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"comm_hex":"780a5b4e45575d207069643d311bff","process_start_ns":1767323045999999993,"schema":1}
        {"event":"open","time":"2026-01-02T03:04:16.000000000Z","time_ns":1767323056000000000,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"established","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":"laptop.example","dst_name":"web.example","pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":2,"cgroup":6789,"container":"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","container_name":"app","container_user":1000,"pod":"web-1","pod_namespace":"prod","unit":"docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope","user_unit":"app.service","netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":1767323046001500000,"handshake_ns":1500000,"age_ns":10000000000,"at_least_ns":null,"bytes_sent":517,"bytes_received":65536,"segments_sent":49,"segments_received":51,"retransmits":2,"srtt_us":1480,"min_rtt_us":1390,"idle_ns":4000000,"receive_queue":12,"send_queue":3456,"half_open":null,"dropped":null,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"open","time":"2026-01-02T03:04:06.000000000Z","time_ns":1767323046000000000,"id":41,"direction":"listen","family":"ipv4","protocol":"tcp","state":"listen","src":"0.0.0.0","sport":0,"dst":"0.0.0.0","dport":80,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"nginx","thread":"resolver","owner":"listener","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"age_ns":0,"at_least_ns":null,"bytes_sent":0,"bytes_received":0,"segments_sent":0,"segments_received":0,"retransmits":0,"srtt_us":null,"min_rtt_us":null,"idle_ns":null,"receive_queue":129,"send_queue":128,"half_open":64,"dropped":1000,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"attempt","time":"2026-01-02T03:04:06.000000000Z","time_ns":1767323046000000000,"id":41,"direction":"in","family":"ipv6","protocol":"tcp","state":"syn_recv","src":"2001:db8::7","sport":43210,"dst":"2001:db8::22","dport":22,"src_name":null,"dst_name":null,"pid":null,"tid":null,"uid":null,"comm":null,"thread":null,"owner":"-","holders":null,"cgroup":null,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"attempt":"half_open","process_start_ns":null,"schema":1}
        {"event":"listen","time":"2026-01-02T03:04:06.000000000Z","time_ns":1767323046000000000,"id":41,"direction":"listen","family":"ipv4","protocol":"tcp","state":"listen","src":"0.0.0.0","sport":0,"dst":"0.0.0.0","dport":80,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"nginx","thread":"resolver","owner":"listener","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"closed","time":"2026-01-02T03:05:06.000000000Z","time_ns":1767323106000000000,"id":41,"direction":"listen","family":"ipv4","protocol":"tcp","state":"close","src":"0.0.0.0","sport":0,"dst":"0.0.0.0","dport":80,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"nginx","thread":"resolver","owner":"listener","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"process_start_ns":1767323045999999993,"schema":1}
        "#);
    }

    #[test]
    fn losses() {
        insta::assert_snapshot!(loss(Format::Json), @r#"{"event":"lost","time":"2026-01-02T03:04:06.012345678Z","time_ns":1767323046012345678,"lost":72,"since_ns":1767323046000000000,"until_ns":1767323046012345678,"schema":1}"#);
    }

    #[test]
    fn failed_handshakes_are_written() {
        insta::assert_snapshot!(lines(Format::Json, &[
            failed(libc::ECONNREFUSED, 123_456),
            failed(libc::ETIMEDOUT, 130_000_000_001),
            failed(999, 1),
        ]), @r#"
        {"event":"destroy","time":"2026-01-02T03:04:06.000123456Z","time_ns":1767323046000123456,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"close","old_state":"syn_sent","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"lifetime_ns":123456,"at_least_ns":null,"failed":true,"reason":"refused","reset":null,"error":"ECONNREFUSED","bytes_sent":0,"bytes_received":0,"segments_sent":0,"segments_received":0,"retransmits":0,"srtt_us":null,"min_rtt_us":null,"idle_ns":null,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"destroy","time":"2026-01-02T03:06:16.000000001Z","time_ns":1767323176000000001,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"close","old_state":"syn_sent","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"lifetime_ns":130000000001,"at_least_ns":null,"failed":true,"reason":"timed_out","reset":null,"error":"ETIMEDOUT","bytes_sent":0,"bytes_received":0,"segments_sent":0,"segments_received":0,"retransmits":0,"srtt_us":null,"min_rtt_us":null,"idle_ns":null,"process_start_ns":1767323045999999993,"schema":1}
        {"event":"destroy","time":"2026-01-02T03:04:06.000000001Z","time_ns":1767323046000000001,"id":41,"direction":"out","family":"ipv4","protocol":"tcp","state":"close","old_state":"syn_sent","src":"192.0.2.7","sport":43210,"dst":"198.51.100.9","dport":443,"src_name":null,"dst_name":null,"pid":1234,"tid":1235,"uid":1000,"comm":"curl","thread":"resolver","owner":"connect","holders":null,"cgroup":6789,"container":null,"container_name":null,"container_user":null,"pod":null,"pod_namespace":null,"unit":null,"user_unit":null,"netns":4026531840,"interface":null,"interface_index":null,"preexisting":false,"attempt_ns":1767323046000000000,"established_ns":null,"handshake_ns":null,"lifetime_ns":1,"at_least_ns":null,"failed":true,"reason":"unknown","reset":null,"error":"errno 999","bytes_sent":0,"bytes_received":0,"segments_sent":0,"segments_received":0,"retransmits":0,"srtt_us":null,"min_rtt_us":null,"idle_ns":null,"process_start_ns":1767323045999999993,"schema":1}
        "#);
    }

    /// The writer is by hand, for speed; what it writes is what the columns say, and what reading back needs.
    #[test]
    fn keys_and_values_are_those_of_the_columns() {
        for event in [
            new_out(),
            established(),
            closed(),
            reset(),
            failed(999, 1),
            preexisting(),
            nasty(),
            open(),
            listening(),
            listen(),
            listener_closed(),
        ] {
            let columns: Vec<&Column> = Column::native().collect();
            let mut out = Vec::new();
            json_writer::columns(&event, &columns, &CLOCK, &mut out);
            let line = lines(Format::Json, slice::from_ref(&event));
            let rest = line.as_bytes().strip_prefix(out.strip_suffix(b"}").unwrap()).unwrap();
            let rest: Value = serde_json::from_slice(&[b"{", &rest[1..]].concat()).unwrap();
            let keys: Vec<&str> = rest.as_object().unwrap().keys().map(String::as_str).collect();
            let known = ["comm_hex", "process_start_ns", "schema", "thread_hex"];
            assert!(keys.iter().all(|key| known.contains(key)), "{keys:?}");
        }
    }

    #[test]
    fn digits_stand_beside_a_name_that_is_no_text() {
        let line = lines(Format::Json, &[nasty()]);
        let object: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(object["comm_hex"], "780a5b4e45575d207069643d311bff");
        assert!(object.get("thread_hex").is_none());
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_that_parses(event in any_event()) {
            let text = lines(Format::Json, slice::from_ref(&event));
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(!line.chars().any(char::is_control));
            let object: Value = serde_json::from_str(line).unwrap();
            let connection = &event.connection;
            prop_assert_eq!(&object["event"], event.kind.name());
            prop_assert_eq!(object["time_ns"].as_i64(), Some(CLOCK.to_unix_ns(event.time_ns)));
            prop_assert_eq!(object["id"].as_u64(), Some(connection.id));
            prop_assert_eq!(object["src"].as_str().and_then(|src| src.parse().ok()), Some(event.src()));
            prop_assert_eq!(object["dport"].as_u64(), Some(u64::from(connection.dport)));
            prop_assert_eq!(object["pid"].as_u64(), event.owner().map(|owner| u64::from(owner.pid)));
            let comm = event.owner().map(|owner| String::from_utf8_lossy(owner.comm).into_owned());
            prop_assert_eq!(object["comm"].as_str(), comm.as_deref());
            prop_assert_eq!(object.get("failed").is_some(), event.kind == Kind::Destroy);
        }
    }
}
