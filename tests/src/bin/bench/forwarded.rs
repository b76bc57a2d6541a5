//! What a reader of connection tracking takes from connections that a router passes on.

use crate::{
    machine::{attempt, median},
    page::{self, Target},
    tool::{self, How, Tool},
};
use conn_tests::routed::Routed;
use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const ALONE: &str = "no tool";
const PEER: &str = "`conntrack -E -e NEW` into a file";
const LINES: &str = "`conntrace --forwarded -e NEW` into a file";
const ANONYMOUS: &str = "the same without owners (`-o csv --columns src,dst,sport,dport`)";

/// Threads that connect.
const THREADS: usize = 2;
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long the load must lose nothing.
const LONG: Duration = Duration::from_secs(10);

/// What is measured. The first is what all others are compared with.
const TOOLS: [Tool<'_>; 4] = [
    Tool { name: ALONE, how: How::Alone, tracked: false, lines: None },
    Tool {
        name: PEER,
        how: How::Peer { program: "conntrack", words: &["-E", "-e", "NEW"], package: "conntrack" },
        tracked: true,
        lines: None,
    },
    Tool {
        name: LINES,
        how: How::Conntrace(&["events", "--forwarded", "-e", "NEW"]),
        tracked: false,
        lines: None,
    },
    Tool {
        name: ANONYMOUS,
        how: How::Conntrace(&[
            "events",
            "--forwarded",
            "-e",
            "NEW",
            "-o",
            "csv",
            "--columns",
            "src,dst,sport,dport",
        ]),
        tracked: false,
        lines: None,
    },
];

/// One run of a tool.
struct Sample {
    /// Connections per second.
    per_second: f64,
    /// The tool's share of one processor.
    cpu: f64,
    /// All connections of the run.
    made: u64,
    lines: u64,
    lost: Option<u64>,
}

/// Connects through the router until it is to end. The client resets each connection: its port is free at once, and the next
/// connection from there is another flow.
fn connect(server: SocketAddr, made: &AtomicU64, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(server).expect("connect");
        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        // Waits for the server, so that its queue never overflows.
        stream.read_exact(&mut [0]).expect("a byte");
        made.fetch_add(1, Ordering::Relaxed);
    }
}

/// Takes connections, sends a byte into each, and waits for its end.
fn serve(listener: &TcpListener, closed: &AtomicBool) {
    while !closed.load(Ordering::Relaxed) {
        if let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"x");
            let _ = stream.read(&mut [0]);
        }
    }
}

/// A tool beside the load, for so long.
fn sample(tool: &Tool<'_>, duration: Duration) -> Result<Sample, String> {
    let routed = Routed::new().map_err(|error| format!("no network namespaces: {error}"))?;
    if !tool.tracked {
        tool::track(&routed.router)?;
    }
    let ip = routed.server_end().v4;
    let listener = routed.server.run(|| TcpListener::bind((ip, 0))).map_err(|error| error.to_string())?;
    let server = listener.local_addr().map_err(|error| error.to_string())?;
    // A new link drops packets until the kernel has noticed its carrier (linkwatch), and a SYN is sent again after a second.
    routed.client.run(|| TcpStream::connect(server)).map_err(|error| error.to_string())?;
    drop(listener.accept());
    let running = tool.start(&routed.router)?;
    let (made, done, closed) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
    let look = || (made.load(Ordering::Relaxed), running.cpu(), Instant::now());
    let (before, after) = thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| serve(&listener, &closed));
        }
        let clients: Vec<_> = (0..THREADS)
            .map(|_| scope.spawn(|| routed.client.run(|| connect(server, &made, &done))))
            .collect();
        thread::sleep(WARM_UP);
        let before = look();
        thread::sleep(duration);
        let after = look();
        done.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("a client");
        }
        closed.store(true, Ordering::Relaxed);
        // The last ones wake the server.
        for _ in 0..THREADS {
            let _ = routed.client.run(|| TcpStream::connect(server));
            made.fetch_add(1, Ordering::Relaxed);
        }
        (before, after)
    });
    let result = running.stop()?;
    let seconds = (after.2 - before.2).as_secs_f64();
    Ok(Sample {
        per_second: (after.0 - before.0) as f64 / seconds,
        cpu: (after.1 - before.1) / seconds,
        made: made.load(Ordering::Relaxed),
        lines: result.lines,
        lost: result.lost,
    })
}

/// Runs of a tool.
#[derive(Default)]
struct Samples {
    per_second: Vec<f64>,
    /// To the load alone just before and after.
    ratio: Vec<f64>,
    cpu: Vec<f64>,
}

/// The section.
pub(crate) fn measure(quick: bool) -> String {
    let (rounds, duration, long) = if quick {
        (1, Duration::from_millis(300), Duration::from_secs(1))
    } else {
        (12, Duration::from_millis(500), LONG)
    };
    let mut all: BTreeMap<&str, Samples> = BTreeMap::new();
    let mut skipped: BTreeMap<&str, String> = BTreeMap::new();
    for round in 0..rounds {
        let mut order: Vec<_> = TOOLS[1..].iter().collect();
        let first = round % order.len();
        order.rotate_left(first);
        let alone = || sample(&TOOLS[0], duration).map(|sample| sample.per_second);
        let mut before = alone();
        for tool in order {
            let tried = attempt(|| sample(tool, duration));
            let after = alone();
            match (tried, &before, &after) {
                (Ok(sample), Ok(before), Ok(after)) => {
                    let mut add = |name, per_second: f64, cpu| {
                        let samples = all.entry(name).or_default();
                        samples.per_second.push(per_second);
                        samples.ratio.push(per_second / f64::midpoint(*before, *after));
                        samples.cpu.push(cpu);
                    };
                    add(tool.name, sample.per_second, sample.cpu);
                    add(ALONE, *after, 0.0);
                }
                (Err(why), ..) => _ = skipped.insert(tool.name, why),
                (_, Err(why), _) | (.., Err(why)) => _ = skipped.insert(ALONE, why.clone()),
            }
            before = after;
        }
        eprintln!("forwarded: round {} of {rounds}", round + 1);
    }
    let rows: Vec<_> = TOOLS.iter().filter_map(|tool| Some(row(tool, all.get(tool.name)?))).collect();
    let table = page::table(&["", "connections/s", "ratio to no tool", "CPU"], &rows);
    let mut goals = Vec::new();
    let ratio = |name| all.get(name).map(|samples| median(samples.ratio.iter().copied()));
    if let (Some(peer), Some(own)) = (ratio(PEER), ratio(LINES)) {
        goals.push(Target::at_least(&format!("{LINES}: ahead of conntrack's ratio by"), 0.0, own - peer));
    }
    let loss = match attempt(|| sample(&TOOLS[2], long)) {
        Ok(Sample { made, lines, lost, per_second, .. }) => {
            let lost = lost.unwrap_or(u64::MAX);
            goals.push(Target::at_most("lost at full load with default buffers", 0.0, lost as f64));
            // A SYN that meets an entry which the reset has not closed yet goes on with that entry (`nf_conntrack_tcp_packet()`).
            goals.push(Target::at_least(
                "lines for each connection at full load",
                0.999,
                lines as f64 / made as f64,
            ));
            format!(
                "At full load for {} s, {made} connections ({per_second:.0}/s) had {lines} lines, and {lost} were lost.\n",
                long.as_secs()
            )
        }
        Err(why) => format!("The long run was skipped: {why}\n"),
    };
    let skips: Vec<_> = skipped.into_iter().map(|(name, why)| (name.to_owned(), why)).collect();
    format!("{table}\n{loss}\n{}{}", page::skipped(&skips), page::targets(&goals))
}

fn row(tool: &Tool<'_>, samples: &Samples) -> Vec<String> {
    let cpu = format!("{:.0} %", 100.0 * median(samples.cpu.iter().copied()));
    vec![
        tool.name.to_owned(),
        format!("{:.0}", median(samples.per_second.iter().copied())),
        page::ratio(samples.ratio.iter().copied()),
        if matches!(tool.how, How::Alone) { "–".into() } else { cpu },
    ]
}
