//! Streams of the daemon: equal ones share a command, clients that have gone are noticed, and no user takes all places.

use conn_tests::{
    daemon::{self, Daemon, NOBODY, Stream, as_user, await_close},
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    timeout,
    tracer::Setup,
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    io::Write as _,
    net::Shutdown,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

/// How many connections the test of a slow client makes. Their lines are more than waits for one client.
const CONNECTIONS: usize = 3_000;

fn commands(daemon: &Daemon) -> u64 {
    daemon.json("/v1/health")["commands"].as_u64().unwrap()
}

fn await_commands(daemon: &Daemon, wanted: u64) {
    let (begun, limit) = (Instant::now(), timeout::seconds(60));
    while commands(daemon) != wanted {
        assert!(begun.elapsed() < limit, "{} commands run, {wanted} should", commands(daemon));
        thread::sleep(Duration::from_millis(10));
    }
}

/// How many lines of ends a stream of JSON has, and how many are lost, until `is_over` after a line.
pub(crate) fn account(stream: &mut Stream, is_over: impl Fn() -> bool) -> (usize, u64) {
    until(stream, |_| is_over())
}

/// The same until so many ends are accounted for.
fn account_of(stream: &mut Stream, ends: usize) -> (usize, u64) {
    until(stream, |(events, lost)| events as u64 + lost >= ends as u64)
}

fn until(stream: &mut Stream, is_over: impl Fn((usize, u64)) -> bool) -> (usize, u64) {
    let (mut counts, mut rest) = ((0, 0), String::new());
    while !is_over(counts) || !rest.is_empty() {
        rest += &stream.chunk().unwrap();
        let whole = rest.rfind('\n').map_or(0, |end| end + 1);
        for line in rest.drain(..whole).as_str().lines() {
            let record: Value = serde_json::from_str(line).unwrap();
            match record["event"].as_str() {
                Some("lost") => counts.1 += record["lost"].as_u64().unwrap(),
                _ => counts.0 += 1,
            }
        }
    }
    counts
}

#[apply(needs_tracing)]
fn equal_streams_share_a_command(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    let target = format!("/v1/events?dport={port}&direction=out&event-mask=destroy");
    let mut fast = daemon.stream(&target);
    let mut slow = daemon.stream(&target);
    assert_eq!((fast.status, slow.status, commands(&daemon)), (200, 200, 1));
    let other = daemon.stream(&format!("{target}&count=1"));
    assert_eq!((other.status, commands(&daemon)), (200, 2));

    let reader = thread::spawn(move || (account_of(&mut fast, CONNECTIONS), fast));
    close::orderly(port.v4(), CONNECTIONS, First::Client);
    let (read, fast) = reader.join().unwrap();
    assert_eq!(read, (CONNECTIONS, 0), "the slow client delays nobody");
    let (events, lost) = account_of(&mut slow, CONNECTIONS);
    assert_eq!(events as u64 + lost, CONNECTIONS as u64);

    // The command lives as long as one of its clients.
    drop(fast);
    await_commands(&daemon, 1);
    close::orderly(port.v4(), 1, First::Client);
    assert_eq!(account_of(&mut slow, 1), (1, 0));
    drop(slow);
    await_commands(&daemon, 0);
    Ok(())
}

#[apply(needs_tracing)]
fn clients_that_have_gone_are_noticed(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    for (more, options) in
        [("", ""), ("", "&count=9"), ("GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n", "&count=9"), ("x", "")]
    {
        let mut client = daemon.connect();
        write!(client, "GET /v1/events?dport=1{options} HTTP/1.1\r\nhost: x\r\n\r\n{more}").unwrap();
        await_commands(&daemon, 1);
        drop(client);
        await_commands(&daemon, 0);
    }
    let option = daemon.option();
    let client = Setup::new(["events", "--dport", "1", &option]).start();
    await_commands(&daemon, 1);
    client.signal(Signal::SIGKILL);
    await_commands(&daemon, 0);
    Ok(())
}

#[apply(needs_tracing)]
fn a_client_that_sends_no_more_is_answered(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    for target in ["/v1/count", "/v1/stats?total", "/v1/list?dport=1"] {
        let mut client = daemon.connect();
        write!(client, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let answer = await_close(client, timeout::seconds(40)).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 "), "{target}: {answer}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn no_user_takes_all_commands(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let (held, refused) = as_user(1234, NOBODY, move || {
        let stream = |port: u16| {
            let target = format!("/v1/events?dport={port}&event-mask=new");
            Stream::of(UnixStream::connect(&socket).unwrap(), &target).unwrap()
        };
        let held: Vec<Stream> = (1..=4).chain([4]).map(stream).collect();
        (held, daemon::get(&socket, "/v1/events?dport=5").unwrap())
    });
    // The fifth stream was equal to the fourth.
    assert!(held.iter().all(|stream| stream.status == 200), "{held:?}");
    assert!(refused.status == 503 && refused.body.contains("4 commands of this user"), "{refused:?}");
    assert_eq!(daemon.stream("/v1/events?dport=5").status, 200);
    drop(held);
    await_commands(&daemon, 0);
    Ok(())
}
