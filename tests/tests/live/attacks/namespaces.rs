//! Namespaces of a user: neither many nor hidden ones end an observer or its audit.

use conn_common::{
    connection::{Connection, IN},
    ledger::{CELLS, opened_cell, slot_id, slot_key},
    name,
    protocol::TCP,
    state::ESTABLISHED,
};
use conn_tests::{
    attack::{Attacker, may_attack, may_starve, namespaces, sockets},
    harness::Outcome,
    host::Host,
    ledger::{Ledger, Report},
    map, needs_tracing, needs_whole_machine,
    netns::NetNs,
    port::Port,
    timeout,
    tracer::Setup,
    traffic::{
        Server,
        close::{self, First},
    },
    truth::Direction,
    usage,
};
use macro_rules_attribute::apply;
use std::{
    cell::Cell,
    fs,
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

/// Namespaces of a user beside an observer that may open fewer files.
const MANY: usize = 300;
/// Files that the observer may open: the usual soft limit of a shell is four times as much.
const FILES: u64 = 256;
/// Connections too many of a port that moves: more than a flood makes between two readings.
const PHANTOMS: u64 = 1 << 40;
/// Idle namespaces beside an observer that audits.
const IDLE: usize = 400;
/// How long the observer's use of the processor is measured.
const MEASURED: Duration = Duration::from_secs(12);
/// The largest share of a processor that audits of idle namespaces may take.
const MOST_SHARE: f64 = 0.15;

/// A slow machine gets time for the reports, too: only audits are in question.
fn stats(more: &[&str]) -> Setup {
    let interval = if timeout::is_scaled() { "2s" } else { "200ms" };
    Setup::new(["stats", "-o", "json", "--interval", interval]).arguments(more)
}

/// The audit compared something, and found the ledger right.
fn audits(report: &Report) -> bool {
    report.audit.compared > 0 && report.audit.differences.is_empty() && report.identity.holds
}

/// Waits for so many more reports.
fn await_reports(ledger: &Ledger, more: usize) {
    for _ in 0..more {
        let seen = Cell::new(false);
        ledger.await_report("a report", |_| seen.replace(true));
    }
}

#[apply(needs_whole_machine)]
fn more_namespaces_than_descriptors_end_no_run(_: &Host) -> Outcome {
    may_attack()?;
    let port = Port::claim();
    let ledger = Ledger::of(stats(&["--dport", &port.to_string()]).files(FILES).start());
    let attacker = Attacker::start("conn-many", |line| namespaces::keep_many(line, MANY));
    attacker.await_ready();
    let truth = NetNs::new().unwrap().run(|| close::orderly(port.v4(), 20, First::Client));
    ledger.await_equal(&truth);
    ledger.await_report("an audit beside many namespaces", audits);
    // A start beside them works, too.
    let other = stats(&["--dport", &port.to_string()]).files(FILES).start();
    other.stop().expect_code(0);
    let last = ledger.stop();
    println!("many: {:?} {}", last.audit, last.to_text());
    assert_eq!(last.differences(&truth), Vec::<String>::new());
    drop(attacker);
    Ok(())
}

/// The connection of an honest port is compared although another namespace hides.
fn audit_goes_on(attack: impl FnOnce(u16) -> Attacker) -> Outcome {
    may_attack()?;
    let ports = Port::block(2);
    let ledger = Ledger::start(&[], "200ms");
    let ns = NetNs::new().unwrap();
    let _held = ns.run(|| Server::listen(ports[1].v4()).pair());
    let attacker = attack(ports[0].number());
    attacker.await_ready();
    await_reports(&ledger, 5);
    let report = ledger.await_report("an audit beside what is hidden", audits);
    println!("hidden: {:?}", report.audit);
    let last = ledger.stop();
    assert!(last.identity.holds, "{last:?}");
    Ok(())
}

#[apply(needs_tracing)]
fn a_hidden_namespace_stops_no_audit(_: &Host) -> Outcome {
    audit_goes_on(|port| Attacker::start("conn-hides", |line| namespaces::hide(line, port)))
}

#[apply(needs_tracing)]
fn an_orphan_stops_no_audit(_: &Host) -> Outcome {
    audit_goes_on(|port| Attacker::start("conn-orphan", |line| namespaces::orphan(line, port)))
}

#[apply(needs_tracing)]
fn hidden_attempts_stop_no_audit(_: &Host) -> Outcome {
    audit_goes_on(|port| Attacker::start("conn-hides", |line| namespaces::hide_attempts(line, 5, port)))
}

/// A port that moves all the time, and of which the ledger has connections too many: an audit finds and repairs them only if
/// it compares this port.
#[apply(needs_whole_machine)]
fn a_moving_port_stops_no_audit(_: &Host) -> Outcome {
    may_attack()?;
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "200ms");
    let attacker = Attacker::start("conn-flood", |line| sockets::flood(line, port.number()));
    attacker.await_ready();
    let kept = fs::File::open(format!("/proc/{}/ns/net", attacker.pid())).unwrap();
    let netns = kept.metadata().unwrap().ino();
    let connection = Connection { direction: IN, dport: port.number(), ..Connection::UNSEEN };
    let key = slot_key(netns.try_into().unwrap(), slot_id(TCP, &connection));
    let mut slots = map::Table::<{ 1 + CELLS }>::of(ledger.tracer().pid(), name::LEDGER_SLOTS)?;
    slots.plant(key, opened_cell(ESTABLISHED).unwrap(), PHANTOMS);
    let open = |report: &Report| report.numbers(Direction::In, port.number()).open;
    ledger.await_report("connections too many", |report| open(report) > PHANTOMS.cast_signed() / 2);
    let report = ledger.await_report("the repair beside the flood", |report| {
        report.repaired > PHANTOMS / 2 && open(report) < PHANTOMS.cast_signed() / 2
    });
    println!("moving: repaired {}, {} open, {:?}", report.repaired, open(&report), report.audit);
    assert!(report.audit.moved > 0, "{:?}", report.audit);
    // Between two readings a port that moves may have any number of connections. An audit of the port at rest is exact.
    // The file keeps the namespace, so that it can be walked.
    drop(attacker);
    ledger.await_report("the rest of the repair", |report| {
        open(report) == 0 && report.audit.differences.is_empty() && report.identity.holds
    });
    Ok(())
}

/// A user has idle namespaces, and makes connections that give reason to doubt the ledger.
#[apply(needs_whole_machine)]
fn idle_namespaces_cost_little(_: &Host) -> Outcome {
    may_starve()?;
    let port = Port::claim();
    let attacker = Attacker::start("conn-idle", |line| namespaces::inhabit_many(line, IDLE));
    attacker.await_ready();
    let doubt = Attacker::start("conn-starves", |line| sockets::keep_without_storage(line, port.number()));
    doubt.await_ready();
    let ledger = Ledger::of(stats(&super::storage::WITHOUT_TABLE).start());
    await_reports(&ledger, 3);
    let (before, began) = (usage::cpu(ledger.tracer().pid()), Instant::now());
    while began.elapsed() < MEASURED {
        await_reports(&ledger, 1);
    }
    let used = usage::cpu(ledger.tracer().pid()).saturating_sub(before);
    let share = used.as_secs_f64() / began.elapsed().as_secs_f64();
    println!("idle: {share:.3} of a processor beside {IDLE} namespaces");
    assert!(share < MOST_SHARE, "{share:.3} of a processor");
    ledger.stop().check_identity();
    Ok(())
}
