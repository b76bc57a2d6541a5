//! Daemons that are killed and replaced under load: the counts equal the generator's.

use conn_tests::{
    flood::{Ending, Flood, Running},
    harness::Outcome,
    host::Host,
    ledger::Report,
    needs_tracing, needs_whole_machine,
    netns::NetNs,
    pins::{Pins, REPLACED, TAKEN_OVER, kill},
    port::Port,
    timeout,
    tracer::{Setup, Tracer},
    traffic::crew::{Line, Worker},
    truth::Truth,
};
use macro_rules_attribute::apply;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

/// How many connections a run makes.
fn connections() -> u64 {
    let chosen = env::var("CONNTRACE_TEST_CONNECTIONS").ok();
    chosen.map_or(60_000, |number| number.parse().expect("CONNTRACE_TEST_CONNECTIONS is a number"))
}

/// How often a daemon is killed or replaced.
fn rounds() -> u64 {
    let chosen = env::var("CONNTRACE_TEST_RESTARTS").ok();
    chosen.map_or(6, |number| number.parse().expect("CONNTRACE_TEST_RESTARTS is a number"))
}

/// A flood under way, and the port that it goes to.
struct Load {
    ns: NetNs,
    port: Port,
    running: Running,
}

impl Load {
    fn start() -> Self {
        let (ns, port) = (NetNs::new().unwrap(), Port::claim());
        let flood =
            Flood { open: 50, refused: true, ..Flood::new(port.number(), connections(), Ending::Mixed) };
        let running = ns.run(|| flood.start());
        Self { ns, port, running }
    }

    /// Waits until this part of the load is done.
    fn await_part(&self, part: u64, of: u64) {
        let (begun, wanted) = (Instant::now(), connections() * part / of);
        while self.running.made() < wanted {
            assert!(
                begun.elapsed() < timeout::seconds(120),
                "{} of {wanted} connections",
                self.running.made()
            );
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Compares the counts with the load. Only this port's: others are other people's.
    fn check(self, pins: &Pins) {
        let (ns, port) = (self.ns, self.port.number());
        let truth = self.running.join();
        assert_eq!(truth.outgoing(port).established, connections());
        // One of four, rounded up in each block of each thread.
        assert!(truth.outgoing(port).failed() >= connections() / 4, "{truth:?}");
        let report = pins.await_equal_but(|report| known(report, &truth));
        drop(ns);
        report.check_identity();
        let count = |name: &str| report.witness.get(name).copied().unwrap_or_default();
        assert_eq!((count("adopted_late"), count("storage_failed")), (0, 0), "{}", report.to_text());
        let failed = truth.outgoing(port).failed();
        println!("pins: {} connections and {failed} refused exact, {}", connections(), report.to_text());
    }
}

/// What can be known of the truth: of an end that no hook saw, and that an audit found, the bytes are gone. Such ends are
/// as rare without a restart, see docs/exactness.md.
fn known(report: &Report, truth: &Truth) -> Truth {
    let mut known = truth.clone();
    if report.repaired > 0 {
        println!("pins: {} ends were seen by no hook", report.repaired);
    }
    for (key, counts) in &mut known.counts {
        let numbers = report.numbers(key.direction, key.port);
        for (bytes, counted) in
            [(&mut counts.sent, numbers.bytes_sent), (&mut counts.received, numbers.bytes_received)]
        {
            if bytes.checked_sub(counted).is_some_and(|lost| lost <= report.repaired) {
                *bytes = counted;
            }
        }
    }
    known
}

/// A daemon that says so.
fn start(setup: Setup, said: &str) -> Tracer {
    let daemon = setup.start();
    daemon.await_stderr(said, |line| line.contains(said));
    daemon
}

#[apply(needs_whole_machine)]
fn killed_daemons_lose_no_count(_: &Host) -> Outcome {
    let pins = Pins::new();
    let mut daemon = start(pins.serve(), "counting begins");
    let load = Load::start();
    for round in 1..=rounds() {
        load.await_part(round, rounds() + 2);
        kill(daemon);
        if round.is_multiple_of(3) {
            // The programs count while no daemon is there.
            load.await_part(3 * round + 1, 3 * (rounds() + 2));
        }
        daemon = start(pins.serve(), TAKEN_OVER);
    }
    load.check(&pins);
    drop(daemon);
    Ok(())
}

#[apply(needs_whole_machine)]
fn replaced_programs_lose_no_count(_: &Host) -> Outcome {
    let pins = Pins::new();
    let mut daemon = start(pins.serve(), "counting begins");
    let load = Load::start();
    for round in 1..=rounds() {
        load.await_part(round, rounds() + 2);
        kill(daemon);
        let setup = if round.is_multiple_of(2) { pins.serve() } else { pins.serve_other_build() };
        daemon = start(setup, REPLACED);
    }
    let kinds = ["links", "progs"].map(|kind| fs::read_dir(pins.epoch().join(kind)).unwrap().count());
    assert_eq!(kinds[0], kinds[1], "programs of replaced builds are left");
    load.check(&pins);
    drop(daemon);
    Ok(())
}

#[apply(needs_whole_machine)]
fn replacement_that_is_killed_loses_no_count(_: &Host) -> Outcome {
    let pins = Pins::new();
    kill(start(pins.serve(), "counting begins"));
    let load = Load::start();
    for round in 1..=2 * rounds() {
        let setup = if round.is_multiple_of(2) { pins.serve() } else { pins.serve_other_build() };
        let daemon = setup.spawn();
        // At another moment of the start each time; some are ready by then.
        load.await_part(round * 16 + round % 7, 32 * rounds() + 32);
        kill(daemon);
    }
    // The last one may find its own programs.
    let daemon = pins.serve().start();
    daemon.await_stderr("how it began", |line| line.contains(REPLACED) || line.contains(TAKEN_OVER));
    load.check(&pins);
    drop(daemon);
    let names = |kind: &str| -> Vec<String> {
        let entries = fs::read_dir(pins.epoch().join(kind)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    for name in ["links", "progs"].map(names).concat() {
        assert!(!name.ends_with("_new"), "{name} is left");
    }
    Ok(())
}

/// More open files than the smallest table has slots, so that a daemon plans a larger one.
const FILES: usize = 80_000;

/// Processes that have so many files open.
fn open_files() -> Vec<Worker> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // A process has a few more.
    let share = usize::try_from(hard).unwrap_or(FILES).min(FILES) - 100;
    let open = |line: &Line| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
        let files: Vec<_> = (0..share).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        line.ready();
        line.wait();
        drop(files);
    };
    let workers: Vec<_> = (0..FILES.div_ceil(share)).map(|_| Worker::start("files", &[], open)).collect();
    workers.iter().for_each(Worker::await_ready);
    workers
}

#[apply(needs_tracing)]
fn size_of_the_table_comes_from_the_pins(_: &Host) -> Outcome {
    let pins = Pins::new();
    let workers = open_files();
    let slots = |daemon: &Tracer| {
        let line = daemon.await_stderr("the host", |line| line.contains("open_files: "));
        let number = line.split("open_files: ").nth(1).unwrap();
        let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<usize>().unwrap().clamp(1 << 16, 1 << 18).next_power_of_two()
    };
    let first = pins.serve().start();
    let before = slots(&first);
    kill(first);
    for worker in workers {
        worker.resume();
        worker.join();
    }
    let daemon = start(pins.serve_other_build(), REPLACED);
    // Beside very many other open files, both plan the largest table.
    println!("pins: a table of {} slots is planned, and one of {before} goes on", slots(&daemon));
    let ns = NetNs::new().unwrap();
    let port = Port::claim();
    let truth = ns.run(|| Flood::new(port.number(), 5_000, Ending::Mixed).run());
    pins.await_equal(&truth).check_identity();
    drop(ns);
    Ok(())
}
