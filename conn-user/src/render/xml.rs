//! The XML of `conntrack -o xml`. conntrace's own fields are in the part that belongs to no direction, under their
//! names in the line.

use std::io::Write as _;
use std::net::IpAddr;

use conn_common::protocol;

use super::json_writer::plain;
use super::status;
use super::{Lost, RenderContext, address, conntrack, integer};
use crate::column::{Cell, Column};
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::host::clock::{WallClock, rfc3339};
use crate::render::human::Zone;
use crate::render::style::ConntrackFields;

pub(super) const BEGIN: &[u8] = b"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<conntrack>\n";
pub(super) const END: &[u8] = b"</conntrack>\n";

/// conntrace's own fields, in order.
const OWN: [&str; 8] = ["direction", "pid", "comm", "owner", "interface", "lifetime", "age", "reason"];

/// Appends the flow without a line end.
pub(super) fn event(event: &Enriched, extras: ConntrackFields, frame: &RenderContext<'_>, out: &mut Vec<u8>) {
    let connection = &event.connection;
    match event.kind {
        Kind::Open => out.extend_from_slice(b"<flow>"),
        kind => {
            out.extend_from_slice(b"<flow type=\"");
            out.extend_from_slice(kind.name().as_bytes());
            out.extend_from_slice(b"\">");
        }
    }
    let (src, dst) = (event.src(), event.dst());
    side(b"original", event.protocol, [src, dst], [connection.sport, connection.dport], out);
    side(b"reply", event.protocol, [dst, src], [connection.dport, connection.sport], out);
    out.extend_from_slice(b"<meta direction=\"independent\">");
    if let Some(timeout_s) = event.tracked.timeout_s {
        out.extend_from_slice(b"<timeout>");
        integer(timeout_s, out);
        out.extend_from_slice(b"</timeout>");
    }
    // UDP has no state in conntrack.
    if event.protocol == protocol::TCP {
        out.extend_from_slice(b"<state>");
        out.extend_from_slice(conntrack::state_name(connection.state).as_bytes());
        out.extend_from_slice(b"</state>");
    }
    // conntrack has the id here even without `-o id`.
    if let Some(id) = event.id() {
        out.extend_from_slice(b"<id>");
        integer(id, out);
        out.extend_from_slice(b"</id>");
    }
    if status::is_assured(event) {
        out.extend_from_slice(b"<assured/>");
    }
    if status::is_unreplied(event) {
        out.extend_from_slice(b"<unreplied/>");
    }
    if extras.ktimestamp {
        bounds(event, frame, out);
    }
    for column in OWN.iter().filter_map(|name| Column::named(name)) {
        // An open connection has an age, an ended one a lifetime.
        let other = if event.kind == Kind::Open { "lifetime" } else { "age" };
        let cell = column.of(event, frame.clock);
        if column.id != other && cell != Cell::Unknown {
            element(column.id, cell, out);
        }
    }
    out.extend_from_slice(b"</meta>");
    if extras.timestamp {
        out.extend_from_slice(b"<when>");
        civil(frame.zone, frame.clock.to_unix_ns(event.time_ns), out);
        out.extend_from_slice(b"</when>");
    }
    out.extend_from_slice(b"</flow>");
}

fn side(
    direction: &[u8],
    protocol: u8,
    [src, dst]: [IpAddr; 2],
    [sport, dport]: [u16; 2],
    out: &mut Vec<u8>,
) {
    let layer3: &[u8] = match src {
        IpAddr::V4(_) => b"<layer3 protonum=\"2\" protoname=\"ipv4\">",
        IpAddr::V6(_) => b"<layer3 protonum=\"10\" protoname=\"ipv6\">",
    };
    out.extend_from_slice(b"<meta direction=\"");
    out.extend_from_slice(direction);
    out.extend_from_slice(b"\">");
    out.extend_from_slice(layer3);
    out.extend_from_slice(b"<src>");
    address(src, out);
    out.extend_from_slice(b"</src><dst>");
    address(dst, out);
    out.extend_from_slice(b"</dst></layer3><layer4 protonum=\"");
    integer(protocol, out);
    out.extend_from_slice(b"\" protoname=\"");
    out.extend_from_slice(protocol::name(protocol).unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\"><sport>");
    integer(sport, out);
    out.extend_from_slice(b"</sport><dport>");
    integer(dport, out);
    out.extend_from_slice(b"</dport></layer4></meta>");
}

/// When it began and ended, in nanoseconds since 1970 as conntrack has it.
fn bounds(event: &Enriched, frame: &RenderContext<'_>, out: &mut Vec<u8>) {
    let end = Some(event.time_ns).filter(|_| matches!(event.kind, Kind::Destroy | Kind::Closed));
    let bounds = [("start", event.attempt_ns()), ("stop", end)];
    if bounds.iter().all(|(_, ns)| ns.is_none()) {
        return;
    }
    out.extend_from_slice(b"<timestamp>");
    for (name, ns) in bounds {
        if let Some(ns) = ns {
            element(name, Cell::UnixNs(frame.clock.to_unix_ns(ns)), out);
        }
    }
    out.extend_from_slice(b"</timestamp>");
}

/// Appends the parts of a date: days of the week from Sunday, 1; no leading zeros but for minutes and
/// seconds.
fn civil(zone: &Zone, unix_ns: i64, out: &mut Vec<u8>) {
    let time = zone.civil(unix_ns);
    // Writing into a vector does not fail.
    _ = write!(
        out,
        "<hour>{}</hour><min>{:02}</min><sec>{:02}</sec><wday>{}</wday><day>{}</day><month>{}</month><year>{}</year>",
        time.hour(),
        time.minute(),
        time.second(),
        time.weekday().to_sunday_one_offset(),
        time.day(),
        time.month(),
        time.year()
    );
}

fn element(name: &str, cell: Cell<'_>, out: &mut Vec<u8>) {
    for (before, after) in [(&b"<"[..], &b">"[..]), (b"</", b">")] {
        if before == b"</" {
            escaped(cell, out);
        }
        out.extend_from_slice(before);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(after);
    }
}

/// Appends a value. Three of the characters in escaped names have a meaning in XML.
fn escaped(cell: Cell<'_>, out: &mut Vec<u8>) {
    let start = out.len();
    plain(cell, out);
    let mut at = start;
    while at < out.len() {
        let entity: &[u8] = match out[at] {
            b'&' => b"&amp;",
            b'<' => b"&lt;",
            b'>' => b"&gt;",
            _ => {
                at += 1;
                continue;
            }
        };
        out.splice(at..=at, entity.iter().copied());
        at += entity.len();
    }
}

/// Appends a loss as a comment.
pub(super) fn lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<!-- [LOST] ");
    integer(lost.count, out);
    out.extend_from_slice(b" since ");
    rfc3339(clock.to_unix_ns(lost.since_ns), out);
    out.extend_from_slice(b" until ");
    rfc3339(clock.to_unix_ns(lost.until_ns), out);
    out.extend_from_slice(b" -->");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss, rendered};

    #[test]
    fn every_kind_of_event_is_written() {
        let plain = Format::Xml(ConntrackFields::default());
        insta::assert_snapshot!(rendered(plain, None, &[new_out(), closed(), preexisting(), nasty(), open()]), @r#"
        <?xml version="1.0" encoding="utf-8"?>
        <conntrack>
        <flow type="new"><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>192.0.2.7</src><dst>198.51.100.9</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>43210</sport><dport>443</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>198.51.100.9</src><dst>192.0.2.7</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>443</sport><dport>43210</dport></layer4></meta><meta direction="independent"><state>SYN_SENT</state><id>41</id><unreplied/><direction>out</direction><pid>1234</pid><comm>curl</comm><owner>connect</owner></meta></flow>
        <flow type="destroy"><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>192.0.2.7</src><dst>198.51.100.9</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>43210</sport><dport>443</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>198.51.100.9</src><dst>192.0.2.7</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>443</sport><dport>43210</dport></layer4></meta><meta direction="independent"><state>CLOSE</state><id>41</id><assured/><direction>out</direction><pid>1234</pid><comm>curl</comm><owner>connect</owner><lifetime>61.000000042</lifetime><reason>closed_by_us</reason></meta></flow>
        <flow type="destroy"><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>192.0.2.7</src><dst>198.51.100.9</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>43210</sport><dport>443</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>198.51.100.9</src><dst>192.0.2.7</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>443</sport><dport>43210</dport></layer4></meta><meta direction="independent"><state>CLOSE</state><id>1024000000003</id><assured/><direction>out</direction><owner>-</owner><lifetime>&gt;=61.000000042</lifetime><reason>reset_by_peer</reason></meta></flow>
        <flow type="new"><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>192.0.2.7</src><dst>198.51.100.9</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>43210</sport><dport>443</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>198.51.100.9</src><dst>192.0.2.7</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>443</sport><dport>43210</dport></layer4></meta><meta direction="independent"><state>SYN_SENT</state><id>41</id><unreplied/><direction>out</direction><pid>1234</pid><comm>x\x0a\x5bNEW]\x20pid\x3d1\x1b\xff</comm><owner>connect</owner></meta></flow>
        <flow><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>192.0.2.7</src><dst>198.51.100.9</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>43210</sport><dport>443</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>198.51.100.9</src><dst>192.0.2.7</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>443</sport><dport>43210</dport></layer4></meta><meta direction="independent"><state>ESTABLISHED</state><id>41</id><assured/><direction>out</direction><pid>1234</pid><comm>curl</comm><owner>connect</owner><age>10.000000000</age></meta></flow>
        </conntrack>
        "#);
        let all =
            Format::Xml(ConntrackFields { timestamp: true, extended: true, id: true, ktimestamp: true });
        insta::assert_snapshot!(lines(all, &[new_in_v6(), closed()]), @r#"
        <flow type="new"><meta direction="original"><layer3 protonum="10" protoname="ipv6"><src>2001:db8::7</src><dst>2001:db8::22</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>43210</sport><dport>22</dport></layer4></meta><meta direction="reply"><layer3 protonum="10" protoname="ipv6"><src>2001:db8::22</src><dst>2001:db8::7</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>22</sport><dport>43210</dport></layer4></meta><meta direction="independent"><state>SYN_RECV</state><id>41</id><timestamp><start>1767323046000000000</start></timestamp><direction>in</direction><owner>-</owner></meta><when><hour>3</hour><min>04</min><sec>06</sec><wday>6</wday><day>2</day><month>1</month><year>2026</year></when></flow>
        <flow type="destroy"><meta direction="original"><layer3 protonum="2" protoname="ipv4"><src>192.0.2.7</src><dst>198.51.100.9</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>43210</sport><dport>443</dport></layer4></meta><meta direction="reply"><layer3 protonum="2" protoname="ipv4"><src>198.51.100.9</src><dst>192.0.2.7</dst></layer3><layer4 protonum="6" protoname="tcp"><sport>443</sport><dport>43210</dport></layer4></meta><meta direction="independent"><state>CLOSE</state><id>41</id><assured/><timestamp><start>1767323046000000000</start><stop>1767323107000000042</stop></timestamp><direction>out</direction><pid>1234</pid><comm>curl</comm><owner>connect</owner><lifetime>61.000000042</lifetime><reason>closed_by_us</reason></meta><when><hour>3</hour><min>05</min><sec>07</sec><wday>6</wday><day>2</day><month>1</month><year>2026</year></when></flow>
        "#);
        insta::assert_snapshot!(loss(plain), @"<!-- [LOST] 72 since 2026-01-02T03:04:06.000000000Z until 2026-01-02T03:04:06.012345678Z -->");
    }

    /// True if every element is closed in the reverse order of opening.
    fn is_well_formed(mut rest: &str) -> bool {
        let mut open = Vec::new();
        while let Some((text, after)) = rest.split_once('<') {
            let Some((tag, next)) = after.split_once('>') else { return false };
            let entities = text.split('&').skip(1);
            let known = ["amp;", "lt;", "gt;"];
            if text.contains('>')
                || !entities.clone().all(|text| known.iter().any(|name| text.starts_with(name)))
            {
                return false;
            }
            match tag.strip_prefix('/') {
                Some(name) if open.pop() != Some(name) => return false,
                None if !tag.ends_with('/') => open.push(tag.split(' ').next().unwrap_or_default()),
                _ => {}
            }
            rest = next;
        }
        open.is_empty()
    }

    proptest! {
        #[test]
        fn any_event_is_one_well_formed_line(event in any_event(), timestamp: bool, id: bool, ktimestamp: bool) {
            let extras = ConntrackFields { timestamp, extended: false, id, ktimestamp };
            let text = lines(Format::Xml(extras), std::slice::from_ref(&event));
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            prop_assert!(is_well_formed(line), "{}", line);
        }
    }
}
