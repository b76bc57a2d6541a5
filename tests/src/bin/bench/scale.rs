//! How start, memory and lists grow with the connections that are open.

use crate::{
    crowd::Crowd,
    load::Field,
    machine::{attempt, median, settle},
    page::{self, Target},
    tool,
};
use conn_tests::tracer::{Setup, Tracer};
use nix::{sys::time::TimeValLike as _, time::clock_getcpuclockid, unistd::Pid};
use std::{
    fs, thread,
    time::{Duration, Instant},
};

/// What is started and timed until it watches.
const STARTS: [(&str, &[&str]); 3] = [
    ("start of `stats`", &["stats"]),
    ("start of `events -e NEW`", &["events", "-e", "NEW"]),
    ("start of `events`", &["events"]),
];

/// What is run and timed until its end.
const RUNS: [(&str, &[&str]); 4] = [
    ("`list`", &["list"]),
    ("`list -o json`", &["list", "-o", "json"]),
    ("`count`", &["count"]),
    ("`stats --timeout 1ms`", &["stats", "--timeout", "1ms"]),
];

/// The size that the targets are about.
const JUDGED: u64 = 100_000;

/// One thing that was timed.
#[derive(Clone, Copy)]
struct Cell {
    ms: f64,
    peak_bytes: u64,
}

/// All that was timed with so many open.
struct Column {
    ends: u64,
    cells: Vec<Cell>,
    /// The share of a processor that `events` takes when nothing happens.
    idle: f64,
}

/// What a socket takes in the kernel, with all that belongs to it, and then some.
const BYTES_PER_END: u64 = 8 << 10;

impl Column {
    /// Everything, with so many open. A machine that cannot have so many still measures fewer.
    fn measure(ends: u64, quick: bool) -> Result<Self, String> {
        let free = available_bytes();
        if ends * BYTES_PER_END > free {
            return Err(format!("{} MiB of memory are too few", free >> 20));
        }
        attempt(|| {
            let field = Field::new();
            // Ends with this, also when a measurement fails.
            let _crowd = Crowd::open(&field.ns, field.port.number(), ends);
            settle();
            let repeats = if quick || ends > JUDGED { 1 } else { 9 };
            let cells = STARTS.iter().map(|(_, words)| started(words, repeats));
            let cells = cells.chain(RUNS.iter().map(|(_, words)| ran(words, repeats))).collect();
            Ok(Self { ends, cells, idle: idle_share(Duration::from_secs(if quick { 1 } else { 6 })) })
        })
    }
}

/// Memory that no measurement needs.
fn available_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.parse::<u64>().ok()).map_or(u64::MAX, |kib| kib << 10)
}

/// The section.
pub(crate) fn measure(quick: bool) -> String {
    let sizes: &[u64] = if quick { &[10, 1_000] } else { &[10, 1_000, 100_000, 1_000_000] };
    let (mut columns, mut skipped) = (Vec::new(), Vec::new());
    for &ends in sizes {
        match Column::measure(ends, quick) {
            Ok(column) => columns.push(column),
            Err(why) => skipped.push((format!("{ends} open"), why)),
        }
        eprintln!("scale: {ends} done");
    }

    let names: Vec<&str> = STARTS.iter().chain(&RUNS).map(|(name, _)| *name).collect();
    let rows = names.iter().enumerate().map(|(at, name)| {
        let cells = columns.iter().map(|column| {
            let Cell { ms, peak_bytes } = column.cells[at];
            format!("{ms:.0} ms, {}", page::memory(peak_bytes))
        });
        [(*name).to_owned()].into_iter().chain(cells).collect()
    });
    let idle = columns.iter().map(|column| format!("{:.3} %", 100.0 * column.idle));
    let idle = ["CPU of an idle `events`".to_owned()].into_iter().chain(idle).collect();
    let rows: Vec<Vec<String>> = rows.chain([idle]).collect();
    let heads: Vec<String> = columns.iter().map(|column| format!("{} open", column.ends)).collect();
    let heads: Vec<&str> = [""].into_iter().chain(heads.iter().map(String::as_str)).collect();
    let (table, targets) = (page::table(&heads, &rows), page::targets(&goals(&columns)));
    format!("{table}\n{}\n{targets}", page::skipped(&skipped))
}

fn goals(columns: &[Column]) -> Vec<Target> {
    let Some(column) = columns.iter().find(|column| column.ends == JUDGED).or(columns.last()) else {
        return Vec::new();
    };
    let with = format!("{} open", column.ends);
    let list = column.cells[STARTS.len()];
    let mut goals = vec![
        Target::at_most(&format!("`list`, {with}: seconds"), 0.5, list.ms / 1e3),
        Target::at_most(&format!("`list`, {with}: MiB"), 64.0, list.peak_bytes as f64 / 1_048_576.0),
    ];
    for ((name, _), cell) in STARTS.iter().zip(&column.cells) {
        goals.push(Target::at_most(&format!("{name}, {with}: seconds"), 0.3, cell.ms / 1e3));
    }
    goals.push(Target::at_most(&format!("idle `events`, {with}: % of a CPU"), 0.1, 100.0 * column.idle));
    goals
}

/// Until it watches.
fn started(words: &[&str], repeats: u32) -> Cell {
    repeated(repeats, || {
        let file = tool::file("start");
        let begin = Instant::now();
        let tracer = Setup::new(words).stdout_to(&file).start();
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        let ended = tracer.stop();
        let _ = fs::remove_file(&file);
        Cell { ms, peak_bytes: ended.usage.peak_bytes }
    })
}

/// Until its end.
fn ran(words: &[&str], repeats: u32) -> Cell {
    repeated(repeats, || {
        let file = tool::file("run");
        let begin = Instant::now();
        let ended = Setup::new(words).stdout_to(&file).run();
        let ms = begin.elapsed().as_secs_f64() * 1e3;
        ended.expect_code(0);
        let _ = fs::remove_file(&file);
        Cell { ms, peak_bytes: ended.usage.peak_bytes }
    })
}

fn repeated(repeats: u32, once: impl Fn() -> Cell) -> Cell {
    let cells: Vec<Cell> = (0..repeats)
        .map(|_| {
            settle();
            once()
        })
        .collect();
    let peak_bytes = cells.iter().map(|cell| cell.peak_bytes).max().expect("one at least");
    Cell { ms: median(cells.iter().map(|cell| cell.ms)), peak_bytes }
}

/// What `events` takes when nothing happens, by its own processor clock.
fn idle_share(duration: Duration) -> f64 {
    let file = tool::file("idle");
    let tracer = Setup::new(["events"]).stdout_to(&file).start();
    let cpu = |tracer: &Tracer| {
        let clock = clock_getcpuclockid(Pid::from_raw(tracer.pid().cast_signed())).expect("its clock");
        clock.now().expect("its time").num_nanoseconds() as f64 / 1e9
    };
    // The start is another matter.
    settle();
    let (before, begin) = (cpu(&tracer), Instant::now());
    thread::sleep(duration);
    let share = (cpu(&tracer) - before) / begin.elapsed().as_secs_f64();
    tracer.stop();
    let _ = fs::remove_file(&file);
    share
}
