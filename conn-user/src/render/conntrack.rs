//! The line of `conntrack -E`, by the grammar of `libnetfilter_conntrack`'s `snprintf_default.c`, with
//! our fields where `mark=` and `use=` stand there:
//!
//! ```text
//!     [NEW] tcp      6 SYN_SENT src=A dst=B sport=1 dport=2 [UNREPLIED] src=B dst=A sport=2 dport=1 dir=out pid=9 comm=x owner=connect
//! ```
//!
//! The timeout, optional in that grammar, is left out: a socket has no such timer.

use conn_common::cause::Cause;
use conn_common::connection::{OUT, WAS_ESTABLISHED};
use conn_common::state;

use super::{address, integer};
use crate::clock::digits;
use crate::event::Event;
use crate::kind::Kind;
use crate::sanitize;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Appends conntrack's time stamp: seconds and microseconds of unix time.
pub(super) fn timestamp(unix_ns: i64, out: &mut Vec<u8>) {
    let second = SECOND.cast_signed();
    out.push(b'[');
    integer(unix_ns.div_euclid(second), out);
    out.push(b'.');
    digits::<6>(unix_ns.rem_euclid(second).unsigned_abs() / 1_000, out);
    out.extend_from_slice(b"]\t");
}

/// Appends the line without its end.
pub(super) fn event(event: &Event, out: &mut Vec<u8>) {
    let connection = &event.connection;
    let (src, dst) = (event.src(), event.dst());
    let (sport, dport) = (connection.sport, connection.dport);
    out.extend_from_slice(match event.kind {
        Kind::New => b"    [NEW] tcp      6 ",
        Kind::Update => b" [UPDATE] tcp      6 ",
        Kind::Destroy => b"[DESTROY] tcp      6 ",
    });
    out.extend_from_slice(state_name(connection.state).as_bytes());
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
    own_fields(event, out);
}

fn own_fields(event: &Event, out: &mut Vec<u8>) {
    out.extend_from_slice(if event.connection.direction == OUT { b" dir=out" } else { b" dir=in" });
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
    if event.kind != Kind::Destroy {
        return;
    }
    let mut seconds = |before: &[u8], ns: u64| {
        out.extend_from_slice(before);
        integer(ns / SECOND, out);
        out.push(b'.');
        digits::<9>(ns % SECOND, out);
    };
    match (event.lifetime_ns(), event.at_least_ns()) {
        (Some(ns), _) => seconds(b" lifetime=", ns),
        (None, Some(ns)) => seconds(b" lifetime>=", ns),
        (None, None) => out.extend_from_slice(b" lifetime=-"),
    }
    if let Some(cause) = event.end {
        out.extend_from_slice(if event.is_failed() { b" failed=" } else { b" reason=" });
        out.extend_from_slice(cause.name().as_bytes());
    }
}

/// conntrack's name for the state, so that its parsers know the word. conntrack has one `FIN_WAIT`; a
/// simultaneous close, the kernel's CLOSING, is its `LAST_ACK` (a FIN from both sides, the last ACK
/// outstanding). What it has no word for is its `NONE`.
const fn state_name(number: u8) -> &'static str {
    match number {
        state::SYN_SENT => "SYN_SENT",
        state::SYN_RECV => "SYN_RECV",
        state::ESTABLISHED => "ESTABLISHED",
        state::FIN_WAIT1 | state::FIN_WAIT2 => "FIN_WAIT",
        state::CLOSE_WAIT => "CLOSE_WAIT",
        state::LAST_ACK | state::CLOSING => "LAST_ACK",
        state::TIME_WAIT => "TIME_WAIT",
        state::CLOSE => "CLOSE",
        _ => "NONE",
    }
}

/// True while the responder has said nothing: a SYN is out, or was until its connection failed in
/// silence. A refusal is an answer.
fn is_unreplied(event: &Event) -> bool {
    let connection = &event.connection;
    if connection.direction != OUT {
        return false;
    }
    match event.kind {
        Kind::New | Kind::Update => connection.state == state::SYN_SENT,
        Kind::Destroy => {
            event.old_state == state::SYN_SENT
                && event.failure().is_some_and(|cause| !matches!(cause, Cause::Refused | Cause::ResetByPeer))
        }
    }
}

/// True once the connection was established.
fn is_assured(event: &Event) -> bool {
    let connection = &event.connection;
    connection.is(WAS_ESTABLISHED)
        || (state::is_open(connection.state) && !state::is_opening(connection.state))
}

#[cfg(test)]
mod tests {
    use nix::libc;
    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::*;
    use crate::render::Format;
    use crate::render::tests::lines;

    const PLAIN: Format = Format::Conntrack { timestamp: false };

    #[test]
    fn lives_of_connections() {
        insta::assert_snapshot!(lines(PLAIN, &[
            new_out(),
            established(),
            closed(),
            new_in_v6(),
            preexisting(),
            without_owner(new_out()),
            nasty(),
        ]), @r"
            [NEW] tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=curl owner=connect
         [UPDATE] tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect lifetime=61.000000042 reason=closed_by_us
            [NEW] tcp      6 SYN_RECV src=2001:db8::7 dst=2001:db8::22 sport=43210 dport=22 src=2001:db8::22 dst=2001:db8::7 sport=22 dport=43210 dir=in pid=- comm=- owner=-
        [DESTROY] tcp      6 CLOSE src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=- comm=- owner=- lifetime>=61.000000042 reason=reset_by_peer
            [NEW] tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=- comm=- owner=-
            [NEW] tcp      6 SYN_SENT src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 [UNREPLIED] src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 dir=out pid=1234 comm=x\x0a\x5bNEW]\x20pid\x3d1\x1b\xff owner=connect
        ");
    }

    #[test]
    fn failures() {
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
        let stamped = Format::Conntrack { timestamp: true };
        insta::assert_snapshot!(lines(stamped, &[established()]), @"[1767323046.001500]	 [UPDATE] tcp      6 ESTABLISHED src=192.0.2.7 dst=198.51.100.9 sport=43210 dport=443 src=198.51.100.9 dst=192.0.2.7 sport=443 dport=43210 [ASSURED] dir=out pid=1234 comm=curl owner=connect");
    }

    #[test]
    fn states_have_conntracks_names() {
        let names: Vec<_> = (0..=11).map(state_name).collect();
        insta::assert_snapshot!(names.join(" "), @"NONE ESTABLISHED SYN_SENT SYN_RECV FIN_WAIT FIN_WAIT TIME_WAIT CLOSE CLOSE_WAIT LAST_ACK NONE LAST_ACK");
    }

    /// The line's words in their order: what a parser that splits on blanks relies on.
    fn follows_grammar(line: &str) -> bool {
        let mut words = line.split_ascii_whitespace().peekable();
        let tuple = ["src=", "dst=", "sport=", "dport="];
        let mut ok = matches!(words.next(), Some("[NEW]" | "[UPDATE]" | "[DESTROY]"))
            && words.next() == Some("tcp")
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
        for key in ["dir=", "pid=", "comm=", "owner="] {
            ok &= words.next().is_some_and(|word| word.starts_with(key));
        }
        for key in ["lifetime", "failed=", "reason="] {
            words.next_if(|word| word.starts_with(key));
        }
        ok && words.next().is_none()
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_of_the_grammar(event in any_event(), timestamp: bool) {
            let text = lines(Format::Conntrack { timestamp }, &[event]);
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t'));
            prop_assert!(!line.ends_with(' '));
            let line = if timestamp { line.split_once("]\t").unwrap().1 } else { line };
            prop_assert!(follows_grammar(line), "{line}");
            // conntrack's type is right-aligned in nine columns.
            prop_assert_eq!(line.find("] tcp      6 "), Some(8));
        }
    }
}
