//! The line of `conntrack -E`, by the grammar of `libnetfilter_conntrack`'s `snprintf_default.c`. conntrace's fields
//! replace `mark=` and `use=`:
//!
//! ```text
//!     [NEW] tcp      6 SYN_SENT src=A dst=B sport=1 dport=2 [UNREPLIED] src=B dst=A sport=2 dport=1 dir=out pid=9 comm=x owner=connect
//! ```
//!
//! The optional timeout is that of flows of UDP: a socket of TCP has no such timer.

use conn_common::attempt::Attempt;
use conn_common::protocol::UDP;
use conn_common::state;

use super::color::{self, painted};
use super::status::{is_assured, is_unreplied};
use super::{Lost, RenderContext, address, integer, link};
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::host::clock::{WallClock, digits};
use crate::render::human;
use crate::render::sanitize;
use crate::render::style::ConntrackFields;

/// Nanoseconds of a second.
const SECOND: i64 = 1_000_000_000;

/// Appends conntrack's time stamp: seconds and microseconds of unix time.
pub(super) fn timestamp(unix_ns: i64, out: &mut Vec<u8>) {
    out.push(b'[');
    unix_seconds(unix_ns, out);
    out.extend_from_slice(b"]\t");
}

fn unix_seconds(unix_ns: i64, out: &mut Vec<u8>) {
    integer(unix_ns.div_euclid(SECOND), out);
    out.push(b'.');
    digits::<6>(unix_ns.rem_euclid(SECOND).unsigned_abs() / 1_000, out);
}

/// Appends number and interval of a loss.
pub(super) fn lost(lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) {
    out.push(b' ');
    integer(lost.count, out);
    for (key, ns) in [(&b" since="[..], lost.since_ns), (b" until=", lost.until_ns)] {
        out.extend_from_slice(key);
        unix_seconds(clock.to_unix_ns(ns), out);
    }
    if let Some(of) = lost.of {
        out.extend_from_slice(b" event=");
        out.extend_from_slice(of.kind.name().as_bytes());
        out.extend_from_slice(b" netns=");
        integer(of.netns, out);
    }
}

/// Appends the line without its end.
pub(super) fn event(event: &Enriched, extras: ConntrackFields, frame: &RenderContext<'_>, out: &mut Vec<u8>) {
    let kind: &[u8] = match event.kind {
        Kind::New => b"    [NEW]",
        Kind::Update => b" [UPDATE]",
        Kind::Destroy => b"[DESTROY]",
        Kind::Attempt => b"[ATTEMPT]",
        Kind::Listen => b" [LISTEN]",
        Kind::Closed => b" [CLOSED]",
        Kind::Open => b"",
    };
    if event.kind != Kind::Open {
        painted(frame.color, color::kind(event), out, |out| out.extend_from_slice(kind));
        out.push(b' ');
    }
    if extras.extended {
        let family: &[u8] = if event.connection.family == 6 { b"ipv6     10 " } else { b"ipv4     2 " };
        out.extend_from_slice(family);
    }
    match &event.tracked.entry {
        Some(facts) => super::entry::line(event, facts, out),
        None => socket(event, out),
    }
    if extras.ktimestamp {
        bounds(event, frame, out);
    }
    if extras.id {
        out.extend_from_slice(b" id=");
        match event.id() {
            Some(id) => integer(id, out),
            None => out.push(b'-'),
        }
    }
    own_fields(event, frame.color, out);
}

/// Everything from the protocol to the second tuple. A socket knows nothing of address translation.
fn socket(event: &Enriched, out: &mut Vec<u8>) {
    let connection = &event.connection;
    let (src, dst) = (event.src(), event.dst());
    let (sport, dport) = (connection.sport, connection.dport);
    protocol_and_state(event, out);
    let mut tuple = |src, dst, sport: u16, dport: u16, mark: &[u8]| {
        out.extend_from_slice(b" src=");
        address(src, out);
        out.extend_from_slice(b" dst=");
        address(dst, out);
        out.extend_from_slice(b" sport=");
        integer(sport, out);
        out.extend_from_slice(b" dport=");
        integer(dport, out);
        out.extend_from_slice(mark);
    };
    tuple(src, dst, sport, dport, if is_unreplied(event) { b" [UNREPLIED]" } else { b"" });
    tuple(dst, src, dport, sport, if is_assured(event) { b" [ASSURED]" } else { b"" });
}

/// The protocol, and what conntrack shows of its state. UDP has none, but a flow has an idle time.
fn protocol_and_state(event: &Enriched, out: &mut Vec<u8>) {
    if event.protocol == UDP {
        out.extend_from_slice(b"udp      17");
        if let Some(timeout_s) = event.tracked.timeout_s {
            out.push(b' ');
            integer(timeout_s, out);
        }
    } else {
        out.extend_from_slice(b"tcp      6 ");
        out.extend_from_slice(state_name(event.connection.state).as_bytes());
    }
}

/// When it began and ended, in whole seconds of local time.
fn bounds(event: &Enriched, frame: &RenderContext<'_>, out: &mut Vec<u8>) {
    let end = Some(event.time_ns).filter(|_| matches!(event.kind, Kind::Destroy | Kind::Closed));
    for (key, ns) in [(&b" [start="[..], event.attempt_ns()), (b" [stop=", end)] {
        if let Some(ns) = ns {
            out.extend_from_slice(key);
            frame.zone.ctime(frame.clock.to_unix_ns(ns), out);
            out.push(b']');
        }
    }
}

/// The fields that conntrack does not have.
fn own_fields(event: &Enriched, color: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(b" dir=");
    out.extend_from_slice(event.direction().unwrap_or("-").as_bytes());
    match event.owner() {
        Some(owner) => {
            out.extend_from_slice(b" pid=");
            integer(owner.pid, out);
            out.extend_from_slice(b" comm=");
            sanitize::word(owner.comm, out);
        }
        None => out.extend_from_slice(b" pid=- comm=-"),
    }
    out.extend_from_slice(b" owner=");
    out.extend_from_slice(event.owner_source().as_bytes());
    if let Some(holders) = event.holders().filter(|&holders| holders > 1) {
        out.extend_from_slice(b" holders=");
        integer(holders, out);
    }
    if let Some(interface) = event.link() {
        out.extend_from_slice(b" interface=");
        link(interface, out);
    }
    for (key, name) in [(&b" src_name="[..], &event.src_name), (b" dst_name=", &event.dst_name)] {
        if let Some(name) = name {
            out.extend_from_slice(key);
            sanitize::word(name.as_bytes(), out);
        }
    }
    if let Some(app) = event.app() {
        out.extend_from_slice(b" app=");
        out.extend_from_slice(app.as_bytes());
    }
    let length = event.lifetime_ns().or(event.age_ns());
    match event.kind {
        Kind::New | Kind::Update | Kind::Listen | Kind::Closed => return,
        Kind::Attempt => {
            out.extend_from_slice(b" attempt=");
            out.extend_from_slice(event.attempt.map_or("-", Attempt::name).as_bytes());
            return;
        }
        Kind::Destroy => out.extend_from_slice(b" lifetime"),
        Kind::Open => out.extend_from_slice(b" age"),
    }
    match (length, event.at_least_ns) {
        (Some(ns), _) => {
            out.push(b'=');
            human::seconds(ns, out);
        }
        (None, Some(ns)) => {
            out.extend_from_slice(b">=");
            human::seconds(ns, out);
        }
        (None, None) => out.extend_from_slice(b"=-"),
    }
    // conntrack shows the counters of an entry beside its tuples.
    if let Some([sent, received]) = event.tracked.packets.filter(|_| !event.is_entry()) {
        for (key, number) in [
            (&b" packets_sent="[..], sent),
            (b" bytes_sent=", event.traffic.bytes_sent),
            (b" packets_received=", received),
            (b" bytes_received=", event.traffic.bytes_received),
        ] {
            out.extend_from_slice(key);
            integer(number, out);
        }
    }
    if let Some(cause) = event.end {
        out.push(b' ');
        let failed = event.is_failed();
        painted(color && failed, color::FAILED, out, |out| {
            out.extend_from_slice(if failed { b"failed=" } else { b"reason=" });
            out.extend_from_slice(cause.name_in(event.protocol).as_bytes());
        });
        if let Some(reset) = event.reset {
            out.extend_from_slice(b" reset=");
            out.extend_from_slice(reset.name().as_bytes());
        }
    }
}

/// conntrack's name for a state. conntrack has one `FIN_WAIT`. A simultaneous close, the kernel's CLOSING, is
/// `LAST_ACK`: both sides sent a FIN, the last ACK is outstanding. Other states are `NONE`.
pub(super) const fn state_name(number: u8) -> &'static str {
    match number {
        state::SYN_SENT => "SYN_SENT",
        state::SYN_RECV | state::NEW_SYN_RECV => "SYN_RECV",
        state::ESTABLISHED => "ESTABLISHED",
        state::FIN_WAIT1 | state::FIN_WAIT2 => "FIN_WAIT",
        state::CLOSE_WAIT => "CLOSE_WAIT",
        state::LAST_ACK | state::CLOSING => "LAST_ACK",
        state::TIME_WAIT => "TIME_WAIT",
        state::CLOSE => "CLOSE",
        // conntrack knows this word, too.
        state::LISTEN => "LISTEN",
        _ => "NONE",
    }
}

#[cfg(test)]
mod tests {
    use nix::libc;
    use std::slice;

    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss};

    const PLAIN: Format = Format::Conntrack(ConntrackFields {
        timestamp: false,
        extended: false,
        id: false,
        ktimestamp: false,
    });

    #[test]
    fn every_kind_of_event_is_written() {
        insta::assert_snapshot!(lines(PLAIN, &[
            new_out(),
            established(),
            closed(),
            reset(),
            new_in_v6(),
            preexisting(),
            without_owner(new_out()),
            nasty(),
            open(),
            attempt(),
            listen(),
            listener_closed(),
        ]), @r"
            [NEW] tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect
         [UPDATE] tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect lifetime=61.000000042 reason=closed_by_us
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect lifetime=61.000000042 reason=reset_by_us reset=unread_data
            [NEW] tcp      6 SYN_RECV src=2001:db8::7 dst=2001:db8::22 sport=43210 dport=22 src=2001:db8::22 dst=2001:db8::7 sport=22 dport=43210 dir=in pid=- comm=- owner=-
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=- comm=- owner=- lifetime>=61.000000042 reason=reset_by_peer
            [NEW] tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=- comm=- owner=-
            [NEW] tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=x\x0a\x5bNEW]\x20pid\x3d1\x1b\xff owner=connect src_name=x\x20dst\x3d1\x0a\x1b\x5b2J
        tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect holders=2 src_name=laptop.example dst_name=web.example age=10.000000000
        [ATTEMPT] tcp      6 SYN_RECV src=2001:db8::7 dst=2001:db8::22 sport=43210 dport=22 [UNREPLIED] src=2001:db8::22 dst=2001:db8::7 sport=22 dport=43210 dir=in pid=- comm=- owner=- attempt=half_open
         [LISTEN] tcp      6 LISTEN src=0.0.0.0 dst=0.0.0.0 sport=0 dport=80 src=0.0.0.0 dst=0.0.0.0 sport=80 dport=0 dir=listen pid=1234 comm=nginx owner=listener
         [CLOSED] tcp      6 CLOSE src=0.0.0.0 dst=0.0.0.0 sport=0 dport=80 src=0.0.0.0 dst=0.0.0.0 sport=80 dport=0 dir=listen pid=1234 comm=nginx owner=listener
        ");
    }

    #[test]
    fn failed_handshakes_are_written() {
        let mut local = failed(libc::EADDRNOTAVAIL, 0);
        local.connection.sport = 0;
        let mut child = failed(libc::ECONNRESET, 77);
        child.connection.direction = conn_common::connection::IN;
        child.old_state = state::SYN_RECV;
        insta::assert_snapshot!(lines(PLAIN, &[
            failed(libc::ECONNREFUSED, 123_456),
            failed(libc::ETIMEDOUT, 130_000_000_001),
            failed(libc::EHOSTUNREACH, 3_072_000_000),
            failed(0, 1),
            local,
            child,
        ]), @"
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect lifetime=0.000123456 failed=refused
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect lifetime=130.000000001 failed=timed_out
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect lifetime=3.072000000 failed=unreachable
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect lifetime=0.000000001 failed=abandoned
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=0 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=0 dir=out pid=1234 comm=curl owner=connect lifetime=0.000000000 failed=local
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=in pid=1234 comm=curl owner=connect lifetime=0.000000077 failed=reset_by_peer
        ");
    }

    #[test]
    fn time_stamps_come_first() {
        let stamped = Format::Conntrack(ConntrackFields { timestamp: true, ..ConntrackFields::default() });
        insta::assert_snapshot!(lines(stamped, &[established()]), @"[1767323046.001500]	 [UPDATE] tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect");
    }

    #[test]
    fn optional_fields_are_added() {
        let all = Format::Conntrack(ConntrackFields {
            timestamp: true,
            extended: true,
            id: true,
            ktimestamp: true,
        });
        insta::assert_snapshot!(lines(all, &[new_in_v6(), closed(), preexisting(), open()]), @"
        [1767323046.000000]	    [NEW] ipv6     10 tcp      6 SYN_RECV src=2001:db8::7 dst=2001:db8::22 sport=43210 dport=22 src=2001:db8::22 dst=2001:db8::7 sport=22 dport=43210 [start=Fri Jan  2 03:04:06 2026] id=41 dir=in pid=- comm=- owner=-
        [1767323107.000000]	[DESTROY] ipv4     2 tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] [start=Fri Jan  2 03:04:06 2026] [stop=Fri Jan  2 03:05:07 2026] id=41 dir=out pid=1234 comm=curl owner=connect lifetime=61.000000042 reason=closed_by_us
        [1767323107.000000]	[DESTROY] ipv4     2 tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] [stop=Fri Jan  2 03:05:07 2026] id=1024000000003 dir=out pid=- comm=- owner=- lifetime>=61.000000042 reason=reset_by_peer
        [1767323056.000000]	ipv4     2 tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] [start=Fri Jan  2 03:04:06 2026] id=41 dir=out pid=1234 comm=curl owner=connect holders=2 src_name=laptop.example dst_name=web.example age=10.000000000
        ");
    }

    #[test]
    fn losses_are_written() {
        insta::assert_snapshot!(loss(PLAIN), @"   [LOST] 72 since=1767323046.000000 until=1767323046.012345");
    }

    #[test]
    fn states_have_conntracks_names() {
        let names: Vec<_> = (0..=11).map(state_name).collect();
        insta::assert_snapshot!(names.join(" "), @"NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK LISTEN LAST_ACK");
    }

    /// The words of the line in order, as a parser that splits on blanks sees them.
    fn follows_grammar(line: &str, kind: Kind, extras: ConntrackFields) -> bool {
        let mut words = line.split_ascii_whitespace().peekable();
        let tuple = ["src=", "dst=", "sport=", "dport="];
        let mut ok = kind == Kind::Open
            || matches!(
                words.next(),
                Some("[NEW]" | "[UPDATE]" | "[DESTROY]" | "[ATTEMPT]" | "[LISTEN]" | "[CLOSED]")
            );
        if extras.extended {
            ok &= matches!(
                (words.next(), words.next()),
                (Some("ipv4"), Some("2")) | (Some("ipv6"), Some("10"))
            );
        }
        ok &= words.next() == Some("tcp")
            && words.next() == Some("6")
            && words.next().is_some_and(|state| state.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
        for mark in ["[UNREPLIED]", "[ASSURED]"] {
            for key in tuple {
                ok &= words.next().is_some_and(|word| {
                    word.strip_prefix(key).is_some_and(|value| match key {
                        "src=" | "dst=" => value.parse::<std::net::IpAddr>().is_ok(),
                        _ => value.parse::<u16>().is_ok(),
                    })
                });
            }
            words.next_if_eq(&mark);
        }
        if extras.id {
            ok &= words.next().is_some_and(|word| word.starts_with("id="));
        }
        for key in ["dir=", "pid=", "comm=", "owner="] {
            ok &= words.next().is_some_and(|word| word.starts_with(key));
        }
        for key in [
            "holders=",
            "interface=",
            "src_name=",
            "dst_name=",
            "lifetime",
            "age",
            "failed=",
            "reason=",
            "reset=",
            "attempt=",
        ] {
            words.next_if(|word| word.starts_with(key));
        }
        ok && words.next().is_none()
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_of_the_grammar(event in any_event(), timestamp: bool, extended: bool, id: bool) {
            let extras = ConntrackFields { timestamp, extended, id, ktimestamp: false };
            let text = lines(Format::Conntrack(extras), slice::from_ref(&event));
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t'));
            prop_assert!(!line.ends_with(' '));
            let line = if timestamp { line.split_once("]\t").unwrap().1 } else { line };
            prop_assert!(follows_grammar(line, event.kind, extras), "{line}");
            // conntrack's type is right-aligned in nine columns.
            let at = if extended { line.find("] ipv") } else { line.find("] tcp      6 ") };
            prop_assert_eq!(at, (event.kind != Kind::Open).then_some(8));
        }
    }
}
