//! NEW, UPDATE and DESTROY of real connections, seen from both ends.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    port::Port,
    timeout,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        close::{self, First},
        fail, handshake, process,
    },
};
use macro_rules_attribute::apply;
use std::{
    thread,
    time::{Duration, Instant},
};

#[apply(needs_tracing)]
fn six_new_lines_for_three_connections(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let (wanted, other) = (ports[0].v4(), ports[1].v4());
    let arguments = ["-e", "NEW", "--dport", &ports[0].to_string(), "--count", "6", "--timeout", "20s"];
    let tracer = Setup::new(arguments).start();
    close::orderly(other, 1, First::Client);
    let (truth, pid) = process::client(wanted, 3, "conn-client");
    close::orderly(other, 1, First::Client);

    let ended = tracer.await_end();
    assert!(ended.expect_code(0).contains("6 flow events have been shown."), "{ended:#?}");
    let events = ended.events();
    assert_eq!(events.len(), 6, "{ended:#?}");
    for tuple in truth.tuples {
        let of = |direction: &str| -> Line {
            let mut found =
                events.iter().filter(|line| line.tuple() == tuple && line.key("dir") == Some(direction));
            let line = found.next().unwrap_or_else(|| panic!("no NEW dir={direction} {tuple}: {ended:#?}"));
            assert!(found.next().is_none(), "twice: {ended:#?}");
            line.clone()
        };
        let (out, inn) = (of("out"), of("in"));
        assert_eq!((out.kind, inn.kind), (Kind::New, Kind::New));
        assert_eq!(out.key("pid"), Some(pid.to_string().as_str()));
        assert_eq!(out.key("comm"), Some("conn-client"));
        assert_eq!(out.state.as_deref(), Some("SYN_SENT"));
        assert!(out.unreplied && !out.assured, "{out:?}");
    }
    Ok(())
}

/// What every line of one connection has in common, and what each kind says.
fn check_life(direction: &str) {
    let port = Port::claim();
    let tracer = Tracer::start(["--dport", &port.to_string(), "--direction", direction]);
    let truth = close::orderly(port.v4(), 1, First::Client);
    let tuple = truth.tuple();

    let new = tracer.await_flow(Kind::New, direction, tuple);
    assert!(!new.assured && !new.keys.contains_key("lifetime"), "{new:?}");
    let established = tracer.await_event("ESTABLISHED", |line| line.state.as_deref() == Some("ESTABLISHED"));
    assert_eq!((established.kind, established.tuple()), (Kind::Update, tuple));
    assert!(established.assured && !established.unreplied, "{established:?}");
    let destroy = tracer.await_flow(Kind::Destroy, direction, tuple);
    assert!(destroy.assured, "{destroy:?}");
    let lifetime = destroy.key("lifetime").expect("a lifetime");
    let (_, digits) = lifetime.split_once('.').expect("a fraction of seconds");
    assert_eq!(digits.len(), 9, "nanoseconds: {lifetime}");
    assert!(lifetime.parse::<f64>().unwrap() > 0.0, "{lifetime}");

    for line in tracer.events() {
        assert_eq!((line.protocol.as_str(), line.number, line.timeout), ("tcp", 6, None));
        assert_eq!((line.tuple(), line.key("dir")), (tuple, Some(direction)));
        assert_eq!(line.reply.source, line.original.destination);
        assert_eq!(line.reply.destination, line.original.source);
        assert!(line.keys.contains_key("pid") && line.keys.contains_key("comm"), "{line:?}");
    }
    let kinds: Vec<Kind> = tracer.events().iter().map(|line| line.kind).collect();
    assert_eq!(kinds.first(), Some(&Kind::New), "{kinds:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == Kind::New).count(), 1, "{kinds:?}");
    assert_eq!(kinds.last(), Some(&Kind::Destroy), "{kinds:?}");
}

#[apply(needs_tracing)]
fn an_outgoing_connection_is_new_updated_and_destroyed(_: &Host) -> Outcome {
    check_life("out");
    Ok(())
}

#[apply(needs_tracing)]
fn an_incoming_connection_is_new_updated_and_destroyed(_: &Host) -> Outcome {
    check_life("in");
    Ok(())
}

#[apply(needs_tracing)]
fn a_refused_connection_is_new_and_destroyed(_: &Host) -> Outcome {
    let port = Port::claim();
    let lines = Tracer::start(["--dport", &port.to_string()]);
    let objects = Tracer::start(["-o", "json", "--dport", &port.to_string()]);

    // Once with a source port that only the kernel knows, once with a known one.
    fail::refused(port.v4(), 1);
    let tuple = fail::refused_bound(port.v4()).tuple();

    lines.await_flow(Kind::New, "out", tuple);
    let destroy = lines.await_flow(Kind::Destroy, "out", tuple);
    assert!(!destroy.assured, "{destroy:?}");
    for line in lines.events() {
        assert_ne!(line.tuple().client.port(), 0, "the whole tuple: {line:?}");
        assert_ne!(line.kind, Kind::Update, "{line:?}");
    }
    let object = objects.await_json("the end of the second", |object| {
        object["event"] == "destroy" && object["sport"] == tuple.client.port()
    });
    assert_eq!(object["failed"], true, "{object}");
    assert_eq!(object["error"], "ECONNREFUSED", "{object}");
    assert!(object["established_ns"].is_null() && object["handshake_ns"].is_null(), "{object}");
    Ok(())
}

#[apply(needs_tracing)]
fn a_reset_connection_is_destroyed(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["-e", "DESTROY", "--dport", &port.to_string()]);
    for truth in [close::unread(port.v4()), close::linger0(port.v4(), First::Client)] {
        for direction in ["out", "in"] {
            let line = tracer.await_flow(Kind::Destroy, direction, truth.tuple());
            assert!(line.assured && line.keys.contains_key("lifetime"), "{line:?}");
        }
    }
    Ok(())
}

/// Both ends of a connection appear soon after it, although nothing follows that could wake the reader. The median
/// counts, since tests that run beside this one may delay some lines.
#[apply(needs_tracing)]
fn a_line_appears_in_time_on_an_idle_host(_: &Host) -> Outcome {
    const ROUNDS: usize = 21;
    let limit = timeout::seconds(1) / 10;
    let port = Port::claim();
    let tracer = Tracer::start(["-e", "NEW", "--dport", &port.to_string()]);
    let mut delays: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let (truth, pairs) = handshake::held(port.v4(), 1);
            let open = Instant::now();
            tracer.await_flow(Kind::New, "out", truth.tuple());
            tracer.await_flow(Kind::New, "in", truth.tuple());
            let delay = open.elapsed();
            drop(pairs);
            delay
        })
        .collect();
    delays.sort_unstable();
    assert!(delays[ROUNDS / 2] <= limit, "more than {limit:?}: {delays:?}");
    Ok(())
}

/// Each line follows the one before sooner than the reader's timer, so a timer would show several at a time. Wake-ups are
/// counted, not times: a busy machine makes lines late, but takes no wake-up away.
#[apply(needs_tracing)]
fn events_in_quick_succession_wake_the_reader(_: &Host) -> Outcome {
    const CONNECTIONS: u64 = 200;
    let port = Port::claim();
    let filter = port.to_string();
    let tracer = Tracer::start([
        "-v",
        "-e",
        "NEW",
        "-o",
        "json",
        "--direction",
        "out",
        "--summary",
        "--dport",
        &filter,
    ]);
    let server = Server::listen(port.v4());
    for _ in 0..CONNECTIONS {
        let pair = server.pair();
        let sport = pair.tuple.client.port();
        tracer.await_json("the next event", |event| event["sport"] == sport);
        // A moment for the reader to look once more and to sleep.
        thread::sleep(Duration::from_millis(2));
    }
    let ended = tracer.stop();
    let witness = ended.expect_code(0).lines().find(|line| line.starts_with("witness: ")).expect("counters");
    let (_, rest) = witness.split_once("wakeups ").expect("a count of wake-ups");
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let wakeups: u64 = digits.parse().expect("a number");
    assert!((CONNECTIONS / 2..=CONNECTIONS + 1).contains(&wakeups), "{wakeups} for {CONNECTIONS}: {witness}");
    Ok(())
}

#[apply(needs_tracing)]
fn a_retried_socket_is_two_connections(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["-o", "json", "--dport", &port.to_string(), "--direction", "out"]);
    let tuple = fail::refused_then_connected(port.v4()).tuple();
    let ended = tracer.await_json("the end of the second", |object| {
        object["event"] == "destroy" && object["failed"] == false
    });
    assert_eq!(ended["sport"], tuple.client.port(), "{ended}");
    let first = tracer.await_json("the end of the first", |object| {
        object["event"] == "destroy" && object["failed"] == true
    });
    assert_ne!(first["id"], ended["id"], "one socket, two connections");
    assert_ne!(first["sport"], 0, "{first}");
    Ok(())
}

#[apply(needs_tracing)]
fn another_namespace_is_seen(_: &Host) -> Outcome {
    let port = Port::claim();
    let (here, there) = (NetNs::new().unwrap(), NetNs::new().unwrap());
    let veth = here.join(&there).unwrap();
    let tracer = Tracer::start(["-o", "json", "--dport", &port.to_string()]);
    let address = port.at(veth.there.v4);
    let listener = there.run(|| Server::listen(address));
    let client = here.run(|| conn_tests::traffic::socket::connect(address));
    let pair = listener.pair_from(client);
    for (direction, ns) in [("out", &here), ("in", &there)] {
        let object = tracer
            .await_json(direction, |object| object["event"] == "new" && object["direction"] == direction);
        assert_eq!(object["netns"], ns.inum(), "{object}");
        assert_eq!(object["src"], pair.tuple.client.ip().to_string(), "{object}");
        assert_eq!(object["sport"], pair.tuple.client.port(), "{object}");
        assert_eq!(object["dst"], pair.tuple.server.ip().to_string(), "{object}");
    }
    Ok(())
}
