//! The cost of the daemon without clients to the traffic, and the time of its answers.

use crate::{
    crowd::Crowd,
    load::Field,
    machine::{attempt, median, quantile, settle},
    page::{self, Target},
    tool::{self, How, Tool},
    traffic::{THREADS, sample},
};
use conn_tests::{
    daemon::{self, Daemon},
    pins::Pins,
    tracer::{Setup, Tracer},
};
use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

const ALONE: &str = "no tool";
const COUNTING: &str = "`conntrace stats`";
const SERVING: &str = "`conntrace serve` without clients";

/// How many connections ask for a count, one after the other, and how many at the same time.
const ASKED: usize = 200;
const CLIENTS: usize = 1_000;
/// How many ends of connections are open when the daemon starts.
const ENDS: u64 = 100_000;

/// The section.
pub(crate) fn measure(quick: bool) -> String {
    let (rounds, duration) =
        if quick { (2, Duration::from_millis(300)) } else { (64, Duration::from_millis(500)) };
    let ratios = ratios(rounds, duration);
    let rows = [ALONE, COUNTING, SERVING].map(|name| {
        let of = ratios.get(name).into_iter().flatten().copied();
        vec![name.to_owned(), page::ratio(of)]
    });
    let [behind, median_ms, tenth_ms, crowd_s] = {
        let of = |name: &str| median(ratios.get(name).into_iter().flatten().copied());
        let daemon = Daemon::start();
        settle();
        let times = asked(&daemon, if quick { 20 } else { ASKED });
        let crowd = crowd(&daemon, if quick { 50 } else { CLIENTS });
        [
            of(COUNTING) - of(SERVING),
            median(times.iter().copied()),
            quantile(times.iter().copied(), 900),
            crowd,
        ]
    };
    let (ends, repeats) = if quick { (1_000, 1) } else { (ENDS, 5) };
    let starts = attempt(|| Ok(starts(ends, repeats)));
    let mut answers = vec![
        vec!["`/v1/count`, a connection for each: median".to_owned(), format!("{median_ms:.1} ms")],
        vec!["the same: 90th percentile".to_owned(), format!("{tenth_ms:.1} ms")],
        vec![
            format!("{CLIENTS} clients that ask for it at the same time: all answered"),
            format!("{crowd_s:.2} s"),
        ],
    ];
    let mut goals = vec![
        Target::at_most("`serve`: ratio behind that of `stats`", 0.005, behind),
        Target::at_most("`/v1/count`: ms", 20.0, median_ms),
    ];
    let mut skipped = Vec::new();
    match starts {
        Ok(starts) => {
            for (name, ms) in starts {
                answers.push(vec![format!("first answer beside {ends} open: {name}"), format!("{ms:.0} ms")]);
                goals.push(Target::at_most(
                    &format!("first answer beside {ends} open: {name}: ms"),
                    300.0,
                    ms,
                ));
            }
        }
        Err(why) => skipped.push((format!("{ends} open"), why)),
    }
    format!(
        "{}\n{}\n{}\n{}",
        page::table(&["", "connections/s, ratio to no tool"], &rows),
        page::table(&["question", "time"], &answers),
        page::skipped(&skipped),
        page::targets(&goals)
    )
}

/// Connections per second beside each tool, by those of the load alone just before and after.
fn ratios(rounds: usize, duration: Duration) -> BTreeMap<&'static str, Vec<f64>> {
    let socket = tool::file("serve.sock");
    let socket = socket.to_string_lossy();
    let serve = ["serve", "--transient", "--socket", &socket];
    let tool = |name, how| Tool { name, how, tracked: false, lines: None };
    let alone = tool(ALONE, How::Alone);
    let mut others = [tool(COUNTING, How::Conntrace(&["stats"])), tool(SERVING, How::Conntrace(&serve))];
    let mut ratios: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let once = |tool: &Tool<'_>| attempt(|| sample(tool, duration)).map(|sample| sample.per_second);
    let begin = Instant::now();
    for round in 0..rounds {
        // What comes first must not have an advantage.
        others.reverse();
        let mut before = once(&alone);
        for (name, other) in others.iter().map(|tool| (tool.name, tool)) {
            let (with, after) = (once(other), once(&alone));
            if let (Ok(before), Ok(with), Ok(after)) = (&before, &with, &after) {
                let reference = f64::midpoint(*before, *after);
                let name = if name == COUNTING { COUNTING } else { SERVING };
                ratios.entry(name).or_default().push(with / reference);
                ratios.entry(ALONE).or_default().push(after / reference);
            }
            before = after;
        }
        eprintln!(
            "daemon: round {} of {rounds} after {:.0} s, {THREADS} threads",
            round + 1,
            begin.elapsed().as_secs_f64()
        );
    }
    ratios
}

/// Milliseconds of questions, one after the other.
fn asked(daemon: &Daemon, count: usize) -> Vec<f64> {
    let once = || {
        let begin = Instant::now();
        assert_eq!(daemon.get("/v1/count").status, 200);
        begin.elapsed().as_secs_f64() * 1e3
    };
    (0..count).map(|_| once()).collect()
}

/// Seconds until all clients that ask at the same time are answered.
fn crowd(daemon: &Daemon, clients: usize) -> f64 {
    let socket = daemon.socket();
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..clients {
            let ask = || assert_eq!(daemon::get(&socket, "/v1/count").expect("an answer").status, 200);
            thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, ask).expect("a thread");
        }
    });
    begin.elapsed().as_secs_f64()
}

/// Milliseconds until the first answer, by the kind of start.
fn starts(ends: u64, repeats: u32) -> [(&'static str, f64); 3] {
    let field = Field::new();
    let _crowd = Crowd::open(&field.ns, field.port.number(), ends);
    let repeated = |once: &dyn Fn() -> f64| median((0..repeats).map(|_| once()));
    let transient = repeated(&|| {
        let socket = tool::file("start.sock");
        let setup = Setup::new(["serve", "--transient", "--socket", &socket.to_string_lossy()]);
        first_answer(setup, &socket).0
    });
    let new = repeated(&|| {
        let pins = Pins::new();
        first_answer(pins.serve(), &pins.socket()).0
    });
    let pins = Pins::new();
    drop(first_answer(pins.serve(), &pins.socket()));
    let again = repeated(&|| first_answer(pins.serve(), &pins.socket()).0);
    [("nothing is pinned", transient), ("an epoch begins", new), ("a daemon goes on with pins", again)]
}

/// Starts a daemon, and asks it until it answers.
fn first_answer(setup: Setup, socket: &std::path::Path) -> (f64, Tracer) {
    settle();
    let _ = fs::remove_file(socket);
    let begin = Instant::now();
    let daemon = setup.spawn();
    while !daemon::get(socket, "/v1/count").is_ok_and(|answer| answer.status == 200) {
        thread::sleep(Duration::from_millis(1));
    }
    (begin.elapsed().as_secs_f64() * 1e3, daemon)
}
