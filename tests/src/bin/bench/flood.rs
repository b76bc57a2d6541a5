//! What a tool takes from a listener under a flood of SYNs.

use crate::{
    machine::{attempt, median},
    page::{self, Target},
    tool::{How, Tool},
};
use conn_tests::{
    range::Range,
    snmp::Snmp,
    traffic::{Server, syn::SynSender},
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

const ALONE: &str = "no tool";
const COUNTING: &str = "`conntrace stats`";
const ATTEMPTS: &str = "`conntrace -e ATTEMPT` into a file";
const SOURCES: &str = "`conntrace stats --sources 10`";

/// Addresses that send SYNs.
const ADDRESSES: u32 = 10_000;
/// SYNs between two looks at the clock.
const BATCH: usize = 1_024;
/// Requests that may wait: more than a window makes. A longer queue answers all SYNs, a shorter one drops the rest.
const QUEUE: i32 = 4_000_000;
/// Before anything is measured.
const WARM_UP: Duration = Duration::from_millis(200);

/// What is measured. The first is what all others are compared with.
const TOOLS: [Tool<'static>; 4] = [
    Tool { name: ALONE, how: How::Alone, tracked: false, lines: None },
    Tool { name: COUNTING, how: How::Conntrace(&["stats"]), tracked: false, lines: None },
    Tool {
        name: ATTEMPTS,
        how: How::Conntrace(&["events", "-e", "ATTEMPT"]),
        tracked: false,
        lines: Some(1.0),
    },
    Tool { name: SOURCES, how: How::Conntrace(&["stats", "--sources", "10"]), tracked: false, lines: None },
];

/// One run of a tool beside a flood.
struct Sample {
    /// SYNs answered per second, by those without a tool just before and after.
    ratio: f64,
    per_second: f64,
    /// Share of one processor.
    cpu: f64,
    answered: u64,
    lines: u64,
    lost: Option<u64>,
    /// Memory of the process when the window begins and ends, bytes.
    memory: [u64; 2],
}

/// A listener, and the namespace that floods it.
struct Victim {
    range: Range,
    _listener: Server,
}

impl Victim {
    fn new() -> Self {
        // Without cookies: the kernel shows no program a SYN that a cookie answers.
        let range = Range::new("0");
        let limit = QUEUE.to_string();
        for name in ["net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog"] {
            range.victim.sysctl(name, &limit).expect("a limit of the namespace");
        }
        // A request ends after a second, and its SYN-ACK is never sent again.
        range.victim.sysctl("net.ipv4.tcp_synack_retries", "0").expect("a setting of the namespace");
        let listener = range.listen(range.end.v4, QUEUE);
        Self { range, _listener: listener }
    }

    /// Floods until `done`: each SYN from the next address, and none twice with the same port.
    fn flood(&self, done: &AtomicBool) {
        let to = self.range.v4();
        let mut sources = (0_u32..).map(|number| {
            let address = Ipv4Addr::from(0x0a80_0000 | (number % ADDRESSES));
            SocketAddr::new(address.into(), 1_024 + (number / ADDRESSES % 60_000) as u16)
        });
        self.range.attacker.run(|| {
            let sender = SynSender::new().expect("raw sockets");
            while !done.load(Ordering::Relaxed) {
                sender.send(sources.by_ref().take(BATCH).map(|from| (from, to)));
            }
        });
    }

    /// Segments that the listener has sent: its answers.
    fn answered(&self) -> u64 {
        Snmp::of(&self.range.victim).get("Tcp.OutSegs")
    }
}

/// Runs a tool beside a flood for a time. What the ratio is to is not known yet.
fn sample(tool: &Tool<'_>, duration: Duration) -> Result<Sample, String> {
    let victim = Victim::new();
    let running = tool.start(&victim.range.victim)?;
    let done = AtomicBool::new(false);
    let look = || (victim.answered(), running.cpu(), running.memory(), Instant::now());
    let (before, after) = thread::scope(|scope| {
        scope.spawn(|| victim.flood(&done));
        thread::sleep(WARM_UP);
        let before = look();
        thread::sleep(duration);
        let after = look();
        done.store(true, Ordering::Relaxed);
        (before, after)
    });
    let all = victim.answered();
    let result = running.stop()?;
    let seconds = (after.3 - before.3).as_secs_f64();
    Ok(Sample {
        ratio: 1.0,
        per_second: (after.0 - before.0) as f64 / seconds,
        cpu: (after.1 - before.1) / seconds,
        answered: all,
        lines: result.lines,
        lost: result.lost,
        memory: [before.2, after.2],
    })
}

/// The section.
pub(crate) fn measure(quick: bool) -> String {
    let (rounds, duration) =
        if quick { (1, Duration::from_millis(300)) } else { (24, Duration::from_millis(700)) };
    let begin = Instant::now();
    let mut samples: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    let mut skipped: BTreeMap<&str, String> = BTreeMap::new();
    for round in 0..rounds {
        let mut order: Vec<_> = TOOLS[1..].iter().collect();
        let first = round % order.len();
        order.rotate_left(first);
        // As in the section of traffic: without a tool before and after each.
        let alone = || attempt(|| sample(&TOOLS[0], duration));
        let mut before = alone();
        for tool in order {
            let tried = attempt(|| sample(tool, duration));
            let mut after = alone();
            match (tried, &before, &mut after) {
                (Ok(mut sample), Ok(before), Ok(after)) => {
                    let reference = f64::midpoint(before.per_second, after.per_second);
                    sample.ratio = sample.per_second / reference;
                    after.ratio = after.per_second / reference;
                    samples.entry(tool.name).or_default().push(sample);
                }
                (Err(why), ..) => _ = skipped.insert(tool.name, why),
                _ => {}
            }
            if let Ok(before) = std::mem::replace(&mut before, after) {
                samples.entry(ALONE).or_default().push(before);
            }
        }
        eprintln!("flood: round {} of {rounds} after {:.0} s", round + 1, begin.elapsed().as_secs_f64());
    }
    let rows: Vec<_> = TOOLS.iter().filter_map(|tool| Some(row(tool, samples.get(tool.name)?))).collect();
    let head = [
        "",
        "SYNs answered/s",
        "ratio to no tool",
        "lines per SYN",
        "lost",
        "CPU",
        "memory at the start",
        "at the end",
    ];
    let skips: Vec<_> = skipped.into_iter().map(|(name, why)| (name.to_owned(), why)).collect();
    format!("{}\n{}\n{}", page::table(&head, &rows), page::skipped(&skips), page::targets(&goals(&samples)))
}

fn row(tool: &Tool<'_>, samples: &[Sample]) -> Vec<String> {
    let of = |each: fn(&Sample) -> f64| samples.iter().map(each);
    let runs = !matches!(tool.how, How::Alone);
    let sum = |each: fn(&Sample) -> u64| samples.iter().map(each).sum::<u64>() as f64;
    let per_syn = |count: f64| format!("{:.3}", count / sum(|sample| sample.answered));
    let shown = |is_known: bool, text: &dyn Fn() -> String| if is_known { text() } else { "–".into() };
    let memory = |at: usize| {
        let largest = samples.iter().map(|sample| sample.memory[at]).max().unwrap_or(0);
        format!("{:.1} MiB", largest as f64 / 1_048_576.0)
    };
    vec![
        tool.name.to_owned(),
        format!("{:.0}", median(of(|sample| sample.per_second))),
        page::ratio(of(|sample| sample.ratio)),
        shown(tool.lines.is_some(), &|| per_syn(sum(|sample| sample.lines))),
        shown(tool.lines.is_some(), &|| per_syn(sum(|sample| sample.lost.unwrap_or(0)))),
        shown(runs, &|| format!("{:.0} %", 100.0 * median(of(|sample| sample.cpu)))),
        shown(runs, &|| memory(0)),
        shown(runs, &|| memory(1)),
    ]
}

fn goals(samples: &BTreeMap<&str, Vec<Sample>>) -> Vec<Target> {
    let ratio = |name: &str| samples.get(name).map(|all| median(all.iter().map(|sample| sample.ratio)));
    let limits = [(COUNTING, 0.95), (ATTEMPTS, 0.85)];
    let goal = |(name, limit): (&str, f64)| {
        ratio(name).map(|ratio| Target::at_least(&format!("{name}: ratio"), limit, ratio))
    };
    limits.into_iter().filter_map(goal).collect()
}
