//! The traffic itself, without conntrace: each kind does what its truth says, checked by the errors that
//! the sockets report (in the functions) and by the identity of the counts (here).

use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    needs_namespaces,
    netns::NetNs,
    traffic::{
        close::{self, First},
        fail, handshake, listen, process,
    },
    truth::{Counts, Truth},
};
use macro_rules_attribute::apply;
use std::{
    collections::HashMap,
    fs,
    net::{IpAddr, SocketAddr},
    thread,
};

const PORT: u16 = 80;

fn v4() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PORT))
}

fn v6() -> SocketAddr {
    "[::1]:80".parse().unwrap()
}

/// All of `truth` is over, with this much opened on each side.
fn over(truth: &Truth, outgoing: u64, incoming: u64) -> Counts {
    assert_eq!((truth.outgoing(PORT).opened, truth.incoming(PORT).opened), (outgoing, incoming), "{truth:?}");
    assert_eq!((truth.outgoing(PORT).open(), truth.incoming(PORT).open()), (0, 0), "{truth:?}");
    // What is sent may be lost, what is received was sent.
    let (out, inn) = (truth.outgoing(PORT), truth.incoming(PORT));
    assert!(out.sent >= inn.received && inn.sent >= out.received, "{truth:?}");
    truth.outgoing(PORT)
}

#[apply(needs_namespaces)]
fn orderly_and_reset_ends_are_made(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.run(|| {
        for server in [v4(), v6()] {
            for first in [First::Client, First::Server] {
                over(&close::orderly(server, 3, first), 3, 3);
                over(&close::linger0(server, first), 1, 1);
            }
            over(&close::unread(server), 1, 1);
            over(&close::half_close(server), 1, 1);
            over(&close::half_close_orphan(server), 1, 1);
            over(&close::simultaneous(server), 1, 1);
            over(&close::reuse(server), 2, 2);
            over(&close::user_timeout(server), 1, 1);
        }
        over(&close::keepalive(v4()), 1, 1);
        let mapped = close::dual_stack(PORT, "[::ffff:127.0.0.1]:80".parse().unwrap());
        let plain = close::dual_stack(PORT, v4());
        for truth in [mapped, plain] {
            assert_eq!(truth.tuple().server, v4());
            assert!(truth.tuple().client.is_ipv4());
            over(&truth, 1, 1);
        }
    });
    Ok(())
}

#[apply(needs_namespaces)]
fn failures_of_every_kind_are_made(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    handshake::allow_fast_open(&ns).unwrap();
    ns.run(|| {
        for server in [v4(), v6()] {
            assert_eq!(over(&fail::refused(server, 3), 3, 0).refused, 3);
            assert_eq!(over(&fail::refused_bound(server), 1, 0).refused, 1);
            assert_eq!(over(&fail::refused_then_connected(server), 2, 1).refused, 1);
            assert_eq!(over(&fail::timed_out(server), 1, 0).timed_out, 1);
            assert_eq!(over(&fail::abandoned(server), 1, 0).abandoned, 1);
            assert_eq!(over(&fail::abandoned_by_shutdown(server), 1, 0).abandoned, 1);
            assert_eq!(over(&fail::fast_open_abandoned(server), 1, 0).local, 1);
        }
        over(&fail::no_route(SocketAddr::from(([10, 1, 1, 1], PORT))), 0, 0);
    });
    Ok(())
}

#[apply(needs_namespaces)]
fn unreachable_hosts_are_made(_: &Host) -> Outcome {
    let (a, b) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let veth = a.join(&b).unwrap();
    for ip in [IpAddr::from(veth.unused.v4), IpAddr::from(veth.unused.v6)] {
        let server = SocketAddr::new(ip, PORT);
        a.run(|| assert_eq!(over(&fail::unreachable(server), 1, 0).unreachable, 1));
    }
    Ok(())
}

#[apply(needs_namespaces)]
fn source_ports_run_out(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.sysctl("net.ipv4.ip_local_port_range", "40000 40000").unwrap();
    let truth = ns.run(|| fail::no_source_port(v4()));
    assert_eq!(over(&truth, 2, 1).local, 1);
    Ok(())
}

#[apply(needs_namespaces)]
fn listeners_of_every_kind_are_made(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.run(|| {
        for server in [v4(), v6()] {
            over(&listen::in_use(server), 0, 0);
            assert_eq!(listen::listeners(server, 4).listens[&PORT].opened, 4);
            over(&listen::unaccepted(server, 5), 5, 5);
            assert_eq!(over(&listen::overflow(server, 2, 3), 5, 2).abandoned, 3);
            over(&listen::deferred(server), 1, 1);
        }
    });
    Ok(())
}

#[apply(needs_namespaces)]
fn simultaneous_opens_are_made(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.run(|| {
        let other = SocketAddr::new(v4().ip(), 81);
        let truth = handshake::simultaneous_open(v4(), other);
        over(&truth, 1, 0);
        assert_eq!((truth.outgoing(81).closed, truth.incoming(81).opened), (1, 0));
        for address in [v4(), v6()] {
            let truth = handshake::self_connect(address);
            assert_eq!((truth.outgoing(PORT).closed, truth.incoming(PORT).opened), (1, 0));
        }
    });
    Ok(())
}

#[apply(needs_namespaces)]
fn fast_open_connections_are_made(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    handshake::allow_fast_open(&ns).unwrap();
    ns.run(|| {
        over(&handshake::fast_open(v4()), 1, 1);
        over(&handshake::fast_open(v6()), 1, 1);
    });
    Ok(())
}

#[apply(needs_namespaces)]
fn syn_cookies_are_answered(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    handshake::force_cookies(&ns).unwrap();
    ns.run(|| over(&close::orderly(v4(), 3, First::Client), 3, 3));
    Ok(())
}

#[apply(needs_namespaces)]
fn mptcp_connections_are_made(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let truth = ns.run(|| handshake::mptcp(v4())).ok_or_else(|| Skip("this kernel has no MPTCP".into()))?;
    over(&truth, 1, 1);
    Ok(())
}

#[apply(needs_namespaces)]
fn connections_of_other_processes_are_made(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.run(|| {
        let (truth, pid) = process::client(v4(), 3, "conn-client");
        over(&truth, 3, 3);
        assert_ne!(pid, std::process::id());
        over(&process::killed(v4()), 1, 1);
        over(&process::killed_by_reset(v4()), 1, 1);
        over(&process::forked(v4()), 1, 1);
        over(&process::passed(v4()), 1, 1);
    });
    Ok(())
}

/// The kernel's own counts of this namespace: connections opened actively and passively.
fn kernel_opens() -> (u64, u64) {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (names, values) = (rows.next().unwrap(), rows.next().unwrap());
    let counts: HashMap<&str, &str> = names.zip(values).collect();
    (counts["ActiveOpens"].parse().unwrap(), counts["PassiveOpens"].parse().unwrap())
}

#[apply(needs_namespaces)]
fn floods_are_counted(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.run(|| {
        let mut opened = (0, 0);
        for ending in [Ending::ClientFirst, Ending::ServerFirst, Ending::Mixed] {
            let flood = Flood { open: 50, ..Flood::new(PORT, 3_001, ending) };
            let truth = flood.run();
            assert_eq!(over(&truth, 3_001, 3_001).closed, 3_001);
            opened = (opened.0 + 3_001, opened.1 + 3_001);
            assert_eq!(kernel_opens(), opened);
        }
        let endless = Flood::new(PORT, u64::MAX, Ending::ClientReset).start();
        while endless.made() < 1_000 {
            thread::yield_now();
        }
        let truth = endless.stop();
        let (out, inn) = (truth.outgoing(PORT), truth.incoming(PORT));
        assert!(over(&truth, inn.opened, out.opened).closed >= 1_000);
        assert_eq!(kernel_opens(), (opened.0 + out.opened, opened.1 + inn.opened));
    });
    Ok(())
}
