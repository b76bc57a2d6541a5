//! What a line of `conntrack -E` or `conntrack -L` says of an entry of connection tracking, by the grammar of
//! `libnetfilter_conntrack`'s `snprintf_default.c`.

use conn_common::protocol::{self, GRE, TCP};
use conn_common::state::UNSEEN;

use super::conntrack::state_name;
use super::{address, integer};
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::event::tracked::{EntryFacts, Icmp, Offload, SctpState};

/// Protocols that conntrack shows ports of: TCP, UDP, DCCP, SCTP, UDP-Lite.
const WITH_PORTS: [u8; 5] = [TCP, protocol::UDP, 33, protocol::SCTP, 136];
/// conntrack pads names of protocols to so many columns.
const NAME: usize = 8;

/// Appends everything from the protocol to the zone.
pub(super) fn line(event: &Enriched, facts: &EntryFacts, out: &mut Vec<u8>) {
    let name = protocol::name(event.protocol).unwrap_or("unknown");
    out.extend_from_slice(name.as_bytes());
    out.resize(out.len() + NAME.saturating_sub(name.len()), b' ');
    out.push(b' ');
    integer(event.protocol, out);
    if let Some(timeout_s) = event.tracked.timeout_s {
        out.push(b' ');
        integer(timeout_s, out);
    }
    if let Some(state) = state(event).or_else(|| facts.sctp.map(SctpState::name)) {
        out.push(b' ');
        out.extend_from_slice(state.as_bytes());
    }
    let original = [event.initiator(), event.responder()];
    let bytes = [event.traffic.bytes_sent, event.traffic.bytes_received];
    for (way, [source, destination]) in [original, event.reply()].into_iter().enumerate() {
        out.extend_from_slice(b" src=");
        address(source.ip(), out);
        out.extend_from_slice(b" dst=");
        address(destination.ip(), out);
        identity(event.protocol, [source.port(), destination.port()], facts.icmp.map(|icmp| icmp[way]), out);
        if let Some(zone) = facts.zones[way] {
            out.extend_from_slice(if way == 0 { b" zone-orig=" } else { b" zone-reply=" });
            integer(zone, out);
        }
        if let Some(packets) = event.tracked.packets {
            out.extend_from_slice(b" packets=");
            integer(packets[way], out);
            out.extend_from_slice(b" bytes=");
            integer(bytes[way], out);
        }
        let mark: &[u8] = match (way, facts.offload) {
            (0, _) if facts.replied => b"",
            (0, _) => b" [UNREPLIED]",
            (_, Some(Offload::Hardware)) => b" [HW_OFFLOAD]",
            (_, Some(Offload::Software)) => b" [OFFLOAD]",
            (_, None) if facts.assured => b" [ASSURED]",
            (_, None) => b"",
        };
        out.extend_from_slice(mark);
    }
    if let Some(mark) = event.tracked.mark {
        out.extend_from_slice(b" mark=");
        integer(mark, out);
    }
    if let Some(zone) = event.tracked.zone {
        out.extend_from_slice(b" zone=");
        integer(zone, out);
    }
}

/// conntrack's name of the state of a flow of TCP. Its end has one if the kernel shows the last state (since Linux 5.12).
fn state(event: &Enriched) -> Option<&'static str> {
    let number = if event.kind == Kind::Destroy { event.old_state } else { event.connection.state };
    (event.protocol == TCP && number != UNSEEN).then(|| state_name(number))
}

/// What distinguishes the flows between two addresses: ports, keys, or the id of a request.
fn identity(protocol: u8, [from, to]: [u16; 2], icmp: Option<Icmp>, out: &mut Vec<u8>) {
    if let Some(icmp) = icmp {
        out.extend_from_slice(b" type=");
        integer(icmp.kind, out);
        out.extend_from_slice(b" code=");
        integer(icmp.code, out);
        out.extend_from_slice(b" id=");
        integer(icmp.id, out);
    } else if WITH_PORTS.contains(&protocol) {
        out.extend_from_slice(b" sport=");
        integer(from, out);
        out.extend_from_slice(b" dport=");
        integer(to, out);
    } else if protocol == GRE {
        out.extend_from_slice(format!(" srckey={from:#x} dstkey={to:#x}").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use proptest::prelude::*;

    use crate::event::enriched::Enriched;
    use crate::event::entry::tests::{any_entry_event, entries};
    use crate::render::style::{ConntrackFields, Format};
    use crate::render::tests::lines;

    const PLAIN: Format = Format::Conntrack(ConntrackFields {
        timestamp: false,
        extended: false,
        id: false,
        ktimestamp: false,
    });

    #[test]
    fn entries_are_written_as_conntrack_writes_them() {
        let events: Vec<Enriched> = entries().into_iter().map(Enriched::from).collect();
        insta::assert_snapshot!(lines(PLAIN, &events));
    }

    proptest! {
        #[test]
        fn any_entry_is_one_line(event in any_entry_event()) {
            let text = lines(PLAIN, slice::from_ref(&Enriched::from(event)));
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{line}");
            prop_assert!(!line.ends_with(' ') && line.contains(" dir="), "{line}");
        }
    }
}
