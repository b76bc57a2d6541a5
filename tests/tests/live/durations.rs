//! Spans and times of day, against the generator's own clock: it reads the clock before and after each step,
//! so that what conntrace says must lie between two spans that are known.

use conn_common::{histogram::Durations, name};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    map, needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{self, Setup, Tracer},
    traffic::{
        Server,
        close::{self, First},
        socket::{await_error, connect},
    },
    truth::Tuple,
};
use macro_rules_attribute::apply;
use nix::time::{ClockId, clock_gettime};
use serde_json::Value;
use std::{fs, net::SocketAddr, path::Path, thread, time::Duration};

/// Boot time and the time of day, nanoseconds.
#[derive(Debug, Clone, Copy)]
struct Now {
    boot: u64,
    unix: u64,
}

fn now() -> Now {
    let read = |clock| {
        let time = clock_gettime(clock).unwrap();
        (time.tv_sec() * 1_000_000_000 + time.tv_nsec()).cast_unsigned()
    };
    Now { boot: read(ClockId::CLOCK_BOOTTIME), unix: read(ClockId::CLOCK_REALTIME) }
}

/// A connection, and when what happened to it had not begun yet, and was over.
#[derive(Debug, Clone, Copy)]
struct Life {
    tuple: Tuple,
    /// Before `connect()`, after it, and after `accept()`.
    begin: [Now; 3],
    /// Before the reset by the client, and after the server got it.
    end: [Now; 2],
}

/// The longest tick of a kernel, by which it counts the time without payload.
const TICK: u64 = 10_000_000;
/// A millisecond, as far as a measurement may be off.
const ACCURACY: u64 = 1_000_000;

impl Life {
    /// A connection that is reset after `span`.
    fn live(server: &Server, span: Duration) -> Self {
        let before = now();
        let client = connect(server.address);
        let connected = now();
        let pair = server.pair_from(client);
        let accepted = now();
        thread::sleep(span);
        let closing = now();
        pair.client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(pair.client);
        await_error(&pair.server);
        let begin = [before, connected, accepted];
        Self { tuple: pair.tuple, begin, end: [closing, now()] }
    }

    /// The shortest and the longest that the lifetime of one end can be.
    fn span(&self, direction: &str) -> [u64; 2] {
        let [before, connected, accepted] = self.begin;
        let begun = if direction == "out" { connected } else { accepted };
        [self.end[0].boot - begun.boot, self.end[1].boot - before.boot]
    }

    /// How exactly that is known.
    fn uncertainty(&self) -> u64 {
        ["out", "in"]
            .map(|direction| self.span(direction))
            .map(|[min, max]| max - min)
            .into_iter()
            .max()
            .unwrap()
    }

    /// Compares with the end of one side.
    fn check(&self, direction: &str, end: &Value) {
        let ns = |name: &str| end[name].as_u64().unwrap_or_else(|| panic!("{name}: {end}"));
        let within = |name: &str, value: u64, min: u64, max: u64| {
            assert!((min..=max).contains(&value), "{name}: {min} <= {value} <= {max}\n{self:?}\n{end}");
        };
        let [before, connected, accepted] = self.begin;
        let begun = if direction == "out" { connected } else { accepted };
        let [min, max] = self.span(direction);
        within("lifetime", ns("lifetime_ns"), min, max);
        // Nothing was ever sent.
        within("idle", ns("idle_ns"), min.saturating_sub(TICK), max + TICK);
        within("handshake", ns("handshake_ns"), 0, accepted.boot - before.boot);
        // Times of day are mapped from boot time with some accuracy.
        within("attempt", ns("attempt_ns"), before.unix - ACCURACY, begun.unix + ACCURACY);
        within("established", ns("established_ns"), before.unix - ACCURACY, accepted.unix + ACCURACY);
        within("end", ns("time_ns"), self.end[0].unix - ACCURACY, self.end[1].unix + ACCURACY);
        assert_eq!(ns("established_ns") - ns("attempt_ns"), ns("handshake_ns"), "{end}");
        assert_eq!(ns("time_ns") - ns("attempt_ns"), ns("lifetime_ns"), "{end}");
    }
}

/// The end of one side of a connection that began after `begin`: others may have had its ports before.
fn end_of(tracer: &Tracer, direction: &str, tuple: Tuple, begin: Now) -> Value {
    let Tuple { client, server } = tuple;
    let addresses = [client.ip(), server.ip()].map(|ip| Value::from(ip.to_string()));
    let ports = [client.port(), server.port()].map(Value::from);
    tracer.await_json(&format!("the end {direction} of {tuple:?}"), |event| {
        event["event"] == "destroy"
            && event["direction"] == direction
            && ["src", "dst"].map(|name| &event[name]) == addresses.each_ref()
            && ["sport", "dport"].map(|name| &event[name]) == ports.each_ref()
            && event["time_ns"].as_u64().is_some_and(|end| end >= begin.unix - ACCURACY)
    })
}

/// How often each span is tried, so that some are known to a millisecond on a busy machine.
const TRIES: usize = 12;

#[apply(needs_tracing)]
fn lifetimes_are_exact(_: &Host) -> Outcome {
    let ports = Port::block(3);
    let spans = [1, 100, 3_000].map(Duration::from_millis);
    let filter = ports.iter().map(Port::to_string).collect::<Vec<_>>().join(",");
    let tracer = Tracer::start(["-e", "DESTROY", "-o", "json", "--dport", &filter]);
    let lives: Vec<Vec<Life>> = thread::scope(|scope| {
        let threads: Vec<_> = spans
            .into_iter()
            .zip(&ports)
            .map(|(span, port)| {
                scope.spawn(move || {
                    let one = |address: SocketAddr| Life::live(&Server::listen(address), span);
                    if span < Duration::from_secs(1) {
                        return (0..TRIES).map(|_| one(port.v4())).collect();
                    }
                    // Long ones beside each other, each with an address of its own.
                    thread::scope(|scope| {
                        let threads: Vec<_> = (1..=TRIES as u8)
                            .map(|last| {
                                let address = port.at([127, 0, 0, last]);
                                scope.spawn(move || Life::live(&Server::listen(address), span))
                            })
                            .collect();
                        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                    })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut best = Vec::new();
    for (lives, span) in lives.iter().zip(spans) {
        for life in lives {
            for direction in ["out", "in"] {
                life.check(direction, &end_of(&tracer, direction, life.tuple, life.begin[0]));
            }
        }
        best.push((span, lives.iter().map(Life::uncertainty).min().unwrap()));
    }
    println!("time: spans known to {best:?} ns");
    match best.iter().find(|(_, best)| *best >= ACCURACY) {
        None => Ok(()),
        Some((span, ns)) => Err(Skip(format!(
            "the machine is too busy: a span of {span:?} was right, but known to {ns} ns only"
        ))),
    }
}

/// A lifetime with an unseen beginning has a lower bound, and the bound is tight.
#[apply(needs_tracing)]
fn earlier_connections_have_lower_bounds(_: &Host) -> Outcome {
    let port = Port::claim();
    let server = Server::listen(port.v4());
    let first = now();
    let pair = server.pair();
    let tuple = pair.tuple;
    let objects = Tracer::start(["-o", "json", "--dport", &port.to_string()]);
    let lines = Tracer::start(["--dport", &port.to_string()]);
    let ready = now();
    thread::sleep(Duration::from_millis(50));
    let closing = now();
    drop(pair);
    for direction in ["out", "in"] {
        let end = end_of(&objects, direction, tuple, first);
        assert_eq!((&end["preexisting"], &end["lifetime_ns"]), (&true.into(), &Value::Null), "{end}");
        assert!(end["attempt_ns"].is_null() && end["handshake_ns"].is_null(), "{end}");
        let at_least = end["at_least_ns"].as_u64().expect("a bound");
        let (min, max) = (closing.boot - ready.boot, now().boot - first.boot);
        assert!((min..=max).contains(&at_least), "{min} <= {at_least} <= {max}: {end}");
        let line = lines.await_stdout("the bound in text", |line| {
            line.contains("DESTROY") && line.contains(&format!("dir={direction}"))
        });
        assert!(line.contains(" lifetime>="), "{line}");
    }
    Ok(())
}

/// Lifetimes from 5 ms to half a second: each quantile is at most 9 % off what was measured.
#[apply(needs_tracing)]
fn histogram_quantiles_hold(_: &Host) -> Outcome {
    let port = Port::claim();
    let stats = Setup::new(["stats", "--lifetimes", "-o", "json", "--dport", &port.to_string()]).start();
    let lives: Vec<Life> = thread::scope(|scope| {
        let threads: Vec<_> = (0..20_u8)
            .map(|number| {
                let address = port.at([127, 0, 0, 1 + number]);
                let span = Duration::from_millis(5).mul_f64(1.27_f64.powi(i32::from(number)));
                scope.spawn(move || Life::live(&Server::listen(address), span))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let ended = stats.stop();
    let report: Value = serde_json::from_str(ended.stdout.last().expect("a report")).unwrap();
    for direction in ["out", "in"] {
        let row = |span: &str| {
            let rows = report["lifetimes"].as_array().expect("histograms");
            let row = rows.iter().find(|row| row["direction"] == direction && row["span"] == span);
            row.unwrap_or_else(|| panic!("no {span} of {direction}: {report}")).clone()
        };
        let (lifetime, handshake) = (row("lifetime"), row("handshake"));
        assert_eq!((&lifetime["count"], &handshake["count"]), (&20.into(), &20.into()), "{report}");
        let [mut shortest, mut longest] =
            [0, 1].map(|at| lives.iter().map(|life| life.span(direction)[at]).collect::<Vec<u64>>());
        shortest.sort_unstable();
        longest.sort_unstable();
        for (rank, name) in [(10, "p50_ns"), (18, "p90_ns"), (20, "p99_ns"), (20, "max_ns")] {
            let (min, max) = (shortest[rank - 1], longest[rank - 1]);
            let shown = lifetime[name].as_u64().expect("a quantile");
            assert!(
                min - min * 9 / 100 <= shown && shown <= max + max * 9 / 100,
                "{name}: {min} {shown} {max} {lifetime}"
            );
        }
        let bound = lives.iter().map(|life| life.begin[2].boot - life.begin[0].boot).max().unwrap();
        assert!(handshake["max_ns"].as_u64().expect("a quantile") <= bound + bound * 9 / 100, "{handshake}");
    }
    Ok(())
}

/// In a time namespace with an offset of boot time, the time of day is still right.
#[apply(needs_tracing)]
fn another_time_namespace_shifts_no_time(_: &Host) -> Outcome {
    if !Path::new("/proc/self/ns/time_for_children").exists() {
        return Err(Skip("this kernel has no time namespaces".into()));
    }
    let port = Port::claim();
    let server = Server::listen(port.v4());
    let filter = port.to_string();
    let program = tracer::binary();
    let arguments = ["--time", "--fork", "--kill-child", "--boottime", "86400", "--"];
    let program = program.to_str().expect("a path of text");
    let command = [&arguments[..], &[program, "-o", "json", "-e", "DESTROY", "--dport", &filter]].concat();
    if fs::metadata("/usr/bin/unshare").is_err() {
        return Err(Skip("there is no /usr/bin/unshare to enter a time namespace with".into()));
    }
    let tracer = Setup::new(command).program("/usr/bin/unshare").start();
    let life = Life::live(&server, Duration::from_millis(1));
    for direction in ["out", "in"] {
        life.check(direction, &end_of(&tracer, direction, life.tuple, life.begin[0]));
    }
    Ok(())
}

/// Beyond the room for histograms of ports, one histogram per direction has the rest.
#[apply(needs_tracing)]
fn durations_beyond_the_room_are_counted_together(_: &Host) -> Outcome {
    const CONNECTIONS: usize = 20;
    let port = Port::claim();
    let arguments = ["stats", "--lifetimes", "-o", "json", "--dport", &port.to_string()];
    let tracer = Setup::new(arguments).start();
    map::fill::<u32, { size_of::<Durations>() / 8 }>(tracer.pid(), name::SPANS);
    NetNs::new().unwrap().run(|| close::orderly(port.v4(), CONNECTIONS, First::Client));
    let ended = tracer.stop();
    ended.expect_code(0);
    let report: Value = serde_json::from_str(ended.stdout.last().expect("a report")).expect("JSON");
    let rest = |direction: &str| -> u64 {
        let rows = report["lifetimes"].as_array().expect("rows").iter();
        let rest = rows.filter(|row| row["port"].is_null() && row["direction"] == direction);
        rest.filter(|row| row["span"] == "lifetime").map(|row| row["count"].as_u64().expect("a count")).sum()
    };
    // Other connections of the host are there, too.
    assert!(rest("in") >= CONNECTIONS as u64 && rest("out") >= CONNECTIONS as u64, "{report}");
    assert!(report["witness"]["spans_shared"].as_u64() >= Some(4 * CONNECTIONS as u64), "{report}");
    assert_eq!(report["witness"]["spans_failed"], 0, "{report}");
    Ok(())
}
