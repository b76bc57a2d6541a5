//! Datagrams of every shape: empty, large, corked, cut into segments, with options. Packets are datagrams, bytes are payload.

use super::{bind, check_end, exchange, watch, watch_ends};
use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing,
    netns::NetNs,
    traffic::socket::{set_option, set_option_bytes},
};
use macro_rules_attribute::apply;
use socket2::SockRef;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
};

/// Bytes of a segment.
const SEGMENT: i32 = 1_000;

/// A client with a peer, and its server.
fn pair(here: &NetNs, there: &NetNs, ips: [IpAddr; 2]) -> (UdpSocket, UdpSocket) {
    let server = bind(there, (ips[1], 0));
    let client = bind(here, (ips[0], 0));
    client.connect(server.local_addr().unwrap()).unwrap();
    (client, server)
}

/// A large datagram in each direction.
fn check_fragments(is_v6: bool) {
    let (netns, other) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let link = netns.join(&other).unwrap();
    let tracer = watch_ends(&netns, &other);
    let ips: [IpAddr; 2] = if is_v6 {
        [link.here.v6.into(), link.there.v6.into()]
    } else {
        [link.here.v4.into(), link.there.v4.into()]
    };
    let (client, server) = pair(&netns, &other, ips);
    let to = server.local_addr().unwrap();
    client.send(&vec![7; 20_000]).unwrap();
    let mut buffer = vec![0; 30_000];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(&buffer[..length - 1], from).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 19_999);
    drop((client, server));
    check_end(&tracer, "out", from, to, [1, 20_000, 1, 19_999]);
    check_end(&tracer, "in", from, to, [1, 19_999, 1, 20_000]);
}

#[apply(needs_tracing)]
fn fragments_are_one_packet(_: &Host) -> Outcome {
    check_fragments(false);
    Ok(())
}

#[apply(needs_tracing)]
fn fragments_of_ipv6_are_one_packet(_: &Host) -> Outcome {
    check_fragments(true);
    Ok(())
}

/// One call sends six datagrams, which the receiver gets one by one, or at once if it can.
fn check_segments(ip: IpAddr, receives_merged: bool) {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let (client, server) = pair(&netns, &netns, [ip; 2]);
    set_option(client.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, SEGMENT);
    set_option(server.as_raw_fd(), libc::SOL_UDP, libc::UDP_GRO, receives_merged.into());
    let mut buffer = vec![0; 10_000];
    let mut reads = Vec::new();
    // The last one is a single datagram.
    for sent in [5_500, 500] {
        client.send(&vec![7; sent]).unwrap();
        let mut left = sent;
        while left > 0 {
            let length = server.recv(&mut buffer).unwrap();
            reads.push(length);
            left -= length;
        }
    }
    let one_by_one = [1_000, 1_000, 1_000, 1_000, 1_000, 500, 500];
    assert_eq!(reads, if receives_merged { &[5_500, 500][..] } else { &one_by_one });
    let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    drop((client, server));
    check_end(&tracer, "out", from, to, [7, 6_000, 0, 0]);
    check_end(&tracer, "in", from, to, [0, 0, 7, 6_000]);
}

#[apply(needs_tracing)]
fn segments_are_datagrams(_: &Host) -> Outcome {
    check_segments(Ipv4Addr::LOCALHOST.into(), false);
    check_segments(Ipv6Addr::LOCALHOST.into(), false);
    Ok(())
}

#[apply(needs_tracing)]
fn merged_segments_are_datagrams(_: &Host) -> Outcome {
    check_segments(Ipv4Addr::LOCALHOST.into(), true);
    check_segments(Ipv6Addr::LOCALHOST.into(), true);
    Ok(())
}

#[apply(needs_tracing)]
fn empty_datagrams_are_packets(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        let (client, server) = pair(&netns, &netns, [ip; 2]);
        let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
        for _ in 0..3 {
            client.send(&[]).unwrap();
            assert_eq!(server.recv_from(&mut [0; 8]).unwrap(), (0, from));
        }
        server.send_to(&[], from).unwrap();
        assert_eq!(client.recv(&mut [0; 8]).unwrap(), 0);
        drop((client, server));
        check_end(&tracer, "out", from, to, [3, 0, 1, 0]);
        check_end(&tracer, "in", from, to, [1, 0, 3, 0]);
    }
    Ok(())
}

/// The largest payload that IPv4 has room for.
#[apply(needs_tracing)]
fn largest_datagram_is_one_packet(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let (client, server) = pair(&netns, &netns, [Ipv4Addr::LOCALHOST.into(); 2]);
    let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    client.send(&vec![7; 65_507]).unwrap();
    assert_eq!(server.recv(&mut vec![0; 65_507]).unwrap(), 65_507);
    drop((client, server));
    check_end(&tracer, "out", from, to, [1, 65_507, 0, 0]);
    check_end(&tracer, "in", from, to, [0, 0, 1, 65_507]);
    Ok(())
}

/// Three calls, of which the first two say that more comes.
#[apply(needs_tracing)]
fn corked_datagram_is_one_packet(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let (client, server) = pair(&netns, &netns, [Ipv4Addr::LOCALHOST.into(); 2]);
    let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    let socket = SockRef::from(&client);
    for (data, flags) in [(b"one", libc::MSG_MORE), (b"two", libc::MSG_MORE), (b"six", 0)] {
        assert_eq!(socket.send_with_flags(data, flags).unwrap(), 3);
    }
    assert_eq!(server.recv(&mut [0; 16]).unwrap(), 9);
    drop((client, server));
    check_end(&tracer, "out", from, to, [1, 9, 0, 0]);
    check_end(&tracer, "in", from, to, [0, 0, 1, 9]);
    Ok(())
}

/// Headers that are longer than usual are no payload.
#[apply(needs_tracing)]
fn options_are_no_payload(_: &Host) -> Outcome {
    // A header of eight bytes that a next header replaces, with an option that fills six bytes.
    const FILLED: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    // "No operation", four times.
    const NOTHING: [u8; 4] = [1; 4];
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    for (ip, level, name, option) in [
        (v4, libc::IPPROTO_IP, libc::IP_OPTIONS, &NOTHING[..]),
        (v6, libc::IPPROTO_IPV6, libc::IPV6_HOPOPTS, &FILLED),
        (v6, libc::IPPROTO_IPV6, libc::IPV6_DSTOPTS, &FILLED),
    ] {
        let (client, server) = pair(&netns, &netns, [ip; 2]);
        set_option_bytes(client.as_raw_fd(), level, name, option);
        let to = server.local_addr().unwrap();
        let from = exchange(&client, &server);
        drop((client, server));
        check_end(&tracer, "out", from, to, [1, 5, 1, 10]);
        check_end(&tracer, "in", from, to, [1, 10, 1, 5]);
    }
    Ok(())
}

/// A server of both families sees a client of IPv4 by its own address.
#[apply(needs_tracing)]
fn mapped_servers_are_shown_as_ipv4(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let server = bind(&netns, (Ipv6Addr::UNSPECIFIED, 0));
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, server.local_addr().unwrap().port()));
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    client.connect(to).unwrap();
    exchange(&client, &server);
    let from = client.local_addr().unwrap();
    drop((client, server));
    check_end(&tracer, "out", from, to, [1, 5, 1, 10]);
    check_end(&tracer, "in", from, to, [1, 10, 1, 5]);
    Ok(())
}
