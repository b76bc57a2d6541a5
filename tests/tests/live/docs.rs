//! Commands and samples of the documents, run as they stand there.

use super::conntrack_parity::run;
use conn_tests::{
    harness::{Outcome, Skip, tool},
    host::Host,
    needs_nothing, needs_tracing, needs_whole_machine,
    routed::Routed,
    sample::{self, ATTACKED, Page, Sample, ask, await_lines, watch},
    siege::Siege,
    stage::Stage,
    tracer::{Setup, Tracer},
    traffic::process::Process,
};
use macro_rules_attribute::apply;
use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    thread,
    time::Duration,
};

macro_rules! page {
    ($path:literal) => {
        Page { path: $path, text: include_str!(concat!("../../../", $path)) }
    };
}

/// Commands that give one answer and end by themselves.
const SNAPSHOTS: [&str; 4] = ["list", "-L", "count", "-C"];

/// The page with the replacement of each familiar command.
const PAGE: &str = include_str!("../../../docs/from.md");

/// Every document with samples.
const PAGES: &[Page] = &[
    page!("README.md"),
    page!("docs/attacks.md"),
    page!("docs/commands.md"),
    page!("docs/conntrack.md"),
    page!("docs/filters.md"),
    page!("docs/json.md"),
    page!("docs/router.md"),
    page!("docs/stats.md"),
    page!("docs/udp.md"),
];

/// Samples of connections, which concern the stage alone.
const SAMPLES: &[Sample] = &[
    Sample { name: "picture", make: picture },
    Sample { name: "new", make: new },
    Sample { name: "destroy", make: destroy },
    Sample { name: "one connection", make: one_connection },
    Sample { name: "json", make: json },
    Sample { name: "life", make: life },
    Sample { name: "count", make: count },
    Sample { name: "count json", make: count_json },
    Sample { name: "list", make: list },
    Sample { name: "listening", make: listening },
    Sample { name: "listen", make: listen },
    Sample { name: "filter", make: filter },
    Sample { name: "udp", make: udp },
];

/// Samples whose last lines compare all sockets of the host, which must hold still meanwhile.
const PROVEN_SAMPLES: &[Sample] = &[
    Sample { name: "stats", make: stats },
    Sample { name: "stats-udp", make: stats_udp },
    Sample { name: "lifetimes", make: lifetimes },
    Sample { name: "attacks", make: attacks },
    Sample { name: "full queues", make: full_queues },
    Sample { name: "attempts", make: attempts },
];

/// The second cells of its table.
fn lines() -> Vec<String> {
    let cells = PAGE.lines().filter_map(|line| line.strip_suffix("` |")?.rsplit_once("| `"));
    cells.map(|(_, now)| now.to_owned()).collect()
}

fn has_help(command: &str) -> bool {
    Setup::new(["help", command]).run().code == Some(0)
}

/// The sample of a router, which needs nft and conntrack.
const ROUTER: &[Sample] = &[Sample { name: "router", make: router }];

#[apply(needs_tracing)]
fn the_sample_of_a_router_is_as_shown(_: &Host) -> Outcome {
    run("nft", &["--version"])?;
    run("conntrack", &["--version"])?;
    sample::check(PAGES, ROUTER)
}

#[apply(needs_tracing)]
fn every_documented_replacement_runs(_: &Host) -> Outcome {
    let lines = lines();
    assert!(lines.len() > 20, "{lines:#?}");
    let mut missing = BTreeSet::new();
    for line in &lines {
        let mut words: Vec<&str> = line.split(' ').skip(1).collect();
        let command = words.first().copied().filter(|word| !word.starts_with('-'));
        if let Some(command) = command.filter(|command| !has_help(command)) {
            missing.insert(command.to_owned());
            continue;
        }
        if !words.first().is_some_and(|word| SNAPSHOTS.contains(word)) {
            words.extend(["--timeout", "100ms"]);
        }
        let ended = Setup::new(words).run();
        assert_eq!(ended.code, Some(0), "{line}: {ended:#?}");
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Skip(format!("there is no command {missing:?} yet; the others run")))
    }
}

#[apply(needs_tracing)]
fn every_topic_and_command_has_help(_: &Host) -> Outcome {
    for topic in ["filters", "formats", "states", "exactness", "from", "events", "count", "stats"] {
        assert!(has_help(topic), "{topic}");
    }
    let short = Setup::new(["-h"]).run();
    assert!(short.stdout.len() <= 45, "{short:#?}");
    assert_eq!(short.expect_code(0), "");
    assert_eq!(Setup::new(["help", "nothing"]).run().code, Some(2));
    Ok(())
}

/// A session of ssh and an attempt of telnet; returns after so many lines with this word.
fn play(tracer: &Tracer, stage: &Stage, lines: usize, word: &str) {
    session(stage);
    stage.refused();
    await_lines(tracer, lines, word);
}

/// A session of some length, which its lifetime shows.
fn session(stage: &Stage) {
    let session = stage.open();
    thread::sleep(Duration::from_millis(300));
    session.close();
}

fn picture(stage: &Stage) -> Vec<String> {
    watch(80, &["-e", "NEW,DESTROY", "-o", "table"], |tracer| play(tracer, stage, 3, "destroy "))
}

/// A query of UDP and a connection of TCP through a router that masquerades.
fn router(_: &Stage) -> Vec<String> {
    let routed = Routed::new().unwrap();
    let rules = "add table inet t; add chain inet t p { type nat hook postrouting priority srcnat; }; \
                 add rule inet t p oifname != \"lo\" masquerade";
    routed.router.run(|| run("nft", &[rules])).unwrap();
    let only = format!("--netns {}", routed.router.inum());
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    let sink = routed.server_socket(routed.server_end().v4.into()).unwrap();
    let (ip, asked) = (routed.client_end().v4, sink.local_addr().unwrap());
    // So that the namespace has an entry, and conntrace does not say that nothing is tracked.
    routed.ping(routed.server_end().v4.into()).unwrap();
    sample::watch_with(&only, &["--forwarded", "-p", "tcp,udp"], |tracer| {
        let query = || {
            let client = UdpSocket::bind((ip, 0)).unwrap();
            client.send_to(b"query", asked).unwrap();
            client.recv(&mut [0; 8]).unwrap();
        };
        let client = routed.client.run(|| Process::run("dig", &[], query));
        let (_, from) = sink.recv_from(&mut [0; 8]).unwrap();
        sink.send_to(b"answer", from).unwrap();
        client.join();
        await_lines(tracer, 1, "[UPDATE]");
        let exchange = || {
            let mut stream = TcpStream::connect(server.address).unwrap();
            stream.write_all(b"x").unwrap();
            stream.read_exact(&mut [0]).unwrap();
        };
        routed.client.run(|| Process::run("curl", &[], exchange)).join();
        await_lines(tracer, 1, "TIME_WAIT");
        routed.router.run(|| run("conntrack", &["-F"])).unwrap();
        await_lines(tracer, 2, "[DESTROY]");
    })
}

fn new(stage: &Stage) -> Vec<String> {
    watch(80, &["-e", "NEW", "--dport", "22"], |tracer| {
        session(stage);
        await_lines(tracer, 2, "[NEW]");
    })
}

fn destroy(stage: &Stage) -> Vec<String> {
    watch(80, &["-e", "DESTROY", "--dport", "22,23"], |tracer| play(tracer, stage, 3, "[DESTROY]"))
}

fn one_connection(stage: &Stage) -> Vec<String> {
    watch(80, &["-E", "-p", "tcp", "--dport", "22"], |tracer| {
        session(stage);
        await_lines(tracer, 2, "[DESTROY]");
    })
}

fn json(stage: &Stage) -> Vec<String> {
    watch(80, &["-e", "DESTROY", "-o", "json", "--dport", "23"], |tracer| play(tracer, stage, 1, "destroy"))
}

fn life(stage: &Stage) -> Vec<String> {
    watch(140, &["life", "--dport", "22,23"], |tracer| play(tracer, stage, 3, "192.0.2.7"))
}

fn count(stage: &Stage) -> Vec<String> {
    let _open = [stage.open(), stage.open()];
    let commands: [&[&str]; 3] =
        [&["count"], &["count", "--by", "port,direction"], &["count", "--by", "netns,comm"]];
    commands.into_iter().flat_map(|words| ask(80, words)).collect()
}

fn count_json(stage: &Stage) -> Vec<String> {
    let _open = [stage.open(), stage.open()];
    ask(80, &["count", "--by", "port,direction", "-o", "json"])
}

fn list(stage: &Stage) -> Vec<String> {
    let _open = [stage.open(), stage.open()];
    ask(120, &["list", "--dport", "22"])
}

fn listening(_: &Stage) -> Vec<String> {
    ask(120, &["list", "--listening", "--dport", "22"])
}

fn listen(stage: &Stage) -> Vec<String> {
    watch(80, &["-e", "LISTEN", "--dport", "23"], |tracer| {
        stage.listens();
        await_lines(tracer, 1, "[CLOSED]");
    })
}

fn filter(_: &Stage) -> Vec<String> {
    let words = ["-v", "service = :22 or ( service >= :8000 and comm != curl )", "--timeout", "1s"];
    let (command, other): (Vec<_>, Vec<_>) =
        ask(80, &words).into_iter().partition(|line| line.starts_with('$'));
    let other = other.into_iter().filter(|line| line.contains(" filter "));
    command.into_iter().chain(other).collect()
}

/// Two sessions, an attempt and an open connection, meanwhile.
fn stats(stage: &Stage) -> Vec<String> {
    sample::count(160, &["stats", "--timeout", "2s"], || {
        session(stage);
        session(stage);
        stage.refused();
        let open = stage.open();
        thread::sleep(Duration::from_millis(1200));
        open.close();
    })
}

fn udp(stage: &Stage) -> Vec<String> {
    watch(80, &["-p", "udp", "--dport", "domain", "--direction", "out"], |tracer| {
        stage.queries(53, 1);
        await_lines(tracer, 1, "[DESTROY]");
    })
}

/// Queries to a server, and one to a port without a socket.
fn stats_udp(stage: &Stage) -> Vec<String> {
    sample::count(160, &["stats", "-p", "udp", "--dport", "domain,tftp", "--timeout", "2s"], || {
        stage.queries(53, 3);
        stage.query_refused(69);
    })
}

fn lifetimes(stage: &Stage) -> Vec<String> {
    let lines = sample::count(160, &["stats", "--timeout", "2s", "--lifetimes"], || {
        for _ in 0..3 {
            session(stage);
        }
    });
    let (command, table) = lines.split_at(1);
    let table =
        table.iter().skip_while(|line| !line.contains("SPAN")).take_while(|line| !line.contains(" opened"));
    command.iter().chain(table).cloned().collect()
}

/// A flood, a scan and a full queue; and another flood when the requests of the first one have been given up.
fn attacks(_: &Stage) -> Vec<String> {
    let siege = Siege::begin();
    sample::count(160, &["stats", "--dport", ATTACKED, "--sources", "2", "--timeout", "2s"], || {
        siege.flood(0, 1_000);
        siege.scan(5_001..=6_000);
        let client = siege.fill(3);
        thread::sleep(Duration::from_millis(1_300));
        siege.flood(1_000, 32);
        thread::sleep(Duration::from_millis(800));
        drop(client);
    })
}

fn full_queues(_: &Stage) -> Vec<String> {
    let siege = Siege::begin();
    siege.flood(0, 32);
    let _client = siege.fill(3);
    ask(120, &["list", "--listening", "--dport", ATTACKED])
}

fn attempts(_: &Stage) -> Vec<String> {
    let siege = Siege::begin();
    watch(80, &["-e", "ATTEMPT", "--dport", ATTACKED], |tracer| {
        siege.flood(0, 2);
        siege.scan(5_001..=5_002);
        await_lines(tracer, 4, "[ATTEMPT]");
    })
}

#[apply(needs_tracing)]
fn samples_are_current(_: &Host) -> Outcome {
    tool("/etc/services")?;
    sample::check(PAGES, SAMPLES)
}

#[apply(needs_whole_machine)]
fn samples_of_stats_are_current(_: &Host) -> Outcome {
    tool("/etc/services")?;
    sample::check(PAGES, PROVEN_SAMPLES)
}

#[apply(needs_nothing)]
fn every_sample_has_a_maker(_: &Host) -> Outcome {
    let made: BTreeSet<&str> =
        SAMPLES.iter().chain(PROVEN_SAMPLES).chain(ROUTER).map(|sample| sample.name).collect();
    let shown: Vec<&str> = PAGES.iter().flat_map(|page| sample::blocks(page.text).into_keys()).collect();
    assert_eq!(shown.len(), made.len(), "a sample stands in one place: {shown:?}");
    assert_eq!(made, shown.into_iter().collect());
    Ok(())
}
