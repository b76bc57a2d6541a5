//! `cargo xtask pictures`: a scripted day of real connections, in steps of five minutes that take less than a second. After
//! each step, the metrics of a daemon and the values of its munin plugin are written down.

#![expect(clippy::expect_used, reason = "a run that cannot go on says so by panicking")]

use std::{
    collections::VecDeque,
    env, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use clap::Parser;
use conn_tests::{
    netns::NetNs,
    pins::Pins,
    timeout, tracer,
    traffic::{
        Pair, Server, fail,
        socket::{await_end, begin_connect, connect, tcp},
    },
    truth::Truth,
};
use socket2::Socket;

/// Steps of a day.
const STEPS: u32 = 288;
/// Steps of an hour.
const HOUR: u32 = 12;
/// Not 443: other programs of a host talk to that port.
const WEB: u16 = 8443;
const DATABASE: u16 = 5432;
const SSH: u16 = 22;
/// Graphs of the plugin.
const GRAPHS: [&str; 3] = ["port_8443", "states", "new"];
/// How many connections wait in the accept queue in the evening, and how many may.
const WAITING: usize = 48;
const BACKLOG: i32 = 64;

#[derive(Parser)]
struct Arguments {
    /// Where the readings are written
    #[arg(long)]
    directory: PathBuf,
    /// Connections of the day, in percent of those of the first host
    #[arg(long, default_value_t = 100)]
    load: u32,
    /// Only the daily curve: no failures, no scan, no full queue
    #[arg(long)]
    calm: bool,
    /// Do not run the plugin
    #[arg(long)]
    no_munin: bool,
}

fn main() {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.directory).expect("a directory");
    let (ns, pins) = (NetNs::new().expect("a namespace"), Pins::new());
    let config = arguments.directory.join("conntrace.toml");
    fs::write(&config, format!("ports = [{WEB}, {DATABASE}]\nlifetimes = true\n")).expect("a file");
    let daemon = ns.run(|| pins.serve().arguments(["--config", &config.display().to_string()]).start());
    let recorder = Recorder { pins: &pins, directory: &arguments.directory };
    if !arguments.no_munin {
        recorder.describe();
    }
    ns.run(|| {
        let mut day = Day::new(&arguments);
        for step in 0..STEPS {
            day.step(step);
            if day.changes_queue(step) {
                recorder.await_audit();
            }
            recorder.note(step, !arguments.no_munin);
        }
    });
    drop(daemon);
}

/// What happens in a namespace.
struct Day {
    load: u32,
    is_calm: bool,
    web: Server,
    database: Option<Server>,
    ssh: Server,
    /// Connections that are open, the oldest first.
    open: VecDeque<Pair>,
    sessions: VecDeque<Pair>,
    /// Clients that nobody has accepted yet.
    waiting: Vec<Socket>,
    /// A peer that does not answer, and attempts there.
    silent: Option<(Server, Vec<Socket>)>,
    random: u64,
    truth: Truth,
}

impl Day {
    fn new(arguments: &Arguments) -> Self {
        Self {
            load: arguments.load,
            is_calm: arguments.calm,
            web: Server::listen_with(local(WEB), BACKLOG, |_| {}),
            database: Some(Server::listen(local(DATABASE))),
            ssh: Server::listen(local(SSH)),
            open: VecDeque::new(),
            sessions: VecDeque::new(),
            waiting: Vec::new(),
            silent: None,
            random: 1 + u64::from(arguments.load),
            truth: Truth::default(),
        }
    }

    /// Numbers that look random, and are the same in each run.
    fn up_to(&mut self, most: u32) -> u32 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) % u64::from(most + 1)) as u32
    }

    /// How busy the host is, in percent: quiet at night, most at eleven and at four.
    fn level(&mut self, step: u32) -> u32 {
        const HOURS: [u32; 25] =
            [12, 9, 7, 6, 6, 8, 14, 30, 55, 80, 95, 100, 88, 84, 92, 98, 100, 90, 74, 62, 52, 42, 32, 20, 12];
        let (hour, part) = ((step / HOUR) as usize, step % HOUR);
        let level = (HOURS[hour] * (HOUR - part) + HOURS[hour + 1] * part) / HOUR;
        let noise = self.up_to(20);
        level * (90 + noise) / 100 * self.load / 100
    }

    fn step(&mut self, step: u32) {
        let level = self.level(step);
        self.requests(level);
        self.queries(level, !self.is_calm && within(step, (12, 0), (12, 45)));
        if step.is_multiple_of(HOUR) && level > 30 {
            self.sessions.push_back(self.ssh.pair());
        }
        if level < 40 {
            self.sessions.pop_front();
        }
        if self.is_calm {
            return;
        }
        if within(step, (15, 30), (15, 55)) {
            let first = 1_000 + (step % HOUR) as u16 * 120;
            for port in first..first + 120 {
                self.truth += fail::refused(local(port), 1);
            }
        }
        if within(step, (18, 0), (19, 0)) {
            while self.waiting.len() < WAITING {
                self.waiting.push(connect(self.web.address));
            }
        } else {
            for client in self.waiting.drain(..) {
                let server = self.web.accept();
                drop(client);
                await_end(&server);
            }
        }
        self.unanswered(step);
    }

    /// Short connections to the web server, and some that stay open for a while.
    fn requests(&mut self, level: u32) {
        // What waits in the queue would be accepted first.
        if !self.waiting.is_empty() {
            for _ in 0..level / 4 {
                let database = self.database.as_ref();
                if let Some(database) = database {
                    finish(database.pair(), false);
                }
            }
            return;
        }
        for number in 0..level {
            let pair = self.web.pair();
            let answer = 2_000 + 500 * u64::from(self.up_to(30));
            pair.exchange(&mut self.truth, 400, answer);
            if number.is_multiple_of(4) {
                self.open.push_back(pair);
            } else {
                finish(pair, number.is_multiple_of(9));
            }
        }
        while self.open.len() > 2 * level as usize {
            if let Some(oldest) = self.open.pop_front() {
                finish(oldest, false);
            }
        }
    }

    /// Connections to the database, which is down for a while at noon: clients try again and again.
    fn queries(&mut self, level: u32, is_down: bool) {
        if is_down {
            self.database = None;
            self.truth += fail::refused(local(DATABASE), 2 * level as usize);
            return;
        }
        let database = self.database.get_or_insert_with(|| Server::listen(local(DATABASE)));
        for _ in 0..level.div_ceil(3) {
            let pair = database.pair();
            pair.exchange(&mut self.truth, 200, 8_000);
            finish(pair, false);
        }
    }

    /// Attempts at a peer that does not answer, given up after a while.
    fn unanswered(&mut self, step: u32) {
        if !within(step, (20, 0), (21, 0)) {
            self.silent = None;
            return;
        }
        let (server, attempts) = self
            .silent
            .get_or_insert_with(|| (Server::deaf(SocketAddr::from(([127, 0, 0, 9], DATABASE))), Vec::new()));
        for _ in 0..3 {
            let client = tcp(server.address);
            begin_connect(&client, server.address);
            attempts.push(client);
        }
        if attempts.len() > 15 {
            attempts.drain(..3);
        }
    }

    /// True if the accept queue has just filled or emptied: an audit looks at queues.
    fn changes_queue(&self, step: u32) -> bool {
        !self.is_calm && [18 * HOUR, 19 * HOUR].contains(&step)
    }
}

/// Closes both ends, by a reset if so.
fn finish(pair: Pair, by_reset: bool) {
    if by_reset {
        pair.client.set_linger(Some(Duration::ZERO)).expect("linger");
    }
    drop(pair.client);
    if !by_reset {
        await_end(&pair.server);
    }
}

/// True from one time of the day to before another, each in hours and minutes.
fn within(step: u32, from: (u32, u32), to: (u32, u32)) -> bool {
    let of = |(hour, minute): (u32, u32)| hour * HOUR + minute / 5;
    (of(from)..of(to)).contains(&step)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// True of a line without a port, and of one with a port of the day.
fn is_ours(line: &str) -> bool {
    let port = line.split_once("port=\"").and_then(|(_, rest)| rest.split_once('"'));
    let of_day =
        |port: &str| port == "other" || [WEB, DATABASE, SSH].iter().any(|one| one.to_string() == port);
    line.starts_with('#') || port.is_none_or(|(port, _)| of_day(port))
}

/// Writes down what the daemon shows.
struct Recorder<'a> {
    pins: &'a Pins,
    directory: &'a Path,
}

impl Recorder<'_> {
    /// The configurations of the graphs.
    fn describe(&self) {
        for graph in GRAPHS {
            self.write(&format!("{graph}.config"), &self.plugin(graph, &["config"]));
        }
    }

    /// A reading after a step.
    fn note(&self, step: u32, with_munin: bool) {
        // Ports on which other programs of this host listen are no part of the day.
        let metrics: String =
            self.pins.get("/metrics").split_inclusive('\n').filter(|line| is_ours(line)).collect();
        self.write(&format!("{step:03}.prom"), &metrics);
        for graph in GRAPHS.iter().filter(|_| with_munin) {
            self.write(&format!("{step:03}.{graph}"), &self.plugin(graph, &[]));
        }
    }

    /// Waits for an audit that began after now.
    fn await_audit(&self) {
        let begun = Instant::now();
        let is_later = || {
            let age = self.pins.report().audit.age_seconds;
            age.is_some_and(|age| begun.elapsed().as_secs_f64() > age)
        };
        while !is_later() {
            assert!(begun.elapsed() < timeout::seconds(120), "no audit");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// What the packaged plugin prints under the name of a graph.
    fn plugin(&self, graph: &str, task: &[&str]) -> String {
        let name = self.directory.join(format!("conntrace_{graph}"));
        if !name.exists() {
            let packaged = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/munin/conntrace_");
            fs::copy(packaged, &name).expect("a copy of the plugin");
        }
        let programs = tracer::binary().parent().expect("a directory").to_owned();
        let path = env::var("PATH").unwrap_or_default();
        let output = Command::new(name)
            .args(task)
            .env("socket", self.pins.socket())
            .env("PATH", format!("{}:{path}", programs.display()))
            .output()
            .expect("the plugin");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.directory.join(name), text).expect("a file");
    }
}
