//! How long an event takes from the kernel's timestamp to the reader of conntrace's output.

use crate::{
    load::Field,
    machine::{quantile, settle},
    page::{self, Target},
    tool,
};
use conn_tests::{
    tracer::Setup,
    traffic::{Server, socket::connect},
};
use nix::{
    sys::{stat::Mode, time::TimeValLike as _},
    time::{ClockId, clock_gettime},
    unistd::mkfifo,
};
use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    thread,
    time::Duration,
};

/// Between connections of an idle host, milliseconds: some follow while conntrace still looks on a timer, some later.
const GAPS: [u64; 6] = [3, 151, 17, 61, 7, 97];
/// Connections of an idle host: each has at least six events, so these are more than 1,000.
const CALM: usize = 170;

/// The section.
pub(crate) fn measure(quick: bool) -> String {
    let duration = Duration::from_secs(if quick { 1 } else { 8 });
    let idle = latencies(|field| calm(field, if quick { 10 } else { CALM }));
    let half = latencies(|field| {
        field.flood(1, duration, || ());
    });
    let row = |name: &str, ms: &[f64]| {
        let of = |per_mille| format!("{:.2} ms", quantile(ms.iter().copied(), per_mille));
        vec![name.to_owned(), ms.len().to_string(), of(500), of(990), of(1_000)]
    };
    let rows = [row("idle host", &idle), row("half load", &half)];
    let goal = |name, most, ms: &[f64], per_mille| {
        Target::at_most(name, most, quantile(ms.iter().copied(), per_mille))
    };
    let goals = [
        goal("idle host: p99, ms", 2.0, &idle, 990),
        goal("idle host: max, ms", 10.0, &idle, 1_000),
        goal("half load: p99, ms", 15.0, &half, 990),
    ];
    format!("{}\n{}", page::table(&["", "events", "p50", "p99", "max"], &rows), page::targets(&goals))
}

/// So many connections, one now and then.
fn calm(field: &Field, connections: usize) {
    field.ns.run(|| {
        let server = Server::listen(field.port.v4());
        for gap in GAPS.into_iter().cycle().take(connections) {
            let client = connect(server.address);
            let accepted = server.accept();
            drop(client);
            drop(accepted);
            thread::sleep(Duration::from_millis(gap));
        }
    });
}

/// Milliseconds of each event of this traffic.
fn latencies(traffic: impl FnOnce(&Field)) -> Vec<f64> {
    let field = Field::new();
    let pipe = tool::file("pipe");
    mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).expect("a pipe");
    let port = field.port.to_string();
    let words = ["events", "-o", "csv", "--columns", "time_ns", "--no-header", "--dport", &port];
    let ms = thread::scope(|scope| {
        let reader = scope.spawn(|| read(&pipe));
        // Opening a pipe waits for the other end.
        let tracer = Setup::new(words).stdout_to(&pipe).start();
        settle();
        traffic(&field);
        tracer.stop();
        reader.join().expect("the reader")
    });
    let _ = fs::remove_file(&pipe);
    assert!(!ms.is_empty(), "no event came");
    ms
}

/// The lines of a pipe, each a time of day in nanoseconds, by how late they are.
fn read(pipe: &Path) -> Vec<f64> {
    let mut pipe = File::open(pipe).expect("the pipe");
    let (mut ms, mut bytes, mut rest) = (Vec::new(), vec![0; 1 << 16], Vec::new());
    loop {
        let length = pipe.read(&mut bytes).expect("read");
        let now = clock_gettime(ClockId::CLOCK_REALTIME).expect("the time of day").num_nanoseconds();
        if length == 0 {
            return ms;
        }
        rest.extend_from_slice(&bytes[..length]);
        let whole = rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let lines = rest[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        for line in lines {
            // A line about losses has no number of this kind.
            let time = std::str::from_utf8(line).ok().and_then(|text| text.parse::<i64>().ok());
            ms.extend(time.map(|time| (now - time) as f64 / 1e6));
        }
        rest.drain(..whole);
    }
}
