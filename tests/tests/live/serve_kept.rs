//! Streams that outlive the daemon: events wait in their ring, and what was taken and not delivered is told with its number.

use conn_tests::{
    daemon::Daemon,
    flood::{Ending, Flood},
    harness::Outcome,
    host::Host,
    needs_tracing, needs_whole_machine,
    pins::{Pins, kill},
    port::Port,
    timeout,
    tracer::{Ended, Setup, Tracer},
    traffic::close::{self, First},
    truth::Tuple,
};
use macro_rules_attribute::apply;
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// The client's word when the daemon is away.
const WAITS: &str = "the daemon has gone";

/// A client of the ends of connections to a port.
fn client(pins: &Pins, port: &Port, more: &[&str]) -> Tracer {
    let daemon = format!("--daemon={}", pins.socket().display());
    let port = port.to_string();
    let options = ["events", &daemon, "-e", "DESTROY", "--direction", "out", "--dport", &port];
    Setup::new(options.iter().chain(more)).start()
}

/// The directories of streams.
fn streams(pins: &Pins) -> Vec<PathBuf> {
    let entries = fs::read_dir(pins.point().join("conntrace-streams")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

fn await_streams(pins: &Pins, wanted: usize) {
    let (begun, limit) = (Instant::now(), timeout::seconds(100));
    while streams(pins).len() != wanted {
        assert!(begun.elapsed() < limit, "{:?} are pinned, {wanted} should be", streams(pins));
        thread::sleep(Duration::from_millis(20));
    }
}

/// How many different connections ended, and how many events are lost, in lines of JSON.
fn account(ended: &Ended) -> (u64, u64) {
    let (mut ids, mut lost) = (BTreeSet::new(), 0);
    for line in &ended.stdout {
        let record: Value = serde_json::from_str(line).expect("an object");
        match record["event"].as_str() {
            Some("lost") => lost += record["lost"].as_u64().expect("a number"),
            _ => assert!(ids.insert(record["id"].to_string()), "twice: {line}"),
        }
    }
    (ids.len() as u64, lost)
}

#[apply(needs_tracing)]
fn events_wait_while_the_daemon_is_away(_: &Host) -> Outcome {
    for (format, signal) in
        [("json", Signal::SIGKILL), ("table", Signal::SIGKILL), ("logfmt", Signal::SIGTERM)]
    {
        let (pins, port) = (Pins::new(), Port::claim());
        let mut daemon = pins.serve().start();
        let client = client(&pins, &port, &["-o", format]);
        let make = |count: usize| close::orderly(port.v4(), count, First::Client).tuples;
        let mut made = make(3);
        let shown = |tuple: &Tuple| {
            let port = tuple.client.port();
            let forms = [format!(" {port} "), format!("sport={port} "), format!("\"sport\":{port},")];
            move |line: &str| forms.iter().any(|form| line.contains(form.as_str()))
        };
        client.await_stdout("the last before", shown(&made[2]));
        for setup in [pins.serve(), pins.serve_other_build()] {
            daemon.signal(signal);
            daemon.await_end();
            client.await_stderr("the client waits", |line| line.contains(WAITS));
            made.extend(make(200));
            daemon = setup.start();
            client.await_stdout("the last while it was away", shown(&made[made.len() - 1]));
            made.extend(make(3));
            client.await_stdout("the last after it", shown(&made[made.len() - 1]));
        }
        let ended = client.stop();
        assert!(
            ended.expect_balance().contains("produced 409 = shown 409 + filtered 0 + lost 0: holds"),
            "{ended:#?}"
        );
        for tuple in &made {
            let lines = ended.stdout.iter().filter(|line| shown(tuple)(line)).count();
            assert!(lines >= 1, "{tuple} is missing");
        }
        assert_eq!(ended.stdout.len(), made.len() + usize::from(format == "table"), "{format}");
        // The client has left.
        await_streams(&pins, 0);
        drop(daemon);
    }
    Ok(())
}

/// Makes connections, one at a time, until the stream shows one of them. Returns how many.
fn await_stream(client: &Tracer, port: &Port) -> u64 {
    let begun = Instant::now();
    for made in 1.. {
        let one = close::orderly(port.v4(), 1, First::Client).tuples[0];
        let id = format!("\"sport\":{},\"dst\":\"127.0.0.1\"", one.client.port());
        thread::sleep(Duration::from_millis(10));
        if client.has_stdout(|line| line.contains(&id)) {
            return made;
        }
        assert!(begun.elapsed() < timeout::seconds(40), "the stream does not go on");
    }
    unreachable!("the loop has no end")
}

/// Under load, what the killed processes had in their hands is lost, and told.
#[apply(needs_whole_machine)]
fn killed_daemons_lose_told_events_only(_: &Host) -> Outcome {
    const ROUNDS: u64 = 5;
    const CONNECTIONS: u64 = 20_000;
    let (pins, port) = (Pins::new(), Port::claim());
    let mut daemon = pins.serve().start();
    let client = client(&pins, &port, &["-o", "json"]);
    let mut made = 0;
    for round in 1..=ROUNDS {
        // Its servers are at other addresses.
        let load = Flood::new(port.number(), CONNECTIONS, Ending::ClientFirst).start();
        while load.made() < CONNECTIONS * round / (ROUNDS + 1) {
            thread::yield_now();
        }
        kill(daemon);
        daemon = if round.is_multiple_of(2) { pins.serve() } else { pins.serve_other_build() }.start();
        drop(load.join());
        made += CONNECTIONS + await_stream(&client, &port);
    }
    let ended = client.stop();
    let (ends, lost) = account(&ended);
    assert_eq!(ends + lost, made, "{lost} are told as lost: {}", ended.stderr);
    assert!(ended.expect_balance().contains(": holds"), "{}", ended.stderr);
    assert_eq!(ended.stderr.matches(WAITS).count() as u64, ROUNDS, "{}", ended.stderr);
    Ok(())
}

#[apply(needs_tracing)]
fn a_front_that_is_killed_ends_no_stream(_: &Host) -> Outcome {
    let (pins, port) = (Pins::new(), Port::claim());
    let daemon = pins.serve().start();
    let client = client(&pins, &port, &["-o", "json"]);
    let front = Pid::from_raw(Daemon::front_of(daemon.pid()).cast_signed());
    signal::kill(front, Signal::SIGKILL).unwrap();
    client.await_stderr("the client waits", |line| line.contains(WAITS));
    // What the command had in its hands is lost, and told.
    let made = await_stream(&client, &port);
    let ended = client.stop();
    let (ends, lost) = account(&ended);
    assert_eq!(ends + lost, made, "{ended:#?}");
    Ok(())
}

/// A client that never comes back, and `--detach`.
#[apply(needs_tracing)]
fn streams_without_a_client_are_taken_away(_: &Host) -> Outcome {
    let (pins, port) = (Pins::new(), Port::claim());
    let daemon = pins.serve().start();
    let first = client(&pins, &port, &[]);
    let second = client(&pins, &port, &["-o", "json"]);
    assert_eq!(streams(&pins).len(), 2);
    // It leaves while the daemon is there.
    kill(first);
    await_streams(&pins, 1);
    kill(daemon);
    kill(second);
    assert_eq!(streams(&pins).len(), 1);
    let daemon = pins.serve().start();
    await_streams(&pins, 0);
    let third = client(&pins, &port, &[]);
    assert_eq!(streams(&pins).len(), 1);
    kill(daemon);
    kill(third);
    pins.detach().expect_code(0);
    await_streams(&pins, 0);
    Ok(())
}

/// Nobody but its user gets a stream, and a daemon that pins nothing keeps none.
#[apply(needs_tracing)]
fn a_stream_that_cannot_go_on_is_an_error(_: &Host) -> Outcome {
    let (pins, port) = (Pins::new(), Port::claim());
    let daemon = pins.serve().start();
    let stream = client(&pins, &port, &["-o", "json"]);
    kill(daemon);
    stream.await_stderr("the client waits", |line| line.contains(WAITS));
    pins.detach().expect_code(0);
    let daemon = pins.serve().start();
    let ended = stream.await_end();
    assert!(ended.expect_code(1).contains("how many events are missing is unknown"), "{ended:#?}");
    drop(daemon);

    let daemon = Daemon::start();
    let stream = Setup::new(["events", &daemon.option(), "--dport", &port.to_string()]).start();
    drop(daemon);
    let ended = stream.await_end();
    assert!(!ended.expect_code(1).contains(WAITS), "{ended:#?}");
    Ok(())
}
