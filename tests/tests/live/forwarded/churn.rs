//! Network namespaces that come and go, and one that floods, beside counts that hold.

use super::tracked;
use conn_tests::{
    harness::Outcome, host::Host, needs_namespaces, needs_whole_machine, routed::Routed, tracer::Setup,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

/// Routers at a time: three namespaces each.
const ROUTERS: usize = 10;
/// How often they come and go.
const ROUNDS: usize = 3;
/// Flows of each router, before and after it is found.
const FLOWS: u64 = 20;

/// The account of a namespace in a report.
fn account(report: &Value, netns: u64) -> Option<&Value> {
    let all = report["forwarded"]["namespaces"].as_array().unwrap();
    all.iter().find(|account| account["netns"] == netns)
}

/// Flows of one packet, which stay in the table.
fn flows(routed: &Routed) {
    let server = routed.server_socket(routed.server_end().v4.into()).unwrap();
    let to = server.local_addr().unwrap();
    // All at the same time, so that no port comes twice.
    let ip = routed.client_end().v4;
    let sockets: Vec<_> = (0..FLOWS).map(|_| routed.client_socket(ip.into()).unwrap()).collect();
    for socket in &sockets {
        socket.send_to(b"x", to).unwrap();
    }
}

#[apply(needs_namespaces)]
fn namespaces_come_and_go_and_each_account_holds(_: &Host) -> Outcome {
    let stats = Setup::new(["stats", "--forwarded", "-o", "json", "--interval", "1s"]).start();
    let lines = Setup::new(["--forwarded", "-p", "udp", "-o", "json"]).start();
    for _ in 0..ROUNDS {
        let routers = (0..ROUTERS).map(|_| tracked()).collect::<Result<Vec<_>, _>>()?;
        routers.iter().for_each(flows);
        let netns: Vec<u64> = routers.iter().map(|routed| routed.router.inum()).collect();
        stats.await_json("all routers", |report| netns.iter().all(|&netns| account(report, netns).is_some()));
        routers.iter().for_each(flows);
        let report = stats.await_json("all flows", |report| {
            netns.iter().all(|&netns| account(report, netns).is_some_and(|one| one["tracked"] == 2 * FLOWS))
        });
        for &netns in &netns {
            let account = account(&report, netns).unwrap();
            let number = |key: &str| account[key].as_u64().unwrap();
            assert_eq!(account["holds"], true, "{account}");
            assert_eq!(number("begun") + number("preexisting"), 2 * FLOWS, "{account}");
        }
        drop(routers);
        stats
            .await_json("none of them", |report| netns.iter().all(|&netns| account(report, netns).is_none()));
    }
    stats.stop().expect_code(0);
    lines.stop().expect_balance();
    Ok(())
}

/// Ends a flood, if its test fails, too.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[apply(needs_whole_machine)]
fn reports_come_beside_a_flood_that_never_ends(_: &Host) -> Outcome {
    let routed = tracked()?;
    let server = routed.server_socket(routed.server_end().v4.into()).unwrap();
    let to = server.local_addr().unwrap();
    let ip = routed.client_end().v4;
    // Entries go soon: the flood adds more without end.
    routed.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1").unwrap();
    let done = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        let _end = End(&done);
        scope.spawn(|| {
            routed.client.run(|| {
                while !done.load(Ordering::Relaxed) {
                    let socket = UdpSocket::bind((ip, 0)).unwrap();
                    let _ = socket.send_to(b"x", to);
                }
            });
        });
        let stats = Setup::new(["stats", "--forwarded", "-o", "json", "--interval", "1s"]).start();
        let mut seen = 0;
        for _ in 0..3 {
            let report = stats.await_json("another report", |report| {
                account(report, routed.router.inum())
                    .is_some_and(|account| account["begun"].as_u64().unwrap() > seen)
            });
            let account = account(&report, routed.router.inum()).unwrap();
            // What moves may be undecided, and is never contradicted.
            assert_ne!(account["holds"], false, "{account}");
            seen = account["begun"].as_u64().unwrap();
        }
        stats.stop()
    });
    ended.expect_code(0);
    Ok(())
}
