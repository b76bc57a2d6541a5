//! Counts of a time that is over, which the daemon keeps.

use conn_tests::{
    daemon::Daemon,
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    timeout,
    tracer::Setup,
    traffic::{
        close::{self, First},
        socket::{Server, connect},
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    net::TcpStream,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// How often the daemon notes its counts.
const STEP: Duration = Duration::from_millis(100);

fn daemon() -> Daemon {
    Daemon::with_variable("CONNTRACE_TEST_STEP_MS", &STEP.as_millis().to_string())
}

/// Nanoseconds of Unix time.
fn unix_ns(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).unwrap().as_nanos()
}

/// When the counts of an answer began, nanoseconds of Unix time.
fn began(answer: &Value) -> u128 {
    let text = answer["since"]["time"].as_str().unwrap();
    let date = Command::new("date").args(["-u", "-d", text, "+%s%N"]).output().unwrap();
    String::from_utf8(date.stdout).unwrap().trim().parse().unwrap()
}

/// Opened, preexisting, failed, closed and open connections of a port in a direction, in an answer.
fn numbers(answer: &Value, direction: &str) -> [i64; 5] {
    let none = Value::from(0);
    let row = answer["ports"].as_array().unwrap().iter().find(|row| row["direction"] == direction);
    let number = |name: &str| row.map_or(&none, |row| &row[name]).as_i64().unwrap();
    let numbers = ["opened", "preexisting", "failed", "closed", "open"].map(number);
    let [opened, preexisting, failed, closed, open] = numbers;
    assert_eq!(opened + preexisting, failed + closed + open, "{answer}");
    numbers
}

fn since(daemon: &Daemon, ago: Duration, port: &Port) -> Value {
    daemon.json(&format!("/v1/stats?since={}ns&dport={port}", ago.as_nanos()))
}

/// The counts of a port since the last step that ended before a moment.
fn since_step_before(daemon: &Daemon, moment: SystemTime, port: &Port) -> Value {
    let mut more = Duration::ZERO;
    loop {
        let answer = since(daemon, moment.elapsed().unwrap() + more, port);
        if began(&answer) <= unix_ns(moment) {
            return answer;
        }
        // The request took its time. Steps are further apart than this.
        more += STEP / 10;
    }
}

/// Waits until a step has ended that began after the call: the second end, since the counts of the first one may have been read
/// before.
fn await_step(daemon: &Daemon) {
    let (mut last, limit) = (unix_ns(SystemTime::now()), Instant::now() + timeout::seconds(60));
    for _ in 0..2 {
        last = loop {
            let end = began(&daemon.json("/v1/stats?since=0&total"));
            if end > last {
                break end;
            }
            assert!(Instant::now() < limit, "no step ends");
        };
    }
}

#[apply(needs_tracing)]
fn counts_of_a_part_of_the_time_are_exact(_: &Host) -> Outcome {
    let (port, closed) = (Port::claim(), Port::claim());
    let daemon = daemon();
    close::orderly(port.v4(), 5, First::Client);
    let server = Server::listen(port.v4());
    let held: Vec<_> = (0..2).map(|_| (connect(server.address), server.accept())).collect();
    await_step(&daemon);
    let between = SystemTime::now();
    for _ in 0..3 {
        drop((connect(server.address), server.accept()));
    }
    drop(held);
    assert!(TcpStream::connect(closed.v4()).is_err());
    let day = |port| since(&daemon, Duration::from_secs(86_400), port);
    // Ends come with the last segments of both sides.
    let limit = Instant::now() + timeout::seconds(60);
    while ["in", "out"].iter().any(|direction| numbers(&day(&port), direction)[4] != 0) {
        assert!(Instant::now() < limit, "connections stay open");
    }

    assert_eq!(numbers(&day(&port), "in"), [10, 0, 0, 10, 0]);
    let later = since_step_before(&daemon, between, &port);
    for direction in ["in", "out"] {
        assert_eq!(numbers(&later, direction), [3, 2, 0, 5, 0], "{direction}");
    }
    assert_eq!(numbers(&since_step_before(&daemon, between, &closed), "out"), [1, 0, 1, 0, 0]);
    await_step(&daemon);
    assert_eq!(numbers(&since(&daemon, Duration::ZERO, &port), "in"), [0; 5]);
    Ok(())
}

#[apply(needs_tracing)]
fn commands_show_rates_and_a_plot(_: &Host) -> Outcome {
    let port = Port::claim();
    let daemon = daemon();
    close::orderly(port.v4(), 50, First::Client);
    await_step(&daemon);
    let (option, number) = (daemon.option(), port.to_string());
    let run = |more: &[&str]| {
        let ended = Setup::new(["stats", &option, "--dport", &number, "-n"]).arguments(more).run();
        ended.expect_code(0);
        ended.stdout
    };
    let table = run(&["--since", "2h", "--rates"]);
    assert!(
        table[0].starts_with("since 20") && table[0].ends_with(": the daemon knows no earlier minutes"),
        "{table:?}"
    );
    assert!(table[1].contains("OPENED/S"), "{table:?}");
    let row = table.iter().find(|line| line.starts_with(&number) && line.contains(" in ")).unwrap();
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[2], "50", "{row}");
    let json: Value = serde_json::from_str(&run(&["--rates", "-o", "json"])[0]).unwrap();
    let row = json["ports"].as_array().unwrap().iter().find(|row| row["direction"] == "in").unwrap();
    let (opened, rate) = (row["opened"].as_f64().unwrap(), row["opened_per_s"].as_f64().unwrap());
    let seconds = json["since"]["seconds"].as_f64().unwrap();
    assert!((rate * seconds - opened).abs() < 0.01, "{rate} {seconds} {opened}");

    let plot = run(&["--plot"]);
    let title = plot.iter().position(|line| *line == format!("port {number} in")).unwrap();
    assert!(
        plot[title + 1].trim_start().starts_with("opened") && plot[title + 1].ends_with("50 in all"),
        "{plot:?}"
    );
    assert!(plot[title + 3].ends_with(", 0 now"), "{plot:?}");
    let shown = Setup::new(["stats", &option, "--plot"]).on_terminal(80).run();
    shown.expect_code(0);
    assert!(shown.stdout.iter().all(|line| line.chars().count() <= 80), "{:?}", shown.stdout);
    Ok(())
}

#[apply(needs_tracing)]
fn only_the_daemon_knows_the_past(_: &Host) -> Outcome {
    for (arguments, wanted) in [
        (&["--since", "1h", "--local"][..], "leave --local out"),
        (&["--plot", "--daemon=/nowhere/at/all"], "start conntrace serve"),
        (&["--since", "soon"], "is not a duration"),
        (&["--rates", "-p", "udp"], "leave -p out"),
        (&["--since", "1h", "-o", "prometheus"], "metrics are counts since the epoch"),
        (&["--since", "1h", "--interval", "1s"], "cannot be used with"),
    ] {
        let ended = Setup::new(["stats"]).arguments(arguments).run();
        ended.expect_code(2);
        assert!(ended.stderr.contains(wanted), "{wanted}: {:?}", ended.stderr);
    }
    Ok(())
}
