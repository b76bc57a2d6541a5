//! Floods of a user: none delays a signal, a deadline or a report, and none fills memory.

use conn_tests::{
    attack::{
        Attacker, may_attack,
        sockets::{flood, flood_refused},
    },
    harness::Outcome,
    host::Host,
    ledger::Ledger,
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    timeout,
    tracer::Setup,
    traffic::close::{self, First},
    truth::Direction,
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use std::time::Instant;

/// A ring that is read in a moment by a program that is compiled without optimisation and gets a small share of the
/// processors: what waits in it is printed at the end.
const RING: &str = "1M";
/// How long the end may take, seconds.
const END: u64 = 5;
/// Processes that flood, and how many do on a slow machine.
const FLOODERS: [usize; 2] = [16, 2];
/// The most memory of the process under a flood, bytes: the ring, lines that wait for their reader, and the start.
const MOST_MEMORY: u64 = 200 << 20;

/// Attackers that leave the observer a small share of the processors.
fn flooders() -> Vec<Attacker> {
    let port = Port::claim();
    let flooder = |_| Attacker::start("conn-flood", |line| flood_refused(line, port.number()));
    let attackers: Vec<Attacker> = (0..FLOODERS[usize::from(timeout::is_scaled())]).map(flooder).collect();
    attackers.iter().for_each(Attacker::await_ready);
    attackers
}

/// The tracer stops at once, in bounded memory, and accounts for every event.
#[apply(needs_whole_machine)]
fn a_flood_delays_no_signal(_: &Host) -> Outcome {
    may_attack()?;
    let tracer = Setup::new(["-o", "json", "-b", RING]).stdout_to("/dev/null").start();
    let attackers = flooders();
    let asked = Instant::now();
    let ended = tracer.stop();
    let took = asked.elapsed();
    drop(attackers);
    println!("flood: ended in {took:?}, {} MB, {}", ended.usage.peak_bytes >> 20, ended.stderr.trim_end());
    assert!(ended.expect_code(0).contains(": holds"), "{}", ended.stderr);
    assert!(took < timeout::seconds(END), "{took:?}");
    assert!(ended.usage.peak_bytes < MOST_MEMORY, "{} bytes", ended.usage.peak_bytes);
    Ok(())
}

#[apply(needs_whole_machine)]
fn a_flood_delays_no_deadline(_: &Host) -> Outcome {
    may_attack()?;
    let _attackers = flooders();
    let tracer = Setup::new(["-o", "json", "-b", RING, "--timeout", "1s"]).stdout_to("/dev/null").start();
    let ready = Instant::now();
    let ended = tracer.await_end();
    let took = ready.elapsed();
    println!("flood: --timeout 1s ended in {took:?}, {} MB", ended.usage.peak_bytes >> 20);
    assert!(ended.expect_code(0).contains(": holds"), "{}", ended.stderr);
    assert!(took < timeout::seconds(END + 1), "{took:?}");
    assert!(ended.usage.peak_bytes < MOST_MEMORY, "{} bytes", ended.usage.peak_bytes);
    Ok(())
}

/// A report and the end come beside a flood.
#[apply(needs_whole_machine)]
fn a_flood_delays_no_report(_: &Host) -> Outcome {
    may_attack()?;
    let ports = Port::block(2);
    let [flooded, port] = [0, 1].map(|at: usize| ports[at].number());
    let attacker = Attacker::start("conn-flood", |line| flood(line, flooded));
    attacker.await_ready();
    let ledger = Ledger::start(&[], "200ms");
    let truth = NetNs::new().unwrap().run(|| close::orderly(ports[1].v4(), 50, First::Server));
    ledger.await_equal(&truth);
    let asked = Instant::now();
    ledger.tracer().signal(Signal::SIGINT);
    let report = ledger.stop();
    let took = asked.elapsed();
    println!("flood: stats ended in {took:?}, {}", report.to_text());
    assert!(took < timeout::seconds(1), "{took:?}");
    assert_eq!(report.differences(&truth), Vec::<String>::new());
    assert!(report.numbers(Direction::In, port).closed > 0 && report.identity.holds, "{report:?}");
    Ok(())
}
