//! `conntrace list` and `count` of UDP sockets beside `ss`.

use conn_tests::{
    harness::{Outcome, Skip, tool},
    host::Host,
    needs_tracing,
    netns::NetNs,
    tracer::Setup,
    traffic::LIMIT,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    time::Instant,
};

/// A port with several sockets.
const SHARED: u16 = 7_101;
/// The port of one server, and that to which clients connect.
const SERVED: u16 = 7_102;

/// `(cookie, state, receive queue, send queue, local port, peer's port)`.
type Sockets = BTreeSet<(u64, String, u64, u64, u16, u16)>;

/// A UDP socket that is bound with these options.
fn bound(address: SocketAddr, prepare: impl FnOnce(&Socket)) -> UdpSocket {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).unwrap();
    prepare(&socket);
    socket.bind(&address.into()).unwrap();
    socket.into()
}

/// UDP sockets of every kind: of both families and with mapped addresses, with a peer and without one, several on one port,
/// and with unread datagrams.
fn every_kind() -> (NetNs, Vec<UdpSocket>) {
    let ns = NetNs::new().unwrap();
    let sockets = ns.run(|| {
        let any4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let any6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let (one4, one6) = (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST);
        let shared = |_| bound((one4, SHARED).into(), |socket| socket.set_reuse_port(true).unwrap());
        let only_v6 = |yes| move |socket: &Socket| socket.set_only_v6(yes).unwrap();
        let connected = |from: SocketAddr, to: SocketAddr| {
            let socket = bound(from, |_| ());
            socket.connect(to).unwrap();
            socket
        };
        let mapped = SocketAddr::from((one4.to_ipv6_mapped(), SERVED));
        let mut sockets = vec![
            bound((one4, SERVED).into(), |_| ()),
            bound((one6, SERVED).into(), |_| ()),
            bound(any4, |_| ()),
            bound(any6, only_v6(false)),
            bound(any6, only_v6(true)),
            bound((one4.to_ipv6_mapped(), 0).into(), |_| ()),
            connected(any4, (one4, SERVED).into()),
            connected((one6, 7_103).into(), (one6, SERVED).into()),
            connected(any6, mapped),
        ];
        sockets.extend((0..3).map(shared));
        for sender in &sockets[6..9] {
            sender.send(&[7; 100]).unwrap();
        }
        sockets
    });
    (ns, sockets)
}

/// What `ss` shows in the namespace.
fn of_ss(ns: &NetNs, filter: &[&str]) -> Result<Sockets, Skip> {
    let output = ns
        .run(|| Command::new("ss").args(["-uanHOe"]).args(filter).output())
        .map_err(|error| Skip(format!("cannot run ss: {error}")))?;
    assert!(output.status.success(), "ss {filter:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let port = |end: &str| end.rsplit_once(':').unwrap().1.parse().unwrap_or(0);
    let row = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        // With a single state in the filter, ss leaves out its column.
        if let ["state", state @ ("established" | "unconnected")] = filter {
            words.insert(0, state);
        }
        let state = match words[0] {
            "ESTAB" | "established" => "established",
            "UNCONN" | "unconnected" => "unconnected",
            other => panic!("{other}: {line}"),
        };
        let number = |word: &str| word.parse().unwrap();
        let cookie = words.iter().find_map(|word| word.strip_prefix("sk:")).expect(line);
        let cookie = u64::from_str_radix(cookie, 16).unwrap();
        (cookie, state.to_owned(), number(words[1]), number(words[2]), port(words[3]), port(words[4]))
    };
    Ok(text.lines().map(row).collect())
}

/// Runs `conntrace` for the namespace.
fn run(ns: &NetNs, args: &[&str]) -> Vec<String> {
    let netns = ns.inum().to_string();
    let ended = Setup::new(args.iter().chain(&["--netns", &netns])).run();
    ended.expect_code(0);
    ended.stdout
}

fn rows(ns: &NetNs, args: &[&str]) -> Vec<Value> {
    let lines = run(ns, &[&["list", "-o", "json"], args].concat());
    lines.iter().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// A row as ss has it: from this end.
fn socket(row: &Value) -> (u64, String, u64, u64, u16, u16) {
    assert_eq!((&row["protocol"], &row["bytes_sent"]), (&"udp".into(), &Value::Null), "{row}");
    let port = |key: &str| row[key].as_u64().unwrap() as u16;
    let (local, peer) = if row["local_end"] == "src" {
        (port("sport"), port("dport"))
    } else {
        (port("dport"), port("sport"))
    };
    let number = |key: &str| row[key].as_u64().unwrap_or_else(|| panic!("{key}: {row}"));
    let state = row["state"].as_str().unwrap().to_owned();
    (number("id"), state, number("receive_queue"), number("send_queue"), local, peer)
}

/// Both show the same sockets, and as many are counted.
fn agree(ns: &NetNs, ours: &[&str], filter: &[&str]) -> Outcome {
    let expected = of_ss(ns, filter)?;
    let listed: Sockets = rows(ns, &[&["-p", "udp"], ours].concat()).iter().map(socket).collect();
    let differ: Vec<_> = listed.symmetric_difference(&expected).collect();
    assert!(differ.is_empty() && !expected.is_empty(), "{ours:?}, only in one of both: {differ:#?}");
    let count = ours.iter().filter(|&&word| word != "-l").copied();
    let states = if ours.contains(&"-l") { &["--state", "unconnected"][..] } else { &[] };
    let count: Vec<&str> =
        ["count", "-p", "udp"].into_iter().chain(states.iter().copied()).chain(count).collect();
    assert_eq!(run(ns, &count).concat(), expected.len().to_string(), "{count:?}");
    Ok(())
}

#[apply(needs_tracing)]
fn sockets_equal_those_of_ss(_: &Host) -> Outcome {
    let (ns, _sockets) = every_kind();
    agree(&ns, &["-l"], &["state", "unconnected"])?;
    agree(&ns, &[], &["state", "established"])?;
    agree(&ns, &["--state", "all"], &[])
}

#[apply(needs_tracing)]
fn drops_equal_those_of_ss(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let (receiver, sender) = ns.run(|| {
        let receiver = bound((Ipv4Addr::LOCALHOST, 0).into(), |socket| {
            socket.set_recv_buffer_size(4_096).unwrap();
        });
        let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        (receiver, sender)
    });
    for _ in 0..200 {
        sender.send_to(&[7; 1_000], receiver.local_addr().unwrap()).unwrap();
    }
    let output = ns
        .run(|| Command::new("ss").args(["-uanmHO"]).output())
        .map_err(|error| Skip(format!("cannot run ss: {error}")))?;
    let text = String::from_utf8(output.stdout).unwrap();
    let port = receiver.local_addr().unwrap().port();
    let line = text.lines().find(|line| line.contains(&format!(":{port} "))).expect("the receiver");
    let drops = line.trim_end().strip_suffix(')').and_then(|line| line.rsplit_once(",d")).expect(line).1;
    let drops: u64 = drops.parse().unwrap();
    let rows = rows(&ns, &["-l", "-p", "udp"]);
    let row = rows.iter().find(|row| row["dport"] == port).expect("the receiver");
    assert!(drops > 100 && row["dropped"] == drops, "{drops}: {row}");
    Ok(())
}

#[apply(needs_tracing)]
fn filters_select_what_ss_selects(_: &Host) -> Outcome {
    let (ns, _sockets) = every_kind();
    for filter in
        ["sport = :7101", "dport = :7102", "sport = :7102 or sport = :7103", "src [::1]", "dst 127.0.0.1"]
    {
        // ss has no mapped addresses among those of IPv4.
        let theirs =
            if filter == "dst 127.0.0.1" { "dst 127.0.0.1 or dst [::ffff:127.0.0.1]" } else { filter };
        agree(&ns, &["--state", "all", filter], &[theirs])?;
    }
    // Either end may be the client.
    let by_service = rows(&ns, &["-p", "udp", "--dport", "7102"]);
    assert_eq!(by_service.len(), 3, "{by_service:#?}");
    assert!(rows(&ns, &["-p", "udp", "--direction", "out"]).is_empty(), "the direction is not known");
    Ok(())
}

#[apply(needs_tracing)]
fn both_protocols_are_counted_together(_: &Host) -> Outcome {
    let (ns, sockets) = every_kind();
    let _tcp = ns.run(|| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, SERVED)).unwrap());
    assert_eq!(run(&ns, &["count", "-p", "tcp,udp", "--state", "unconnected,listening"]).concat(), "10");
    let by_state = run(&ns, &["count", "-p", "udp", "--state", "all", "--by", "state", "-o", "csv"]);
    assert_eq!(by_state, ["state,open", "unconnected,9", "established,3"]);
    let pid = std::process::id().to_string();
    let by_pid = run(&ns, &["count", "--by", "pid", "-o", "csv", "state all proto udp"]);
    assert_eq!(by_pid[1..], [format!("{pid},{}", sockets.len())]);
    // Without -p, there is only TCP.
    assert_eq!(rows(&ns, &["-l"]).len(), 1);
    Ok(())
}

#[apply(needs_tracing)]
fn processes_are_those_that_have_the_socket_open(_: &Host) -> Outcome {
    let sleep = tool("/bin/sleep")?;
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let [ours, shared, passed] =
        [(); 3].map(|()| here.run(|| bound((Ipv4Addr::LOCALHOST, 0).into(), |_| ())));
    let far = there.run(|| bound((Ipv6Addr::LOCALHOST, 0).into(), |_| ()));
    // Standard input is a socket; of `passed`, this process keeps no descriptor.
    let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
    let ports = [&ours, &shared, &passed, &far].map(port);
    let spawn = |socket: UdpSocket| {
        let socket = Stdio::from(std::os::fd::OwnedFd::from(socket));
        Command::new(sleep).arg("60").stdin(socket).spawn().unwrap()
    };
    let mut children = [spawn(shared.try_clone().unwrap()), spawn(passed)];
    let me = std::process::id();
    let expected = [(me, 1), (me.min(children[0].id()), 2), (children[1].id(), 1), (me, 1)];
    let look = || -> Vec<_> {
        [(&here, &ports[..3]), (&there, &ports[3..])]
            .into_iter()
            .flat_map(|(ns, ports)| {
                let rows = rows(ns, &["-l", "-p", "17"]);
                ports
                    .iter()
                    .map(|port| {
                        let row = rows.iter().find(|row| row["dport"] == *port).expect("the socket");
                        let number = |key: &str| row[key].as_u64().unwrap() as u32;
                        assert_eq!(
                            (&row["owner"], number("netns")),
                            (&"files".into(), ns.inum() as u32),
                            "{row}"
                        );
                        (number("pid"), number("holders"))
                    })
                    .collect::<Vec<_>>()
            })
            .collect()
    };
    // A process that another test has just forked has all sockets of this one until its exec().
    let deadline = Instant::now() + *LIMIT;
    let mut found = look();
    while found != expected && Instant::now() < deadline {
        found = look();
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(found, expected);
    Ok(())
}
