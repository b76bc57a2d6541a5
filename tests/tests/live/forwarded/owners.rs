//! The processes behind flows: those whose sockets in other namespaces have the original tuples, and no others.

use super::{await_event, flush, tracked, watch};
use crate::live::workload::Cgroup;
use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    routed::Routed,
    tracer::{Setup, Tracer},
    traffic::{LIMIT, crew::Worker, process::Process},
};
use macro_rules_attribute::apply;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::Range,
    process, thread,
};

/// Connections of the contained client.
const CONNECTIONS: usize = 1_000;
/// Its flows of UDP, each of one packet from another socket.
const FLOWS: usize = 200;
/// The ports of connections of this process beside them.
const OTHERS: Range<u16> = 10_000..10_100;
/// The name of its process.
const NAME: &str = "conn-inner";

/// A listener and a socket of the server.
struct Goal {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Goal {
    fn new(routed: &Routed) -> Self {
        let ip = routed.server_end().v4;
        let tcp = routed.server.run(|| TcpListener::bind((ip, 0))).unwrap();
        let udp = routed.server_socket(ip.into()).unwrap();
        udp.set_read_timeout(Some(*LIMIT)).unwrap();
        Self { tcp, udp }
    }

    fn addresses(&self) -> [SocketAddr; 2] {
        [self.tcp.local_addr().unwrap(), self.udp.local_addr().unwrap()]
    }

    /// Takes the next connection, reads a byte and answers it.
    fn answer(&self) -> (TcpStream, SocketAddr) {
        let (mut stream, from) = self.tcp.accept().unwrap();
        stream.read_exact(&mut [0]).unwrap();
        stream.write_all(b"!").unwrap();
        (stream, from)
    }
}

/// Connects, and ends when an answer came.
fn ask(to: SocketAddr) -> TcpStream {
    exchange(TcpStream::connect(to).unwrap())
}

/// The same from this address.
fn ask_from(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    exchange(socket.into())
}

fn exchange(mut stream: TcpStream) -> TcpStream {
    stream.write_all(b"?").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    stream
}

/// A client as containers have them: in cgroup, pid namespace and network namespace of its own. `job` is its work.
fn contained(routed: &Routed, cgroup: &Cgroup, job: impl FnOnce() + Send) -> Worker {
    routed.client.run(|| {
        Worker::start("conn-outer", &[], |_| {
            cgroup.enter();
            unshare(CloneFlags::CLONE_NEWPID).expect("a pid namespace");
            Process::run(NAME, &[], job).join();
        })
    })
}

/// The process in the pid namespace, by its id here.
fn inner(cgroup: &Cgroup, outer: &Worker) -> u32 {
    let members = fs::read_to_string(cgroup.path.join("cgroup.procs")).unwrap();
    let mut pids = members.lines().map(|line| line.parse::<u32>().unwrap()).filter(|&pid| pid != outer.pid());
    pids.next().expect("the inner process")
}

/// The lines about flows of a protocol to an address, by source port.
fn begun(tracer: &Tracer, to: SocketAddr) -> BTreeMap<u16, Line> {
    let lines = tracer.events().into_iter().filter(|line| {
        line.kind == Kind::New && line.original.destination == to && line.key("dir") == Some("forward")
    });
    lines.map(|line| (line.original.source.port(), line)).collect()
}

#[apply(needs_tracing)]
fn a_contained_client_owns_each_of_its_flows(_: &Host) -> Outcome {
    let (routed, cgroup) = (tracked()?, Cgroup::new()?);
    let goal = Goal::new(&routed);
    let (tracer, json) = (watch(&routed, &[]), watch(&routed, &["-o", "json", "--container", &cgroup.id]));
    let [tcp, udp] = goal.addresses();
    let last = Goal::new(&routed).tcp;
    let last_address = last.local_addr().unwrap();
    let client = contained(&routed, &cgroup, || {
        for _ in 0..CONNECTIONS {
            ask(tcp);
        }
        for _ in 0..FLOWS {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.send_to(b"x", udp).unwrap();
        }
        // Until the test has looked for the process.
        ask(last_address);
    });
    let (accepted, others) = thread::scope(|scope| {
        let accepted = scope
            .spawn(|| (0..CONNECTIONS + OTHERS.len()).map(|_| goal.answer().1).collect::<Vec<SocketAddr>>());
        // This process connects from the same network namespace in between.
        // From ports that the kernel does not choose: it may choose one twice.
        let from = OTHERS.map(|port| SocketAddr::from((routed.client_end().v4, port)));
        let others = routed.client.run(|| from.inspect(|&from| _ = ask_from(from, tcp)).collect());
        (accepted.join().unwrap(), others)
    });
    let others: BTreeSet<SocketAddr> = others;
    let connections: Vec<SocketAddr> = accepted.into_iter().filter(|from| !others.contains(from)).collect();
    let mut buffer = [0; 8];
    let flows: Vec<SocketAddr> = (0..FLOWS).map(|_| goal.udp.recv_from(&mut buffer).unwrap().1).collect();
    let (mut held, from) = last.accept().unwrap();
    let pid = inner(&cgroup, &client);
    held.write_all(b"!").unwrap();
    client.join();

    await_event(&tracer, Kind::New, from);
    let lines = begun(&tracer, tcp);
    let pid_of = |line: &Line| line.key("pid").unwrap().to_owned();
    for from in &connections {
        let line = &lines[&from.port()];
        assert_eq!((pid_of(line), line.key("comm")), (pid.to_string(), Some(NAME)), "{line:?}");
        assert_eq!(line.key("owner"), Some("socket"), "{line:?}");
    }
    for from in &others {
        assert_eq!(pid_of(&lines[&from.port()]), process::id().to_string());
    }
    assert_eq!((connections.len(), others.len()), (CONNECTIONS, OTHERS.len()));
    let lines = begun(&tracer, udp);
    for from in &flows {
        assert_eq!(pid_of(&lines[&from.port()]), pid.to_string(), "{:?}", lines[&from.port()]);
    }
    // Each flow keeps its owner to its end.
    flush(&routed)?;
    let end = await_event(&tracer, Kind::Destroy, connections[0]);
    assert_eq!((pid_of(&end), end.key("owner")), (pid.to_string(), Some("socket")));
    let end = json.await_json("the last end", |event| {
        event["event"] == "destroy" && event["sport"] == from.port() && event["protocol"] == "tcp"
    });
    assert_eq!((&end["container"], &end["pid"]), (&cgroup.id.as_str().into(), &pid.into()), "{end}");
    tracer.stop().expect_balance();
    let ended = json.stop();
    let is_own = |line: &String| serde_json::from_str::<Value>(line).unwrap()["pid"] == pid;
    assert!(ended.stdout.iter().all(is_own), "{ended:#?}");
    ended.expect_balance();
    Ok(())
}

#[apply(needs_tracing)]
fn flows_from_before_have_the_process_of_their_socket(_: &Host) -> Outcome {
    let routed = tracked()?;
    let goal = Goal::new(&routed);
    let [tcp, udp] = goal.addresses();
    let own = process::id();
    let (client, _server) = thread::scope(|scope| {
        let client = scope.spawn(|| routed.client.run(|| ask(tcp)));
        let server = goal.answer();
        (client.join().unwrap(), server)
    });
    let connected = routed.client_socket(routed.client_end().v4.into()).unwrap();
    connected.connect(udp).unwrap();
    connected.send(b"x").unwrap();
    let ports = [client.local_addr().unwrap().port(), connected.local_addr().unwrap().port()];
    let router = routed.router.inum().to_string();
    let listed = Setup::new(["list", "--forwarded", "--netns", &router, "-o", "json"]).run();
    listed.expect_code(0);
    for port in ports {
        let found = listed.stdout.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let flow = found.into_iter().find(|flow| flow["sport"] == port).expect("the flow");
        assert_eq!((&flow["pid"], &flow["owner"]), (&own.into(), &"socket".into()), "{flow}");
    }
    let tracer = watch(&routed, &["-o", "json", "-e", "DESTROY"]);
    drop((client, connected));
    flush(&routed)?;
    for port in ports {
        let end = tracer.await_json("the end", |event| event["sport"] == port);
        assert_eq!((&end["pid"], &end["owner"]), (&own.into(), &"socket".into()), "{end}");
    }
    tracer.stop().expect_balance();
    Ok(())
}

/// Sends a packet of UDP without a socket of UDP.
fn send_raw(from: SocketAddr, to: SocketAddr) {
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (from.ip(), to.ip()) else { panic!("IPv4 only") };
    let mut packet = vec![0x45, 0, 0, 29, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend([from.port().to_be_bytes(), to.port().to_be_bytes(), [0, 9], [0, 0]].concat());
    packet.push(b'x');
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    socket.send_to(&packet, &to.into()).unwrap();
}

#[apply(needs_tracing)]
fn a_flow_without_a_known_socket_has_no_owner(_: &Host) -> Outcome {
    let routed = tracked()?;
    let goal = Goal::new(&routed);
    let [_, udp] = goal.addresses();
    let tracer = watch(&routed, &["-e", "NEW"]);
    let from = SocketAddr::from((routed.client_end().v4, 4_444));
    routed.client.run(|| send_raw(from, udp));
    routed.ping(routed.server_end().v4.into()).unwrap();
    let raw = await_event(&tracer, Kind::New, from);
    let ping = tracer.await_event("NEW of ICMP", |line| line.protocol == "icmp");
    for line in [raw, ping] {
        assert_eq!((line.key("pid"), line.key("owner")), (Some("-"), Some("-")), "{line:?}");
    }
    tracer.stop().expect_balance();
    Ok(())
}

#[apply(needs_tracing)]
fn a_tuple_of_two_namespaces_names_no_process(_: &Host) -> Outcome {
    let routed = tracked()?;
    let goal = Goal::new(&routed);
    let [_, udp] = goal.addresses();
    // Another namespace behind the router, with the address of the client.
    let twin = NetNs::new().unwrap();
    let _resident = twin.settle();
    let link = routed.router.join(&twin).unwrap();
    let ip = routed.client_end().v4;
    twin.address(&link.name, ip.into(), 32).unwrap();
    twin.route(udp.ip(), 32, link.here.v4.into()).unwrap();
    for name in ["all".to_owned(), link.name.clone()] {
        routed.router.sysctl(&format!("net.ipv4.conf.{name}.rp_filter"), "0").unwrap();
    }
    let tracer = watch(&routed, &["-e", "NEW"]);
    let socket = routed.client_socket(ip.into()).unwrap();
    let from = socket.local_addr().unwrap();
    socket.send_to(b"x", udp).unwrap();
    goal.udp.recv_from(&mut [0; 8]).unwrap();
    await_event(&tracer, Kind::New, from);
    flush(&routed)?;
    let other = twin.run(|| {
        Worker::start(NAME, &[], |line| {
            let socket = UdpSocket::bind(from).unwrap();
            socket.send_to(b"y", udp).unwrap();
            line.ready();
            line.wait();
        })
    });
    other.await_ready();
    goal.udp.recv_from(&mut [0; 8]).unwrap();
    // A mark of another tuple, which comes behind the flow of the twin.
    let mark = routed.client_socket(ip.into()).unwrap();
    mark.send_to(b"z", udp).unwrap();
    await_event(&tracer, Kind::New, mark.local_addr().unwrap());
    let lines: Vec<Line> = tracer.events().into_iter().filter(|line| line.original.source == from).collect();
    let owners: Vec<_> = lines.iter().map(|line| (line.key("pid"), line.key("owner"))).collect();
    let own = process::id().to_string();
    assert_eq!(owners, [(Some(own.as_str()), Some("socket")), (Some("-"), Some("-"))]);
    other.resume();
    other.join();
    tracer.stop().expect_balance();
    Ok(())
}
