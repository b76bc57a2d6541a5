//! Connections of a user on all ports: the ledger stays small, and a report stays short.

use conn_tests::{
    attack::{Attacker, may_attack, sockets::try_ports},
    harness::Outcome,
    host::Host,
    ledger::Ledger,
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::Tracer,
    traffic::close::{self, First},
    usage,
};
use macro_rules_attribute::apply;

/// The most memory in the kernel that one user's ports may add, bytes.
const MOST_MEMORY: u64 = 64 << 20;
/// The most lines of a report for people.
const MOST_LINES: usize = 100;

/// A user tries all ports. The ledger stays small, a report stays short, and another port is counted exactly.
#[apply(needs_whole_machine)]
fn many_ports_fill_neither_memory_nor_the_report(_: &Host) -> Outcome {
    may_attack()?;
    let port = Port::claim();
    // The filter chooses what is reported; the kernel counts all ports.
    let ledger = Ledger::start(&[port.number()], "500ms");
    let table = Tracer::start(["stats"]);
    let before = usage::map_memory(ledger.tracer().pid());
    Attacker::start("conn-ports", |_| {
        try_ports(1..=port.number() - 1);
        try_ports(port.number() + 1..=u16::MAX);
    })
    .join();
    let truth = NetNs::new().unwrap().run(|| close::orderly(port.v4(), 50, First::Client));
    ledger.await_equal(&truth);
    let added = usage::map_memory(ledger.tracer().pid()) - before;
    let lines = table.stop().stdout.len();
    println!("ports: {} KiB of maps before, {} KiB more, {lines} lines", before >> 10, added >> 10);
    assert!(added < MOST_MEMORY, "{added} bytes");
    assert!(lines < MOST_LINES, "{lines} lines");
    ledger.stop().check_identity();
    Ok(())
}
