//! `conntrace list` beside what the test itself holds, and beside `ss`.

#![expect(unsafe_code, reason = "the standard library calls listen() once, and never with a backlog")]

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    range::Range,
    tracer::Setup,
    traffic::{listen::await_children, socket::connect as connect_to, syn::sources_v4},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Runs `conntrace list -o json` for one namespace.
fn list(ns: &NetNs, more: &[&str]) -> Vec<Value> {
    let netns = ns.inum().to_string();
    let args = ["list", "-o", "json", "--netns", &netns].into_iter().chain(more.iter().copied());
    let ended = Setup::new(args).run();
    ended.expect_code(0);
    ended.stdout.iter().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// Both ends of a connection inside `ns`, and its listener.
fn connect(ns: &NetNs) -> (TcpListener, TcpStream, TcpStream) {
    ns.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (listener, client, server)
    })
}

fn of<'a>(rows: &'a [Value], direction: &str) -> &'a Value {
    let mut found = rows.iter().filter(|row| row["direction"] == direction);
    let row = found.next().unwrap_or_else(|| panic!("no {direction} in {rows:#?}"));
    assert!(found.next().is_none(), "{rows:#?}");
    row
}

#[apply(needs_tracing)]
fn connections_are_listed_from_the_initiators_side(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let (listener, client, _server) = connect(&ns);
    let rows = list(&ns, &[]);
    assert_eq!(rows.len(), 2, "{rows:#?}");
    for direction in ["in", "out"] {
        let row = of(&rows, direction);
        assert_eq!(row["event"], "open");
        assert_eq!(row["state"], "established");
        assert_eq!(row["sport"], client.local_addr().unwrap().port());
        assert_eq!(row["dport"], listener.local_addr().unwrap().port());
        assert_eq!((&row["pid"], &row["owner"]), (&std::process::id().into(), &"files".into()));
    }
    let port = listener.local_addr().unwrap().port().to_string();
    assert_eq!(list(&ns, &["--dport", &port, "--direction", "in"]).len(), 1);
    assert_eq!(list(&ns, &["--dport", "!0-65535"]).len(), 0);
    assert_eq!(list(&ns, &["--pid", &std::process::id().to_string()]).len(), 2);
    assert_eq!(list(&ns, &["--comm", "nobody-has-it"]).len(), 0);
    Ok(())
}

#[apply(needs_tracing)]
fn queues_bytes_and_owners_are_those_of_the_socket(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let (_listener, mut client, _server) = connect(&ns);
    client.write_all(&[7; 1_234]).unwrap();
    let rows = list(&ns, &[]);
    assert_eq!(of(&rows, "out")["bytes_sent"], 1_234);
    assert_eq!(of(&rows, "in")["bytes_received"], 1_234);
    assert_eq!(of(&rows, "in")["receive_queue"], 1_234);
    assert!(of(&rows, "out")["srtt_us"].as_u64().is_some(), "{rows:#?}");
    Ok(())
}

#[apply(needs_tracing)]
fn listeners_show_their_backlog(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let (listener, _waiting) = ns.run(|| {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        // SAFETY: a second listen() only changes the backlog.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 9) }, 0);
        let waiting = [0; 3].map(|_| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        (listener, waiting)
    });
    let rows = list(&ns, &["--listening"]);
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert_eq!((&row["state"], &row["direction"]), (&"listen".into(), &"listen".into()));
    assert_eq!(row["dport"], listener.local_addr().unwrap().port());
    assert_eq!((&row["receive_queue"], &row["send_queue"]), (&3.into(), &9.into()), "{row}");
    assert_eq!(row["pid"], std::process::id());
    Ok(())
}

/// What ss shows of the one listener of a namespace: connections that wait, their limit, half-open requests and drops.
fn queues_of_ss(ns: &NetNs) -> Result<[u64; 4], Skip> {
    let run = |args: &[&str]| {
        let output = ns
            .run(|| Command::new("ss").args(args).output())
            .map_err(|error| Skip(format!("cannot run ss: {error}")))?;
        assert!(output.status.success(), "ss {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout).unwrap())
    };
    let line = run(&["-tlnmHO"])?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let drops = line.rsplit_once(",d").and_then(|(_, rest)| rest.split(')').next()).expect("drops");
    let half_open = run(&["-tanHO", "state", "syn-recv"])?.lines().count() as u64;
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{line}"));
    Ok([number(words[1]), number(words[2]), half_open, number(drops)])
}

#[apply(needs_tracing)]
fn full_queues_of_a_listener_are_those_of_ss(_: &Host) -> Outcome {
    let range = Range::new("1");
    let listener = range.listen(range.end.v4, 5);
    range.send(sources_v4().take(3), range.v4());
    // The kernel takes one more than the backlog says.
    let _clients: Vec<_> = (0..6).map(|_| range.attacker.run(|| connect_to(range.v4()))).collect();
    range.victim.run(|| await_children(&listener, 6));
    range.send(sources_v4().skip(3).take(18), range.v4());
    let expected = [6, 5, 3, 18];
    assert_eq!(queues_of_ss(&range.victim)?, expected);
    let rows = list(&range.victim, &["--listening"]);
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    let found = ["receive_queue", "send_queue", "half_open", "dropped"].map(|key| row[key].as_u64());
    assert_eq!(found, expected.map(Some), "{row}");
    let open = list(&range.victim, &[]);
    assert_eq!(open.len(), 6);
    assert!(open.iter().all(|row| row["half_open"].is_null() && row["dropped"].is_null()), "{open:#?}");
    Ok(())
}

#[apply(needs_tracing)]
fn closed_connections_are_listed_on_demand(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let (listener, client, server) = connect(&ns);
    let (port, sport) = (listener.local_addr().unwrap().port(), client.local_addr().unwrap().port());
    client.shutdown(Shutdown::Both).unwrap();
    drop((client, server));
    assert!(list(&ns, &[]).iter().all(|row| row["state"] != "time_wait"));
    let rows = list(&ns, &["--state", "time-wait"]);
    let [row] = &rows[..] else { panic!("{rows:#?}") };
    assert_eq!((&row["state"], &row["direction"]), (&"time_wait".into(), &"out".into()));
    assert_eq!(
        (&row["src"], &row["sport"], &row["dport"]),
        (&"127.0.0.1".into(), &sport.into(), &port.into())
    );
    for (dport, count) in [(port, 1), (sport, 0)] {
        assert_eq!(list(&ns, &["--state", "time-wait", "--dport", &dport.to_string()]).len(), count);
    }
    Ok(())
}

#[apply(needs_tracing)]
fn ages_are_lower_bounds(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let (_listener, _client, _server) = connect(&ns);
    let young = list(&ns, &["--min-age", "1h"]);
    assert_eq!(young.len(), 0, "{young:#?}");
    let age = || of(&list(&ns, &[]), "out")["at_least_ns"].as_u64().unwrap_or(0);
    let first = age();
    // Ages follow the clock: awaited, not slept for.
    let grown = std::iter::repeat_with(age).take(200).find(|&age| age > first + 20_000_000);
    assert!(grown.is_some(), "an idle connection does not age");
    assert_eq!(list(&ns, &["--min-age", "20ms"]).len(), 2);
    Ok(())
}

#[apply(needs_tracing)]
fn idle_time_begins_at_the_last_payload(_: &Host) -> Outcome {
    /// The longest tick of a kernel: idle times are counted in them.
    const TICK: Duration = Duration::from_millis(10);
    let ns = NetNs::new().unwrap();
    let (_listener, mut client, _server) = connect(&ns);
    let idle = || {
        let rows = list(&ns, &[]);
        ["out", "in"].map(|end| Duration::from_nanos(of(&rows, end)["idle_ns"].as_u64().expect("a time")))
    };
    let long = |idle: &[Duration; 2]| idle.iter().all(|idle| *idle > 5 * TICK);
    assert!(std::iter::repeat_with(idle).take(200).any(|idle| long(&idle)), "it is never idle");
    let before = Instant::now();
    client.write_all(b"awake").unwrap();
    let (found, most) = (idle(), before.elapsed() + TICK);
    assert!(found.iter().all(|idle| *idle <= most), "{found:?}, {most:?} after payload");
    assert!(std::iter::repeat_with(idle).take(200).any(|idle| long(&idle)), "it is not idle again");
    Ok(())
}

/// A namespace that only a file keeps is found by threads that enter it, and end before the walk.
#[apply(needs_tracing)]
fn a_namespace_is_walked_whose_threads_have_ended(_: &Host) -> Outcome {
    const TIMES: usize = 40;
    let ns = NetNs::new().unwrap();
    let _held = connect(&ns);
    let done = AtomicBool::new(false);
    let found: Vec<usize> = thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    ns.run(|| ());
                }
            });
        }
        let found = (0..TIMES).map(|_| list(&ns, &[]).len()).collect();
        done.store(true, Ordering::Relaxed);
        found
    });
    assert_eq!(found, [2; TIMES]);
    Ok(())
}
