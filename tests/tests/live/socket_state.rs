//! Socket state in a table of the kernel, which is a cache and no limit.

use aya::Pod;
use conn_common::name;
use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    ledger::{Ledger, Numbers, Report},
    map::{self, Table},
    needs_tracing, needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{LIMIT, Server, socket::connect},
    truth::{Direction, Truth},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{collections::BTreeMap, fs, time::Instant};

/// A table of a running conntrace. A slot is `N` words: the address of a socket or 0, then its state. conntrace has a
/// table only where hooks see each beginning and each end.
pub(crate) fn table<const N: usize>(tracer: &Tracer, name: &str) -> Result<Table<N>, Skip>
where
    [u64; N]: Pod,
{
    super::workload::cgroup_root()?;
    Table::of(tracer.pid(), name)
}

/// The words of a socket's state, in runs with events and in runs that only count.
const STATE: usize = 17;
const COUNTED: usize = 2;

/// A namespace in which the kernel allows no socket storage, as an owner of a namespace may set it up. Kernels before 6.8
/// have one limit for all namespaces.
struct NoStorage {
    ns: NetNs,
    /// The limit of all namespaces.
    global: Option<String>,
}

const LIMIT_FILE: &str = "/proc/sys/net/core/optmem_max";

impl NoStorage {
    fn new() -> Self {
        let ns = NetNs::new().unwrap();
        let global = if ns.run(|| fs::write(LIMIT_FILE, "1")).is_ok() {
            None
        } else {
            let before = fs::read_to_string(LIMIT_FILE).unwrap();
            fs::write(LIMIT_FILE, "1").unwrap();
            Some(before)
        };
        Self { ns, global }
    }
}

impl Drop for NoStorage {
    fn drop(&mut self) {
        if let Some(before) = self.global.take() {
            let _ = fs::write(LIMIT_FILE, before);
        }
    }
}

/// Hooks without a table of states.
const TABLELESS: [&str; 2] = ["--witnesses", "set_state,set_state_again,destroy_sock"];

#[apply(needs_tracing)]
fn states_need_no_memory_of_the_observed_namespace(_: &Host) -> Outcome {
    let port = Port::claim().number();
    for hooks in [&[][..], &TABLELESS] {
        let ledger = Ledger::start_with(&[port], "200ms", hooks);
        let tracer =
            Setup::new(["-e", "NEW,DESTROY", "-o", "json", "--strict", "--dport", &port.to_string()])
                .arguments(hooks)
                .start();
        if hooks.is_empty() {
            table::<{ COUNTED + 1 }>(ledger.tracer(), name::COUNTED_STATES)?.fill();
            table::<{ STATE + 1 }>(&tracer, name::SOCKET_STATES)?.fill();
        }
        let truth = NoStorage::new().ns.run(|| Flood::new(port, 500, Ending::Mixed).run());
        let report = ledger.await_equal(&truth);
        assert!(report.witness["states_overflowed"] > 0, "{report:?}");
        let last = ledger.stop();
        assert_eq!((last.witness["storage_failed"], last.witness["steps_stateless"]), (0, 0), "{last:?}");
        last.check_identity();
        let ended = tracer.stop();
        assert!(ended.expect_balance().contains("lost 0: holds"), "{}", ended.stderr);
        assert_eq!(ended.stdout.len(), 4 * 500);
    }
    Ok(())
}

/// Where not even conntrace's own memory is left, the socket itself shows its connection. Sockets of other tests would
/// release ways of the full table, and the kernel gives their memory to the next sockets.
#[apply(needs_whole_machine)]
fn connections_without_a_state_are_counted_and_shown(_: &Host) -> Outcome {
    const CONNECTIONS: u64 = 300;
    let port = Port::claim().number();
    let ledger = Ledger::start(&[port], "200ms");
    let strict = ["-e", "NEW,DESTROY", "-o", "json", "--strict", "--dport", &port.to_string()];
    let tracer = Setup::new(strict).start();
    table::<{ COUNTED + 1 }>(ledger.tracer(), name::COUNTED_STATES)?.fill();
    map::fill::<u64, COUNTED>(ledger.tracer().pid(), name::OVERFLOW_COUNTED);
    table::<{ STATE + 1 }>(&tracer, name::SOCKET_STATES)?.fill();
    map::fill::<u64, STATE>(tracer.pid(), name::OVERFLOW_STATES);
    let truth = NoStorage::new().ns.run(|| Flood::new(port, CONNECTIONS, Ending::Mixed).run());

    // Without a state, nothing makes good a step for which the kernel skipped the program (bpf_prog_active, recursion).
    let skipped = |report: &Report| report.programs["set_state"].missed;
    let near = |number: u64, truth: u64, report: &Report| number.abs_diff(truth) <= skipped(report);
    let last = ledger.await_report("all connections", |report| {
        [Direction::In, Direction::Out].iter().all(|&side| {
            let numbers = report.numbers(side, port);
            [numbers.opened + numbers.preexisting, numbers.established, numbers.closed]
                .iter()
                .all(|&number| near(number, CONNECTIONS, report))
                && numbers.open.unsigned_abs() <= skipped(report)
        })
    });
    println!("without a state: the kernel skipped {}", skipped(&last));
    if skipped(&last) == 0 {
        for side in [Direction::In, Direction::Out] {
            let (numbers, truth) = (last.numbers(side, port), truth.get(side, port));
            assert_eq!((numbers.bytes_sent, numbers.bytes_received), (truth.sent, truth.received));
        }
    }
    assert!(last.witness["steps_stateless"] > 0 && !last.identity.holds, "{last:?}");
    drop(ledger);

    let skipped = skipped_runs(&tracer);
    let ended = tracer.stop();
    let text = ended.expect_code(3);
    assert!(text.contains("lost 0: adds up, but the programs failed: "), "{text}");
    assert!(text.contains("steps_stateless") && !text.contains("holds"), "{text}");
    // Each connection once, from each side, under its whole tuple.
    let mut lives: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
    for line in &ended.stdout {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let text = |name: &str| event[name].as_str().expect(name).to_owned();
        assert_eq!(event["dport"], port, "{line}");
        let sport = event["sport"].as_u64().expect("a port");
        lives.entry((text("direction") + &text("src"), sport)).or_default().push(text("event"));
    }
    // A port may be used again.
    let whole = lives.values().flat_map(|events| events.chunks(2)).filter(|life| life == &["new", "destroy"]);
    assert!((whole.count() as u64).abs_diff(2 * CONNECTIONS) <= skipped, "{lives:?}");
    Ok(())
}

/// How often the kernel skipped a program of the tracer, in all.
fn skipped_runs(tracer: &Tracer) -> u64 {
    let files = fs::read_dir(format!("/proc/{}/fdinfo", tracer.pid())).unwrap();
    let texts = files.flatten().filter_map(|file| fs::read_to_string(file.path()).ok());
    let of = |text: &str| {
        text.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse::<u64>().ok())
    };
    texts.filter_map(|text| of(&text)).sum()
}

#[apply(needs_tracing)]
fn verdict_of_a_report_names_the_failures(_: &Host) -> Outcome {
    let port = Port::claim().number();
    let tracer = Setup::new(["stats", "--strict", "--proof", "--dport", &port.to_string()]).start();
    table::<{ COUNTED + 1 }>(&tracer, name::COUNTED_STATES)?.fill();
    map::fill::<u64, COUNTED>(tracer.pid(), name::OVERFLOW_COUNTED);
    NoStorage::new().ns.run(|| Flood::new(port, 50, Ending::Mixed).run());
    let ended = tracer.stop();
    ended.expect_code(3);
    let text = ended.stdout.join("\n");
    assert!(text.contains("DOES NOT HOLD: the programs failed (storage_failed "), "{text}");
    assert!(!text.contains(": holds"), "{text}");
    Ok(())
}

#[apply(needs_tracing)]
fn connections_beyond_the_table_are_counted(_: &Host) -> Outcome {
    let port = Port::claim().number();
    let ledger = Ledger::start(&[port], "200ms");
    table::<{ COUNTED + 1 }>(ledger.tracer(), name::COUNTED_STATES)?.fill();
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
    table::<{ STATE + 1 }>(&tracer, name::SOCKET_STATES)?.fill();
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
        table::<{ COUNTED + 1 }>(ledger.tracer(), name::COUNTED_STATES)?.exhaust();
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
    let mut table = table::<{ COUNTED + 1 }>(ledger.tracer(), name::COUNTED_STATES)?;
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
