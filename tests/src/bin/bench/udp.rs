//! What flows of UDP take from the traffic of sockets.

use crate::{
    live_flows,
    machine::{attempt, median},
    page::{self, Target},
    tool::{How, Tool},
};
use conn_tests::netns::NetNs;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const ALONE: &str = "no tool";
const EMPTY: &str = "empty programs on the same hooks";
const COUNTING: &str = "`conntrace stats -p udp`";
const NOTHING: &str = "`conntrace -p udp --dport 1` (nothing matches)";
const LINES: &str = "`conntrace -p udp` into a file";

/// Threads of the load, each with both sides of its exchanges.
const THREADS: usize = 2;
/// Peers of one socket.
const PEERS: usize = 256;
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_millis(200);

/// A load: an exchange is a packet and its answer.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    run: fn(&Exchanges<'_>),
    /// The least ratio to no tool.
    ratio: f64,
    /// The most that `stats` may be behind the empty programs.
    behind: f64,
}

const LOADS: [Load; 3] = [
    Load { name: "connected ping-pong", run: ping_pong, ratio: 0.93, behind: 0.02 },
    Load { name: "256 peers of one socket", run: peers, ratio: 0.93, behind: 0.02 },
    Load { name: "a socket per query", run: queries, ratio: 0.92, behind: 0.04 },
];

/// What is measured. The first is what all others are compared with.
fn tools(empty: &Path) -> [Tool<'_>; 5] {
    let tool = |name, how| Tool { name, how, tracked: false, lines: None };
    [
        tool(ALONE, How::Alone),
        tool(EMPTY, How::Like(empty, &["--udp"])),
        tool(COUNTING, How::Conntrace(&["stats", "-p", "udp"])),
        tool(NOTHING, How::Conntrace(&["events", "-p", "udp", "--dport", "1"])),
        tool(LINES, How::Conntrace(&["events", "-p", "udp"])),
    ]
}

/// Exchanges that a thread makes until it is to end.
struct Exchanges<'a> {
    made: &'a AtomicU64,
    done: &'a AtomicBool,
}

impl Exchanges<'_> {
    /// Counts an exchange. False once the load is to end.
    fn go_on(&self) -> bool {
        self.made.fetch_add(1, Ordering::Relaxed);
        !self.done.load(Ordering::Relaxed)
    }
}

fn bind() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind")
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("an address")
}

/// A query from `client`, which is connected, and the answer of `server`.
fn exchange(client: &UdpSocket, server: &UdpSocket) {
    let mut buffer = [0; 128];
    client.send(&[1; 40]).expect("send");
    let (_, from) = server.recv_from(&mut buffer).expect("receive");
    server.send_to(&[2; 100], from).expect("send");
    client.recv(&mut buffer).expect("receive");
}

fn ping_pong(exchanges: &Exchanges<'_>) {
    let (server, client) = (bind(), bind());
    client.connect(address(&server)).expect("connect");
    while exchanges.go_on() {
        exchange(&client, &server);
    }
}

fn peers(exchanges: &Exchanges<'_>) {
    let server = bind();
    let clients: Vec<UdpSocket> = (0..PEERS).map(|_| bind()).collect();
    for client in &clients {
        client.connect(address(&server)).expect("connect");
    }
    for client in clients.iter().cycle() {
        exchange(client, &server);
        if !exchanges.go_on() {
            return;
        }
    }
}

fn queries(exchanges: &Exchanges<'_>) {
    let server = bind();
    while exchanges.go_on() {
        let client = bind();
        client.connect(address(&server)).expect("connect");
        exchange(&client, &server);
    }
}

/// Exchanges per second of a load beside a tool, and the tool's share of one processor.
fn sample(tool: &Tool<'_>, load: Load, duration: Duration) -> Result<(f64, f64), String> {
    let netns = NetNs::new().map_err(|error| format!("no network namespace: {error}"))?;
    let running = tool.start(&netns)?;
    let (made, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let look = || (made.load(Ordering::Relaxed), running.cpu(), Instant::now());
    let (before, after) = thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| netns.run(|| (load.run)(&Exchanges { made: &made, done: &done })));
        }
        thread::sleep(WARM_UP);
        let before = look();
        thread::sleep(duration);
        let after = look();
        done.store(true, Ordering::Relaxed);
        (before, after)
    });
    running.stop()?;
    let seconds = (after.2 - before.2).as_secs_f64();
    Ok(((after.0 - before.0) as f64 / seconds, (after.1 - before.1) / seconds))
}

/// Runs of a tool beside a load.
#[derive(Default)]
struct Samples {
    per_second: Vec<f64>,
    /// To the load alone just before and after.
    ratio: Vec<f64>,
    cpu: Vec<f64>,
}

/// By load and tool.
type All = BTreeMap<(&'static str, &'static str), Samples>;

/// The section.
pub(crate) fn measure(empty: &Path, quick: bool) -> String {
    let (rounds, duration) =
        if quick { (1, Duration::from_millis(300)) } else { (16, Duration::from_millis(500)) };
    let begin = Instant::now();
    let tools = tools(empty);
    let mut all = All::new();
    let mut skipped: BTreeMap<&str, String> = BTreeMap::new();
    for round in 0..rounds {
        for load in LOADS {
            let mut order: Vec<_> = tools[1..].iter().collect();
            let first = round % order.len();
            order.rotate_left(first);
            // As in the section of traffic: without a tool before and after each.
            let alone = || sample(&tools[0], load, duration).map(|(per_second, _)| per_second);
            let mut before = alone();
            for tool in order {
                let tried = attempt(|| sample(tool, load, duration));
                let after = alone();
                match (tried, &before, &after) {
                    (Ok((per_second, cpu)), Ok(before), Ok(after)) => {
                        let reference = f64::midpoint(*before, *after);
                        let mut add = |name, per_second: f64, cpu| {
                            let samples = all.entry((load.name, name)).or_default();
                            samples.per_second.push(per_second);
                            samples.ratio.push(per_second / reference);
                            samples.cpu.push(cpu);
                        };
                        add(name_of(tool), per_second, cpu);
                        add(ALONE, *after, 0.0);
                    }
                    (Err(why), ..) => _ = skipped.insert(tool.name, why),
                    // Nothing to compare it with.
                    _ => {}
                }
                before = after;
            }
        }
        eprintln!("udp: round {} of {rounds} after {:.0} s", round + 1, begin.elapsed().as_secs_f64());
    }
    let head = ["", "exchanges/s", "ratio to no tool", "CPU"];
    let tables = LOADS.iter().map(|load| {
        let rows: Vec<_> =
            tools.iter().filter_map(|tool| Some(row(tool, all.get(&(load.name, name_of(tool)))?))).collect();
        format!("{}{}:\n\n{}\n", load.name[..1].to_uppercase(), &load.name[1..], page::table(&head, &rows))
    });
    let tables: String = tables.collect();
    let skips: Vec<_> = skipped.into_iter().map(|(name, why)| (name.to_owned(), why)).collect();
    let live = live_flows::measure(quick);
    format!("{tables}{}\n{}\n{live}", page::skipped(&skips), page::targets(&goals(&all)))
}

/// The name of one of the tools above.
fn name_of(tool: &Tool<'_>) -> &'static str {
    [ALONE, EMPTY, COUNTING, NOTHING, LINES].into_iter().find(|name| *name == tool.name).unwrap_or(ALONE)
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

fn goals(all: &All) -> Vec<Target> {
    let ratio =
        |load: &Load, name| all.get(&(load.name, name)).map(|samples| median(samples.ratio.iter().copied()));
    let mut targets = Vec::new();
    for load in &LOADS {
        if let Some(own) = ratio(load, COUNTING) {
            targets.push(Target::at_least(&format!("{}, {COUNTING}: ratio", load.name), load.ratio, own));
            if let Some(empty) = ratio(load, EMPTY) {
                let what = format!("{}, {COUNTING}: behind the empty programs", load.name);
                targets.push(Target::at_most(&what, load.behind, empty - own));
            }
        }
    }
    targets
}
