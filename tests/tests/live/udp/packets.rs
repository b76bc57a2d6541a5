//! What reaches several sockets, no socket, or a full one: each flow counts what its own socket sent and received.

use super::{await_flow, bind, check_end, exchange, numbers, watch, watch_ends};
use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    tracer::Tracer,
    traffic::socket::set_option,
};
use macro_rules_attribute::apply;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use std::{
    cell::Cell,
    fs,
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    time::Duration,
};

/// Packets to a group or to all.
const PACKETS: u64 = 110;

/// Waits for `count` ends of flows that came in with this tuple.
fn await_ends(tracer: &Tracer, count: u64, client: SocketAddr, server: SocketAddr) -> Vec<Line> {
    let is_meant = |line: &Line| line.original.source == client && line.original.destination == server;
    let seen = Cell::new(0);
    tracer.await_event(&format!("{count} ends of {client} {server}"), |line| {
        seen.set(seen.get() + u64::from(is_meant(line) && line.key("dir") == Some("in")));
        seen.get() == count
    });
    tracer.events().into_iter().filter(|line| is_meant(line) && line.key("dir") == Some("in")).collect()
}

/// A socket at a port that others may share, with an option of its own.
fn member(netns: &NetNs, address: SocketAddr, prepare: impl FnOnce(&Socket) + Send) -> UdpSocket {
    netns.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_address(true).unwrap();
        prepare(&socket);
        socket.bind(&address.into()).unwrap();
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket
    })
}

/// Sends to all members, which receive all, and compares all flows.
fn check_group(tracer: &Tracer, sender: UdpSocket, to: SocketAddr, members: Vec<UdpSocket>) {
    let from = sender.local_addr().unwrap();
    for _ in 0..PACKETS {
        sender.send_to(b"to all", to).unwrap();
        for member in &members {
            assert_eq!(member.recv(&mut [0; 8]).unwrap(), 6);
        }
    }
    drop(sender);
    let count = members.len() as u64;
    drop(members);
    check_end(tracer, "out", from, to, [PACKETS, 6 * PACKETS, 0, 0]);
    for end in await_ends(tracer, count, from, to) {
        assert_eq!(numbers(&end), [0, 0, PACKETS, 6 * PACKETS], "{end:?}");
        assert!(end.unreplied && end.key("reason") == Some("closed"), "{end:?}");
    }
}

/// The kernel's copy for members on the sender's host is no second packet of the sender.
#[apply(needs_tracing)]
fn multicast_is_one_flow_of_each_member(_: &Host) -> Outcome {
    let (netns, other) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let link = netns.join(&other).unwrap();
    let tracer = watch_ends(&netns, &other);
    let group = Ipv4Addr::new(239, 1, 2, 3);
    let to = SocketAddr::from((group, 7_301));
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7_301));
    let join = |netns: &NetNs, interface: Ipv4Addr| {
        member(netns, any, move |socket| socket.join_multicast_v4(&group, &interface).unwrap())
    };
    let members = vec![join(&netns, link.here.v4), join(&other, link.there.v4), join(&other, link.there.v4)];
    let sender = bind(&netns, (link.here.v4, 0));
    SockRef::from(&sender).set_multicast_if_v4(&link.here.v4).unwrap();
    check_group(&tracer, sender, to, members);
    Ok(())
}

#[apply(needs_tracing)]
fn multicast_of_ipv6_is_one_flow_of_each_member(_: &Host) -> Outcome {
    let (netns, other) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let link = netns.join(&other).unwrap();
    let tracer = watch_ends(&netns, &other);
    let group: Ipv6Addr = "ff15::7".parse().unwrap();
    let to = SocketAddr::from((group, 7_302));
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 7_302));
    let index = |netns: &NetNs| netns.run(|| if_nametoindex(link.name.as_str()).unwrap());
    let members = [&netns, &other, &other]
        .map(|netns| {
            let interface = index(netns);
            member(netns, any, move |socket| socket.join_multicast_v6(&group, interface).unwrap())
        })
        .into();
    let sender = bind(&netns, (link.here.v6, 0));
    SockRef::from(&sender).set_multicast_if_v6(index(&netns)).unwrap();
    check_group(&tracer, sender, to, members);
    Ok(())
}

#[apply(needs_tracing)]
fn broadcast_is_one_flow_of_each_receiver(_: &Host) -> Outcome {
    let (netns, other) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let link = netns.join(&other).unwrap();
    let tracer = watch_ends(&netns, &other);
    // The last address of a network with a prefix of 29 bits.
    let all = Ipv4Addr::from(u32::from(link.here.v4) | 7);
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 7_303));
    let members = [&netns, &other, &other].map(|netns| member(netns, any, |_| ())).into();
    let sender = bind(&netns, (link.here.v4, 0));
    sender.set_broadcast(true).unwrap();
    check_group(&tracer, sender, SocketAddr::from((all, 7_303)), members);
    Ok(())
}

/// Sends to a port without a socket, and waits for the kernel's answer, which comes before the send returns.
fn check_refused(ip: IpAddr, to: IpAddr) {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let mut closed = bind(&netns, (to, 0)).local_addr().unwrap();
    let client = bind(&netns, (ip, 0));
    let shown = closed;
    if ip.is_ipv6()
        && let IpAddr::V4(v4) = to
    {
        closed.set_ip(v4.to_ipv6_mapped().into());
    }
    client.connect(closed).unwrap();
    client.send(b"x").unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let mut from = client.local_addr().unwrap();
    from.set_ip(from.ip().to_canonical());
    drop(client);
    let end = check_end(&tracer, "out", from, shown, [1, 1, 0, 0]);
    assert_eq!((end.key("failed"), end.key("reason"), end.unreplied), (Some("refused"), None, true));
}

#[apply(needs_tracing)]
fn refused_flow_fails(_: &Host) -> Outcome {
    check_refused(Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into());
    Ok(())
}

#[apply(needs_tracing)]
fn refused_flow_of_ipv6_fails(_: &Host) -> Outcome {
    check_refused(Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    Ok(())
}

#[apply(needs_tracing)]
fn refused_flow_of_a_mapped_address_fails(_: &Host) -> Outcome {
    check_refused(Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::LOCALHOST.into());
    Ok(())
}

/// A flow that had a reply did not fail when the peer closed its socket later.
#[apply(needs_tracing)]
fn flow_with_a_reply_is_not_refused(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let address = server.local_addr().unwrap();
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    client.connect(address).unwrap();
    let from = exchange(&client, &server);
    drop(server);
    client.send(b"again").unwrap();
    assert_eq!(client.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(client);
    let end = check_end(&tracer, "out", from, address, [2, 10, 1, 10]);
    assert_eq!((end.key("failed"), end.key("reason")), (None, Some("closed")));
    Ok(())
}

/// The kernel reports no refusal to a socket without a peer, or does not say with the report which peer is meant.
#[apply(needs_tracing)]
fn refusal_of_an_unconnected_socket_is_not_seen(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    for receives_errors in [false, true] {
        let closed = bind(&netns, (Ipv4Addr::LOCALHOST, 0)).local_addr().unwrap();
        let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
        set_option(client.as_raw_fd(), libc::IPPROTO_IP, libc::IP_RECVERR, receives_errors.into());
        client.send_to(b"x", closed).unwrap();
        client.set_nonblocking(true).unwrap();
        let expected = if receives_errors { ErrorKind::ConnectionRefused } else { ErrorKind::WouldBlock };
        assert_eq!(client.recv(&mut [0; 8]).unwrap_err().kind(), expected);
        let from = client.local_addr().unwrap();
        drop(client);
        let end = check_end(&tracer, "out", from, closed, [1, 1, 0, 0]);
        assert_eq!((end.key("failed"), end.key("reason"), end.unreplied), (None, Some("closed"), true));
    }
    Ok(())
}

/// Packets that a socket dropped as its buffer was full are received packets, as in the kernel's own counters.
#[apply(needs_tracing)]
fn full_buffer_drops_received_packets(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    SockRef::from(&server).set_recv_buffer_size(4_096).unwrap();
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let (from, to) = (client.local_addr().unwrap(), server.local_addr().unwrap());
    for _ in 0..300 {
        client.send_to(&[7; 1_000], to).unwrap();
    }
    server.set_nonblocking(true).unwrap();
    let read = std::iter::from_fn(|| server.recv(&mut [0; 1_000]).ok()).count();
    let table = netns.run(|| fs::read_to_string("/proc/thread-self/net/udp").unwrap());
    let end = format!(":{:04X} 00000000:0000 ", to.port());
    let row = table.lines().find(|row| row.contains(&end)).unwrap_or_else(|| panic!("{end}: {table}"));
    let dropped: usize = row.split_whitespace().last().unwrap().parse().unwrap();
    assert_eq!((read + dropped, dropped > 100), (300, true), "{read} + {dropped}");
    drop((client, server));
    check_end(&tracer, "out", from, to, [300, 300_000, 0, 0]);
    check_end(&tracer, "in", from, to, [0, 0, 300, 300_000]);
    Ok(())
}

/// A raw socket sends and receives packets of UDP, too. They are flows of UDP sockets only.
#[apply(needs_tracing)]
fn raw_sockets_have_no_flows(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &[]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let to = server.local_addr().unwrap();
    let raw = netns.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)).unwrap());
    let from = SocketAddr::from((Ipv4Addr::LOCALHOST, 7_304));
    raw.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    // A header of UDP without a checksum, and two bytes.
    let ports = [from.port().to_be_bytes(), to.port().to_be_bytes(), [0, 10], [0, 0], *b"hi"].concat();
    raw.send_to(&ports, &to.into()).unwrap();
    assert_eq!(server.recv(&mut [0; 8]).unwrap(), 2);
    // The raw socket gets this one as well, and has its own copy of the first one.
    let last = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    last.send_to(b"last", to).unwrap();
    let last_from = last.local_addr().unwrap();
    drop((raw, server, last));
    check_end(&tracer, "in", from, to, [0, 0, 1, 2]);
    check_end(&tracer, "in", last_from, to, [0, 0, 1, 4]);
    check_end(&tracer, "out", last_from, to, [1, 4, 0, 0]);
    await_flow(&tracer, Kind::New, "in", from, to);
    assert_eq!(tracer.stop().events().len(), 6);
    Ok(())
}
