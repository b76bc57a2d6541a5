//! The daemon under load: exact, with flat memory and descriptors, beside clients that never read.

use super::serve_streams::account;
use conn_tests::{
    daemon::{self, Daemon},
    flood::{Ending, Flood},
    harness::Outcome,
    host::Host,
    ledger::Report,
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    timeout, usage,
};
use macro_rules_attribute::apply;
use std::{
    env,
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Namespaces that exist at the same time.
const NAMESPACES: usize = 30;

/// How long the load goes on.
fn length() -> Duration {
    let chosen = env::var("CONNTRACE_TEST_SERVE_SECONDS").ok();
    Duration::from_secs(chosen.map_or(4, |seconds| seconds.parse().expect("a number of seconds")))
}

/// Memory, descriptors and processor time of both halves of the daemon.
fn used(daemon: &Daemon) -> [(u64, usize, Duration); 2] {
    [daemon.tracer().pid(), daemon.front()]
        .map(|pid| (usage::memory(pid), usage::open_files(pid), usage::cpu(pid)))
}

#[apply(needs_whole_machine)]
fn load_leaves_the_daemon_exact_and_flat(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    let ns = NetNs::new().unwrap();
    let target = format!("/v1/events?dport={port}&direction=out&event-mask=destroy");
    let mut reader = daemon.stream(&target);
    // Clients that never read: one of the same stream, one of another.
    let deaf = [target, format!("/v1/events?dport={port}&direction=in")].map(|target| {
        let mut client = daemon.connect();
        write!(client, "GET {target} HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        client
    });
    while daemon.json("/v1/health")["commands"] != 2 {
        thread::yield_now();
    }
    let over = AtomicBool::new(false);
    let (begun, before) = (Instant::now(), used(&daemon));
    let flood = Flood { open: 50, ..Flood::new(port.number(), u64::MAX / 2, Ending::Mixed) };
    let running = ns.run(|| flood.start());
    let (truth, read, scrapes) = thread::scope(|scope| {
        let scrapes = scope.spawn(|| {
            let mut scrapes = 0;
            while !over.load(Ordering::Relaxed) {
                let answer = daemon::get(&daemon.socket(), "/v1/stats?output=prometheus").unwrap();
                assert_eq!(answer.status, 200);
                scrapes += 1;
                thread::sleep(Duration::from_secs(1));
            }
            scrapes
        });
        scope.spawn(|| {
            let mut namespaces = std::collections::VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                namespaces.push_back(NetNs::new().unwrap());
                if namespaces.len() > NAMESPACES {
                    namespaces.pop_front();
                }
            }
        });
        // Lines of this stream are ends, so their number is that of all connections.
        let lines = scope.spawn(|| account(&mut reader, || over.load(Ordering::Relaxed)));
        let mut sampled = begun;
        while begun.elapsed() < length() {
            thread::sleep(Duration::from_millis(100));
            if sampled.elapsed() >= Duration::from_secs(10) {
                sampled = Instant::now();
                println!("serve: after {:?}: {:?}", begun.elapsed(), used(&daemon));
            }
        }
        let mut truth = running.stop();
        over.store(true, Ordering::Relaxed);
        // The reader waits for a line.
        truth += ns.run(|| Flood::new(port.number(), 1, Ending::ClientFirst).run());
        (truth, lines.join().unwrap(), scrapes.join().unwrap())
    });
    let after = used(&daemon);
    let made = truth.outgoing(port.number()).established;
    println!(
        "serve: {made} connections, {scrapes} scrapes, read {read:?}, {before:?} before, {after:?} after"
    );
    // Lines that come after the load wait for no reader.
    assert!(read.0 as u64 + read.1 <= made, "{read:?} of {made}");
    let report = || Report::parse(&daemon.get("/v1/stats").body);
    let wait = Instant::now();
    loop {
        let wrong = report().differences(&truth);
        if wrong.is_empty() {
            break;
        }
        assert!(wait.elapsed() < timeout::seconds(60), "{}", wrong.join("\n"));
        thread::sleep(Duration::from_millis(50));
    }
    for ((memory, files, _), (least, fewest, _)) in after.into_iter().zip(before) {
        assert!(files <= fewest + 8, "{before:?} {after:?}");
        // Buffers of clients, and of the largest answer.
        assert!(memory <= least + (32 << 20), "{before:?} {after:?}");
    }
    drop((deaf, reader));
    Ok(())
}
