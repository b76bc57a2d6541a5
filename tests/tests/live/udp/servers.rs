//! Programs from Debian's packages, and the C library's resolver: flows, owners and bytes are theirs.

use super::{bind, watch};
use crate::live::dns::Files;
use conn_tests::{
    dns::{Zone, answer},
    harness::{Outcome, tool},
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    tracer::{Setup, Tracer},
    traffic::LIMIT,
};
use macro_rules_attribute::apply;
use std::{
    cell::Cell,
    fs,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The port of dnsmasq.
const PORT: u16 = 7_053;

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts dnsmasq, which knows one address, and waits until it has its socket.
fn dnsmasq(netns: &NetNs) -> Result<Killed, conn_tests::harness::Skip> {
    let program = tool("/usr/sbin/dnsmasq")?;
    let child = netns.run(|| {
        Command::new(program)
            .args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-resolv",
                "--no-hosts",
                "--pid-file=",
            ])
            .args([
                "--user=root",
                "--group=root",
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--log-facility=-",
            ])
            .args([format!("--port={PORT}"), "--address=/web.example/192.0.2.80".into()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    });
    let child = Killed(child);
    let sockets = format!("/proc/{}/net/udp", child.0.id());
    let end = format!(":{PORT:04X} 00000000:0000");
    let deadline = Instant::now() + *LIMIT;
    while !fs::read_to_string(&sockets).unwrap_or_default().contains(&end) {
        assert!(Instant::now() < deadline, "dnsmasq does not serve");
        thread::yield_now();
    }
    Ok(child)
}

/// Sizes that dig prints behind this.
fn sizes(text: &str, what: &str) -> Vec<u64> {
    text.lines().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).collect()
}

/// All ends of one direction.
fn ends(tracer: &Tracer, count: usize, direction: &str) -> Vec<Line> {
    let is_end = |line: &Line| line.kind == Kind::Destroy && line.key("dir") == Some(direction);
    let seen = Cell::new(0);
    tracer.await_event(&format!("{count} ends of {direction}"), |line| {
        seen.set(seen.get() + usize::from(is_end(line)));
        seen.get() == count
    });
    tracer.events().into_iter().filter(is_end).collect()
}

/// Packets and bytes, sorted by bytes.
fn sorted(ends: &[Line]) -> Vec<[u64; 4]> {
    let mut all: Vec<[u64; 4]> = ends.iter().map(super::numbers).collect();
    all.sort_unstable();
    all
}

#[apply(needs_tracing)]
fn dnsmasq_and_dig_have_their_flows(_: &Host) -> Outcome {
    let dig = tool("/usr/bin/dig")?;
    let netns = NetNs::new().unwrap();
    let tracer = watch(&netns, &[]);
    let server = dnsmasq(&netns)?;
    let server_pid = server.0.id().to_string();
    let names = ["web.example", "a.web.example", "bc.web.example", "def.web.example"];
    let child = netns.run(|| {
        let port = PORT.to_string();
        // A query of each size, and both sizes in words.
        Command::new(dig)
            .args(["-r", "@127.0.0.1", "-p", &port, "+qr", "+tries=1", "+time=10"])
            .args(names)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    });
    let dig_pid = child.id().to_string();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (queries, answers) = (sizes(&text, ";; QUERY SIZE:"), sizes(&text, ";; MSG SIZE  rcvd:"));
    assert!(queries.len() == names.len() && answers.len() == names.len(), "{text}");
    assert!(text.contains("192.0.2.80"), "{text}");
    drop(server);
    let sizes = queries.iter().zip(&answers);
    let mut sent: Vec<[u64; 4]> = sizes.clone().map(|(&query, &answer)| [1, query, 1, answer]).collect();
    let mut came: Vec<[u64; 4]> = sizes.map(|(&query, &answer)| [1, answer, 1, query]).collect();
    sent.sort_unstable();
    came.sort_unstable();
    let (out, inbound) = (ends(&tracer, names.len(), "out"), ends(&tracer, names.len(), "in"));
    assert_eq!((sorted(&out), sorted(&inbound)), (sent, came), "{text}");
    for (ends, owner) in [(out, ["send", &dig_pid, "dig"]), (inbound, ["send", &server_pid, "dnsmasq"])] {
        for end in ends {
            assert_eq!(["owner", "pid", "comm"].map(|key| end.key(key).unwrap()), owner, "{end:?}");
            assert_eq!(end.key("reason"), Some("closed"), "{end:?}");
        }
    }
    // Both before the first answer, too: the server has bound its socket.
    let events = tracer.stop().events();
    let new: Vec<&Line> = events.iter().filter(|line| line.kind == Kind::New).collect();
    assert_eq!(new.len(), 2 * names.len(), "{new:#?}");
    for line in new {
        let pid = if line.key("dir") == Some("out") { &dig_pid } else { &server_pid };
        assert_eq!(line.key("pid"), Some(pid.as_str()), "{line:?}");
    }
    Ok(())
}

/// The C library connects a socket to each address of the answer to learn its own. That sends nothing, and is no flow.
#[apply(needs_tracing)]
fn resolver_library_has_one_flow(_: &Host) -> Outcome {
    let getent = tool("/usr/bin/getent")?;
    let (files, netns) = (Files::new()?, NetNs::new().unwrap());
    let tracer = watch(&netns, &[]);
    let server = bind(&netns, (Ipv4Addr::LOCALHOST, 53));
    server.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let zone = Zone::named(&[b"web", b"example"]).at([127, 0, 0, 9]);
    let done = AtomicBool::new(false);
    let (pid, truth) = thread::scope(|scope| {
        let serving = scope.spawn(|| {
            let (mut room, mut truth) = ([0; 512], [0; 4]);
            while !done.load(Ordering::Relaxed) {
                let Ok((length, from)) = server.recv_from(&mut room) else { continue };
                let answer = answer(&room[..length], &zone);
                server.send_to(&answer, from).unwrap();
                for (at, more) in [1, length, 1, answer.len()].into_iter().enumerate() {
                    truth[at] += more as u64;
                }
            }
            truth
        });
        let asking = netns.run(|| files.program(getent, &["ahosts", "web.example"]).map(Setup::spawn));
        let ended = asking.map(|asking| {
            let pid = asking.pid().to_string();
            (pid, asking.await_end())
        });
        done.store(true, Ordering::Relaxed);
        let truth = serving.join().unwrap();
        ended.map(|(pid, ended)| {
            assert!(ended.stdout.iter().any(|line| line.starts_with("127.0.0.9 ")), "{ended:#?}");
            (pid, truth)
        })
    })?;
    drop(server);
    let [queries, asked, answers, answered] = truth;
    let (out, came) = (ends(&tracer, 1, "out"), ends(&tracer, 1, "in"));
    assert_eq!(sorted(&out), [[queries, asked, answers, answered]]);
    assert_eq!(sorted(&came), [[answers, answered, queries, asked]]);
    assert_eq!(["pid", "comm"].map(|key| out[0].key(key)), [Some(pid.as_str()), Some("getent")]);
    let begun = tracer.stop().events().iter().filter(|line| line.kind == Kind::New).count();
    assert_eq!(begun, 2, "connect() alone is no flow");
    Ok(())
}
