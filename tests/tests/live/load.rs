//! The ledger under as much load as the machine can make: equal to the generator's numbers, to the unit.

use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    ledger::{Ledger, Report},
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::Setup,
    traffic::fail,
    truth::Truth,
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process, thread,
    time::Instant,
};

/// How many connections a run makes.
fn connections() -> u64 {
    let chosen = env::var("CONNTRACE_TEST_CONNECTIONS").ok();
    chosen.map_or(500_000, |number| number.parse().expect("CONNTRACE_TEST_CONNECTIONS is a number"))
}

/// One flood, with its speed. The namespace must be there until the ledger was checked: an audit cannot look
/// into one that nothing keeps.
fn flood(ns: &NetNs, flood: Flood) -> Truth {
    let start = Instant::now();
    let truth = ns.run(|| flood.run());
    let speed = flood.connections as f64 / start.elapsed().as_secs_f64();
    println!("load: {} connections, {:?}, {speed:.0} per second", flood.connections, flood.ending);
    assert_eq!(truth.outgoing(flood.port).established, flood.connections);
    truth
}

/// Waits until the ledger equals the truth, if need be with the help of an audit. Gives how many ends only
/// audits have found so far.
fn await_equal(ledger: &Ledger, truth: &Truth) -> u64 {
    let repaired = ledger.await_equal_but(|report| but_bytes(report, truth)).repaired;
    if repaired > 0 {
        println!("load: {repaired} ends were seen by no hook, and found by an audit");
    }
    repaired
}

/// The ledger equals the truth, and goes on to when asked again.
fn check(ledger: Ledger, truth: &Truth) {
    await_equal(&ledger, truth);
    let last = ledger.stop();
    assert_eq!(last.differences(&but_bytes(&last, truth)), Vec::<String>::new());
    last.check_identity();
    println!("load: {}", last.to_text());
}

/// A file for events that goes with the test.
struct EventFile(PathBuf);

impl EventFile {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("conn-tests-{}-{name}.events", process::id())))
    }

    /// The events in it, without lines about losses.
    fn events(&self) -> u64 {
        let file = BufReader::new(fs::File::open(&self.0).unwrap());
        let lines = file.split(b'\n').map(Result::unwrap).inspect(|line| assert!(!line.is_empty()));
        lines
            .filter(|line| {
                ![&b"   [LOST] "[..], b"{\"event\":\"lost\""].iter().any(|loss| line.starts_with(loss))
            })
            .count() as u64
    }
}

impl Drop for EventFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The number of events that `conntrace events` says it has lost, a line for each loss: `conntrace: 72 events
/// were lost …`.
fn lost(stderr: &str) -> u64 {
    let losses = stderr.lines().filter(|line| line.contains("events were lost"));
    losses.filter_map(|line| line.strip_prefix("conntrace: ")?.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// The runs one after the other, each ending in another way, with one ledger for all of them and the events
/// of each in a file of its own, so that the disk never has to hold more than one. How many were lost. With
/// `stopped`, the tracer reads no event during the load.
fn runs(number: u64, endings: &[Ending], name: &str, options: &[&str], stopped: bool) -> (u64, Truth) {
    let port = Port::claim();
    let filter = port.to_string();
    let ledger = Ledger::start(&[port.number()], "500ms");
    let (mut truth, mut all_lost) = (Truth::default(), 0);
    let ns = NetNs::new().unwrap();
    for (_, &ending) in (0..number).zip(endings.iter().cycle()) {
        let file = EventFile::new(name);
        let events =
            Setup::new([&["events", "-e", "NEW,DESTROY", "--dport", filter.as_str()], options].concat());
        let events = events.stdout_to(&file.0).start();
        if stopped {
            events.signal(Signal::SIGSTOP);
        }
        truth += flood(&ns, Flood::new(port.number(), connections(), ending));
        events.signal(Signal::SIGCONT);
        let untold = await_equal(&ledger, &truth);
        let ended = events.stop();
        let lost = lost(ended.expect_code(0));
        let lines = file.events();
        println!("load: {lines} events shown, {lost} lost");
        // NEW and DESTROY on both sides: each is shown or reported as lost, but for ends that no hook saw.
        let missing = (4 * connections()).checked_sub(lines + lost);
        assert!(missing.is_some_and(|missing| missing <= untold), "{missing:?}: {}", ended.stderr);
        all_lost += lost;
    }
    check(ledger, &truth);
    (all_lost, truth)
}

#[apply(needs_whole_machine)]
fn counts_are_exact_beside_an_event_stream(_: &Host) -> Outcome {
    use Ending::{ClientFirst, ClientReset, Mixed, ServerFirst, ServerReset};
    let endings = [ClientFirst, ServerFirst, ClientReset, ServerReset, Mixed];
    runs(10, &endings, "stream", &["-o", "json"], false);
    Ok(())
}

#[apply(needs_whole_machine)]
fn lost_events_lose_no_count(_: &Host) -> Outcome {
    let (lost, truth) = runs(2, &[Ending::ClientFirst, Ending::Mixed], "tiny", &["-b", "4096"], true);
    let opened: u64 = truth.counts.values().map(|counts| counts.opened).sum();
    assert!(lost > opened, "most events should be lost: {lost} of {}", 2 * opened);
    Ok(())
}

#[apply(needs_whole_machine)]
fn thousands_of_open_connections_are_counted(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "500ms");
    let count = connections() * 2 / 5;
    let ns = NetNs::new().unwrap();
    let truth =
        flood(&ns, Flood { open: 1_000, threads: 8, ..Flood::new(port.number(), count, Ending::Mixed) });
    check(ledger, &truth);
    Ok(())
}

#[apply(needs_whole_machine)]
fn failures_under_load_are_counted(_: &Host) -> Outcome {
    let ports = Port::block(3);
    let [open, refused, silent] = [0, 1, 2].map(|at: usize| &ports[at]);
    let ledger = Ledger::start(&ports.iter().map(Port::number).collect::<Vec<_>>(), "500ms");
    let count = connections() / 5;
    let ns = NetNs::new().unwrap();
    let truth = ns.run(|| {
        let flood = Flood::new(open.number(), count, Ending::Mixed).start();
        let failing: Vec<Truth> = thread::scope(|scope| {
            let count = count as usize;
            let threads = [
                scope.spawn(move || fail::refused(refused.v4(), count)),
                scope.spawn(move || fail::refused(refused.v6(), count)),
                scope.spawn(move || fail::abandoned_many(silent.v4(), count)),
            ];
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        failing.into_iter().fold(flood.join(), |mut sum, one| {
            sum += one;
            sum
        })
    });
    assert_eq!(truth.outgoing(refused.number()).refused, 2 * count);
    check(ledger, &truth);
    Ok(())
}

/// Interrupts that carry packets hit the witnesses while they run; each of them may be skipped then.
#[apply(needs_whole_machine)]
fn interrupts_on_both_cpus_lose_no_count(_: &Host) -> Outcome {
    let port = Port::claim();
    let ledger = Ledger::start(&[port.number()], "500ms");
    let ns = NetNs::new().unwrap();
    ns.spread().map_err(|error| Skip(format!("cannot spread packets over the CPUs: {error}")))?;
    let mut truth = Truth::default();
    for ending in [Ending::ClientFirst, Ending::ServerFirst, Ending::Mixed] {
        let flood = Flood { threads: 8, open: 20, ..Flood::new(port.number(), connections() / 3, ending) };
        truth += ns.run(|| flood.run());
        await_equal(&ledger, &truth);
    }
    check(ledger, &truth);
    Ok(())
}

/// The truth as far as it can be known: of an end that no witness saw, and that the audit made good and
/// counted as repaired, the bytes are gone. Each of these connections had one byte in one direction.
fn but_bytes(report: &Report, truth: &Truth) -> Truth {
    let mut known = truth.clone();
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
