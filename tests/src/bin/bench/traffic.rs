//! What a tracer costs the traffic that it watches.

use crate::{
    load::Field,
    machine::{attempt, median},
    page::{self, Target},
    tool::{How, Tool},
};
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

const ALONE: &str = "no tool";
const EMPTY: &str = "empty programs on conntrace's hooks";
const REMEMBERING: &str = "the same, with a memory for each socket";
const COUNTING: &str = "`conntrace stats`";
const NOTHING: &str = "`conntrace --dport 1` (nothing matches)";
const NEW: &str = "`conntrace -e NEW` into a file";
const JSON: &str = "`conntrace -o json` into a file";
const TRACKED: &str = "no tool, connection tracking on";

/// bpftrace's count of connections by port.
const BY_PORT: &str =
    "tracepoint:sock:inet_sock_set_state /args->newstate == 1/ { @[args->dport] = count(); }";

/// What is far from any target, or has none, takes part in every so many rounds only.
const NOW_AND_THEN: usize = 16;

/// Threads of the load: one more than can run, so that no processor ever waits.
pub(crate) const THREADS: u64 = 3;

/// What is measured. The first is what all others are compared with.
fn tools(empty: &Path) -> [Tool<'_>; 12] {
    let plain = |name, how, lines| Tool { name, how, tracked: false, lines };
    let peer = |program, words, package| How::Peer { program, words, package };
    [
        plain(ALONE, How::Alone, None),
        plain(EMPTY, How::Like(empty, &[]), None),
        plain(REMEMBERING, How::Like(empty, &["--remember"]), None),
        plain(COUNTING, How::Conntrace(&["stats"]), None),
        plain(NOTHING, How::Conntrace(&["events", "--dport", "1"]), None),
        plain(NEW, How::Conntrace(&["events", "-e", "NEW"]), Some(2.0)),
        plain(JSON, How::Conntrace(&["events", "-o", "json"]), None),
        plain("bpftrace, a count by port", peer("bpftrace", &["-e", BY_PORT], "bpftrace"), None),
        plain("`tcplife`", peer("tcplife", &[], "libbpf-tools"), Some(2.0)),
        plain("`tcpstates`", peer("tcpstates", &[], "libbpf-tools"), None),
        Tool { name: TRACKED, how: How::Alone, tracked: true, lines: None },
        Tool {
            name: "`conntrack -E -e NEW` into a file",
            how: peer("conntrack", &["-E", "-e", "NEW"], "conntrack"),
            tracked: true,
            lines: Some(1.0),
        },
    ]
}

/// One run of a tool beside the load.
pub(crate) struct Sample {
    /// Connections per second, by those of the load alone just before and after.
    ratio: f64,
    pub(crate) per_second: f64,
    /// Share of one processor.
    cpu: f64,
    /// Lines per connection.
    lines: f64,
    made: u64,
    lost: Option<u64>,
    peak_bytes: Option<u64>,
}

impl Sample {
    /// One of the load alone.
    fn alone(per_second: f64, reference: f64) -> Self {
        let ratio = per_second / reference;
        Self { ratio, per_second, cpu: 0.0, lines: 0.0, made: 0, lost: None, peak_bytes: None }
    }
}

/// Runs a tool beside the load for a time. What the ratio is to is not known yet.
pub(crate) fn sample(tool: &Tool<'_>, duration: Duration) -> Result<Sample, String> {
    let field = Field::new();
    let running = tool.start(&field.ns)?;
    let window = field.flood(THREADS, duration, || running.cpu());
    let result = running.stop()?;
    let per_second = window.per_second();
    Ok(Sample {
        ratio: 1.0,
        per_second,
        cpu: (window.after - window.before) / window.seconds,
        lines: result.lines as f64 / window.total as f64,
        made: window.total,
        lost: result.lost,
        peak_bytes: result.peak_bytes,
    })
}

/// The section.
pub(crate) fn measure(empty: &Path, quick: bool) -> String {
    let (rounds, duration) =
        // Two measurements differ by some percent however long they take: many short ones are more exact than a few long ones.
        if quick { (2, Duration::from_millis(300)) } else { (4 * NOW_AND_THEN, Duration::from_millis(500)) };
    let begin = Instant::now();
    let tools = tools(empty);
    let mut samples: BTreeMap<&str, Vec<Sample>> = BTreeMap::new();
    let mut skipped: BTreeMap<&str, String> = BTreeMap::new();
    for round in 0..rounds {
        // Others first in every round: what comes first must not have an advantage.
        let mut order: Vec<_> = tools[1..].iter().collect();
        let first = round % order.len();
        order.rotate_left(first);
        order.retain(|tool| {
            let has_target = [EMPTY, COUNTING, NOTHING, NEW, JSON].contains(&tool.name);
            !skipped.contains_key(tool.name) && (has_target || round.is_multiple_of(NOW_AND_THEN))
        });
        // The load alone before and after each: the machine becomes slower and faster within seconds.
        let alone = || sample(&tools[0], duration).map(|sample| sample.per_second);
        let mut before = alone();
        for tool in order {
            let tried = attempt(|| sample(tool, duration));
            let after = alone();
            match (tried, &before, &after) {
                (Ok(mut sample), Ok(before), Ok(after)) => {
                    let reference = f64::midpoint(*before, *after);
                    sample.ratio = sample.per_second / reference;
                    samples.entry(tool.name).or_default().push(sample);
                    samples.entry(ALONE).or_default().push(Sample::alone(*after, reference));
                }
                (Err(why), ..) => _ = skipped.insert(tool.name, why),
                // Nothing to compare it with.
                _ => {}
            }
            before = after;
        }
        eprintln!("traffic: round {} of {rounds} after {:.0} s", round + 1, begin.elapsed().as_secs_f64());
    }
    let long = lost_in_a_long_run(&tools, if quick { 1 } else { 10 });

    let rows: Vec<_> = tools.iter().filter_map(|tool| Some(row(tool, samples.get(tool.name)?))).collect();
    let head = ["", "connections/s", "ratio to no tool", "lines per connection", "lost", "CPU", "memory"];
    let skips: Vec<_> = skipped.into_iter().map(|(name, why)| (name.to_owned(), why)).collect();
    format!(
        "{}\n{}\n{}",
        page::table(&head, &rows),
        page::skipped(&skips),
        page::targets(&goals(&samples, long))
    )
}

fn row(tool: &Tool<'_>, samples: &[Sample]) -> Vec<String> {
    let of = |each: fn(&Sample) -> f64| samples.iter().map(each);
    let runs = !matches!(tool.how, How::Alone);
    let lines = median(of(|sample| sample.lines));
    let lost = || {
        let losses: Vec<u64> = samples.iter().filter_map(|sample| sample.lost).collect();
        let made: u64 = samples.iter().map(|sample| sample.made).sum();
        match (losses.is_empty(), tool.lines) {
            (false, _) => format!("{:.2} per connection", losses.iter().sum::<u64>() as f64 / made as f64),
            // The tool prints no losses, so the missing lines count.
            (true, Some(expected)) => format!("{:.0} %", 100.0 * (1.0 - lines / expected).max(0.0)),
            (true, None) => "–".into(),
        }
    };
    let peak = samples.iter().filter_map(|sample| sample.peak_bytes).max();
    vec![
        tool.name.to_owned(),
        format!("{:.0}", median(of(|sample| sample.per_second))),
        page::ratio(of(|sample| sample.ratio)),
        if lines > 0.01 { format!("{lines:.2}") } else { "–".into() },
        if runs { lost() } else { "–".into() },
        if runs { format!("{:.0} %", 100.0 * median(of(|sample| sample.cpu))) } else { "–".into() },
        peak.map_or_else(|| "–".into(), page::memory),
    ]
}

/// Events that `-e NEW` loses in so many seconds at full load.
fn lost_in_a_long_run(tools: &[Tool<'_>], seconds: u64) -> Option<u64> {
    let tool = tools.iter().find(|tool| tool.name == NEW)?;
    sample(tool, Duration::from_secs(seconds)).ok()?.lost
}

fn goals(samples: &BTreeMap<&str, Vec<Sample>>, lost: Option<u64>) -> Vec<Target> {
    let ratio = |name: &str| samples.get(name).map(|all| median(all.iter().map(|sample| sample.ratio)));
    let mut targets = Vec::new();
    for (name, limit) in [(COUNTING, 0.95), (NOTHING, 0.95), (NEW, 0.90), (JSON, 0.75)] {
        targets.extend(ratio(name).map(|ratio| Target::at_least(&format!("{name}: ratio"), limit, ratio)));
    }
    for name in [COUNTING, NOTHING] {
        let behind = ratio(EMPTY).zip(ratio(name)).map(|(empty, own)| empty - own);
        let what = format!("{name}: behind the empty programs");
        targets.extend(behind.map(|behind| Target::at_most(&what, 0.02, behind)));
    }
    let what = format!("{NEW}: lost in 10 s at full load");
    targets.extend(lost.map(|lost| Target::at_most(&what, 0.0, lost as f64)));
    targets
}
