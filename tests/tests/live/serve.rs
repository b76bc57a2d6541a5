//! `conntrace serve`, its interface, and its clients.

use conn_tests::{
    daemon::{self, Daemon, NOBODY, as_user, await_close},
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    timeout,
    tracer::{Setup, Tracer},
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{fs, io::Write as _, net::TcpListener};

#[apply(needs_tracing)]
fn a_signal_ends_the_daemon(_: &Host) -> Outcome {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = Daemon::start();
        let socket = daemon.socket();
        let ended = daemon.end(signal);
        ended.expect_code(0);
        assert!(!socket.exists(), "the socket is left behind");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn the_second_daemon_is_refused(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let ended = Setup::new(["serve", "--transient", "--socket", socket.to_str().unwrap()]).run();
    assert!(ended.expect_code(1).contains("another conntrace serve has the socket"), "{ended:?}");
    assert_eq!(daemon.get("/v1/health").status, 200);
    Ok(())
}

#[apply(needs_tracing)]
fn answers_have_the_epoch_and_errors_the_remedy(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let health = daemon.json("/v1/health");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(health["epoch"]["boot_id"], boot.trim());
    let epoch =
        format!("conntrace-epoch: {}; boot_id=", health["epoch"]["time"].as_str().unwrap().to_lowercase());
    for (target, status, word) in [
        ("/v1/count", 200, "open"),
        ("/v1/stats?total", 200, "epoch"),
        ("/v1/list?dport=1", 200, ""),
        ("/v1/count?dport=x", 400, "\"parameter\":\"dport\""),
        ("/v1/count?filter=dport", 400, "\"parameter\":\"filter\""),
        ("/v1/events?buffer-size=1M", 400, "\"parameter\":\"buffer-size\""),
        ("/v1/list?netns=/etc/passwd", 400, "\"parameter\":\"netns\""),
        ("/v2/count", 404, "/v1/count"),
    ] {
        let answer = daemon.get(target);
        assert_eq!(answer.status, status, "{target}: {answer:?}");
        assert!(answer.body.contains(word), "{target}: {answer:?}");
        assert!(answer.head.iter().any(|line| line.starts_with(&epoch)), "{target}: {answer:?}");
    }
    let mut other = daemon.connect();
    other.write_all(b"POST /v1/count HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let answer = await_close(other, timeout::seconds(40)).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET"), "{answer}");
    Ok(())
}

/// A record without what changes between two looks: a 0 in place of each number.
fn still(line: &str) -> String {
    let mut still: Vec<char> = line.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    still.dedup_by(|one, other| one == other && *one == '0');
    still.into_iter().collect()
}

#[apply(needs_tracing)]
fn records_are_those_of_the_command_line(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    let listener = TcpListener::bind(port.v4()).unwrap();
    let _client = std::net::TcpStream::connect(port.v4()).unwrap();
    let _server = listener.accept().unwrap();
    let dport = format!("{}", port.v4().port());
    for (target, arguments, lines) in [
        (format!("/v1/list?dport={dport}"), vec!["list", "--dport", &dport, "-o", "json"], 2),
        (format!("/v1/list?listening&dport={dport}"), vec!["list", "-l", "--dport", &dport, "-o", "json"], 1),
        (
            format!("/v1/list?output=csv&filter=service+%3D+:{dport}"),
            vec!["list", "--dport", &dport, "-o", "csv"],
            3,
        ),
    ] {
        let body = daemon.get(&target).body;
        let local = Setup::new(&arguments).run().stdout;
        assert_eq!((body.lines().count(), local.len()), (lines, lines), "{body}{local:?}");
        for (line, local) in body.lines().zip(&local) {
            assert_eq!(still(line), still(local));
        }
    }
    let count = |target: &str| daemon.get(&format!("/v1/count?dport={dport}{target}")).body;
    assert_eq!(count(""), "{\"open\":2}\n");
    // The ledger and the sockets give the same answer.
    assert_eq!(count("&sport=1-65535"), count(""));
    assert_eq!(
        count("&direction=out&state=established"),
        count("&direction=out&state=established&sport=1-65535")
    );
    assert_eq!(count("&direction=in&state=established"), "{\"open\":1}\n");
    assert_eq!(count("&output="), "2\n");
    assert_eq!(count("&by=direction&output=csv"), "direction,open\nin,1\nout,1\n");
    Ok(())
}

#[apply(needs_tracing)]
fn events_stream_until_the_client_leaves(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    let dport = port.v4().port();
    let mut events = daemon.stream(&format!("/v1/events?dport={dport}&direction=out&event-mask=new,destroy"));
    assert_eq!((events.status, daemon.json("/v1/health")["commands"].as_u64()), (200, Some(1)));
    close::orderly(port.v4(), 3, First::Client);
    let lines = events.lines(6);
    let kinds: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect();
    assert_eq!(kinds.iter().filter(|kind| **kind == "new").count(), 3, "{lines:?}");
    assert_eq!(kinds.iter().filter(|kind| **kind == "destroy").count(), 3, "{lines:?}");
    drop(events);
    // The command ends with its client.
    while daemon.json("/v1/health")["commands"] != 0 {
        std::thread::yield_now();
    }
    let mut ends = daemon.stream(&format!("/v1/lifetimes?dport={dport}&direction=out&count=2"));
    close::orderly(port.v4(), 2, First::Client);
    assert_eq!(ends.rest().unwrap().lines().count(), 2);
    Ok(())
}

#[apply(needs_tracing)]
fn seventeen_streams_are_one_too_many(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let streams: Vec<_> =
        (1..=16).map(|port| daemon.stream(&format!("/v1/events?dport={port}&event-mask=new"))).collect();
    assert!(streams.iter().all(|stream| stream.status == 200));
    let refused = daemon.get("/v1/events?dport=17");
    assert!(refused.status == 503 && refused.body.contains("16 commands"), "{refused:?}");
    assert_eq!(daemon.get("/v1/stats").status, 200);
    Ok(())
}

/// Opened connections of a port.
fn opened(daemon: &Daemon, port: u16) -> u64 {
    daemon.json(&format!("/v1/stats?total&dport={port}"))["total"]["opened"].as_u64().unwrap()
}

#[apply(needs_tracing)]
fn metrics_are_those_of_the_ledger(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    close::orderly(port.v4(), 5, First::Client);
    let metrics = daemon.get(&format!("/v1/stats?output=prometheus&dport={port}"));
    for direction in ["in", "out"] {
        let sample = format!(
            "conntrace_tcp_connections_opened_total{{direction=\"{direction}\",port=\"{port}\"}} 5\n"
        );
        assert!(metrics.body.contains(&sample), "{metrics:?}");
    }
    for (query, parameter) in [
        ("protocol=udp", "protocol"),
        ("forwarded", "forwarded"),
        ("output=prometheus&textfile=/tmp/no", "textfile"),
    ] {
        let refused = daemon.get(&format!("/v1/stats?{query}"));
        let json: Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!((refused.status, &json["error"]["parameter"]), (400, &parameter.into()), "{refused:?}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn a_crash_of_the_front_loses_no_count(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    close::orderly(port.v4(), 5, First::Client);
    assert_eq!(opened(&daemon, port.v4().port()), 10);
    let front = daemon.front();
    let mut events = daemon.stream(&format!("/v1/events?dport={}", port.v4().port()));
    kill(Pid::from_raw(front.cast_signed()), Signal::SIGKILL).unwrap();
    daemon.tracer().await_stderr("the restart", |line| line.contains("is started again"));
    assert!(events.rest().is_err(), "the stream is cut, not ended");
    close::orderly(port.v4(), 5, First::Client);
    // Clients wait in the queue of the socket meanwhile.
    assert_eq!(opened(&daemon, port.v4().port()), 20);
    assert_ne!(daemon.front(), front);
    Ok(())
}

#[apply(needs_tracing)]
fn the_front_has_no_privileges(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.front())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap_or_else(|| panic!("no {name}: {status}")).trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(value(set), "0000000000000000", "{set}");
    }
    assert_eq!((value("NoNewPrivs").as_str(), value("Seccomp").as_str()), ("1", "2"));
    assert!(!value("Uid").split('\t').any(|uid| uid == "0"), "{status}");
    assert!(!value("Gid").split('\t').any(|gid| gid == "0"), "{status}");
    for descriptor in fs::read_dir(format!("/proc/{}/fd", daemon.front())).unwrap() {
        let target = fs::read_link(descriptor.unwrap().path()).unwrap_or_default();
        assert!(!target.to_string_lossy().contains("bpf"), "{}", target.display());
    }
    Ok(())
}

#[apply(needs_tracing)]
fn commands_ask_the_daemon_as_ordinary_users(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    let listener = TcpListener::bind(port.v4()).unwrap();
    let _client = std::net::TcpStream::connect(port.v4()).unwrap();
    let _server = listener.accept().unwrap();
    let (dport, option) = (port.v4().port().to_string(), daemon.option());
    let ask = |arguments: &[&str]| {
        let arguments = arguments.iter().copied().chain(["--dport", &dport, &option]);
        Setup::new(arguments).unprivileged().run()
    };
    let count = ask(&["count", "--state", "established"]);
    assert_eq!((count.code, count.stdout.as_slice()), (Some(0), &["2".to_owned()][..]), "{count:?}");
    let listed = ask(&["list", "-o", "table"]);
    assert_eq!(listed.stdout.len(), 3, "{listed:?}");
    assert!(listed.expect_code(0).contains("2 flow entries have been shown"), "{listed:?}");
    let stats = ask(&["stats", "-o", "csv"]);
    assert!(stats.code == Some(0) && stats.stdout.len() > 1, "{stats:?}");
    assert_eq!(ask(&["count", "--exit-code", "--state", "syn-sent"]).code, Some(1));
    assert_eq!(ask(&["count", "--by", "beauty"]).code, Some(2));
    assert!(
        ask(&["events", "--buffer-size", "1M"])
            .expect_code(2)
            .contains("clients of the daemon may not use it")
    );
    assert!(ask(&["-v", "count"]).stderr.contains("answers"));
    Ok(())
}

#[apply(needs_tracing)]
fn ctrl_c_prints_what_the_command_has(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let port = Port::claim();
    let (dport, option) = (port.v4().port().to_string(), daemon.option());
    let life =
        Setup::new(["life", "--top", "1", "-o", "csv", "--direction", "out", "--dport", &dport, &option]);
    let life = life.unprivileged().start();
    close::orderly(port.v4(), 3, First::Client);
    let ended = life.stop();
    assert_eq!((ended.code, ended.stdout.len()), (Some(0), 2), "{ended:?}");
    let events = Tracer::start(["events", "-o", "json", "--dport", &dport, "--direction", "out", &option]);
    let tuple = close::orderly(port.v4(), 1, First::Client).tuple();
    events
        .await_json("the end", |event| event["event"] == "destroy" && event["sport"] == tuple.client.port());
    assert!(events.stop().expect_balance().contains("flow events have been shown"));
    Ok(())
}

#[apply(needs_tracing)]
fn strangers_may_not_ask(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let error = as_user(1234, 1234, move || daemon::get(&socket, "/v1/count").unwrap_err());
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    Ok(())
}

#[apply(needs_tracing)]
fn garbage_and_halves_cost_a_descriptor(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", daemon.front())).unwrap().count();
    let before = descriptors();
    let garbage =
        [&b"\0\xff\x16\x03\x01garbage\r\n\r\n"[..], b"GET\r\n\r\n", b"BREW /coffee HTCPCP/1.0\r\n\r\n"];
    for bytes in garbage {
        let mut client = daemon.connect();
        client.write_all(bytes).unwrap();
        let answer = await_close(client, timeout::seconds(40)).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    let mut long = daemon.connect();
    let head = format!("GET /v1/count HTTP/1.1\r\nx: {}\r\n", "x".repeat(70_000));
    // The daemon may close before it has read all.
    let _ = long.write_all(head.as_bytes());
    let answer = await_close(long, timeout::seconds(40)).unwrap();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    // Half a request, and none at all, are closed after a while. Others are answered meanwhile.
    let halves: Vec<_> = [&b"GET /v1/cou"[..], b"GET /v1/count HTTP/1.1\r\nhost: x\r\n", b""]
        .into_iter()
        .map(|bytes| {
            let mut half = daemon.connect();
            half.write_all(bytes).unwrap();
            half
        })
        .collect();
    assert_eq!(daemon.get("/v1/health").status, 200);
    for half in halves {
        await_close(half, timeout::seconds(40)).unwrap();
    }
    while descriptors() > before {
        std::thread::yield_now();
    }
    Ok(())
}

#[apply(needs_tracing)]
fn no_user_has_more_than_its_share(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let answers = as_user(1234, NOBODY, move || {
        let held: Vec<_> =
            (0..16).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
        let refused = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        let refused = await_close(refused, timeout::seconds(40)).unwrap();
        drop(held);
        // The places of clients that have left are free again.
        loop {
            match daemon::get(&socket, "/v1/health") {
                Ok(answer) if answer.status == 200 => break,
                _ => std::thread::yield_now(),
            }
        }
        refused
    });
    assert!(answers.starts_with("HTTP/1.1 503 ") && answers.contains("16 clients"), "{answers}");
    Ok(())
}

#[apply(needs_tracing)]
fn the_service_manager_hears_of_both_halves(_: &Host) -> Outcome {
    let directory = std::env::temp_dir().join(format!("conn-notify-{}", std::process::id()));
    fs::create_dir(&directory).unwrap();
    let (manager, socket) = (directory.join("manager"), directory.join("s"));
    let received = std::os::unix::net::UnixDatagram::bind(&manager).unwrap();
    received.set_read_timeout(Some(timeout::seconds(40))).unwrap();
    let setup = Setup::new(["serve", "--transient", "--socket", socket.to_str().unwrap()]);
    let daemon = setup.variable("NOTIFY_SOCKET", manager.to_str().unwrap()).start();
    let next = || {
        let mut text = [0; 256];
        let length = received.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    assert_eq!(next(), "READY=1");
    assert_eq!([next(), next()], ["WATCHDOG=1", "WATCHDOG=1"]);
    daemon.signal(Signal::SIGTERM);
    while next() != "STOPPING=1" {}
    daemon.await_end().expect_code(0);
    fs::remove_dir_all(&directory).unwrap();
    Ok(())
}

#[apply(needs_tracing)]
fn sighup_reads_the_configuration_again(_: &Host) -> Outcome {
    let file = std::env::temp_dir().join(format!("conn-config-{}.toml", std::process::id()));
    fs::write(&file, "clients_per_user = 2\n").unwrap();
    let config = file.to_str().unwrap();
    let daemon = Daemon::with(&["--transient", "--config", config]);
    let socket = daemon.socket();
    let refused = move |held: usize| {
        let socket = socket.clone();
        as_user(1234, NOBODY, move || {
            let _held: Vec<_> =
                (0..held).map(|_| std::os::unix::net::UnixStream::connect(&socket).unwrap()).collect();
            daemon::get(&socket, "/v1/health").map_or(503, |answer| answer.status)
        })
    };
    assert_eq!(refused(2), 503);
    let read_again = |text: &str, word: &str| {
        fs::write(&file, text).unwrap();
        daemon.tracer().signal(Signal::SIGHUP);
        daemon.tracer().await_stderr(word, |line| line.contains(word));
    };
    read_again("clients_per_user = 3\nclient = 1\n", "line 2, column 1");
    let check = Setup::new(["serve", "--check", "--config", config]).run();
    assert!(check.expect_code(1).contains("unknown field `client`"), "{check:?}");
    read_again("clients_per_user = 9\n", "was read again");
    // The front has the new limit soon.
    while refused(2) != 200 {}
    let check = Setup::new(["serve", "--check", "--config", config]).run();
    assert!(check.code == Some(0) && check.stdout[0].ends_with("no mistakes"), "{check:?}");
    fs::remove_file(&file).unwrap();
    Ok(())
}

#[apply(needs_tracing)]
fn a_crowd_is_answered(_: &Host) -> Outcome {
    let daemon = Daemon::start();
    let socket = daemon.socket();
    let threads: Vec<_> = (0..300)
        .map(|_| {
            let socket = socket.clone();
            std::thread::spawn(move || daemon::get(&socket, "/v1/stats?total").unwrap().status)
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), 200);
    }
    Ok(())
}
