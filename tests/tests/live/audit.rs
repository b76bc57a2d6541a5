//! Audits of the ledger that something stands in the way of.

use conn_common::{
    connection::{Connection, IN},
    ledger::{CELLS, from_slot_key, opened_cell, slot_id, slot_key},
    name,
    protocol::TCP,
    state::ESTABLISHED,
};
use conn_tests::{
    flood::{self, Flood},
    harness::{Outcome, tool},
    host::Host,
    ledger::{Ledger, Report},
    map, needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Setup, binary},
    traffic::{LIMIT, Pair, Server},
    truth::Direction,
};
use macro_rules_attribute::apply;
use nix::{
    libc,
    sched::{CloneFlags, unshare},
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};
use std::{
    fs::File,
    io::IoSlice,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    thread,
    time::Instant,
};

/// A connection in a namespace that nothing but its sockets keeps.
fn hidden_pair(port: &Port) -> (u64, Server, Pair) {
    let ns = NetNs::new().unwrap();
    let (server, pair) = ns.run(|| {
        let server = Server::listen(port.v4());
        let pair = server.pair();
        (server, pair)
    });
    (ns.inum(), server, pair)
}

/// The latest report of an audit that began after this call.
fn next_audit(ledger: &Ledger) -> Report {
    let begin = Instant::now();
    ledger.await_report("a new audit", |report| {
        report.audit.age_seconds.is_some_and(|age| age < begin.elapsed().as_secs_f64())
    })
}

#[apply(needs_tracing)]
fn sockets_of_a_hidden_namespace_are_compared(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "100ms");
    let (netns, _server, _pair) = hidden_pair(&port);
    let report = ledger.stop();
    report.check_identity();
    assert_eq!(report.numbers(Direction::In, port.number()).open, 1);
    assert!(report.audit.hidden.iter().all(|hidden| hidden.netns != netns), "{:?}", report.audit);
    let filter = port.to_string();
    let count = Setup::new(["count", "--dport", &filter]).run();
    assert_eq!((count.code, &count.stdout[..]), (Some(0), &["2".to_owned()][..]), "{count:#?}");
    let list = Setup::new(["list", "--dport", &filter]).run();
    assert_eq!(list.stdout.len(), 2, "{list:#?}");
    Ok(())
}

/// A socket in flight over a Unix socket has no descriptor, so no process shows it.
#[apply(needs_tracing)]
fn only_hidden_sockets_are_left_out(_: &Host) -> Outcome {
    let (hidden, shown) = (Port::claim(), Port::claim());
    let ledger = Ledger::start(&[hidden.number(), shown.number()], "100ms");
    let (netns, _server, pair) = hidden_pair(&hidden);
    let (here, _there) = UnixStream::pair().unwrap();
    let fds = [pair.client.as_raw_fd()];
    sendmsg::<()>(
        here.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::empty(),
        None,
    )
    .unwrap();
    drop(pair.client);
    let _seen = pair.server;
    let ns = NetNs::new().unwrap();
    let _open = ns.run(|| Server::listen(shown.v4()).pair());
    let report = ledger.stop();
    report.check_identity();
    let left_out = report.audit.hidden.iter().find(|hidden| hidden.netns == netns).copied();
    let left_out = left_out.unwrap_or_else(|| panic!("{:?}", report.audit));
    assert_eq!((left_out.open, left_out.seen), (2, 1));
    // The two of the other port, at least.
    assert!(
        report.audit.compared + report.audit.moved >= 2 && report.audit.kernel_open >= 2,
        "{:?}",
        report.audit
    );
    Ok(())
}

#[apply(needs_tracing)]
fn a_repaired_end_is_repaired_in_its_namespace(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "100ms");
    let ns = NetNs::new().unwrap();
    let pair = ns.run(|| Server::listen(port.v4()).pair());
    ledger.await_report("the connection", |report| {
        report.numbers(Direction::In, port.number()).open_established == 1
    });
    // A connection that has ended, and whose end no hook saw.
    let connection = Connection { direction: IN, dport: port.number(), ..Connection::UNSEEN };
    let key = slot_key(u32::try_from(ns.inum()).unwrap(), slot_id(TCP, &connection));
    assert!(from_slot_key(key).is_some());
    let mut slots = map::Table::<{ 1 + CELLS }>::of(ledger.tracer().pid(), name::LEDGER_SLOTS)?;
    slots.plant(key, opened_cell(ESTABLISHED).unwrap(), 1);
    let report = ledger.await_report("the repair", |report| {
        report.repaired > 0 && report.numbers(Direction::In, port.number()).open == 1
    });
    assert_eq!(report.numbers(Direction::In, port.number()).closed, 1);
    let netns = ns.inum();
    let totals = |report: &Report| report.netns.iter().find(|totals| totals.netns == netns).copied();
    let found = totals(&report).unwrap();
    // Two sockets, one of which was counted twice.
    assert_eq!((found.opened, found.closed, found.open), (3, 1, 2));
    drop(pair);
    drop(ns);
    ledger.await_report("the end of the namespace", |report| totals(report).is_none());
    let report = ledger.stop();
    report.check_identity();
    assert!(report.audit.hidden.iter().all(|hidden| hidden.netns != netns), "{:?}", report.audit);
    Ok(())
}

#[apply(needs_tracing)]
fn moving_ports_are_compared_between_bounds(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "100ms");
    let flood = Flood::new(port.number(), u64::MAX, flood::Ending::Mixed).start();
    let report = ledger.await_report("a port that moved", |report| {
        report.audit.age_seconds.is_some() && report.audit.moved > 0
    });
    flood.stop();
    report.check_identity();
    Ok(())
}

/// Namespaces that descriptors of this process keep.
fn namespaces(count: usize) -> Vec<File> {
    let make = move || {
        let one = |_| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        (0..count).map(one).collect()
    };
    thread::spawn(make).join().unwrap()
}

#[apply(needs_tracing)]
fn more_namespaces_than_descriptors_end_no_run(_: &Host) -> Outcome {
    tool("/bin/sh")?;
    let limited = |limit: &str, command: &str| {
        let line = format!("ulimit {limit} && exec {} {command}", binary().display());
        Setup::new(["-c", &line]).program("/bin/sh")
    };
    let (port, ns) = (Port::claim(), NetNs::new().unwrap());
    let _pair = ns.run(|| Server::listen(port.v4()).pair());
    let _namespaces = namespaces(200);
    let stats =
        limited("-n 150", &format!("stats -o json --interval 200ms --timeout 2s --dport {port}")).run();
    assert_eq!(stats.code, Some(0), "{stats:#?}");
    let report: serde_json::Value = serde_json::from_str(stats.stdout.last().unwrap()).unwrap();
    assert_eq!((&report["total"]["open"], &report["audit"]["error"]), (&2.into(), &().into()), "{report}");
    // The soft limit is raised.
    for limit in ["-n 150", "-Sn 60"] {
        let count = limited(limit, &format!("count --dport {port}")).run();
        assert_eq!((count.code, &count.stdout[..]), (Some(0), &["2".to_owned()][..]), "{limit} {count:#?}");
    }
    Ok(())
}

/// Sets the soft limit of open files of another process, and returns the old one.
#[expect(unsafe_code, reason = "no safe form sets the limit of another process")]
fn limit_files(pid: u32, soft: u64) -> u64 {
    let pid = pid.cast_signed();
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the numbers live until the calls return.
    unsafe {
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &raw mut old), 0);
        let new = libc::rlimit { rlim_cur: soft, ..old };
        assert_eq!(libc::prlimit(pid, libc::RLIMIT_NOFILE, &raw const new, std::ptr::null_mut()), 0);
    }
    old.rlim_cur
}

#[apply(needs_tracing)]
fn an_audit_that_fails_is_reported_and_tried_again(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "100ms");
    next_audit(&ledger);
    let pid = ledger.tracer().pid();
    // Every descriptor that conntrace would open is beyond the limit.
    let limit = limit_files(pid, 3);
    let report = ledger.await_report("a failed audit", |report| report.audit.error.is_some());
    let error = report.audit.error.unwrap();
    assert!(error.contains("Too many open files") && error.contains("ulimit -n"), "{error}");
    assert!(report.identity.holds);
    limit_files(pid, limit);
    let begin = Instant::now();
    ledger.await_report("another audit", |report| report.audit.error.is_none());
    assert!(begin.elapsed() < *LIMIT);
    ledger.stop().check_identity();
    Ok(())
}
