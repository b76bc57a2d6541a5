//! Flows of UDP: each begins once, ends once, and counts what its socket sent and received.

mod beside_conntrack;
mod life;
mod load;
mod owners;
mod packets;
mod quic;
mod servers;
mod shapes;

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    tracer::{Setup, Tracer},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process,
    sync::Barrier,
    thread,
};

/// `conntrace -p udp` of a namespace.
fn watch(netns: &NetNs, arguments: &[&str]) -> Tracer {
    let own = ["-p", "udp", "--netns", &netns.inum().to_string()].map(str::to_owned);
    Tracer::start(own.into_iter().chain(arguments.iter().map(ToString::to_string)))
}

/// The ends of flows in two namespaces.
fn watch_ends(one: &NetNs, other: &NetNs) -> Tracer {
    watch(one, &["-e", "DESTROY", "--netns", &other.inum().to_string()])
}

/// The event of this kind with this tuple.
fn await_flow(tracer: &Tracer, kind: Kind, direction: &str, client: SocketAddr, server: SocketAddr) -> Line {
    tracer.await_event(&format!("{kind:?} dir={direction} {client} {server}"), |line| {
        line.kind == kind
            && line.original.source == client
            && line.original.destination == server
            && line.key("dir") == Some(direction)
    })
}

/// The JSON event of this kind with this tuple.
fn await_json(tracer: &Tracer, kind: &str, direction: &str, client: SocketAddr, server: SocketAddr) -> Value {
    let end = |address: SocketAddr| (Value::from(address.ip().to_string()), Value::from(address.port()));
    let (src, dst) = (end(client), end(server));
    tracer.await_json(&format!("{kind} direction {direction}: {client} {server}"), |event| {
        event["event"] == kind
            && event["direction"] == direction
            && (&event["src"], &event["sport"]) == (&src.0, &src.1)
            && (&event["dst"], &event["dport"]) == (&dst.0, &dst.1)
    })
}

/// The end of a flow has these packets and bytes sent, and packets and bytes received.
#[track_caller]
fn check_end(
    tracer: &Tracer,
    direction: &str,
    client: SocketAddr,
    server: SocketAddr,
    expected: [u64; 4],
) -> Line {
    let end = await_flow(tracer, Kind::Destroy, direction, client, server);
    assert_eq!(numbers(&end), expected, "{end:?}");
    end
}

fn numbers(line: &Line) -> [u64; 4] {
    ["packets_sent", "bytes_sent", "packets_received", "bytes_received"]
        .map(|key| line.key(key).unwrap_or_else(|| panic!("no {key}: {line:?}")).parse().unwrap())
}

fn bind(netns: &NetNs, address: impl Into<SocketAddr>) -> UdpSocket {
    let address = address.into();
    netns.run(|| UdpSocket::bind(address).unwrap())
}

/// A query and its answer, between a connected client and a server. Returns the client's address.
fn exchange(client: &UdpSocket, server: &UdpSocket) -> SocketAddr {
    let mut buffer = [0; 64];
    client.send(b"query").unwrap();
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"query");
    server.send_to(b"the answer", from).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 10);
    from
}

/// Both sides of an exchange, from the first packet to the close.
fn check_exchange(ip: impl Into<std::net::IpAddr>) {
    let ip = ip.into();
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &[]);
    let server = bind(&netns, (ip, 0));
    let address = server.local_addr().unwrap();
    let client = bind(&netns, (ip, 0));
    client.connect(address).unwrap();
    let from = exchange(&client, &server);
    drop(client);
    drop(server);
    let pid = process::id().to_string();
    for (direction, new_owner) in [("out", "send"), ("in", "bind")] {
        let new = await_flow(&tracer, Kind::New, direction, from, address);
        assert_eq!((new.timeout, new.unreplied, new.assured), (Some(30), true, false));
        assert_eq!((new.protocol.as_str(), new.number, &new.state), ("udp", 17, &None));
        assert_eq!((new.key("owner"), new.key("pid")), (Some(new_owner), Some(pid.as_str())));
        let update = await_flow(&tracer, Kind::Update, direction, from, address);
        assert_eq!((update.timeout, update.unreplied, update.assured), (Some(30), false, false));
        assert_eq!((update.key("owner"), update.key("pid")), (Some("send"), Some(pid.as_str())));
        let end = await_flow(&tracer, Kind::Destroy, direction, from, address);
        let expected = if direction == "out" { [1, 5, 1, 10] } else { [1, 10, 1, 5] };
        assert_eq!((numbers(&end), end.key("reason"), end.timeout), (expected, Some("closed"), None));
    }
    assert_eq!(
        tracer.stop().expect_balance(),
        "conntrace: produced 6 = shown 6 + filtered 0 + lost 0: holds\nconntrace v0.1.0: 6 flow events have been shown.\n"
    );
}

#[apply(needs_tracing)]
fn exchange_is_shown_from_both_sides(_: &Host) -> Outcome {
    check_exchange(Ipv4Addr::LOCALHOST);
    Ok(())
}

#[apply(needs_tracing)]
fn exchange_over_ipv6_is_shown_from_both_sides(_: &Host) -> Outcome {
    check_exchange(Ipv6Addr::LOCALHOST);
    Ok(())
}

/// A socket of IPv6 with a peer of IPv4 has packets of IPv4.
#[apply(needs_tracing)]
fn mapped_addresses_are_shown_as_ipv4(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "DESTROY"]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let address = server.local_addr().unwrap();
    let client = bind(&netns, (Ipv6Addr::UNSPECIFIED, 0));
    client.connect((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), address.port())).unwrap();
    let from = exchange(&client, &server);
    drop(client);
    let end = await_flow(&tracer, Kind::Destroy, "out", from, address);
    assert_eq!(numbers(&end), [1, 5, 1, 10]);
    Ok(())
}

#[apply(needs_tracing)]
fn close_ends_all_flows_of_a_socket(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &["-e", "NEW,DESTROY"]);
    let socket = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let from = socket.local_addr().unwrap();
    let peers: Vec<UdpSocket> = (0..20).map(|_| bind(&netns, (Ipv4Addr::LOCALHOST, 0))).collect();
    for (peer, count) in peers.iter().zip(1..) {
        for _ in 0..count {
            socket.send_to(b"x", peer.local_addr().unwrap()).unwrap();
        }
    }
    drop(socket);
    for (peer, count) in peers.iter().zip(1..) {
        let end = await_flow(&tracer, Kind::Destroy, "out", from, peer.local_addr().unwrap());
        assert_eq!((numbers(&end), end.key("reason")), ([count, count, 0, 0], Some("closed")));
        assert!(end.unreplied);
    }
    Ok(())
}

/// A socket from before the start has the owner that the walk over open files found.
#[apply(needs_tracing)]
fn older_sockets_have_the_owner_of_their_file(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let address = server.local_addr().unwrap();
    let tracer = watch(&netns, &[]);
    let client = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    client.connect(address).unwrap();
    let from = exchange(&client, &server);
    let pid = process::id().to_string();
    for (kind, owner) in [(Kind::New, "files"), (Kind::Update, "send")] {
        let event = await_flow(&tracer, kind, "in", from, address);
        assert_eq!((event.key("owner"), event.key("pid")), (Some(owner), Some(pid.as_str())));
    }
    Ok(())
}

/// Two threads send the first packet of each flow at the same moment. Both packets are of one flow.
#[apply(needs_tracing)]
fn twins_are_one_flow(_: &Host) -> Outcome {
    const FLOWS: u32 = 20_001;
    let netns = NetNs::new().unwrap();
    let id = netns.inum().to_string();
    let tracer =
        Setup::new(["-p", "udp", "--netns", &id, "-e", "NEW,DESTROY", "-o", "json", "--buffer-size", "64M"])
            .start();
    let socket = bind(&netns, (Ipv4Addr::LOCALHOST, 0));
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for flow in 0..FLOWS {
                    let peer = SocketAddr::from((Ipv4Addr::from(0x7f00_0001 + flow), 9));
                    barrier.wait();
                    socket.send_to(b"twin", peer).unwrap();
                }
            });
        }
    });
    drop(socket);
    // The sweep ends them all at once, in no order.
    let seen = std::cell::Cell::new(0);
    tracer.await_stdout("all ends", |line| {
        seen.set(seen.get() + u32::from(line.contains(r#""event":"destroy""#)));
        seen.get() == FLOWS
    });
    let ended = tracer.stop();
    let events: Vec<Value> = ended.stdout.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    let peers: BTreeSet<&str> = of("new").iter().map(|event| event["dst"].as_str().unwrap()).collect();
    assert_eq!((of("new").len(), peers.len()), (FLOWS as usize, FLOWS as usize));
    let ends = of("destroy");
    let (single, packets) = ends.iter().fold((0, 0), |(single, packets), event| {
        let sent = event["segments_sent"].as_u64().unwrap();
        assert_eq!(event["bytes_sent"], 4 * sent);
        (single + u64::from(sent != 2), packets + sent)
    });
    assert_eq!((single, packets), (0, 2 * u64::from(FLOWS)));
    Ok(())
}
