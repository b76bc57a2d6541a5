//! The line of `conntrack -o save`: the options that create such an entry.

use conn_common::protocol;

use super::status;
use super::{address, conntrack, integer};
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;

/// Appends the line without its end. A socket of TCP has no timeout, and so no `-t`.
pub(super) fn event(event: &Enriched, out: &mut Vec<u8>) {
    let connection = &event.connection;
    out.extend_from_slice(match event.kind {
        // For an open connection, as with `conntrack -L -o save`: the entry to create again.
        Kind::New | Kind::Open | Kind::Attempt | Kind::Listen => b"-A",
        Kind::Update => b"-U",
        Kind::Destroy | Kind::Closed => b"-D",
    });
    let status: &[u8] = match (status::is_unreplied(event), status::is_assured(event)) {
        (true, _) => b" -u UNSET",
        (false, false) => b" -u SEEN_REPLY",
        (false, true) => b" -u SEEN_REPLY,ASSURED",
    };
    if let Some(timeout_s) = event.tracked.timeout_s {
        out.extend_from_slice(b" -t ");
        integer(timeout_s, out);
    }
    out.extend_from_slice(status);
    let (src, dst) = (event.src(), event.dst());
    for (key, ip) in [(&b" -s "[..], src), (b" -d ", dst), (b" -r ", dst), (b" -q ", src)] {
        out.extend_from_slice(key);
        address(ip, out);
    }
    let (sport, dport) = (connection.sport, connection.dport);
    out.extend_from_slice(b" -p ");
    out.extend_from_slice(protocol::name(event.protocol).unwrap_or("-").as_bytes());
    for (key, port) in [
        (&b" --sport "[..], sport),
        (b" --dport ", dport),
        (b" --reply-port-src ", dport),
        (b" --reply-port-dst ", sport),
    ] {
        out.extend_from_slice(key);
        integer(port, out);
    }
    if event.protocol == protocol::TCP {
        out.extend_from_slice(b" --state ");
        out.extend_from_slice(conntrack::state_name(connection.state).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use proptest::prelude::*;

    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, loss};

    #[test]
    fn every_kind_of_event_is_written() {
        insta::assert_snapshot!(lines(Format::Save, &[new_out(), established(), closed(), new_in_v6(), open()]), @"
        -A -u UNSET -s 192.0.2.7 -d 198.51.100.9 -r 198.51.100.9 -q 192.0.2.7 -p tcp --sport 43210 --dport 443 --reply-port-src 443 --reply-port-dst 43210 --state SYN_SENT
        -U -u SEEN_REPLY,ASSURED -s 192.0.2.7 -d 198.51.100.9 -r 198.51.100.9 -q 192.0.2.7 -p tcp --sport 43210 --dport 443 --reply-port-src 443 --reply-port-dst 43210 --state ESTABLISHED
        -D -u SEEN_REPLY,ASSURED -s 192.0.2.7 -d 198.51.100.9 -r 198.51.100.9 -q 192.0.2.7 -p tcp --sport 43210 --dport 443 --reply-port-src 443 --reply-port-dst 43210 --state CLOSE
        -A -u SEEN_REPLY -s 2001:db8::7 -d 2001:db8::22 -r 2001:db8::22 -q 2001:db8::7 -p tcp --sport 43210 --dport 22 --reply-port-src 22 --reply-port-dst 43210 --state SYN_RECV
        -A -u SEEN_REPLY,ASSURED -s 192.0.2.7 -d 198.51.100.9 -r 198.51.100.9 -q 192.0.2.7 -p tcp --sport 43210 --dport 443 --reply-port-src 443 --reply-port-dst 43210 --state ESTABLISHED
        ");
        insta::assert_snapshot!(loss(Format::Save), @"# [LOST] 72 since=1767323046.000000 until=1767323046.012345");
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_of_options(event in any_event()) {
            let text = lines(Format::Save, slice::from_ref(&event));
            let words: Vec<&str> = text.strip_suffix('\n').unwrap().split(' ').skip(1).collect();
            prop_assert!(words.len() >= 22 && words.len().is_multiple_of(2), "{:?}", words);
            for pair in words.chunks(2) {
                prop_assert!(pair[0].starts_with('-') && !pair[1].starts_with('-'), "{:?}", words);
            }
        }
    }
}
