//! Rules of alarms, with real traffic and real actions.

use conn_tests::{
    daemon::Daemon,
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    timeout,
    tracer::Setup,
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::{
    sys::{
        signal::{Signal, kill},
        stat::Mode,
    },
    unistd::{Pid, mkfifo},
};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::PathBuf,
    process,
    sync::mpsc,
    time::{Duration, Instant},
};

/// A directory with a configuration, a state, and a pipe into which actions write.
struct Place {
    directory: PathBuf,
    lines: mpsc::Receiver<String>,
}

impl Place {
    fn new(name: &str) -> Self {
        let directory = env::temp_dir().join(format!("conn-alarms-{name}-{}", process::id()));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let pipe = directory.join("pipe");
        mkfifo(&pipe, Mode::empty()).unwrap();
        fs::set_permissions(&pipe, fs::Permissions::from_mode(0o666)).unwrap();
        // With a writer of its own, the pipe has no end.
        let pipe = fs::OpenOptions::new().read(true).write(true).custom_flags(libc::O_CLOEXEC).open(pipe);
        let (sender, lines) = mpsc::channel();
        let reader = BufReader::new(pipe.unwrap());
        std::thread::spawn(move || {
            for line in reader.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { directory, lines }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// A command that writes what it gets into the pipe.
    fn report(&self) -> String {
        format!(
            "command = [\"/bin/sh\", \"-c\", \"printf '%s\\\\n' \\\"$CONNTRACE_JSON\\\" > {}\"]\nrecovery = true\npause = \"0s\"",
            self.path("pipe")
        )
    }

    /// Writes the configuration.
    fn configure(&self, rules: &str) {
        let text =
            format!("state = \"{}\"\nsendmail = \"{}\"\n{rules}", self.path("state"), self.path("sendmail"));
        fs::write(self.directory.join("c.toml"), text).unwrap();
    }

    fn daemon(&self) -> Daemon {
        Daemon::with(&["--transient", "--config", &self.path("c.toml")])
    }

    /// True if a message with these words comes soon.
    fn hears(&self, words: &str) -> bool {
        let soon = timeout::seconds(3);
        std::iter::from_fn(|| self.lines.recv_timeout(soon).ok()).any(|line| line.contains(words))
    }

    /// Waits for the next message, and adds what began and ended.
    fn next(&self, seen: &mut BTreeSet<(String, bool)>) -> Value {
        let line = self.lines.recv_timeout(timeout::seconds(60)).expect("a message");
        let message: Value = serde_json::from_str(&line).unwrap();
        let rule = message["rule"].as_str().unwrap();
        for alarm in message["alarms"].as_array().unwrap() {
            seen.insert((rule.to_owned(), alarm["fires"].as_bool().unwrap()));
        }
        message
    }

    /// Waits until each of these has begun or ended.
    fn await_all(&self, seen: &mut BTreeSet<(String, bool)>, wanted: &[(&str, bool)]) {
        while !wanted.iter().all(|&(rule, fires)| seen.contains(&(rule.to_owned(), fires))) {
            self.next(seen);
        }
    }

    /// Waits until no message of these rules waits for its action.
    fn await_done(&self, rules: &[&str]) {
        let file = self.directory.join("state/alarms.json");
        let begun = Instant::now();
        let is_done = || {
            let state: Value = serde_json::from_str(&fs::read_to_string(&file).ok()?).ok()?;
            Some(rules.iter().all(|rule| state["rules"][rule]["pending"] == Value::Array(vec![])))
        };
        while is_done() != Some(true) {
            assert!(begun.elapsed() < timeout::seconds(60), "a message still waits");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The process of the daemon that watches the rules.
fn watcher(daemon: &Daemon) -> i32 {
    let pid = daemon.tracer().pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let is_watcher = |child: &&str| {
        let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0).nth(1) == Some(b"watch-rules")
    };
    children.split_ascii_whitespace().find(is_watcher).expect("a process").parse().unwrap()
}

#[apply(needs_tracing)]
fn each_kind_of_rule_begins_and_ends(_: &Host) -> Outcome {
    let place = Place::new("kinds");
    let (port, closed) = (Port::claim(), Port::claim());
    let report = place.report();
    let rule = |name: &str, condition: &str, port: u16| {
        format!("[[rule]]\nname = \"{name}\"\n{condition}\ndport = {port}\n{report}\n")
    };
    let number = port.number();
    place.configure(
        &[
            rule("listens", "listening = \"changes\"", number),
            rule("open", "open_above = 2\nclear_below = 2\ndirection = \"in\"", number),
            rule("new", "new_above = 4\ndirection = \"in\"", number),
            rule("old", "older_than = \"2s\"\ndirection = \"in\"", number),
            rule("process", "new_process = true\nlearn = \"0s\"", number),
            rule("fails", "failed_above = 0.5\nover = \"1h\"\nat_least = 4", closed.number()),
        ]
        .concat(),
    );
    let daemon = place.daemon();
    // The first reading has no earlier one to differ from.
    let listener = loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
        if place.hears("starts to listen") {
            break listener;
        }
        drop(listener);
        place.hears("stops listening");
    };
    let open: Vec<_> = (0..3)
        .map(|_| (TcpStream::connect((Ipv4Addr::LOCALHOST, number)).unwrap(), listener.accept().unwrap()))
        .collect();
    let mut seen = BTreeSet::new();
    place.await_all(&mut seen, &[("open", true), ("old", true)]);
    drop(open);
    place.await_all(&mut seen, &[("open", false), ("old", false)]);
    // A rule of new processes sees what begins after its stream: one of many.
    while !["new", "process"].iter().all(|&rule| seen.contains(&(rule.to_owned(), true))) {
        for _ in 0..500 {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, number)).unwrap();
            drop((client, listener.accept().unwrap()));
        }
        place.next(&mut seen);
    }
    for _ in 0..8 {
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, closed.number())).is_err());
    }
    place.await_all(&mut seen, &[("fails", true)]);
    let text = daemon.end(Signal::SIGTERM).stderr;
    for part in [
        format!("alarm listens: firing: port {number} starts to listen"),
        format!("alarm open: firing: port {number} (in) has 3 open connections"),
        "alarm open: resolved:".into(),
        " is older than 2s (rule=old state=firing".into(),
        format!("opens its first connection to port {number}"),
        format!("of port {} (out) have failed", closed.number()),
    ] {
        assert!(text.contains(&part), "{part}: {text}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn a_failing_action_delays_no_other_one_and_an_alarm_is_one_message(_: &Host) -> Outcome {
    let place = Place::new("actions");
    let (port, hook) = (Port::claim(), Port::claim());
    let report = place.report();
    let mailer = place.path("sendmail");
    // The first mail fails.
    fs::write(
        &mailer,
        format!(
            "#!/bin/sh\n[ -e {0}/tried/x ] || {{ touch {0}/tried/x; echo no room >&2; exit 75; }}\n\
             sed -n 's/^Subject: \\(.*\\)/{{\"rule\":\"\\1\",\"alarms\":[]}}/p' > {0}/pipe\n",
            place.directory.display()
        ),
    )
    .unwrap();
    fs::set_permissions(&mailer, fs::Permissions::from_mode(0o755)).unwrap();
    let tried = place.directory.join("tried");
    fs::create_dir(&tried).unwrap();
    fs::set_permissions(&tried, fs::Permissions::from_mode(0o777)).unwrap();
    let number = port.number();
    let condition = format!("open_above = 0\ndport = {number}\ndirection = \"in\"");
    let rule = |name: &str, action: &str| format!("[[rule]]\nname = \"{name}\"\n{condition}\n{action}\n");
    place.configure(
        &[
            rule("hangs", "command = [\"/bin/sleep\", \"1000\"]"),
            rule("posts", &format!("webhook = \"http://127.0.0.1:{}/x\"", hook.number())),
            rule("mails", "mail = \"root\""),
            rule("reports", &report),
        ]
        .concat(),
    );
    let daemon = place.daemon();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, number)).unwrap();
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, number)).unwrap();
    let server = listener.accept().unwrap();
    // The program of another rule hangs, the webhook is down, and the mailer has failed once.
    let mut seen = BTreeSet::new();
    let mut subjects = BTreeSet::new();
    while !(seen.contains(&("reports".to_owned(), true))
        && subjects.iter().any(|rule: &String| rule.starts_with("conntrace: mails: port")))
    {
        subjects.insert(place.next(&mut seen)["rule"].as_str().unwrap().to_owned());
    }
    // The webhook comes up.
    let web = TcpListener::bind((Ipv4Addr::LOCALHOST, hook.number())).unwrap();
    let (mut stream, _) = web.accept().unwrap();
    let request = read_request(&mut stream);
    stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").unwrap();
    for part in
        ["ce-type: conntrace.alarm.firing", "ce-specversion: 1.0", "ce-subject: posts", "\"fires\":true"]
    {
        assert!(request.contains(part), "{part}: {request}");
    }
    // The process is killed while a program hangs, and is started again: no alarm comes twice, and the end comes.
    place.await_done(&["reports", "mails", "posts"]);
    let first = watcher(&daemon);
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    drop((client, server));
    let again = place.next(&mut seen);
    assert_eq!((&again["rule"], &again["alarms"][0]["fires"]), (&"reports".into(), &false.into()), "{again}");
    let state = fs::read_to_string(place.directory.join("state/alarms.json")).unwrap();
    assert!(state.contains("\"hangs\""), "{state}");
    let text = daemon.end(Signal::SIGTERM).stderr;
    for part in ["mail to root failed (exit status: 75: no room); it is tried again", "is started again"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(text.matches("alarm reports: firing").count(), 1, "{text}");
    Ok(())
}

/// Reads a request with its body.
fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    loop {
        let body = text.split_once("\r\n\r\n").map(|(head, body)| {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            body.len() >= length.unwrap_or(0)
        });
        if body == Some(true) {
            return text;
        }
        let read = stream.read(&mut bytes).unwrap();
        assert!(read > 0, "the request ended early: {text}");
        text += &String::from_utf8_lossy(&bytes[..read]);
    }
}

#[apply(needs_tracing)]
fn rules_are_explained_tested_and_refused(_: &Host) -> Outcome {
    let place = Place::new("words");
    let port = Port::claim();
    place.configure(&format!("[[rule]]\nname = \"many\"\nopen_above = 1\ndport = {}\n", port.number()));
    let daemon = place.daemon();
    let config = place.path("c.toml");
    let option = daemon.option();
    let rules = |arguments: &[&str]| {
        let words = [&["rules"], arguments, &["--config", &config, &option]].concat();
        Setup::new(words).run()
    };
    let sentence = format!(
        "rule \"many\": an alarm begins when port {} has more than 1 open connections; it ends below 1. A log line is \
         written, at most once in 1m.",
        port.number()
    );
    let list = rules(&[]);
    list.expect_code(0);
    assert_eq!(list.stdout, [sentence]);
    close::orderly(port.v4(), 1, First::Client);
    let test = rules(&["test", "many"]);
    test.expect_code(0);
    let line = format!("no alarm: port {} (out) has 0 open connections, the limit is 1", port.number());
    assert!(test.stdout.contains(&line), "{test:?}");
    assert!(rules(&["test", "none"]).expect_code(2).contains("it has many"));
    place.configure("[[rule]]\nname = \"x\"\nopen_above = 1\nport = 22\n");
    let wrong = Setup::new(["serve", "--check", "--config", &config]).run();
    assert!(wrong.expect_code(1).contains("line 6, column 1"), "{wrong:?}");
    Ok(())
}

/// A connection from an address of this host, which the server closes.
fn from_address(listener: &TcpListener, client: Ipv4Addr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((client, 0)).into()).unwrap();
    socket.connect(&listener.local_addr().unwrap().into()).unwrap();
    drop(listener.accept().unwrap());
}

#[apply(needs_tracing)]
fn one_of_many_addresses_is_over_the_limit(_: &Host) -> Outcome {
    const MANY: u16 = 10_000;
    let place = Place::new("remotes");
    let report = place.report();
    let condition = "new_above = 100\nby = \"remote\"\ndirection = \"in\"";
    place.configure(&format!("sources = \"address\"\n[[rule]]\nname = \"client\"\n{condition}\n{report}\n"));
    let daemon = place.daemon();
    let port = Port::claim();
    let listener = TcpListener::bind(port.v4()).unwrap();
    let (begun, busy) = (Instant::now(), Ipv4Addr::new(127, 63, 0, 1));
    let mut edges: Vec<(String, bool)> = Vec::new();
    let mut hear = |wait: Duration| {
        while let Ok(line) = place.lines.recv_timeout(wait) {
            let message: Value = serde_json::from_str(&line).unwrap();
            for alarm in message["alarms"].as_array().unwrap() {
                let remote = alarm["subject"]["remote"].as_str().unwrap().to_owned();
                edges.push((remote, alarm["fires"].as_bool().unwrap()));
            }
        }
        let of_busy = |fires| edges.contains(&(busy.to_string(), fires));
        (of_busy(true), of_busy(false))
    };
    for number in 0..MANY {
        let [high, low] = number.to_be_bytes();
        from_address(&listener, Ipv4Addr::new(127, 64, high, low));
    }
    while !hear(Duration::ZERO).0 {
        assert!(begun.elapsed() < timeout::seconds(120), "no alarm");
        (0..50).for_each(|_| from_address(&listener, busy));
    }
    while !hear(Duration::from_millis(100)).1 {
        assert!(begun.elapsed() < timeout::seconds(120), "the alarm does not end");
    }
    // Other tests connect from other addresses.
    assert!(edges.iter().all(|(remote, _)| !remote.starts_with("127.64.")), "{edges:?}");
    let stats = daemon.json("/v1/stats?total&sources=65536");
    let rows = stats["sources"]["rows"].as_array().unwrap();
    let many = rows.iter().filter(|row| row["address"].as_str().unwrap().starts_with("127.64."));
    let inward: Vec<_> =
        many.filter(|row| row["direction"] == "in").map(|row| row["opened"].as_u64().unwrap()).collect();
    assert_eq!(inward, vec![1; usize::from(MANY)]);
    let text = daemon.end(Signal::SIGTERM).stderr;
    assert!(text.contains(&format!("remote={busy}")), "{text}");
    Ok(())
}
