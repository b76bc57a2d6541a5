//! The process in the lines of a flow is the one that sent, bound or had the socket. Any other is unknown.

use super::{await_json, bind, check_end, exchange, watch};
use crate::live::owner::check;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    tracer::Tracer,
    traffic::{
        crew::{Owner, Worker, process_name},
        process,
        ring::{self, WorkedOffBy},
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    thread,
};

/// An address of the test's namespace with a port that the kernel chooses.
const ANY_PORT: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
/// The port that several sockets share.
const SHARED: SocketAddr = SocketAddr::V4(std::net::SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7_201));

/// The only thread of a worker.
fn of_worker(worker: &Worker, name: &str) -> Owner {
    let mut bytes = [0; 16];
    bytes[..name.len()].copy_from_slice(name.as_bytes());
    Owner { pid: worker.pid(), tid: worker.pid(), name: bytes }
}

/// A socket, and the thread that bound it.
fn bound(netns: &NetNs) -> (UdpSocket, SocketAddr, Owner) {
    let (socket, owner) = netns.run(|| (UdpSocket::bind(ANY_PORT).unwrap(), Owner::current()));
    let address = socket.local_addr().unwrap();
    (socket, address, owner)
}

/// A socket that no process has bound.
fn unbound(netns: &NetNs) -> UdpSocket {
    netns.run(|| Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap().into())
}

fn json(netns: &NetNs) -> Tracer {
    watch(netns, &["-o", "json"])
}

/// The event names this thread of this process.
#[track_caller]
fn check_ours(event: &Value, source: &str, owner: Owner) {
    check(event, source, owner, &process_name());
}

/// Of a socket that parent and child share, the last sender owns what comes in next.
#[apply(needs_tracing)]
fn forked_child_owns_what_it_sends(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = json(&netns);
    let (socket, address, binder) = bound(&netns);
    let peers: Vec<UdpSocket> = (0..5).map(|_| bind(&netns, ANY_PORT)).collect();
    let addresses: Vec<SocketAddr> = peers.iter().map(|peer| peer.local_addr().unwrap()).collect();
    peers[0].send_to(b"before", address).unwrap();
    check_ours(&await_json(&tracer, "new", "in", addresses[0], address), "bind", binder);
    let child = Worker::start("udp-child", &[socket.as_raw_fd()], |line| {
        socket.send_to(b"by the child", addresses[1]).unwrap();
        line.ready();
        line.wait();
    });
    child.await_ready();
    let child_owner = of_worker(&child, "udp-child");
    check(&await_json(&tracer, "new", "out", address, addresses[1]), "send", child_owner, "udp-child");
    peers[2].send_to(b"?", address).unwrap();
    check(&await_json(&tracer, "new", "in", addresses[2], address), "send", child_owner, "udp-child");
    socket.send_to(b"by the parent", addresses[3]).unwrap();
    check_ours(&await_json(&tracer, "new", "out", address, addresses[3]), "send", Owner::current());
    peers[4].send_to(b"?", address).unwrap();
    check_ours(&await_json(&tracer, "new", "in", addresses[4], address), "send", Owner::current());
    socket.send_to(b"!", addresses[2]).unwrap();
    check_ours(&await_json(&tracer, "update", "in", addresses[2], address), "send", Owner::current());
    drop(socket);
    // The child still has the socket open: no flow has ended when the next one begins.
    peers[4].send_to(b"!", address).unwrap();
    child.resume();
    child.join();
    for (direction, peer, expected) in [
        ("in", 0, [0, 0, 1, 6]),
        ("out", 1, [1, 12, 0, 0]),
        ("in", 2, [1, 1, 1, 1]),
        ("out", 3, [1, 13, 0, 0]),
        ("in", 4, [0, 0, 2, 2]),
    ] {
        let (client, server) =
            if direction == "in" { (addresses[peer], address) } else { (address, addresses[peer]) };
        let end = await_json(&tracer, "destroy", direction, client, server);
        let numbers = ["segments_sent", "bytes_sent", "segments_received", "bytes_received"]
            .map(|key| end[key].as_u64().unwrap());
        assert_eq!((numbers, &end["reason"]), (expected, &"closed".into()), "{end}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn each_worker_of_a_shared_port_owns_its_flows(_: &Host) -> Outcome {
    const CLIENTS: usize = 40;
    let netns = NetNs::new().unwrap();
    let tracer = json(&netns);
    let names = ["udp-worker-0", "udp-worker-1", "udp-worker-2"];
    let workers = netns.run(|| {
        names.map(|name| {
            let worker = Worker::start(name, &[], |line| {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
                socket.set_reuse_port(true).unwrap();
                socket.bind(&SHARED.into()).unwrap();
                let socket = UdpSocket::from(socket);
                line.ready();
                loop {
                    let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
                    socket.send_to(&std::process::id().to_ne_bytes(), from).unwrap();
                }
            });
            worker.await_ready();
            worker
        })
    });
    let owners: BTreeMap<u32, (Owner, &str)> = workers
        .iter()
        .zip(names)
        .map(|(worker, name)| (worker.pid(), (of_worker(worker, name), name)))
        .collect();
    let answered: Vec<(SocketAddr, u32)> = (0..CLIENTS)
        .map(|_| {
            let client = bind(&netns, ANY_PORT);
            client.connect(SHARED).unwrap();
            client.send(b"?").unwrap();
            let mut pid = [0; 4];
            assert_eq!(client.recv(&mut pid).unwrap(), 4);
            (client.local_addr().unwrap(), u32::from_ne_bytes(pid))
        })
        .collect();
    for &(client, pid) in &answered {
        let (owner, name) = owners[&pid];
        let new = await_json(&tracer, "new", "in", client, SHARED);
        let source = new["owner"].as_str().unwrap().to_owned();
        assert!(source == "bind" || source == "send", "{new}");
        check(&new, &source, owner, name);
        check(&await_json(&tracer, "update", "in", client, SHARED), "send", owner, name);
    }
    let each = owners.keys().map(|pid| answered.iter().filter(|(_, by)| by == pid).count());
    assert!(each.clone().filter(|&flows| flows > 0).count() > 1, "{:?}", each.collect::<Vec<_>>());
    drop(workers);
    for (client, pid) in answered {
        let end = await_json(&tracer, "destroy", "in", client, SHARED);
        assert_eq!(
            (&end["pid"], &end["bytes_sent"], &end["reason"]),
            (&pid.into(), &4.into(), &"closed".into())
        );
    }
    Ok(())
}

#[apply(needs_tracing)]
fn passed_socket_has_the_owner_that_answers(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = json(&netns);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let worker = Worker::start("udp-passed", &[theirs.as_raw_fd()], |line| {
        let socket = UdpSocket::from(process::receive(&theirs));
        for _ in 0..2 {
            let (_, from) = socket.recv_from(&mut [0; 8]).unwrap();
            socket.send_to(b"answer", from).unwrap();
        }
        line.ready();
        line.wait();
    });
    let owner = of_worker(&worker, "udp-passed");
    let (socket, address, binder) = bound(&netns);
    let clients = [(); 2].map(|()| bind(&netns, ANY_PORT));
    let [first, second] = [&clients[0], &clients[1]].map(|client| client.local_addr().unwrap());
    clients[0].send_to(b"?", address).unwrap();
    check_ours(&await_json(&tracer, "new", "in", first, address), "bind", binder);
    process::send(&ours, &Socket::from(socket));
    check(&await_json(&tracer, "update", "in", first, address), "send", owner, "udp-passed");
    clients[1].send_to(b"?", address).unwrap();
    check(&await_json(&tracer, "new", "in", second, address), "send", owner, "udp-passed");
    check(&await_json(&tracer, "update", "in", second, address), "send", owner, "udp-passed");
    worker.await_ready();
    worker.resume();
    worker.join();
    for client in [first, second] {
        let end = await_json(&tracer, "destroy", "in", client, address);
        check(&end, "send", owner, "udp-passed");
    }
    Ok(())
}

/// `io_uring` sends by the submitting thread or by a thread that the kernel made in the same process.
#[apply(needs_tracing)]
fn ring_sends_for_its_process(_: &Host) -> Outcome {
    if let Err(error) = ring::is_allowed() {
        return Err(Skip(format!("this machine does not allow io_uring: {error}")));
    }
    let netns = NetNs::new().unwrap();
    let tracer = json(&netns);
    let server = bind(&netns, ANY_PORT);
    let address = server.local_addr().unwrap();
    for (by, thread) in [
        (WorkedOffBy::Submitter, None),
        (WorkedOffBy::Worker, Some("iou-wrk-")),
        (WorkedOffBy::Poller, Some("iou-sqp-")),
    ] {
        let client = bind(&netns, ANY_PORT);
        client.connect(address).unwrap();
        let submitter = ring::send(&client, b"by a ring", by);
        assert_eq!(server.recv(&mut [0; 16]).unwrap(), 9);
        let new = await_json(&tracer, "new", "out", client.local_addr().unwrap(), address);
        if let Some(thread) = thread {
            assert!(new["thread"].as_str().unwrap().starts_with(thread), "{by:?}: {new}");
            let expected: [Value; 3] = ["send".into(), submitter.pid.into(), process_name().as_str().into()];
            let owner = ["owner", "pid", "comm"].map(|key| new[key].clone());
            assert_eq!(owner, expected, "{by:?}: {new}");
        } else {
            check_ours(&new, "send", submitter);
        }
    }
    Ok(())
}

/// Each flow of a socket that threads share belongs to the thread that began it.
#[apply(needs_tracing)]
fn threads_own_the_flows_that_they_begin(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = json(&netns);
    for is_connected in [false, true] {
        let shared = bind(&netns, ANY_PORT);
        let peers = [(); 2].map(|()| bind(&netns, ANY_PORT).local_addr().unwrap());
        let send = |peer: SocketAddr| {
            let own = bind(&netns, ANY_PORT);
            let socket = if is_connected { &own } else { &shared };
            if is_connected {
                socket.connect(peer).unwrap();
                socket.send(b"x").unwrap();
            } else {
                socket.send_to(b"x", peer).unwrap();
            }
            (socket.local_addr().unwrap(), peer, Owner::current())
        };
        let sent = thread::scope(|scope| {
            peers.map(|peer| {
                let sender = thread::Builder::new().name("udp-sender".into());
                sender.spawn_scoped(scope, move || send(peer)).unwrap().join().unwrap()
            })
        });
        assert_ne!(sent[0].2.tid, sent[1].2.tid);
        for (from, to, owner) in sent {
            check_ours(&await_json(&tracer, "new", "out", from, to), "send", owner);
        }
    }
    Ok(())
}

/// A server that answers from another port, as TFTP has it: the client has bound no address, and has sent.
#[apply(needs_tracing)]
fn answer_from_another_port_goes_to_the_sender(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = json(&netns);
    let (server, other) = (bind(&netns, ANY_PORT), bind(&netns, ANY_PORT));
    let client = unbound(&netns);
    client.send_to(b"read", server.local_addr().unwrap()).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    other.send_to(b"data", from).unwrap();
    let new = await_json(&tracer, "new", "in", other.local_addr().unwrap(), from);
    check_ours(&new, "send", Owner::current());
    Ok(())
}

/// A socket that no process bound, and through which none has sent: `connect()` alone has an owner that no hook sees.
#[apply(needs_tracing)]
fn unknown_owner_is_unknown(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &[]);
    let server = bind(&netns, ANY_PORT);
    let address = server.local_addr().unwrap();
    let client = unbound(&netns);
    client.connect(address).unwrap();
    let from = client.local_addr().unwrap();
    server.send_to(b"first", from).unwrap();
    let new = super::await_flow(&tracer, conn_tests::line::Kind::New, "in", address, from);
    assert_eq!(["owner", "pid", "comm"].map(|key| new.key(key)), [Some("-"); 3]);
    assert_eq!(client.recv(&mut [0; 8]).unwrap(), 5);
    client.send(b"reply").unwrap();
    let update = super::await_flow(&tracer, conn_tests::line::Kind::Update, "in", address, from);
    let pid = std::process::id().to_string();
    assert_eq!(["owner", "pid"].map(|key| update.key(key)), [Some("send"), Some(pid.as_str())]);
    drop(client);
    check_end(&tracer, "in", address, from, [1, 5, 1, 5]);
    Ok(())
}

/// A socket from before the start that two processes have open: one of them, with the number of both.
#[apply(needs_tracing)]
fn older_shared_socket_has_all_its_holders(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let (server, address, _) = bound(&netns);
    let child = Worker::start("udp-holder", &[server.as_raw_fd()], |line| {
        line.ready();
        line.wait();
    });
    child.await_ready();
    let tracer = json(&netns);
    let client = bind(&netns, ANY_PORT);
    client.connect(address).unwrap();
    let from = client.local_addr().unwrap();
    exchange(&client, &server);
    let new = await_json(&tracer, "new", "in", from, address);
    let pid = new["pid"].as_u64().unwrap() as u32;
    // A process that another test has just forked has the socket until its exec().
    assert!(new["holders"].as_u64().is_some_and(|holders| holders >= 2) && new["owner"] == "files", "{new}");
    assert!([child.pid(), std::process::id()].contains(&pid) || new["holders"] != 2, "{new}");
    // The next flow of the socket goes to the process that has answered.
    let update = await_json(&tracer, "update", "in", from, address);
    check_ours(&update, "send", Owner::current());
    let next = bind(&netns, ANY_PORT);
    next.send_to(b"?", address).unwrap();
    let new = await_json(&tracer, "new", "in", next.local_addr().unwrap(), address);
    check_ours(&new, "send", Owner::current());
    child.resume();
    child.join();
    Ok(())
}
