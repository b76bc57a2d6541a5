//! Connections made of several: MPTCP, whose later subflows the kernel makes by itself.

use super::owner::{check, watch};
use aya::maps::HashMap;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    map, needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::Tracer,
    traffic::{
        LIMIT, Server,
        crew::{CallReport, Worker, called, set_long_timeout},
    },
};
use macro_rules_attribute::apply;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
    thread,
    time::Instant,
};

pub(crate) fn mptcp(address: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::MPTCP))
}

/// The number of MPTCP connections with a pending owner in this conntrace.
fn noted(tracer: &Tracer) -> usize {
    let map = map::of(tracer.pid(), "MPTCP_OWNERS");
    HashMap::<_, u64, [u64; 9]>::try_from(&map).unwrap().keys().count()
}

/// The same holds for a run with NEW events only.
#[apply(needs_tracing)]
fn pending_owners_end_with_their_connection(_: &Host) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    mptcp(address).map_err(|error| Skip(format!("no MPTCP: {error}")))?;
    for kinds in ["NEW", "ALL"] {
        let tracer = Tracer::start(["-e", kinds, "--dport", &port.to_string()]);
        let server = Server::listen_on(mptcp(address).unwrap(), address, 16, |_| {});
        let client = mptcp(address).unwrap();
        client.connect(&address.into()).unwrap();
        let accepted = server.accept();
        assert!(noted(&tracer) > 0, "{kinds}");
        drop((client, accepted));
        // Another test may have some, too, but not for ever.
        let deadline = Instant::now() + *LIMIT;
        while noted(&tracer) > 0 {
            assert!(Instant::now() < deadline, "{kinds}: {} are left", noted(&tracer));
            thread::yield_now();
        }
    }
    Ok(())
}

/// A subflow that the kernel adds to an MPTCP connection belongs to the process that made the connection.
#[apply(needs_tracing)]
fn subflows_belong_to_the_process(_: &Host) -> Outcome {
    subflows_have_owners(|| ())
}

/// The same beside what `others` does once the tracer traces.
pub(crate) fn subflows_have_owners<T>(others: impl FnOnce() -> T) -> Outcome {
    let port = Port::claim();
    let address = port.v4();
    let ns = NetNs::new().unwrap();
    ns.run(|| mptcp(address)).map_err(|error| Skip(format!("no MPTCP: {error}")))?;
    let second = Ipv4Addr::new(127, 0, 0, 9);
    for words in ["limits set subflow 2 add_addr_accepted 2", "endpoint add 127.0.0.9 dev lo subflow"] {
        let done = ns.run(|| Command::new("ip").arg("mptcp").args(words.split(' ')).output());
        match done {
            Ok(done) if done.status.success() => {}
            other => return Err(Skip(format!("ip mptcp {words}: {other:?}"))),
        }
    }
    let tracer = watch(&port);
    let _others = others();
    ns.run(|| {
        let server = Worker::server("conn-mptcp-in", || {
            Server::listen_on(mptcp(address).unwrap(), address, 16, |_| {})
        });
        let client = Worker::start("conn-mptcp-out", &[], |line| {
            let socket = mptcp(address).expect("a socket");
            set_long_timeout(&socket);
            socket.connect(&address.into()).expect("connect by MPTCP");
            let call = called(socket);
            line.report(&[CallReport::new(&call)]);
            line.wait();
        });
        let call = client.next_report();
        let of = |kind: &str, direction: &str, from: Ipv4Addr| {
            tracer.await_json(&format!("{kind} {direction} from {from}"), |event| {
                event["event"] == kind
                    && event["direction"] == direction
                    && event["src"] == from.to_string()
                    && event["netns"] == ns.inum()
            })
        };
        // The kernel adds it once the first has carried data.
        check(&of("new", "out", second), "connect", call.caller, "conn-mptcp-out");
        client.resume();
        client.join();
        check(&of("destroy", "out", second), "connect", call.caller, "conn-mptcp-out");
        check(&of("destroy", "out", Ipv4Addr::LOCALHOST), "connect", call.caller, "conn-mptcp-out");
        check(&of("destroy", "in", Ipv4Addr::LOCALHOST), "accept", call.acceptor, "conn-mptcp-in");
        // No process accepts a subflow that joins. The owner is the listener's, and marked as such.
        let joined = of("destroy", "in", second);
        assert_eq!(
            (&joined["owner"], &joined["pid"]),
            (&"listener".into(), &server.pid().into()),
            "{joined}"
        );
    });
    Ok(())
}
