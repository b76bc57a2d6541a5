use std::slice;

use conn_common::cause::Cause;
use conn_common::connection::QUIC;
use conn_common::flow::{ASSURED, REPLIED, UNREPLIED};
use conn_common::protocol::UDP;
use conn_common::state::{CLOSE, UNSEEN};
use conn_common::traffic::Traffic;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::column;
use crate::event::kind::Kind;
use crate::event::tests::{any_event, listening, new_in_v6, new_out};
use crate::host::services::Services;
use crate::render::style::{Color, ConntrackFields};

/// 2026-01-02T03:04:05Z at boot.
pub(super) const CLOCK: WallClock = WallClock::with_offset(1_767_323_045_000_000_000);

pub(super) fn style(format: Format, columns: Option<&str>) -> Style {
    let columns = columns.map(|text| column::parse(text, View::Events.columns()).unwrap());
    Style {
        format,
        columns,
        header: true,
        color: Color::Never,
        utc: true,
        resolve: false,
        services: Services::parse("https 443/tcp"),
    }
}

/// Renders events, one line each.
pub(crate) fn lines(format: Format, events: &[Enriched]) -> String {
    let mut renderer = Renderer::new(&style(format, None), View::Events, Terminal::NONE);
    let mut out = Vec::new();
    for event in events {
        renderer.event(event, &CLOCK, &mut out);
    }
    String::from_utf8(out).unwrap()
}

/// Renders a whole output.
pub(super) fn rendered(format: Format, columns: Option<&str>, events: &[Enriched]) -> String {
    whole(Renderer::new(&style(format, columns), View::Events, Terminal::NONE), events)
}

/// Renders a whole output for a terminal.
pub(super) fn rendered_on(terminal: Terminal, subject: View, format: Format, events: &[Enriched]) -> String {
    whole(Renderer::new(&style(format, None), subject, terminal), events).replace('\x1b', "ESC")
}

fn whole(mut renderer: Renderer, events: &[Enriched]) -> String {
    let mut out = Vec::new();
    renderer.measure(events, &CLOCK);
    renderer.begin(&mut out);
    for event in events {
        renderer.event(event, &CLOCK, &mut out);
    }
    renderer.end(&mut out);
    String::from_utf8(out).unwrap()
}

/// Renders a loss.
pub(crate) fn loss(format: Format) -> String {
    let lost = Lost { count: 72, since_ns: 1_000_000_000, until_ns: 1_012_345_678, of: None };
    let renderer = Renderer::new(&style(format, None), View::Events, Terminal::NONE);
    let mut out = Vec::new();
    assert!(renderer.lost(&lost, &CLOCK, &mut out));
    String::from_utf8(out).unwrap()
}

#[test]
fn colours_follow_the_terminal() {
    let color = Terminal { color: true, ..Terminal::NONE };
    let events = [new_out(), crate::event::tests::failed(111, 1)];
    let text = rendered_on(color, View::Events, Format::Conntrack(ConntrackFields::default()), &events);
    insta::assert_snapshot!(text, @"
    ESC[32m    [NEW]ESC[0m tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect
    ESC[1;31m[DESTROY]ESC[0m tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect lifetime=0.000000001 ESC[1;31mfailed=refusedESC[0m
    ");
    for format in
        [Format::Json, Format::Csv, Format::Logfmt, Format::Save, Format::Xml(ConntrackFields::default())]
    {
        assert!(!rendered_on(color, View::Events, format, &events).contains("ESC"), "{format:?}");
    }
}

#[test]
fn formats_know_their_columns() {
    let shows = |format, columns: Option<&str>| {
        let renderer = Renderer::new(&style(format, columns), View::Events, Terminal::NONE);
        renderer.shows(&["unit", "container"])
    };
    assert!(!shows(Format::Conntrack(ConntrackFields::default()), None) && !shows(Format::Table, None));
    assert!(shows(Format::Table, Some("time,unit")) && shows(Format::Json, None) && shows(Format::Csv, None));
    assert!(!shows(Format::Json, Some("time")) && shows(Format::Ecs, None));
}

#[test]
fn conventions_name_every_column_once() {
    for column in Column::native() {
        let is_in_the_record = ["event", "time", "time_ns", "state"].contains(&column.id);
        assert_eq!(column.names.otel.is_empty(), is_in_the_record, "{column:?}");
    }
    assert!(Column::native().all(|column| column.names.ecs.is_empty() || !column.names.ecs.ends_with('.')));
}

#[test]
fn narrow_terminals_leave_out_columns_of_listeners_by_rank() {
    let wide = Terminal { utf8: true, is_terminal: true, ..Terminal::NONE };
    for (width, expected) in [
        (200, "STATE RECV-Q SEND-Q HALF_OPEN DROPPED LOCAL NETNS PROCESSES"),
        (70, "STATE RECV-Q SEND-Q HALF_OPEN DROPPED LOCAL PROCESSES"),
        (50, "RECV-Q SEND-Q DROPPED LOCAL PROCESSES"),
    ] {
        let terminal = Terminal { width: Some(width), ..wide };
        let table = rendered_on(terminal, View::Listeners, Format::Table, &[listening()]);
        let header = table.lines().next().unwrap();
        assert!(header.split_whitespace().eq(expected.split(' ')), "{table}");
    }
}

proptest! {
    #[test]
    fn conventions_write_one_line_with_unique_keys(event in any_event()) {
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

/// The line with the contents of its strings replaced.
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

/// A connection between link-local addresses, whose interface has this name.
fn on_link(name: Option<&str>) -> Enriched {
    let mut event = Enriched::from(new_in_v6().event);
    let connection = &mut event.connection;
    for address in [&mut connection.src, &mut connection.dst] {
        address[..4].copy_from_slice(&[0xfe, 0x80, 0, 0]);
    }
    event.connection.set_interface(3);
    event.interface = name.map(Into::into);
    event
}

#[test]
fn link_local_addresses_show_their_interface() {
    let events = [on_link(Some("eth0")), on_link(None), on_link(Some("a b%"))];
    let table = lines(Format::Table, &events);
    for (line, expected) in table.lines().zip(["fe80::7%eth0", "fe80::7%3", "fe80::7%a\\x20b%"]) {
        assert!(line.split_whitespace().any(|word| word.contains(expected)), "{line}");
    }
    let plain = Format::Conntrack(ConntrackFields::default());
    for (line, expected) in lines(plain, &events).lines().zip(["eth0", "3", "a\\x20b%"]) {
        assert!(line.contains(" src=fe80::7 dst=fe80::22 "), "{line}");
        assert!(line.ends_with(&format!(" owner=- interface={expected}")), "{line}");
    }
    let xml = lines(Format::Xml(ConntrackFields::default()), &events[..1]);
    assert!(xml.contains("<src>fe80::7</src>") && xml.contains("<interface>eth0</interface>"), "{xml}");
    // Other addresses are valid on every link.
    let mut global = new_in_v6();
    global.connection.set_interface(3);
    assert!(!lines(Format::Table, &[global]).contains('%'));
}

/// A flow of UDP before and after its first reply, as a stream, and at its end.
fn flow() -> [Enriched; 4] {
    let of = |kind, old_state, state, timeout_s| {
        let mut event = new_out();
        (event.kind, event.protocol, event.old_state) = (kind, UDP, old_state);
        event.connection.state = state;
        event.tracked.timeout_s = timeout_s;
        event
    };
    let mut end = of(Kind::Destroy, ASSURED, CLOSE, None);
    end.end = Some(Cause::ClosedByUs);
    end.traffic = Traffic { bytes_sent: 120, bytes_received: 9_000, ..Traffic::NONE };
    end.tracked.packets = Some([3, 7_000_000_000]);
    end.time_ns += 1_500;
    let mut stream = of(Kind::Update, REPLIED, ASSURED, Some(120));
    stream.connection.set(QUIC);
    [of(Kind::New, UNSEEN, UNREPLIED, Some(30)), of(Kind::Update, UNREPLIED, REPLIED, Some(30)), stream, end]
}

#[test]
fn flows_are_written_as_conntrack_does() {
    const PLAIN: ConntrackFields =
        ConntrackFields { timestamp: false, extended: false, id: false, ktimestamp: false };
    insta::assert_snapshot!(lines(Format::Conntrack(PLAIN), &flow()), @"
        [NEW] udp      17 30 src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect
     [UPDATE] udp      17 30 src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect
     [UPDATE] udp      17 120 src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect app=quic
    [DESTROY] udp      17 src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect lifetime=0.000001500 packets_sent=3 bytes_sent=120 packets_received=7000000000 bytes_received=9000 reason=closed
    ");
    insta::assert_snapshot!(lines(Format::Save, &flow()[..1]), @"-A -t 30 -u UNSET -s 192.0.2.7 -d 198.51.100.9 -r 198.51.100.9 -q 192.0.2.7 -p udp --sport 43210 --dport 443 --reply-port-src 443 --reply-port-dst 43210");
}

#[test]
fn flows_read_back_as_the_same_events() {
    for event in flow() {
        let line = lines(Format::Json, slice::from_ref(&event));
        let read = json_read::read(line.trim().as_bytes(), &CLOCK).unwrap();
        assert_eq!(read, json_read::Line::Event(Box::new(event)), "{line}");
    }
}
