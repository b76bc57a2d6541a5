//! Socket state in a table of the kernel, which is a cache and no limit.

use aya::Pod;
use conn_common::name;
use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    ledger::{Ledger, Numbers},
    map::Table,
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::Tracer,
    traffic::{LIMIT, Server, socket::connect},
    truth::{Direction, Truth},
};
use macro_rules_attribute::apply;
use std::time::Instant;

/// A table of a running conntrace. A slot is `N` words: the address of a socket or 0, then its state. conntrace has a
/// table only where hooks see each beginning and each end.
pub(crate) fn table<const N: usize>(tracer: &Tracer, name: &str) -> Result<Table<N>, Skip>
where
    [u64; N]: Pod,
{
    super::workload::cgroup_root()?;
    Table::of(tracer.pid(), name)
}

#[apply(needs_tracing)]
fn connections_beyond_the_table_are_counted(_: &Host) -> Outcome {
    let port = Port::claim().number();
    let ledger = Ledger::start(&[port], "200ms");
    table::<3>(ledger.tracer(), name::COUNTED_STATES)?.fill();
    let ns = NetNs::new().unwrap();
    let truth = ns.run(|| Flood { open: 50, ..Flood::new(port, 4_000, Ending::Mixed) }.run());
    ledger.await_equal(&truth);
    ledger.stop().check_identity();
    Ok(())
}

#[apply(needs_tracing)]
fn connections_beyond_the_table_are_shown(_: &Host) -> Outcome {
    const CONNECTIONS: u64 = 500;
    let port = Port::claim().number();
    let tracer = Tracer::start(["-e", "NEW,DESTROY", "--dport", &port.to_string()]);
    table::<18>(&tracer, name::SOCKET_STATES)?.fill();
    NetNs::new().unwrap().run(|| Flood::new(port, CONNECTIONS, Ending::Mixed).run());
    let ended = tracer.stop();
    ended.expect_code(0);
    assert_eq!(ended.events().len() as u64, 4 * CONNECTIONS);
    Ok(())
}

/// Sockets of other tests release slots meanwhile, and a socket of this test may find one. Then the test tries again.
#[apply(needs_tracing)]
fn steps_without_a_scratch_slot_are_reported(_: &Host) -> Outcome {
    const CONNECTIONS: u64 = 100;
    let ns = NetNs::new().unwrap();
    let deadline = Instant::now() + *LIMIT;
    while Instant::now() < deadline {
        let port = Port::claim().number();
        let ledger = Ledger::start(&[port], "200ms");
        table::<3>(ledger.tracer(), name::COUNTED_STATES)?.exhaust();
        ns.run(|| Flood::new(port, CONNECTIONS, Ending::Mixed).run());
        let last = ledger.stop();
        if last.numbers(Direction::Out, port).opened < CONNECTIONS {
            assert!(last.witness["storage_failed"] > 0, "{last:?}");
            return Ok(());
        }
    }
    panic!("every socket found a slot");
}

/// The kernel may skip the hook that releases a slot. Here the test restores the slot of a closed socket, as if release
/// and end had been skipped, so that the next socket at this address finds it open.
#[apply(needs_tracing)]
fn state_that_outlives_its_socket_is_no_connection(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let (port, other) = (ports[0].number(), ports[1].number());
    let ledger = Ledger::start(&[port, other], "200ms");
    let mut table = table::<3>(ledger.tracer(), name::COUNTED_STATES)?;
    let ns = NetNs::new().unwrap();

    let server = ns.run(|| Server::listen(ports[0].v4()));
    let client = ns.run(|| connect(ports[0].v4()));
    let accepted = server.accept();
    // As `conn_common::connection::Connection` has them.
    let service_port = |slot: &[u64; 3]| slot[1] >> 48;
    let is_listener = |slot: &[u64; 3]| slot[2] >> 31 & 1 == 1;
    let is_ours = |slot: &[u64; 3]| service_port(slot) == u64::from(port) && !is_listener(slot);
    let phantoms: Vec<_> = table.slots().filter(|(_, slot)| is_ours(slot)).collect();
    assert!(!phantoms.is_empty());
    drop((client, accepted, server));
    let is_over = |numbers: &Numbers| (numbers.closed, numbers.open) == (1, 0);
    ledger.await_report("both ends", |report| {
        [Direction::In, Direction::Out].iter().all(|&side| is_over(&report.numbers(side, port)))
    });
    for (at, slot) in phantoms {
        table.put(at, slot);
    }

    let mut truth = Truth::default();
    let deadline = Instant::now() + *LIMIT;
    while ledger.await_equal(&truth).witness["ends_unseen"] == 0 {
        assert!(Instant::now() < deadline, "no socket got one of the addresses");
        truth += ns.run(|| Flood { open: 500, ..Flood::new(other, 4_000, Ending::Mixed) }.run());
    }
    let last = ledger.stop();
    for side in [Direction::In, Direction::Out] {
        assert!(is_over(&last.numbers(side, port)), "{:?}", last.numbers(side, port));
    }
    last.check_identity();
    Ok(())
}
