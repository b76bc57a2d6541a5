//! Parity with the real `conntrack -E`, and with an independent parser of its output.

use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        close::{self, First},
        fail, handshake,
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    cell::Cell,
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The release of jc that is asked for; 1.26.0 knows no conntrack.
const JC: &str = "jc==1.26.1";
const JC_SCRIPT: &str = "import json, sys\nfrom jc.parsers import conntrack\n\
     json.dump(conntrack.parse(sys.stdin.read(), quiet=True), sys.stdout)";

/// Where jc is, installed once beside the build.
fn jc() -> Result<PathBuf, Skip> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("jc");
    if target.join("jc/parsers/conntrack.py").exists() {
        return Ok(target);
    }
    let install = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"];
    let output = Command::new("python3").args(install).arg(&target).arg(JC).output();
    match output {
        Ok(output) if output.status.success() => Ok(target),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Skip(format!("pip cannot install {JC}: {}", said.lines().last().unwrap_or_default())))
        }
        Err(error) => Err(Skip(format!("no python3: {error}"))),
    }
}

/// What jc makes of these lines.
fn parsed(jc: &Path, lines: &[String]) -> Vec<Value> {
    let mut child = Command::new("python3")
        .args(["-c", JC_SCRIPT])
        .env("PYTHONPATH", jc)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.join("\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "jc fails");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[apply(needs_tracing)]
fn jc_reads_events_as_those_of_conntrack(_: &Host) -> Outcome {
    let jc = jc()?;
    let port = Port::claim();
    let option = port.to_string();
    let tracers: Vec<Tracer> = ["conntrack", "timestamp", "timestamp,extended,id"]
        .into_iter()
        .map(|format| Tracer::start(["-o", format, "--dport", &option]))
        .collect();
    // Three connections with two ends, and two with one.
    close::orderly(port.v4(), 2, First::Client);
    close::linger0(port.v6(), First::Server);
    fail::refused(port.v4(), 2);
    for tracer in tracers {
        let destroyed = Cell::new(0);
        tracer.await_event("all ends", |line| {
            destroyed.set(destroyed.get() + usize::from(line.kind == Kind::Destroy));
            destroyed.get() == 8
        });
        let lines = tracer.stop().stdout;
        let objects = parsed(&jc, &lines);
        assert_eq!(objects.len(), lines.len());
        for (text, object) in lines.iter().zip(&objects) {
            check(&text.parse().unwrap(), object);
        }
    }
    Ok(())
}

#[apply(needs_tracing)]
fn jc_reads_the_list(_: &Host) -> Outcome {
    let jc = jc()?;
    let port = Port::claim();
    let (_truth, _open) = handshake::held(port.v4(), 3);
    let ended = Setup::new(["list", "-p", "tcp", "--dport", &port.to_string()]).run();
    ended.expect_code(0);
    let objects = parsed(&jc, &ended.stdout);
    // Both ends of three connections.
    assert_eq!((ended.stdout.len(), objects.len()), (6, 6), "{ended:#?}");
    for (text, object) in ended.stdout.iter().zip(&objects) {
        let line: Line = text.parse().unwrap();
        assert_eq!(line.kind, Kind::Open);
        check(&line, object);
    }
    Ok(())
}

/// Our reader and jc read the same.
fn check(line: &Line, object: &Value) {
    let event = Some(format!("{:?}", line.kind).to_uppercase()).filter(|_| line.kind != Kind::Open);
    assert_eq!(object["event"].as_str(), event.as_deref(), "{object}");
    assert_eq!(object["state"].as_str(), line.state.as_deref(), "{object}");
    assert_eq!(object["event_timestamp"].is_number(), line.stamp.is_some(), "{object}");
    for (side, prefix) in [(&line.original, "orig"), (&line.reply, "reply")] {
        let field = |name: &str| &object[format!("{prefix}_{name}")];
        assert_eq!(field("src"), &side.source.ip().to_string(), "{object}");
        assert_eq!(field("dst"), &side.destination.ip().to_string(), "{object}");
        assert_eq!(field("sport"), side.source.port(), "{object}");
        assert_eq!(field("dport"), side.destination.port(), "{object}");
    }
    let status = object["status"].as_array().unwrap();
    assert_eq!(status.contains(&"ASSURED".into()), line.assured, "{object}");
    assert_eq!(status.contains(&"UNREPLIED".into()), line.unreplied, "{object}");
    for key in ["dir", "comm", "owner", "lifetime", "reason", "failed"] {
        assert_eq!(object.get(key).and_then(Value::as_str), line.key(key), "{key}: {object}");
    }
}

/// Runs a program in the namespace of the calling thread.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<(), Skip> {
    match Command::new(program).args(arguments).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Skip(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
        Err(error) => Err(Skip(format!("no {program}: {error}"))),
    }
}

/// Makes the kernel track connections in the namespace of the calling thread, and no late packet an entry.
pub(crate) fn track(ns: &NetNs) -> Result<(), Skip> {
    let rules = "add table inet t; add chain inet t c { type filter hook input priority 0; }; \
                 add rule inet t c ct state new counter";
    run("conntrack", &["--version"])?;
    run("nft", &[rules])?;
    ns.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0").unwrap();
    Ok(())
}

/// Starts `conntrack -E` for connections to a port.
fn conntrack(arguments: &[&str], port: &str) -> Tracer {
    listen(&[&["-p", "tcp", "--dport", port], arguments].concat())
}

/// Starts `conntrack -E` and waits until it listens.
pub(crate) fn listen(arguments: &[&str]) -> Tracer {
    let tracer = Setup::new([&["-E"], arguments].concat()).program("conntrack").spawn();
    let sockets = format!("/proc/{}/net/netlink", tracer.pid());
    let deadline = Instant::now() + Duration::from_secs(20);
    let subscribed = || {
        let text = fs::read_to_string(&sockets).unwrap_or_default();
        // The columns: address, protocol (12: netfilter), port, groups.
        text.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>()).any(|words| {
            words.get(1) == Some(&"12")
                && words.get(3).is_some_and(|groups| groups.bytes().any(|digit| digit != b'0'))
        })
    };
    while !subscribed() {
        assert!(Instant::now() < deadline, "conntrack does not listen");
        thread::yield_now();
    }
    tracer
}

/// Which lines are meant.
type Accept = fn(&Line) -> bool;

/// What both must agree on, of the lines of one kind: the tuples.
fn tuples(lines: &[Line], accept: impl Fn(&Line) -> bool) -> BTreeSet<String> {
    lines.iter().filter(|line| accept(line)).map(|line| line.tuple().to_string()).collect()
}

#[apply(needs_tracing)]
fn conntrack_shows_the_same_connections(_: &Host) -> Outcome {
    const BATCHES: u64 = 100;
    const BATCH: u64 = 10;
    let ns = NetNs::new().unwrap();
    let port = Port::claim();
    let number = port.to_string();
    ns.run(|| {
        track(&ns)?;
        let theirs = conntrack(&[], &number);
        let ours = Tracer::start(["-b", "16M", "--dport", &number, "--direction", "out"]);
        for batch in 1..=BATCHES {
            Flood::new(port.number(), BATCH - 3, Ending::Mixed).run();
            fail::refused(port.v4(), 1);
            close::half_close(port.v4());
            close::linger0(port.v6(), First::Client);
            // Entries would live on for minutes; what is flushed is destroyed.
            run("conntrack", &["-F"])?;
            // More at a time, and conntrack loses some; with a larger buffer it loses more, not less.
            // Lines, not tuples: a port that was refused, or reset, may be taken again.
            let ended = Cell::new(0);
            let all = theirs.find_stdout(|text| {
                let line: Line = text.parse().unwrap();
                ended.set(ended.get() + u64::from(line.kind == Kind::Destroy));
                ended.get() == batch * BATCH
            });
            if let Err(missing) = all {
                let seen = ended.get();
                let lost = theirs.has_stderr(|line| line.contains("ENOBUFS"));
                assert!(lost, "{missing}: conntrack showed {seen} ends of {}", batch * BATCH);
                return Err(Skip(format!(
                    "conntrack loses events here (ENOBUFS): {seen} ends of {}",
                    batch * BATCH
                )));
            }
        }
        let last = Cell::new(0);
        ours.await_event("all ends", |line| {
            last.set(last.get() + u64::from(line.kind == Kind::Destroy));
            last.get() == BATCHES * BATCH
        });
        let (theirs, ours) = (theirs.events(), ours.events());
        let kinds: [(&str, Accept); 4] = [
            ("NEW", |line| line.kind == Kind::New),
            ("ESTABLISHED", |line| line.kind == Kind::Update && line.state.as_deref() == Some("ESTABLISHED")),
            ("DESTROY", |line| line.kind == Kind::Destroy),
            ("assured at the end", |line| line.kind == Kind::Destroy && line.assured),
        ];
        for (what, accept) in kinds {
            let (theirs, ours) = (tuples(&theirs, accept), tuples(&ours, accept));
            let only = |one: &BTreeSet<String>, other: &BTreeSet<String>| {
                one.difference(other).take(5).cloned().collect::<Vec<_>>()
            };
            assert!(
                theirs == ours,
                "{what}: conntrack {}, we {}; only there {:?}, only here {:?}",
                theirs.len(),
                ours.len(),
                only(&theirs, &ours),
                only(&ours, &theirs)
            );
            eprintln!("{what}: {} connections, the same in both", ours.len());
        }
        let unreplied = |line: &Line| line.kind == Kind::New && !line.unreplied;
        assert_eq!((tuples(&theirs, unreplied).len(), tuples(&ours, unreplied).len()), (0, 0));
        Ok(())
    })
}

/// The first line of a refused connection in a format, from conntrack and from conntrace.
fn refused_in(format: &str, ns: &NetNs, sign: &str) -> Result<[String; 2], Skip> {
    let port = Port::claim();
    let number = port.to_string();
    ns.run(|| {
        let theirs = conntrack(&["-o", format], &number);
        let ours = Tracer::start(["-o", format, "--dport", &number, "--direction", "out"]);
        fail::refused(port.v4(), 1);
        Ok([&theirs, &ours].map(|tracer| tracer.await_stdout("a new flow", |line| line.starts_with(sign))))
    })
}

/// Every element by its path, with its text, in the order in which they end.
fn elements(xml: &str) -> Vec<String> {
    let (mut path, mut all): (Vec<&str>, Vec<String>) = (Vec::new(), Vec::new());
    for part in xml.split('<').skip(1) {
        let (tag, text) = part.split_once('>').unwrap();
        if tag.starts_with('/') {
            path.pop();
        } else {
            // Each has ids of its own.
            let text = if tag == "id" { "N" } else { text };
            all.push(format!("{}/{tag}={text}", path.join("/")));
            if !tag.ends_with('/') {
                path.push(tag);
            }
        }
    }
    assert!(path.is_empty(), "{xml}");
    all
}

#[apply(needs_tracing)]
fn other_formats_equal_those_of_conntrack(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.run(|| track(&ns))?;
    let [theirs, ours] = refused_in("save", &ns, "-A")?;
    // A socket has no timeout.
    let words: Vec<&str> = theirs.split(' ').collect();
    assert_eq!(words[1], "-t", "{theirs}");
    assert_eq!([&words[..1], &words[3..]].concat().join(" "), ours);

    let [theirs, ours] = refused_in("xml", &ns, "<flow type=\"new\">")?;
    let known = elements(&theirs);
    let mut expected = known.iter().filter(|element| !element.contains("/timeout=")).peekable();
    let ours_all = elements(&ours);
    let mut added = Vec::new();
    for element in &ours_all {
        if expected.next_if(|next| *next == element).is_none() {
            added.push(element.rsplit_once('/').unwrap().1.split('=').next().unwrap());
        }
    }
    assert_eq!(expected.next(), None, "{theirs}\n{ours}");
    assert_eq!(added, ["direction", "pid", "comm", "owner"], "{ours}");
    Ok(())
}
