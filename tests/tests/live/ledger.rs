//! The ledger against the truth, one kind of traffic at a time, and all of it at once.

use aya::maps::HashMap;
use conn_common::{ledger::CELLS, name};
use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Test},
    host::{Host, Need},
    ledger::{Ledger, Report},
    map::{self, Table},
    needs_tracing, needs_whole_machine,
    netns::NetNs,
    port::Port,
    scenario::{self, Scenario},
    test_family,
    tracer::Setup,
    traffic::{
        Server,
        close::{self, First},
        fail,
    },
    truth::Truth,
};
use macro_rules_attribute::apply;
use std::{net::Ipv4Addr, thread};

/// A test for every kind of traffic: `ledger::equals_refused`.
#[apply(test_family)]
fn scenarios() -> Vec<Test> {
    let test = |&scenario: &Scenario| {
        let name = format!("ledger::equals_{}", scenario.name);
        Test::new(name, Need::Tracing, move |_| equals(scenario))
    };
    scenario::ALL.iter().map(test).collect()
}

/// The ledger of the scenario's ports equals its truth to the unit, and stays so.
fn equals(scenario: Scenario) -> Outcome {
    let ports = Port::block(2);
    let numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    let ledger = Ledger::start(&numbers, "100ms");
    let truth = (scenario.run)(numbers[0])?;
    ledger.await_equal(&truth);
    let last = ledger.stop();
    last.check_identity();
    assert_eq!(last.differences(&truth), Vec::<String>::new());
    // Nothing strays to the second port either.
    let rows = last.ports.iter().filter(|row| row.numbers.opened > 0);
    assert!(rows.map(|row| row.port).all(|port| truth.ports().contains(&port)), "{last:?}");
    Ok(())
}

#[apply(needs_tracing)]
fn everything_at_once(_: &Host) -> Outcome {
    let ports: Vec<Vec<Port>> = scenario::ALL.iter().map(|_| Port::block(2)).collect();
    let ledger = Ledger::start(&[], "200ms");
    let mut all = Truth::default();
    thread::scope(|scope| {
        let running: Vec<_> = scenario::ALL
            .iter()
            .zip(&ports)
            .map(|(scenario, ports)| (scenario, scope.spawn(|| (scenario.run)(ports[0].number()))))
            .collect();
        for (scenario, thread) in running {
            // If it cannot run here, its own test says so.
            if let Ok(truth) = thread.join().unwrap_or_else(|_| panic!("scenario {}", scenario.name)) {
                all += truth;
            }
        }
    });
    ledger.await_equal_but(|report| but_unsent(report, &all));
    let last = ledger.stop();
    assert_eq!(last.differences(&but_unsent(&last, &all)), Vec::<String>::new());
    Ok(())
}

/// The truth without what a ledger may lack from Linux 7.0 on: attempts that fail before anything is sent. Only the
/// tracepoint sees them, and there the kernel was seen to skip programs on it in process context, too
/// (docs/kernels.md).
fn but_unsent(report: &Report, truth: &Truth) -> Truth {
    let mut truth = truth.clone();
    let release = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
    let major: u32 = release.split('.').next().unwrap().parse().unwrap();
    let mut skipped = if major < 7 { 0 } else { report.programs["set_state"].missed };
    for (key, counts) in &mut truth.counts {
        let counted = report.numbers(key.direction, key.port).failed_local;
        let missing = counts.local.saturating_sub(counted).min(skipped);
        counts.local -= missing;
        counts.opened -= missing;
        skipped -= missing;
    }
    truth
}

#[apply(needs_tracing)]
fn thousands_of_ports_are_counted(_: &Host) -> Outcome {
    let field = Port::field(2_000);
    let ledger = Ledger::start(&[], "500ms");
    let ns = NetNs::new().unwrap();
    let truth = ns.run(|| {
        let mut truth = Truth::default();
        for port in field.numbers() {
            let server = (Ipv4Addr::LOCALHOST, port).into();
            truth += fail::refused(server, 1 + usize::from(port % 3));
            if port % 4 == 0 {
                truth += close::orderly(server, 1, First::Client);
            }
        }
        truth
    });
    assert_eq!(truth.ports().len(), 2_000);
    ledger.await_equal(&truth);
    assert_eq!(ledger.stop().differences(&truth), Vec::<String>::new());
    Ok(())
}

#[apply(needs_tracing)]
fn namespaces_have_totals(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "100ms");
    let namespaces = [NetNs::new().unwrap(), NetNs::new().unwrap()];
    let mut truth = Truth::default();
    for (ns, count) in namespaces.iter().zip([3, 5]) {
        truth += some_refused(ns, &port, count);
    }
    ledger.await_equal(&truth);
    let report = ledger.stop();
    for (ns, count) in namespaces.iter().zip([3, 5]) {
        assert_eq!(totals(&report, ns), (2 * count + 2, 0, 2, 2 * count, 0));
    }
    Ok(())
}

/// The slots that are found first are in a table, the others in a hash map beside the totals of namespaces.
#[apply(needs_tracing)]
fn connections_beyond_the_table_are_counted(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "100ms");
    let namespaces = [NetNs::new().unwrap(), NetNs::new().unwrap()];
    let mut truth = some_refused(&namespaces[0], &port, 3);
    // The owner of a slot, and its cells.
    Table::<{ 1 + CELLS }>::of(ledger.tracer().pid(), name::LEDGER_SLOTS)?.fill();
    for (ns, count) in namespaces.iter().zip([2, 6]) {
        truth += some_refused(ns, &port, count);
    }
    ledger.await_equal(&truth);
    let report = ledger.stop();
    report.check_identity();
    for (ns, (count, times)) in namespaces.iter().zip([(5, 2), (6, 1)]) {
        assert_eq!(totals(&report, ns), (2 * count + 2 * times, 0, 2 * times, 2 * count, 0));
    }
    Ok(())
}

/// Ports of which few connections are known have small slots, and share one with all CPUs.
#[apply(needs_whole_machine)]
fn ports_with_few_connections_take_no_whole_slot(_: &Host) -> Outcome {
    const PORTS: u16 = 3_000;
    let first = Port::claim().number();
    let ledger = Ledger::start_with(&[], "200ms", &["--total"]);
    let tracer = ledger.tracer().pid();
    let whole =
        || HashMap::<_, u32, [u64; CELLS]>::try_from(map::of(tracer, name::LEDGER)).unwrap().keys().count();
    let before = whole();
    // A namespace of its own has all ports free.
    let truth = NetNs::new().unwrap().run(|| {
        let mut truth = Truth::default();
        for port in (0..PORTS).map(|nth| first.wrapping_add(nth).max(1)) {
            truth += fail::refused((Ipv4Addr::LOCALHOST, port).into(), 1);
        }
        truth
    });
    let opened: u64 = truth.counts.values().map(|counts| counts.opened).sum();
    assert!(opened >= PORTS.into());
    ledger.await_report("all attempts", |report| report.total.opened >= opened);
    // Other tests may have busy ports meanwhile.
    let made = whole() - before;
    assert!(made < usize::from(PORTS) / 10, "{made} whole slots for {PORTS} ports");
    ledger.stop().check_identity();
    Ok(())
}

/// Beyond each bound the next place counts: the table, small slots of namespaces, whole slots.
#[apply(needs_tracing)]
fn counts_are_exact_beyond_each_bound(_: &Host) -> Outcome {
    let ports = Port::block(4);
    let numbers: Vec<u16> = ports.iter().map(Port::number).collect();
    let ledger = Ledger::start(&numbers, "100ms");
    let tracer = ledger.tracer().pid();
    let ns = NetNs::new().unwrap();
    let flood = |port: &Port| ns.run(|| Flood::new(port.number(), 400, Ending::Mixed).run());
    let mut truth = flood(&ports[0]);
    Table::<{ 1 + CELLS }>::of(tracer, name::LEDGER_SLOTS)?.fill();
    truth += flood(&ports[1]);
    map::fill::<u64, 16>(tracer, name::SMALL_SLOTS);
    truth += flood(&ports[2]);
    map::fill::<u32, CELLS>(tracer, name::LEDGER);
    truth += flood(&ports[3]);
    truth += flood(&ports[0]);
    let report = ledger.await_equal(&truth);
    assert!(report.witness["ledger_overflowed"] > 1_000, "{}", report.to_text());
    let last = ledger.stop();
    last.check_identity();
    let connections = 2 * 5 * 400;
    assert_eq!(totals(&last, &ns), (connections, 0, 0, connections, 0));
    Ok(())
}

/// So many connections, and two that are refused.
fn some_refused(ns: &NetNs, port: &Port, count: usize) -> Truth {
    let mut truth = ns.run(|| close::orderly(port.v4(), count, First::Client));
    truth += ns.run(|| fail::refused(port.v4(), 2));
    truth
}

/// What a namespace has opened, had before, failed, closed and open.
fn totals(report: &Report, ns: &NetNs) -> (u64, u64, u64, u64, i64) {
    let found = report.netns.iter().find(|totals| totals.netns == ns.inum()).unwrap();
    (found.opened, found.preexisting, found.failed, found.closed, found.open)
}

#[apply(needs_tracing)]
fn csv_of_a_series_has_one_header_and_times(_: &Host) -> Outcome {
    let port = Port::claim();
    let arguments = ["stats", "-o", "csv", "--interval", "100ms", "--timeout", "1s", "--dport"];
    let csv = |more: &[&str]| {
        let setup = Setup::new(arguments).arguments([port.to_string()]).arguments(more);
        let ended = setup.run();
        ended.expect_code(0);
        ended.stdout
    };
    let _pair = Server::listen(port.v4()).pair();
    let lines = csv(&[]);
    let (header, rows) = lines.split_first().unwrap();
    assert!(
        header.starts_with("time,port,direction,opened,") && header.contains(",opened_per_s,"),
        "{header}"
    );
    let mut times: Vec<&str> = rows.iter().map(|row| row.split(',').next().unwrap()).collect();
    assert!(rows.iter().all(|row| row.split(',').count() == header.split(',').count()), "{lines:#?}");
    assert!(times.is_sorted(), "{times:?}");
    times.dedup();
    assert!(times.len() >= 2 && times.iter().all(|time| time.ends_with('Z')), "{times:?}");
    let without = csv(&["--no-header"]);
    assert!(!without.is_empty() && !without.iter().any(|line| line.starts_with("time,")), "{without:#?}");
    Ok(())
}

#[apply(needs_tracing)]
fn table_fits_and_ends_with_the_verdict(_: &Host) -> Outcome {
    let port = Port::claim();
    let filter = port.to_string();
    let _pair = Server::listen(port.v4()).pair();
    for columns in [60, 80, 200] {
        let arguments = ["stats", "-n", "--timeout", "300ms", "--dport", &filter];
        let ended = Setup::new(arguments).on_terminal(columns).run();
        ended.expect_code(0);
        let at = ended.stdout.iter().position(|line| line.contains(" opened")).expect("a last line");
        let (table, last) = ended.stdout.split_at(at);
        assert!(table[0].starts_with("PORT") && table.len() >= 4, "{ended:#?}");
        assert!(table.iter().all(|line| line.trim_end().len() <= usize::from(columns)), "{ended:#?}");
        // Other connections of this host may be hidden, missed or on the move.
        let verdicts = ["exact: ", "exact but for what is hidden: ", "NOT EXACT: "];
        assert!(verdicts.iter().any(|verdict| last[0].starts_with(verdict)), "{ended:#?}");
        let proof = Setup::new(arguments).arguments(["--proof"]).run();
        proof.expect_code(0);
        assert!(proof.stdout.iter().any(|line| line.starts_with("witness: ")), "{proof:#?}");
        assert!(proof.stdout.last().is_some_and(|line| line.starts_with("opened ")), "{proof:#?}");
    }
    Ok(())
}
