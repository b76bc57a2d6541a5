//! The second audit: the kernel's own counters of a namespace beside the ledger, one kind of traffic at a time.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    ledger::{KernelCounters, Ledger, Report},
    needs_tracing,
    netns::NetNs,
    port::Port,
    traffic::{
        Server,
        close::{self, First},
        fail, handshake, listen,
        socket::{set_option, tcp},
    },
};
use macro_rules_attribute::apply;
use std::{net::SocketAddr, os::fd::AsRawFd as _};

/// The last report of a run that watched `act` in a namespace of its own, and the kernel's counters there.
fn watch<T: Send>(act: impl FnOnce(SocketAddr) -> T + Send) -> (T, Report, KernelCounters) {
    watch_with("32768 60999", act)
}

/// The same with these source ports.
fn watch_with<T: Send>(ports: &str, act: impl FnOnce(SocketAddr) -> T + Send) -> (T, Report, KernelCounters) {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    ns.sysctl("net.ipv4.ip_local_port_range", ports).unwrap();
    let _resident = ns.settle();
    let ledger = Ledger::start(&[port.number()], "100ms");
    let done = ns.run(|| act(port.v4()));
    // A busy machine ends the run before its last audit: wait for one that saw all.
    let is_audited = |report: &Report| {
        let opened = report.netns.iter().find(|totals| totals.netns == ns.inum()).map(|totals| totals.opened);
        let mut counters = report.kernel.netns.iter().filter(|one| one.netns == ns.inum());
        opened.is_some()
            && counters.any(|one| (Some(one.ledger_from), Some(one.ledger_to)) == (opened, opened))
    };
    let report = ledger.await_report("an audit of the traffic", is_audited);
    let counters = report.kernel.of(ns.inum());
    (done, report, counters)
}

/// The kernel opened as many connections as the ledger, to the unit.
fn check(counters: KernelCounters, active: u64, passive: u64) {
    assert_eq!((counters.active_opens, counters.passive_opens), (active, passive), "{counters:?}");
    assert_eq!(
        (counters.ledger_from, counters.ledger_to),
        (active + passive, active + passive),
        "{counters:?}"
    );
    assert!(counters.agrees, "{counters:?}");
}

#[apply(needs_tracing)]
fn ended_connections_are_in_both(_: &Host) -> Outcome {
    let (_, _, counters) = watch(|server| close::orderly(server, 20, First::Client));
    check(counters, 20, 20);
    assert_eq!(counters.estab_resets, 0);
    Ok(())
}

#[apply(needs_tracing)]
fn refused_connections_sent_a_syn(_: &Host) -> Outcome {
    check(watch(|server| fail::refused(server, 5)).2, 5, 0);
    Ok(())
}

#[apply(needs_tracing)]
fn resets_are_counted_by_the_kernel_alike(_: &Host) -> Outcome {
    let (_, report, counters) = watch(|server| listen::unaccepted(server, 4));
    check(counters, 4, 4);
    // Each end of the four went from ESTABLISHED to CLOSE.
    assert_eq!(counters.estab_resets, 8);
    report.check_identity();
    Ok(())
}

/// `AF_UNSPEC`: the same socket connects again.
#[apply(needs_tracing)]
fn reused_sockets_open_twice(_: &Host) -> Outcome {
    let (truth, _, counters) = watch(close::reuse);
    let opened: u64 = truth.counts.values().map(|counts| counts.opened).sum();
    assert_eq!((counters.active_opens + counters.passive_opens, counters.agrees), (opened, true));
    Ok(())
}

/// Both ends connect, so no end is a child.
#[apply(needs_tracing)]
fn simultaneous_open_is_active_twice(_: &Host) -> Outcome {
    let other = Port::claim();
    let (_, _, counters) = watch(|one| handshake::simultaneous_open(one, other.v4()));
    assert_eq!((counters.passive_opens, counters.agrees), (0, true), "{counters:?}");
    Ok(())
}

/// No SYN leaves, so the kernel counts nothing.
#[apply(needs_tracing)]
fn attempts_without_a_syn_are_the_ledgers_alone(_: &Host) -> Outcome {
    let (_, report, counters) = watch_with("40000 40000", fail::no_source_port);
    let unsent = report.total.failed_local;
    assert!(counters.agrees && unsent > 0, "{counters:?} {unsent}");
    assert_eq!(counters.active_opens + counters.passive_opens + unsent, counters.ledger_to, "{counters:?}");
    Ok(())
}

#[apply(needs_tracing)]
fn subflows_of_mptcp_are_in_both(_: &Host) -> Outcome {
    let (truth, _, counters) = watch(handshake::mptcp);
    let truth = truth.ok_or_else(|| Skip("this kernel has no MPTCP".into()))?;
    let opened: u64 = truth.counts.values().map(|counts| counts.opened).sum();
    assert_eq!((counters.active_opens + counters.passive_opens, counters.agrees), (opened, true));
    Ok(())
}

/// `TCP_REPAIR`: a socket is established without a SYN. The kernel does not count it, and the difference is shown.
#[apply(needs_tracing)]
fn repaired_sockets_are_the_ledgers_alone(_: &Host) -> Outcome {
    let ((), report, counters) = watch(|server| {
        let _listener = Server::listen(server);
        let socket = tcp(server);
        set_option(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_REPAIR, 1);
        socket.connect(&server.into()).expect("established at once");
    });
    assert_eq!(
        (counters.active_opens, counters.passive_opens, counters.agrees),
        (0, 0, false),
        "{counters:?}"
    );
    assert_eq!((counters.ledger_from, counters.ledger_to), (1, 1), "{counters:?}");
    report.check_identity();
    Ok(())
}
