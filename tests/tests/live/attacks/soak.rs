//! All attacks at once, again and again, beside honest traffic on a port of its own. `cargo xtask soak` runs it for ten
//! minutes, a usual run for seconds.

use conn_tests::{
    attack::{Attacker, may_attack, may_starve, namespaces, sockets},
    harness::Outcome,
    host::Host,
    ledger::{Ledger, Report, last_report},
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    timeout,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        crew::{CallReport, Worker, call, truth_of},
    },
    truth::{Direction, Key, Listens, Truth},
    usage,
};
use macro_rules_attribute::apply;
use nix::sys::stat::Mode;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::Path,
    process, thread,
    time::{Duration, Instant},
};

/// The environment variable with the length in seconds.
const SECONDS: &str = "CONNTRACE_SOAK_SECONDS";
/// The usual length in seconds.
const USUAL: u64 = 20;
/// How long the attackers of one round stay.
const ROUND: Duration = Duration::from_secs(10);
/// Time between two honest connections.
const PAUSE: Duration = Duration::from_millis(10);
/// Memory of a tracer, its maps included, that may be added after the first third of a long run, bytes. A short run ends
/// before the audit of all ports has begun.
const MOST_GROWTH: u64 = 32 << 20;
/// Memory of a tracer, its maps included, at any time, bytes.
const MOST_MEMORY: u64 = 400 << 20;
/// The length from which a run is long.
const LONG: Duration = Duration::from_secs(60);
/// Descriptors that may be added after the first third.
const MOST_FILES: usize = 32;

fn length() -> Duration {
    let chosen = env::var(SECONDS).ok().map(|text| text.parse().expect("a number of seconds"));
    Duration::from_secs(chosen.unwrap_or(USUAL))
}

/// What attackers have: ports of their own, and a pipe of root's.
struct Ground<'a> {
    ports: [u16; 6],
    pipe: &'a Path,
    /// The number of sockets and namespaces of each attack, in hundreds.
    size: usize,
}

impl Ground<'_> {
    /// Starts every attack.
    fn attack(&self) -> Vec<Attacker> {
        let &Self { ports: [held, starved, flooded, refused, hidden, subflows], pipe, size } = self;
        let mut attackers = vec![
            Attacker::start("conn-holds", |line| sockets::hold(line, 90 * size, held)),
            Attacker::start("conn-flood", |line| sockets::flood(line, flooded)),
            Attacker::start("conn-refused", |line| sockets::flood_refused(line, refused)),
            Attacker::start("conn-hides", |line| namespaces::hide(line, hidden)),
            Attacker::start("conn-orphan", |line| namespaces::orphan(line, hidden)),
            Attacker::start("conn-attempts", |line| namespaces::hide_attempts(line, 5, hidden)),
            Attacker::start("conn-many", |line| namespaces::keep_many(line, 3 * size)),
            Attacker::start("conn-idle", |line| namespaces::inhabit_many(line, size)),
            Attacker::start("conn-flip", |line| namespaces::flip(line, pipe)),
            Attacker::start("conn-ports", |line| {
                line.ready();
                // The honest port is beyond them.
                sockets::try_ports(1..=19_999);
                line.wait();
            }),
        ];
        for part in 0..4_u16 {
            let first = 30_000 + part * 8_000;
            let last = first + 80 * size as u16 - 1;
            attackers.push(Attacker::start("conn-listens", move |line| {
                sockets::listen_everywhere(line, first..=last);
            }));
        }
        if may_starve().is_ok() {
            attackers
                .push(Attacker::start("conn-starves", |line| sockets::keep_without_storage(line, starved)));
        }
        if has_mptcp() {
            attackers.push(Attacker::start("conn-mptcp", |line| {
                sockets::attempt_by_mptcp(line, 80 * size, subflows);
            }));
        }
        attackers
    }
}

fn has_mptcp() -> bool {
    use socket2::{Domain, Protocol, Socket, Type};
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).is_ok()
}

/// The use of a tracer at one time.
#[derive(Debug, Clone, Copy)]
struct Sample {
    memory: u64,
    files: usize,
}

impl Sample {
    fn of(tracer: &Tracer) -> Self {
        let pid = tracer.pid();
        Self { memory: usage::memory(pid) + usage::map_memory(pid), files: usage::open_files(pid) }
    }
}

/// How long a tracer's end may take beside all attacks: a second for the release program of a long run. A debug build has a
/// full ring to render.
fn most_to_end(length: Duration) -> Duration {
    timeout::seconds(if length < LONG { 20 } else { 1 })
}

/// Stops a tracer in time.
fn stop(name: &str, tracer: Tracer, most: Duration) -> conn_tests::tracer::Ended {
    let asked = Instant::now();
    let ended = tracer.stop();
    let took = asked.elapsed();
    println!("soak: {name} ended in {took:?}: {}", ended.stderr.lines().next_back().unwrap_or_default());
    assert!(took < most, "{name}: {took:?}");
    ended
}

/// Events by kind and direction. Each has its owner.
fn check_events(path: &Path, reports: &[CallReport], server: u32) -> BTreeMap<String, u64> {
    let caller = reports.first().expect("a connection").caller.pid;
    let mut seen = BTreeMap::new();
    for line in BufReader::new(fs::File::open(path).expect("events")).lines() {
        let line = line.expect("a line");
        let event: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        if text("event") == "lost" {
            *seen.entry("lost".to_owned()).or_default() += event["lost"].as_u64().expect("a number");
            continue;
        }
        let pid = event["pid"].as_u64().unwrap_or_default() as u32;
        match (text("direction").as_str(), text("owner").as_str()) {
            ("out", "connect") => assert_eq!(pid, caller, "{line}"),
            ("in", "accept" | "listener") => assert_eq!(pid, server, "{line}"),
            _ => panic!("an event without its owner: {line}"),
        }
        *seen.entry(format!("{} {}", text("event"), text("direction"))).or_default() += 1;
    }
    seen
}

#[apply(needs_whole_machine)]
fn honest_traffic_is_exact_beside_all_attacks(_: &Host) -> Outcome {
    may_attack()?;
    let length = length();
    let claimed: Vec<Port> = Port::block(7);
    let port = claimed[6].number();
    let directory = env::temp_dir().join(format!("conn-tests-soak-{}", process::id()));
    fs::create_dir_all(&directory).unwrap();
    let (pipe, events) = (directory.join("pipe"), directory.join("events"));
    nix::unistd::mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let usual = if timeout::is_scaled() { 3 } else { 30 };
    let size = if length < LONG { usual } else { 100 };
    let ports = [0, 1, 2, 3, 4, 5].map(|at: usize| claimed[at].number());
    let ground = Ground { ports, pipe: &pipe, size };

    let honest = ["-e", "NEW,DESTROY", "-o", "json", "--dport", &port.to_string()];
    let tracer = Setup::new(honest).stdout_to(&events).start();
    // A tracer of everything, attacks included.
    let all = Setup::new(["-o", "json"]).stdout_to("/dev/null").start();
    let ledger = Ledger::start(&[port], "500ms");
    let ns = NetNs::new().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let server = ns.run(|| Worker::server("conn-honest-in", || Server::listen(address)));
    let client = ns.run(|| {
        Worker::start("conn-honest-out", &[], |line| {
            let began = Instant::now();
            let mut reports = Vec::new();
            while began.elapsed() < length {
                reports.push(CallReport::new(&call(address)));
                thread::sleep(PAUSE);
            }
            line.ready();
            line.wait();
            line.report(&reports);
        })
    });

    let began = Instant::now();
    let (mut rounds, mut early) = (0, None);
    let tracers = [&tracer, &all, ledger.tracer()];
    while began.elapsed() < length {
        let attackers = ground.attack();
        let round = Instant::now();
        while round.elapsed() < ROUND && began.elapsed() < length {
            thread::sleep(Duration::from_millis(200));
            if early.is_none() && began.elapsed() > length / 3 {
                early = Some(tracers.map(Sample::of));
            }
        }
        rounds += 1;
        drop(attackers);
    }
    let late = tracers.map(Sample::of);
    client.await_ready_for(length + timeout::seconds(60));
    client.resume();
    let reports = client.join();
    let server_pid = server.pid();
    drop(server);
    let truth = truth_of(&reports, port);
    // Another user of this host may listen on all ports, or try them all, meanwhile.
    let but_others = |report: &Report| {
        let listeners = report.listeners(port);
        let listens = Listens { opened: listeners.opened, closed: listeners.closed };
        let mut truth = Truth { listens: [(port, listens)].into(), ..truth.clone() };
        let refused = report.numbers(Direction::Out, port).failed_refused;
        let out = truth.counts.entry(Key { direction: Direction::Out, port }).or_default();
        out.opened += refused;
        out.refused += refused;
        truth
    };
    println!("soak: {rounds} rounds of attacks in {:?}, {} connections", began.elapsed(), reports.len());

    // One more round is under way when the tracers end.
    let attackers = ground.attack();
    let report = ledger.await_equal_but(but_others);
    println!("soak: {:?} {}", report.audit, report.to_text());
    // Attackers move most ports while an audit reads, and an audit compares a moving port between bounds.
    assert!(report.audit.compared + report.audit.moved > 0, "{:?}", report.audit);
    assert!(report.audit.differences.is_empty(), "{:?}", report.audit);
    for (early, late) in early.expect("a sample").iter().zip(&late) {
        println!("soak: {early:?} after a third, {late:?} at the end");
        let most: u64 = if length < LONG { MOST_MEMORY } else { MOST_MEMORY.min(early.memory + MOST_GROWTH) };
        assert!(late.memory < most, "{early:?} {late:?}");
        assert!(late.files < early.files + MOST_FILES, "{early:?} {late:?}");
    }
    let most = most_to_end(length);
    let everything = stop("events of all", all, most);
    let accounting = everything.stderr.clone();
    // The attackers' own sockets fail: they have no memory for a state, and more listeners than a user has notes for. A
    // tracer of everything names these failures, and a tracer of the honest port has none.
    let adds_up = |line: &str| line.contains(": holds") || line.contains(": adds up");
    assert!(adds_up(everything.expect_code(0)), "{accounting}");
    let ended = stop("events", tracer, most);
    let last = last_report(&stop("stats", ledger.into_tracer(), most));
    drop(attackers);
    assert_eq!(last.differences(&but_others(&last)), Vec::<String>::new());

    let seen = check_events(&events, &reports, server_pid);
    println!("soak: {seen:?}");
    let lost = seen.get("lost").copied().unwrap_or_default();
    for kind in ["new out", "new in", "destroy out", "destroy in"] {
        let shown = seen.get(kind).copied().unwrap_or_default();
        let missing = (reports.len() as u64).checked_sub(shown);
        assert!(missing.is_some_and(|missing| missing <= lost), "{kind}: {seen:?}");
    }
    assert!(ended.expect_code(0).contains(": holds"), "{}", ended.stderr);
    assert!(!super::descriptors::has_reader(&pipe));
    fs::remove_dir_all(&directory).unwrap();
    Ok(())
}
