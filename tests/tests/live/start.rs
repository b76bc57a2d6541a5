//! Started in the middle of it: what was there before is adopted, what happens meanwhile is not lost.

use conn_tests::{
    flood::{Ending, Flood},
    harness::Outcome,
    host::Host,
    kernel::settled,
    ledger::{Difference, Ledger, last_report},
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::Setup,
    traffic::{
        Server,
        socket::{begin_connect, connect, tcp},
    },
    truth::{Direction, Key},
};
use macro_rules_attribute::apply;
use std::{net::Shutdown, thread};

/// Makes so many more.
fn await_made(flood: &conn_tests::flood::Running, more: u64) {
    let target = flood.made() + more;
    while flood.made() < target {
        assert!(!flood.is_finished());
        thread::yield_now();
    }
}

#[apply(needs_whole_machine)]
fn a_start_amid_a_flood_counts_exactly(_: &Host) -> Outcome {
    for round in 0..20 {
        let port = Port::claim();
        let number = port.number();
        let ns = NetNs::new().unwrap();
        let open = [0, 10, 300, 2_000][round % 4];
        let flood = Flood { open, ..Flood::new(number, u64::MAX, Ending::Mixed) };
        let flood = ns.run(|| flood.start());
        await_made(&flood, 1_000 + 3 * open as u64);
        let ledger = Ledger::start(&[number], "100ms");
        await_made(&flood, 3_000);
        let (truth, pairs) = flood.halt();
        // Some in other states than ESTABLISHED.
        for (client, _) in pairs.iter().step_by(3) {
            client.shutdown(Shutdown::Write).unwrap();
        }
        let kernel = ns.run(|| settled(&[number]));
        let what = format!("round {round}: {kernel:?}");
        let report = ledger.await_report(&what, |report| report.open(&[number]) == kernel);
        // The kernel does not move any more either.
        assert_eq!(ns.run(|| settled(&[number])), kernel);
        report.check_identity();
        for direction in [Direction::In, Direction::Out] {
            let (numbers, made) = (report.numbers(direction, number), truth.get(direction, number));
            assert_eq!(numbers.open, made.open().cast_signed(), "{direction:?} {numbers:?} {made:?}");
            // What began before and is not adopted had ended before.
            let seen = numbers.opened + numbers.preexisting;
            assert_eq!(made.opened - seen, made.closed - numbers.closed, "{direction:?} {numbers:?}");
            assert!(made.opened > seen && numbers.closed > 0, "{direction:?} {numbers:?} {made:?}");
            assert_eq!(numbers.failed, 0, "{numbers:?}");
            let kept = kernel.keys().any(|(key, _)| *key == Key { direction, port: number });
            assert_eq!(kept, open > 0);
        }
        println!(
            "start {round}: open {open}, {} made, {:?}, preexisting {}, repaired {}",
            truth.outgoing(number).opened,
            report.witness.iter().filter(|(_, count)| **count > 0).collect::<Vec<_>>(),
            report.numbers(Direction::In, number).preexisting,
            report.repaired,
        );
        drop(pairs);
        let end = ledger.await_report("all closed", |report| report.open(&[number]).is_empty());
        end.check_identity();
        ledger.stop().check_identity();
    }
    Ok(())
}

/// Sockets in all states that last, in two namespaces, are there before the tracer.
#[apply(needs_whole_machine)]
fn adopts_every_state(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let [port, deaf] = [ports[0].number(), ports[1].number()];
    let all = [port, deaf];
    let namespaces = [NetNs::new().unwrap(), NetNs::new().unwrap()];
    // A namespace that only files and sockets keep could not be found before something happens in it.
    let _residents: Vec<_> = namespaces.iter().map(NetNs::settle).collect();
    let held: Vec<_> = namespaces
        .iter()
        .zip([&ports[0].v4(), &ports[0].v6()])
        .map(|(ns, &address)| {
            ns.run(|| {
                let listener = Server::listen(address);
                let pairs: Vec<_> = (0..12).map(|_| listener.pair()).collect();
                for pair in &pairs[..4] {
                    pair.client.shutdown(Shutdown::Write).unwrap();
                }
                for pair in &pairs[4..7] {
                    pair.server.shutdown(Shutdown::Write).unwrap();
                }
                // No process accepts this one.
                let waiting = connect(address);
                let silent = Server::deaf(std::net::SocketAddr::new(address.ip(), deaf));
                let calling = tcp(address);
                begin_connect(&calling, silent.address);
                (listener, pairs, waiting, silent, calling)
            })
        })
        .collect();

    let ledger = Ledger::start(&all, "100ms");
    let kernel = namespaces.iter().map(|ns| ns.run(|| settled(&all))).fold(
        conn_tests::kernel::SocketTally::new(),
        |mut sum, one| {
            for (key, count) in one {
                *sum.entry(key).or_default() += count;
            }
            sum
        },
    );
    let of = |direction, port, state| kernel.get(&(Key { direction, port }, state)).copied().unwrap_or(0);
    let out = ["established", "fin_wait2", "close_wait"].map(|state| of(Direction::Out, port, state));
    let inn = ["established", "close_wait", "fin_wait2"].map(|state| of(Direction::In, port, state));
    assert_eq!((out, inn, of(Direction::Out, deaf, "syn_sent")), ([12, 8, 6], [12, 8, 6], 2), "{kernel:?}");

    let report = ledger.await_report(&format!("{kernel:?}"), |report| report.open(&all) == kernel);
    report.check_identity();
    assert_eq!(report.repaired, 0);
    for direction in [Direction::In, Direction::Out] {
        let numbers = report.numbers(direction, port);
        assert_eq!((numbers.preexisting, numbers.opened), (26, 0), "{direction:?}");
    }
    assert_eq!(report.numbers(Direction::Out, deaf).preexisting, 2);
    let listeners = report.listeners(port);
    assert_eq!((listeners.preexisting, listeners.opened, listeners.open), (2, 0, 2));

    drop(held);
    let end = ledger.await_report("all gone", |report| {
        report.open(&all).is_empty() && all.iter().all(|&port| report.listeners(port).open == 0)
    });
    end.check_identity();
    for direction in [Direction::In, Direction::Out] {
        assert_eq!(end.numbers(direction, port).closed, 26);
    }
    assert_eq!(end.numbers(Direction::Out, deaf).failed_abandoned, 2);
    assert_eq!((end.listeners(port).preexisting, end.listeners(port).closed), (2, 2));
    ledger.stop().check_identity();
    Ok(())
}

/// Hooks that see nothing of what existing connections do until they end: the last audit finds them in other states
/// than the ledger, and takes none of them for ended.
#[apply(needs_whole_machine)]
fn unseen_steps_are_no_ends(_: &Host) -> Outcome {
    const OPEN: usize = 20;
    let port = Port::claim();
    let server = Server::listen(port.v4());
    let mut pairs: Vec<_> = (0..OPEN).map(|_| server.pair()).collect();
    let filter = port.to_string();
    let tracer =
        Setup::new(["stats", "-o", "json", "--witnesses", "destroy_sock", "--dport", &filter]).start();
    for pair in &pairs[..OPEN / 2] {
        pair.client.shutdown(Shutdown::Write).unwrap();
    }
    // One end that a hook does see, though not from which state.
    drop(pairs.pop());
    let kernel = settled(&[port.number()]);
    let report = last_report(&tracer.stop());
    // Hooks are missing, so other connections of the host may differ while they come and go.
    let is_ours = |difference: &&Difference| difference.port == port.number();
    assert_eq!(report.audit.differences.iter().find(is_ours), None, "{report:?}");
    assert_eq!(report.open(&[port.number()]), kernel);
    assert_eq!(report.repaired, 0, "{report:?}");
    for direction in [Direction::In, Direction::Out] {
        let numbers = report.numbers(direction, port.number());
        assert_eq!((numbers.preexisting, numbers.closed), (OPEN as u64, 1), "{direction:?} {numbers:?}");
    }
    Ok(())
}
