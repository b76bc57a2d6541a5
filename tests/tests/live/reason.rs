//! Why connections end: in the events of both ends, and in the counts per port.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        close::{self, First},
        fail, handshake, kill, listen, process,
        socket::set_option,
    },
    truth::Truth,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd as _,
    panic,
    process::Command,
    thread,
};

/// How many of these ends a port has, by direction and the name of the count.
type Ends = BTreeMap<(u16, String, String), u64>;

/// A way to end, and the expected counts: direction, name of the count, number.
struct Way {
    run: fn(SocketAddr) -> Truth,
    ends: &'static [(&'static str, &'static str, u64)],
}

const OUR_FIN: &str = "ended_closed_by_us";
const PEERS_FIN: &str = "ended_closed_by_peer";
const OUR_RESET: &str = "ended_reset_by_us";
const PEERS_RESET: &str = "ended_reset_by_peer";
const TIMED_OUT: &str = "ended_timed_out";

/// Both formats on the same ports, and what both say in the end.
struct Tracers {
    events: Tracer,
    counts: Tracer,
}

impl Tracers {
    fn start(ports: &[Port]) -> Self {
        let ports: Vec<String> = ports.iter().map(Port::to_string).collect();
        let ports = ports.join(",");
        Self {
            events: Setup::new(["-e", "DESTROY", "-o", "json", "--dport", &ports]).start(),
            counts: Setup::new(["stats", "-o", "json", "--interval", "500ms", "--dport", &ports]).start(),
        }
    }

    /// Waits until the counts are these, and compares the events with them.
    fn check(self, expected: &Ends) {
        let found = self.counts.find_stdout(|text| counted(text) == *expected);
        let shown = events(&self.events, expected.values().sum());
        assert_eq!(&shown, expected, "events");
        if let Err(missing) = found {
            let last = self.counts.stop().stdout.pop().unwrap_or_default();
            assert_eq!(counted(&last), *expected, "counts: {missing}");
        }
    }
}

/// The ends in a report.
fn counted(report: &str) -> Ends {
    let report: Value = serde_json::from_str(report).expect("a report");
    let mut ends = Ends::new();
    for row in report["ports"].as_array().expect("ports") {
        let port = u16::try_from(row["port"].as_u64().unwrap()).unwrap();
        let direction = row["direction"].as_str().expect("a direction");
        for (name, count) in row.as_object().expect("a row") {
            let count = count.as_u64().unwrap_or(0);
            if count > 0
                && (name.starts_with("ended_") || name.starts_with("failed_"))
                && !name.ends_with("_s")
            {
                ends.insert((port, direction.into(), name.clone()), count);
            }
        }
    }
    ends
}

/// The ends in the events, of which there are so many.
fn events(tracer: &Tracer, count: u64) -> Ends {
    let seen = std::cell::Cell::new(0);
    let ends = std::cell::RefCell::new(Ends::new());
    let enough = |text: &str| {
        let event: Value = serde_json::from_str(text).expect("an event");
        let port = u16::try_from(event["dport"].as_u64().unwrap()).unwrap();
        let failed = event["failed"].as_bool().expect("failed");
        let name = format!(
            "{}_{}",
            if failed { "failed" } else { "ended" },
            event["reason"].as_str().expect("a reason")
        );
        let direction = event["direction"].as_str().expect("a direction").to_owned();
        *ends.borrow_mut().entry((port, direction, name)).or_default() += 1;
        seen.set(seen.get() + 1);
        seen.get() == count
    };
    // What is missing shows in the comparison.
    let _ = tracer.find_stdout(enough);
    ends.into_inner()
}

/// Goes all ways at the same time, over IPv4 and IPv6, each with a port of its own.
fn go(ns: &NetNs, ways: &[Way]) {
    let ports = Port::block(ways.len() as u16);
    let tracers = Tracers::start(&ports);
    ns.run(|| {
        thread::scope(|scope| {
            let threads: Vec<_> = ways
                .iter()
                .zip(&ports)
                .map(|(way, port)| {
                    scope.spawn(|| {
                        (way.run)(port.v4());
                        (way.run)(port.v6());
                    })
                })
                .collect();
            for thread in threads {
                thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            }
        });
    });
    let mut expected = Ends::new();
    for (way, port) in ways.iter().zip(&ports) {
        for &(direction, name, count) in way.ends {
            expected.insert((port.number(), direction.into(), name.into()), 2 * count);
        }
    }
    tracers.check(&expected);
}

#[apply(needs_tracing)]
fn orderly_ends_have_their_reason(_: &Host) -> Outcome {
    let clients_fin = &[("out", OUR_FIN, 1), ("in", PEERS_FIN, 1)];
    let servers_fin = &[("out", PEERS_FIN, 1), ("in", OUR_FIN, 1)];
    let clients_reset = &[("out", OUR_RESET, 1), ("in", PEERS_RESET, 1)];
    let servers_reset = &[("out", PEERS_RESET, 1), ("in", OUR_RESET, 1)];
    let client_timeouts = &[("out", TIMED_OUT, 1), ("in", PEERS_RESET, 1)];
    let ns = NetNs::new().unwrap();
    handshake::allow_fast_open(&ns).unwrap();
    go(
        &ns,
        &[
            Way { run: |to| close::orderly(to, 1, First::Client), ends: clients_fin },
            Way { run: |to| close::orderly(to, 1, First::Server), ends: servers_fin },
            Way { run: close::half_close, ends: clients_fin },
            Way { run: close::half_close_orphan, ends: clients_fin },
            Way { run: process::killed, ends: clients_fin },
            Way { run: handshake::fast_open, ends: clients_fin },
            Way { run: listen::deferred, ends: clients_fin },
            // The FINs crossed.
            Way { run: close::simultaneous, ends: &[("out", OUR_FIN, 1), ("in", OUR_FIN, 1)] },
            Way { run: |to| close::linger0(to, First::Client), ends: clients_reset },
            Way { run: |to| close::linger0(to, First::Server), ends: servers_reset },
            Way { run: close::unread, ends: servers_reset },
            Way { run: process::killed_by_reset, ends: clients_reset },
            // In CLOSE_WAIT.
            Way { run: |to| close::half_close_reset(to, false), ends: clients_reset },
            Way { run: |to| close::half_close_reset(to, true), ends: clients_reset },
            Way { run: close::reset_in_last_ack, ends: clients_reset },
            Way { run: close::reset_in_closing, ends: clients_reset },
            Way { run: close::late_data, ends: &[("out", OUR_FIN, 1), ("in", PEERS_RESET, 1)] },
            // connect(AF_UNSPEC), then a connection that ends well.
            Way {
                run: close::reuse,
                ends: &[
                    ("out", OUR_RESET, 1),
                    ("in", PEERS_RESET, 1),
                    ("out", OUR_FIN, 1),
                    ("in", PEERS_FIN, 1),
                ],
            },
            Way { run: close::user_timeout, ends: client_timeouts },
            Way { run: close::keepalive, ends: client_timeouts },
            Way { run: close::orphan_timeout, ends: client_timeouts },
        ],
    );
    Ok(())
}

/// What made our end reset, where the socket shows it for certain.
#[apply(needs_tracing)]
fn resets_have_their_reason(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let check = |run: fn(SocketAddr) -> Truth, direction: &str, expected: Value| {
        let port = Port::claim();
        let tracer = Setup::new(["-e", "DESTROY", "-o", "json", "--dport", &port.to_string()]).start();
        for address in [port.v4(), port.v6()] {
            ns.run(|| run(address));
            let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
            let end = |direction: &str, reason: &str| {
                tracer.await_json(&format!("the {direction} {reason} of {family}"), |end| {
                    end["direction"] == direction && end["reason"] == reason && end["family"] == family
                })
            };
            let ours = end(direction, "reset_by_us");
            assert_eq!(ours["reset"], expected, "{ours}");
            let peers = end(if direction == "in" { "out" } else { "in" }, "reset_by_peer");
            assert_eq!(peers["reset"], Value::Null, "{peers}");
        }
    };
    check(close::unread, "in", "unread_data".into());
    check(close::unread_half_closed, "in", "unread_data".into());
    check(|to| close::linger0(to, First::Client), "out", "linger_0".into());
    check(|to| close::half_close_reset(to, true), "out", "linger2".into());
    check(close::reuse, "out", "disconnect".into());
    check(process::killed_by_reset, "out", "linger_0".into());
    // By linger 0, but it might have been a disconnect as well.
    check(|to| close::half_close_reset(to, false), "out", Value::Null);
    Ok(())
}

/// The client's kernel resets. What it shows of that is, but for rare moments, what it shows of a peer's reset;
/// then the reason leaves open which of the two it was, and is never the peer's.
#[apply(needs_tracing)]
fn data_after_close_is_the_reason(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let port = Port::claim();
    let tracer = Setup::new(["-e", "DESTROY", "-o", "json", "--dport", &port.to_string()]).start();
    for address in [port.v4(), port.v6()] {
        ns.run(|| close::data_after_close(address));
    }
    let ends = events(&tracer, 4);
    let count = |direction: &str, names: &[&str]| -> u64 {
        names.iter().filter_map(|&name| ends.get(&(port.number(), direction.into(), name.into()))).sum()
    };
    assert_eq!(count("in", &[PEERS_RESET]), 2, "{ends:?}");
    assert_eq!(count("out", &["ended_late_reset", OUR_RESET]), 2, "{ends:?}");
    Ok(())
}

/// A checkpoint takes a socket away. Its kernel sends nothing, so the peer's end goes on.
#[apply(needs_tracing)]
fn a_close_in_repair_mode_is_no_reset(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Setup::new(["-e", "DESTROY", "-o", "json", "--dport", &port.to_string()]).start();
    let server = Server::listen(port.v4());
    for is_client in [true, false] {
        let pair = server.pair();
        let (taken, direction, left) =
            if is_client { (pair.client, "out", pair.server) } else { (pair.server, "in", pair.client) };
        set_option(taken.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, 1);
        drop(taken);
        let end = super::owner::event(&tracer, "destroy", direction, pair.tuple.client.port());
        assert_eq!((&end["reason"], &end["reset"]), (&"aborted".into(), &Value::Null), "{end}");
        drop(left);
    }
    Ok(())
}

/// The listener closes, or the peer is faster.
#[apply(needs_tracing)]
fn unaccepted_connections_have_their_reason(_: &Host) -> Outcome {
    let unaccepted = &[("out", PEERS_RESET, 3), ("in", "ended_not_accepted", 3)];
    go(
        &NetNs::new().unwrap(),
        &[
            Way { run: |to| listen::unaccepted(to, 3), ends: unaccepted },
            Way { run: |to| listen::unaccepted_closed(to, 3), ends: unaccepted },
            Way { run: listen::reset_in_the_queue, ends: &[("out", OUR_RESET, 1), ("in", PEERS_RESET, 1)] },
            Way {
                run: |to| listen::overflow(to, 2, 3),
                ends: &[("out", "failed_abandoned", 3), ("out", OUR_FIN, 2), ("in", PEERS_FIN, 2)],
            },
        ],
    );
    Ok(())
}

#[apply(needs_tracing)]
fn failed_attempts_have_their_error(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    handshake::allow_fast_open(&ns).unwrap();
    let abandoned = &[("out", "failed_abandoned", 1)];
    go(
        &ns,
        &[
            Way { run: |to| fail::refused(to, 3), ends: &[("out", "failed_refused", 3)] },
            Way {
                run: fail::refused_then_connected,
                ends: &[("out", "failed_refused", 1), ("out", OUR_FIN, 1), ("in", PEERS_FIN, 1)],
            },
            Way { run: fail::timed_out, ends: &[("out", "failed_timed_out", 1)] },
            Way { run: fail::abandoned, ends: abandoned },
            Way { run: fail::abandoned_by_shutdown, ends: abandoned },
            Way {
                run: handshake::fast_open_reset,
                ends: &[("out", "failed_abandoned", 1), ("in", "failed_abandoned", 1)],
            },
            Way { run: fail::fast_open_abandoned, ends: &[("out", "failed_local", 1)] },
        ],
    );

    let ports = Port::block(2);
    let tracers = Tracers::start(&ports);
    let [unused, one] = [0, 1].map(|at: usize| &ports[at]);
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let veth = here.join(&there).unwrap();
    for ip in [IpAddr::from(veth.unused.v4), IpAddr::from(veth.unused.v6)] {
        here.run(|| fail::unreachable(unused.at(ip)));
    }
    there.sysctl("net.ipv4.ip_local_port_range", "40000 40000").unwrap();
    there.run(|| fail::no_source_port(one.v4()));
    let end = |port: &Port, direction: &str, name: &str, count| {
        ((port.number(), direction.to_owned(), name.to_owned()), count)
    };
    tracers.check(&Ends::from([
        end(unused, "out", "failed_unreachable", 2),
        end(one, "out", "failed_local", 1),
        end(one, "out", OUR_FIN, 1),
        end(one, "in", PEERS_FIN, 1),
    ]));
    Ok(())
}

#[apply(needs_tracing)]
fn killed_sockets_have_their_reason(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let port = Port::claim();
    if let Err(error) = ns.run(|| kill::connected(port.v4())) {
        return Err(Skip(format!("this kernel kills no sockets: {error}")));
    }
    go(
        &ns,
        &[
            Way {
                run: |to| kill::connected(to).unwrap(),
                ends: &[("out", "ended_aborted", 1), ("in", PEERS_RESET, 1)],
            },
            Way { run: |to| kill::connecting(to).unwrap(), ends: &[("out", "failed_aborted", 1)] },
            // One was accepted before and lives on; the others die with their listener.
            Way {
                run: |to| kill::listening(to, 2).unwrap(),
                ends: &[
                    ("out", PEERS_RESET, 2),
                    ("in", "ended_not_accepted", 2),
                    ("out", OUR_FIN, 1),
                    ("in", PEERS_FIN, 1),
                ],
            },
        ],
    );
    Ok(())
}

/// The server's address moves away behind a router, which says so.
#[apply(needs_tracing)]
fn a_lost_route_is_the_reason(_: &Host) -> Outcome {
    let port = Port::claim();
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let veth = here.join(&there).unwrap();
    let (name, client) = (veth.name.as_str(), veth.here.v4);
    let ip = |words: String| {
        let done = there.run(|| Command::new("ip").args(words.split(' ')).output());
        match done {
            Ok(done) if done.status.success() => Ok(()),
            other => Err(Skip(format!("ip {words}: {other:?}"))),
        }
    };
    // The router's own address, for what it has to say.
    ip("addr add 10.255.255.254/32 dev lo".into())?;
    there.sysctl("net.ipv4.ip_forward", "1").unwrap();
    let tracers = Tracers::start(std::slice::from_ref(&port));
    here.run(|| {
        close::unreachable(&there, port.at(veth.there.v4), || {
            for words in [format!("addr flush dev {name}"), format!("route add {client}/32 dev {name}")] {
                ip(words).expect("the address goes");
            }
        });
    });
    // The server's end is still open, since no packet reaches it.
    let shown = events(&tracers.events, 1);
    assert_eq!(shown, Ends::from([((port.number(), "out".into(), "ended_unreachable".into()), 1)]));
    Ok(())
}

/// Two sockets that dial each other, and one that dials itself.
#[apply(needs_tracing)]
fn simultaneous_opens_have_their_reason(_: &Host) -> Outcome {
    let ports = Port::block(3);
    let tracers = Tracers::start(&ports);
    NetNs::new().unwrap().run(|| {
        handshake::simultaneous_open(ports[0].v4(), ports[1].v4());
        handshake::self_connect(ports[2].v4());
    });
    let end = |at: usize, name: &str| ((ports[at].number(), "out".to_owned(), name.to_owned()), 1);
    // The first to close dialled the second port.
    tracers.check(&Ends::from([end(1, OUR_FIN), end(0, PEERS_FIN), end(2, OUR_FIN)]));
    Ok(())
}
