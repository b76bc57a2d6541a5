//! What sockets remember: in a table, which is neither a limit nor to be believed blindly.

use aya::Pod;
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

/// A table of a running conntrace. A place is `N` words: the address of a socket or 0, then what is kept of it. Where
/// hooks tell of each beginning and each end, and only there, conntrace keeps one.
pub(crate) fn table<const N: usize>(tracer: &Tracer, name: &str) -> Result<Table<N>, Skip>
where
    [u64; N]: Pod,
{
    super::workload::cgroup_root()?;
    Table::of(tracer.pid(), name)
}

#[apply(needs_tracing)]
fn connections_beyond_the_table_are_counted(_: &Host) -> Outcome {
    let port = Port::take().number();
    let ledger = Ledger::start(&[port], "200ms");
    table::<3>(ledger.tracer(), "COUNTED_STATES")?.fill();
    let ns = NetNs::new().unwrap();
    let truth = ns.run(|| Flood { open: 50, ..Flood::new(port, 4_000, Ending::Mixed) }.run());
    ledger.await_equal(&truth);
    ledger.stop().check_identity();
    Ok(())
}

#[apply(needs_tracing)]
fn connections_beyond_the_table_are_shown(_: &Host) -> Outcome {
    const CONNECTIONS: u64 = 500;
    let port = Port::take().number();
    let tracer = Tracer::start(["-e", "NEW,DESTROY", "--dport", &port.to_string()]);
    table::<18>(&tracer, "SOCKET_STATES")?.fill();
    NetNs::new().unwrap().run(|| Flood::new(port, CONNECTIONS, Ending::Mixed).run());
    let ended = tracer.stop();
    ended.expect_code(0);
    assert_eq!(ended.events().len() as u64, 4 * CONNECTIONS);
    Ok(())
}

/// Sockets of other tests leave places meanwhile, and those of this one may find them: then it tries again.
#[apply(needs_tracing)]
fn steps_without_a_scratch_slot_are_reported(_: &Host) -> Outcome {
    const CONNECTIONS: u64 = 100;
    let ns = NetNs::new().unwrap();
    let deadline = Instant::now() + *LIMIT;
    while Instant::now() < deadline {
        let port = Port::take().number();
        let ledger = Ledger::start(&[port], "200ms");
        table::<3>(ledger.tracer(), "COUNTED_STATES")?.exhaust();
        ns.run(|| Flood::new(port, CONNECTIONS, Ending::Mixed).run());
        let last = ledger.stop();
        if last.numbers(Direction::Out, port).opened < CONNECTIONS {
            assert!(last.witness["storage_failed"] > 0, "{last:?}");
            return Ok(());
        }
    }
    panic!("all found a place");
}

/// The call that frees a place may be skipped. Here it is as if both that call and the end had been: a socket that
/// has the same address as one that is gone finds it open.
#[apply(needs_tracing)]
fn state_that_outlives_its_socket_is_no_connection(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let (port, other) = (ports[0].number(), ports[1].number());
    let ledger = Ledger::start(&[port, other], "200ms");
    let mut table = table::<3>(ledger.tracer(), "COUNTED_STATES")?;
    let ns = NetNs::new().unwrap();

    let server = ns.run(|| Server::listen(ports[0].v4()));
    let client = ns.run(|| connect(ports[0].v4()));
    let accepted = server.accept();
    // As `conn_common::connection::Connection` has them.
    let service_port = |place: &[u64; 3]| place[1] >> 48;
    let is_listener = |place: &[u64; 3]| place[2] >> 8 & 0xff == 2;
    let is_ours = |place: &[u64; 3]| service_port(place) == u64::from(port) && !is_listener(place);
    let ghosts: Vec<_> = table.places().filter(|(_, place)| is_ours(place)).collect();
    assert!(!ghosts.is_empty());
    drop((client, accepted, server));
    let is_over = |numbers: &Numbers| (numbers.closed, numbers.open) == (1, 0);
    ledger.await_report("both ends", |report| {
        [Direction::In, Direction::Out].iter().all(|&side| is_over(&report.numbers(side, port)))
    });
    for (at, place) in ghosts {
        table.put(at, place);
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
