//! The messages of the kernel's connection tracking (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Buf as _;
use conn_common::protocol::{SCTP, TCP};

use crate::event::decode::netlink::{self, Cut, End, INTERRUPTED, attributes};
use crate::event::entry::{Change, Counters, Entry, Tuple};
use crate::event::tracked::{Icmp, SctpState};

/// `NFNL_SUBSYS_CTNETLINK`, in the upper byte of a type, and `IPCTNL_MSG_CT_NEW`.
const NEW: u16 = 1 << 8;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = 1 << 8 | 2;
/// `NLM_F_EXCL | NLM_F_CREATE`: the flags of an entry that was just made.
const MADE: u16 = 0x600;
/// The length of `struct nfgenmsg`.
const GENERIC: usize = 4;

/// What one read of a netlink socket held beside entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// The dump is over.
    pub end: Option<End>,
    /// The table changed its shape during the dump: entries may be missing.
    pub interrupted: bool,
}

/// Decodes the messages of one read. `each` gets each entry, or an error in the place of a message that is none.
pub(crate) fn messages(bytes: &[u8], mut each: impl FnMut(Result<(Change, Entry), Cut>)) -> Page {
    let mut page = Page::default();
    for message in netlink::messages(bytes) {
        let message = match message {
            Ok(message) => message,
            Err(cut) => {
                each(Err(cut));
                break;
            }
        };
        page.interrupted |= message.flags & INTERRUPTED != 0;
        page.end = page.end.or(message.end());
        let change = match message.kind {
            NEW if message.flags & MADE == MADE => Change::New,
            NEW => Change::Update,
            DELETE => Change::Destroy,
            _ => continue,
        };
        each(entry(message.body).map(|entry| (change, entry)));
    }
    page
}

/// Decodes an entry.
fn entry(body: &[u8]) -> Result<Entry, Cut> {
    let (mut original, mut reply) = (None, None);
    let mut counters = [None; 2];
    let [mut tcp_state, mut sctp_state] = [None; 2];
    let mut entry = Entry {
        id: 0,
        original: NO_TUPLE,
        reply: NO_TUPLE,
        status: None,
        timeout_s: None,
        tcp_state: None,
        sctp_state: None,
        mark: None,
        zone: None,
        counters: None,
        started_unix_ns: None,
        stopped_unix_ns: None,
        happened_unix_ns: None,
    };
    for attribute in attributes(body.get(GENERIC..).ok_or(Cut)?) {
        let (kind, value) = attribute?;
        match kind {
            // CTA_TUPLE_ORIG and CTA_TUPLE_REPLY.
            1 => original = Some(tuple(value)?),
            2 => reply = Some(tuple(value)?),
            // CTA_STATUS, CTA_TIMEOUT, CTA_MARK, CTA_ID.
            3 => entry.status = Some(number32(value)?),
            7 => entry.timeout_s = Some(number32(value)?),
            8 => entry.mark = Some(number32(value)?),
            12 => entry.id = number32(value)?,
            // CTA_PROTOINFO.
            4 => [tcp_state, sctp_state] = states(value)?,
            // CTA_COUNTERS_ORIG and CTA_COUNTERS_REPLY.
            9 => counters[0] = Some(counted(value)?),
            10 => counters[1] = Some(counted(value)?),
            // CTA_ZONE.
            18 => entry.zone = Some(number16(value)?),
            // CTA_TIMESTAMP.
            20 => {
                for stamp in attributes(value) {
                    match stamp? {
                        (1, value) => entry.started_unix_ns = stamped(value)?,
                        (2, value) => entry.stopped_unix_ns = stamped(value)?,
                        _ => {}
                    }
                }
            }
            // CTA_TIMESTAMP_EVENT.
            27 => entry.happened_unix_ns = stamped(value)?,
            _ => {}
        }
    }
    entry.original = original.ok_or(Cut)?;
    entry.reply = reply.ok_or(Cut)?;
    entry.tcp_state = tcp_state.filter(|_| entry.original.protocol == TCP);
    entry.sctp_state = sctp_state.filter(|_| entry.original.protocol == SCTP).and_then(SctpState::new);
    entry.counters = counters[0].zip(counters[1]).map(<[Counters; 2]>::from);
    let is_same_family = entry.original.source.is_ipv4() == entry.reply.source.is_ipv4();
    if is_same_family { Ok(entry) } else { Err(Cut) }
}

/// A tuple before its attributes are known.
const NO_TUPLE: Tuple = {
    let nothing = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    Tuple { source: nothing, destination: nothing, icmp: None, protocol: 0, zone: None }
};

/// Decodes one direction.
fn tuple(value: &[u8]) -> Result<Tuple, Cut> {
    let (mut ends, mut tuple, mut ports) = ([None; 2], NO_TUPLE, [0; 2]);
    for attribute in attributes(value) {
        match attribute? {
            // CTA_TUPLE_IP: source and destination, of IPv4 or of IPv6.
            (1, value) => {
                for address in attributes(value) {
                    let (kind, mut value) = address?;
                    match kind {
                        1 | 2 => {
                            let address = value.try_get_u32().map_err(|_| Cut)?;
                            ends[usize::from(kind - 1)] = Some(IpAddr::V4(Ipv4Addr::from_bits(address)));
                        }
                        3 | 4 => {
                            let address = value.try_get_u128().map_err(|_| Cut)?;
                            ends[usize::from(kind - 3)] = Some(IpAddr::V6(Ipv6Addr::from_bits(address)));
                        }
                        _ => {}
                    }
                }
            }
            // CTA_TUPLE_PROTO.
            (2, value) => (tuple.protocol, ports, tuple.icmp) = protocol(value)?,
            // CTA_TUPLE_ZONE.
            (3, value) => tuple.zone = Some(number16(value)?),
            _ => {}
        }
    }
    let [source, destination] = ends.map(|end| end.ok_or(Cut));
    let (source, destination) = (source?, destination?);
    if source.is_ipv4() != destination.is_ipv4() {
        return Err(Cut);
    }
    tuple.source = SocketAddr::new(source, ports[0]);
    tuple.destination = SocketAddr::new(destination, ports[1]);
    Ok(tuple)
}

/// Decodes what the layer-4 protocol adds: its number, ports, and the identity of a flow of ICMP.
fn protocol(value: &[u8]) -> Result<(u8, [u16; 2], Option<Icmp>), Cut> {
    let (mut number, mut ports) = (0, [0; 2]);
    let (mut kind, mut code, mut id) = (None, None, None);
    for attribute in attributes(value) {
        match attribute? {
            (1, value) => number = number8(value)?,
            (2, value) => ports[0] = number16(value)?,
            (3, value) => ports[1] = number16(value)?,
            // ICMP, and ICMP of IPv6.
            (4 | 7, value) => id = Some(number16(value)?),
            (5 | 8, value) => kind = Some(number8(value)?),
            (6 | 9, value) => code = Some(number8(value)?),
            _ => {}
        }
    }
    let icmp = kind.zip(code).zip(id).map(|((kind, code), id)| Icmp { kind, code, id });
    Ok((number, ports, icmp))
}

/// The state of a flow of TCP, and that of a flow of SCTP: `CTA_PROTOINFO_TCP_STATE` in `CTA_PROTOINFO_TCP`, and the same of SCTP.
fn states(value: &[u8]) -> Result<[Option<u8>; 2], Cut> {
    let mut states = [None; 2];
    for attribute in attributes(value) {
        let (protocol, value) = attribute?;
        let state = match protocol {
            1 => &mut states[0],
            3 => &mut states[1],
            _ => continue,
        };
        for attribute in attributes(value) {
            if let (1, value) = attribute? {
                *state = Some(number8(value)?);
            }
        }
    }
    Ok(states)
}

/// Packets and bytes: `CTA_COUNTERS_PACKETS` and `CTA_COUNTERS_BYTES`.
fn counted(value: &[u8]) -> Result<Counters, Cut> {
    let mut counters = Counters::default();
    for attribute in attributes(value) {
        match attribute? {
            (1, value) => counters.packets = number64(value)?,
            (2, value) => counters.bytes = number64(value)?,
            _ => {}
        }
    }
    Ok(counters)
}

/// A time stamp; `None` for zero, which the kernel writes for a time that has not come.
fn stamped(value: &[u8]) -> Result<Option<u64>, Cut> {
    number64(value).map(|ns| Some(ns).filter(|&ns| ns != 0))
}

fn number8(mut value: &[u8]) -> Result<u8, Cut> {
    value.try_get_u8().map_err(|_| Cut)
}

fn number16(mut value: &[u8]) -> Result<u16, Cut> {
    value.try_get_u16().map_err(|_| Cut)
}

fn number32(mut value: &[u8]) -> Result<u32, Cut> {
    value.try_get_u32().map_err(|_| Cut)
}

fn number64(mut value: &[u8]) -> Result<u64, Cut> {
    value.try_get_u64().map_err(|_| Cut)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let length = (16 + body.len()) as u32;
        [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8], body].concat()
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = (4 + value.len()) as u16;
        let mut bytes = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), value].concat();
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn nested(kind: u16, parts: &[Vec<u8>]) -> Vec<u8> {
        attribute(kind | 0x8000, &parts.concat())
    }

    fn direction(kind: u16, ends: [[u8; 4]; 2], ports: [u16; 2]) -> Vec<u8> {
        let ports = ports.map(u16::to_be_bytes);
        nested(
            kind,
            &[
                nested(1, &[attribute(1, &ends[0]), attribute(2, &ends[1])]),
                nested(2, &[attribute(1, &[6]), attribute(2, &ports[0]), attribute(3, &ports[1])]),
            ],
        )
    }

    fn body() -> Vec<u8> {
        let (client, server, router) = ([10, 0, 0, 1], [10, 1, 0, 1], [10, 1, 0, 2]);
        [
            vec![2, 0, 0, 0],
            direction(1, [client, server], [40_000, 443]),
            direction(2, [server, router], [443, 1_024]),
            attribute(3, &0x18e_u32.to_be_bytes()),
            attribute(7, &120_u32.to_be_bytes()),
            nested(4, &[nested(1, &[attribute(1, &[3])])]),
            nested(9, &[attribute(1, &2_u64.to_be_bytes()), attribute(2, &80_u64.to_be_bytes())]),
            nested(10, &[attribute(1, &1_u64.to_be_bytes()), attribute(2, &40_u64.to_be_bytes())]),
            attribute(8, &7_u32.to_be_bytes()),
            attribute(18, &3_u16.to_be_bytes()),
            attribute(12, &77_u32.to_be_bytes()),
            nested(20, &[attribute(1, &5_u64.to_be_bytes()), attribute(2, &0_u64.to_be_bytes())]),
            attribute(99, &[1, 2, 3]),
        ]
        .concat()
    }

    type Decoded = Vec<Result<(Change, Entry), Cut>>;

    fn decoded(bytes: &[u8]) -> (Decoded, Page) {
        let mut found = Vec::new();
        let page = messages(bytes, |one| found.push(one));
        (found, page)
    }

    #[test]
    fn entry_has_its_attributes() {
        let bytes =
            [message(NEW, MADE, &body()), message(DELETE, 0, &body()), message(NEW, 2, &body())].concat();
        let (found, page) = decoded(&bytes);
        assert_eq!(page, Page::default());
        let changes: Vec<_> = found.iter().map(|one| one.unwrap().0).collect();
        assert_eq!(changes, [Change::New, Change::Destroy, Change::Update]);
        let (_, entry) = found[0].unwrap();
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(
            (entry.original.source, entry.original.destination),
            (end("10.0.0.1:40000"), end("10.1.0.1:443"))
        );
        assert_eq!(
            (entry.reply.source, entry.reply.destination),
            (end("10.1.0.1:443"), end("10.1.0.2:1024"))
        );
        assert_eq!((entry.status, entry.timeout_s, entry.tcp_state), (Some(0x18e), Some(120), Some(3)));
        assert_eq!((entry.mark, entry.zone, entry.id), (Some(7), Some(3), 77));
        let counters = [Counters { packets: 2, bytes: 80 }, Counters { packets: 1, bytes: 40 }];
        assert_eq!(entry.counters, Some(counters));
        assert_eq!((entry.started_unix_ns, entry.stopped_unix_ns), (Some(5), None));
    }

    #[test]
    fn dumps_end() {
        let (found, page) = decoded(&message(netlink::DONE, INTERRUPTED, &[0; 4]));
        assert_eq!((found.len(), page), (0, Page { end: Some(End::Done), interrupted: true }));
        let (_, page) = decoded(&message(netlink::ERROR, 0, &(-95_i32).to_ne_bytes()));
        assert_eq!(page.end, Some(End::Refused(95)));
    }

    #[test]
    fn a_broken_message_costs_itself_only() {
        let mut broken = body();
        // The length of the first attribute.
        broken[4] = 0xff;
        let bytes = [message(NEW, MADE, &broken), message(NEW, MADE, &body())].concat();
        let (found, _) = decoded(&bytes);
        assert_eq!((found.len(), found[0].is_err(), found[1].is_ok()), (2, true, true));
        assert_eq!(decoded(&message(NEW, 0, &[2, 0, 0, 0])).0, [Err(Cut)]);
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            if bytes.len() > 8 {
                let length = (bytes.len() as u32).to_ne_bytes();
                bytes[..4].copy_from_slice(&length);
                bytes[4..6].copy_from_slice(&NEW.to_ne_bytes());
            }
            _ = decoded(&bytes);
        }

        #[test]
        fn any_change_of_a_message_decodes_or_fails(at in 0_usize..400, byte: u8, cut in 0_usize..400) {
            let mut bytes = message(NEW, MADE, &body());
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(bytes.len() - cut % bytes.len());
            _ = decoded(&bytes);
        }
    }
}
