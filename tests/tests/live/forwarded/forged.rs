//! Messages that another process sends to the sockets of conntrace: only the kernel reports flows.

use super::{await_event, tracked, watch};
use conn_tests::{harness::Outcome, host::Host, line::Kind, needs_namespaces};
use macro_rules_attribute::apply;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, sendto, socket,
};
use std::{net::Ipv4Addr, os::fd::AsRawFd as _};

/// An address that no flow of the test has.
const FORGED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

/// An attribute of netlink.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// One direction of a flow of UDP (`CTA_TUPLE_IP` and `CTA_TUPLE_PROTO`).
fn tuple(kind: u16, [src, dst]: [Ipv4Addr; 2]) -> Vec<u8> {
    let ip = [attribute(1, &src.octets()), attribute(2, &dst.octets())].concat();
    let proto = [attribute(1, &[17]), attribute(2, &[0, 53]), attribute(3, &[0, 53])].concat();
    attribute(kind, &[attribute(1, &ip), attribute(2, &proto)].concat())
}

/// The message of a new flow, as `ctnetlink_conntrack_event()` writes it.
fn message() -> Vec<u8> {
    let ends = [FORGED, Ipv4Addr::new(198, 51, 100, 1)];
    let back = [ends[1], ends[0]];
    // `struct nfgenmsg` of IPv4.
    let body = [vec![2, 0, 0, 0], tuple(1, ends), tuple(2, back), attribute(12, &[1, 2, 3, 4])].concat();
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(0x100_u16.to_ne_bytes());
    bytes.extend(0x600_u16.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

#[apply(needs_namespaces)]
fn no_process_forges_a_flow(_: &Host) -> Outcome {
    let routed = tracked()?;
    let tracer = watch(&routed, &[]);
    routed.router.run(|| {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .unwrap();
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0)).unwrap();
        // NFNLGRP_CONNTRACK_NEW.
        let sent = sendto(fd.as_raw_fd(), &message(), &NetlinkAddr::new(0, 1), MsgFlags::empty());
        assert_eq!(sent, Ok(message().len()));
    });
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    let client = routed.exchange(server.address).unwrap();
    await_event(&tracer, Kind::New, client);
    let ended = tracer.stop();
    ended.expect_code(0);
    let text = ended.stdout.join("\n");
    assert!(!text.contains(&FORGED.to_string()), "{text}");
    Ok(())
}
