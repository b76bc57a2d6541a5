//! Words `key=value`. Unknown values are left out.

use super::json_writer::plain;
use super::{Lost, integer};
use crate::column::{Cell, Column};
use crate::event::enriched::Enriched;
use crate::host::clock::{WallClock, rfc3339};
use crate::render::sanitize;

/// Appends the line without line end.
pub(super) fn event(
    event: &Enriched,
    columns: Option<&[&'static Column]>,
    clock: &WallClock,
    out: &mut Vec<u8>,
) {
    let start = out.len();
    super::each(columns, |column| {
        let cell = column.of(event, clock);
        if cell == Cell::Unknown {
            return;
        }
        if out.len() > start {
            out.push(b' ');
        }
        out.extend_from_slice(column.id.as_bytes());
        out.push(b'=');
        value(cell, out);
    });
}

/// Appends a value. A value with blanks, quotes, `=`, a backslash or bytes other than visible ASCII is a JSON string.
fn value(cell: Cell<'_>, out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'=' | b'\\');
    let cell = match cell {
        Cell::Container { name, .. } => Cell::Name(name),
        Cell::Unit(name) => Cell::Name(name.as_bytes()),
        cell => cell,
    };
    match cell {
        Cell::Name(name) if name.is_empty() || !name.iter().all(is_plain) => sanitize::json_string(name, out),
        Cell::Name(name) => out.extend_from_slice(name),
        Cell::Errno(_) | Cell::Duration { .. } => {
            let start = out.len();
            plain(cell, out);
            if !out[start..].iter().all(is_plain) {
                out.insert(start, b'"');
                out.push(b'"');
            }
        }
        Cell::Processes(_) => {
            let mut text = Vec::new();
            plain(cell, &mut text);
            value(Cell::Name(&text), out);
        }
        cell => plain(cell, out),
    }
}

/// Appends a loss without a line end.
pub(super) fn lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event=lost time=");
    rfc3339(clock.to_unix_ns(lost.until_ns), out);
    out.extend_from_slice(b" lost=");
    integer(lost.count, out);
    for (key, ns) in [(&b" since_ns="[..], lost.since_ns), (b" until_ns=", lost.until_ns)] {
        out.extend_from_slice(key);
        integer(clock.to_unix_ns(ns), out);
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss, rendered};

    #[test]
    fn every_kind_of_event_is_written() {
        insta::assert_snapshot!(lines(Format::Logfmt, &[new_out(), closed(), failed(999, 1), nasty(), open()]), @r#"
        event=new time=2026-01-02T03:04:06.000000000Z time_ns=1767323046000000000 id=41 direction=out family=ipv4 protocol=tcp state=syn_sent src=192.0.2.7 sport=43210 dst=198.51.100.9 dport=443 pid=1234 tid=1235 uid=1000 comm=curl thread=resolver owner=connect cgroup=6789 netns=4026531840 preexisting=false attempt_ns=1767323046000000000
        event=destroy time=2026-01-02T03:05:07.000000042Z time_ns=1767323107000000042 id=41 direction=out family=ipv4 protocol=tcp state=close old_state=fin_wait2 src=192.0.2.7 sport=43210 dst=198.51.100.9 dport=443 pid=1234 tid=1235 uid=1000 comm=curl thread=resolver owner=connect cgroup=6789 netns=4026531840 preexisting=false attempt_ns=1767323046000000000 established_ns=1767323046001500000 handshake_ns=1500000 lifetime_ns=61000000042 failed=false reason=closed_by_us bytes_sent=517 bytes_received=65536 segments_sent=49 segments_received=51 retransmits=2 srtt_us=1480 min_rtt_us=1390 idle_ns=2004000000
        event=destroy time=2026-01-02T03:04:06.000000001Z time_ns=1767323046000000001 id=41 direction=out family=ipv4 protocol=tcp state=close old_state=syn_sent src=192.0.2.7 sport=43210 dst=198.51.100.9 dport=443 pid=1234 tid=1235 uid=1000 comm=curl thread=resolver owner=connect cgroup=6789 netns=4026531840 preexisting=false attempt_ns=1767323046000000000 lifetime_ns=1 failed=true reason=unknown error="errno 999" bytes_sent=0 bytes_received=0 segments_sent=0 segments_received=0 retransmits=0
        event=new time=2026-01-02T03:04:06.000000000Z time_ns=1767323046000000000 id=41 direction=out family=ipv4 protocol=tcp state=syn_sent src=192.0.2.7 sport=43210 dst=198.51.100.9 dport=443 src_name="x dst=1\n\u001b[2J" pid=1234 tid=1235 uid=1000 comm="x\n[NEW] pid=1\u001b�" thread="\"\\ \u202e" owner=connect cgroup=6789 netns=4026531840 preexisting=false attempt_ns=1767323046000000000
        event=open time=2026-01-02T03:04:16.000000000Z time_ns=1767323056000000000 id=41 direction=out family=ipv4 protocol=tcp state=established src=192.0.2.7 sport=43210 dst=198.51.100.9 dport=443 src_name=laptop.example dst_name=web.example pid=1234 tid=1235 uid=1000 comm=curl thread=resolver owner=connect holders=2 cgroup=6789 container=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef container_name=app container_user=1000 pod=web-1 pod_namespace=prod unit=docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope user_unit=app.service netns=4026531840 preexisting=false attempt_ns=1767323046000000000 established_ns=1767323046001500000 handshake_ns=1500000 age_ns=10000000000 bytes_sent=517 bytes_received=65536 segments_sent=49 segments_received=51 retransmits=2 srtt_us=1480 min_rtt_us=1390 idle_ns=4000000 receive_queue=12 send_queue=3456
        "#);
        insta::assert_snapshot!(rendered(Format::Logfmt, Some("thread,lifetime,peer"), &[nasty(), preexisting()]), @r#"
        thread="\"\\ \u202e" peer=198.51.100.9:443
        lifetime=">=61.000000042" peer=198.51.100.9:443
        "#);
        insta::assert_snapshot!(loss(Format::Logfmt), @"event=lost time=2026-01-02T03:04:06.012345678Z lost=72 since_ns=1767323046000000000 until_ns=1767323046012345678");
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_of_words(event in any_event()) {
            let text = lines(Format::Logfmt, slice::from_ref(&event));
            let mut rest = text.strip_suffix('\n').unwrap();
            prop_assert!(!rest.chars().any(char::is_control));
            while !rest.is_empty() {
                let (key, after) = rest.split_once('=').unwrap();
                prop_assert!(Column::named(key).is_some(), "{}", rest);
                if after.starts_with('"') {
                    let mut strings = serde_json::Deserializer::from_str(after).into_iter::<String>();
                    prop_assert!(strings.next().unwrap().is_ok());
                    rest = after[strings.byte_offset()..].strip_prefix(' ').unwrap_or("");
                } else {
                    rest = after.split_once(' ').map_or("", |(_, rest)| rest);
                }
            }
        }
    }
}
