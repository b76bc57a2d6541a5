//! `conntrace list` and `conntrace count` beside `ss`, in every state and with the same filters.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    netns::NetNs,
    tracer::Setup,
    traffic::held::Held,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::Command,
};

/// States by the names that ss has for them; first those that are over after a minute.
const STATES: [&str; 10] = [
    "time-wait",
    "fin-wait-2",
    "syn-sent",
    "syn-recv",
    "established",
    "fin-wait-1",
    "close-wait",
    "last-ack",
    "closing",
    "listening",
];
/// Service ports: one that listens, one that does not hear.
const PORTS: [u16; 2] = [7_001, 7_002];

/// `(state, local, peer)`.
type Sockets = BTreeSet<(String, String, String)>;

/// A namespace with sockets in every state, of both families.
fn every_state() -> (NetNs, [Held; 2]) {
    let ns = NetNs::new().unwrap();
    let held = ns.run(|| {
        let of = |address: std::net::IpAddr| {
            let [heard, unheard] = PORTS.map(|port| SocketAddr::new(address, port));
            Held::new(heard, unheard)
        };
        [of(Ipv4Addr::LOCALHOST.into()), of(Ipv6Addr::LOCALHOST.into())]
    });
    (ns, held)
}

/// What `ss` shows in the namespace.
fn of_ss(ns: &NetNs, filter: &[&str]) -> Result<Sockets, Skip> {
    let output = ns
        .run(|| Command::new("ss").args(["-tanH", "-O"]).args(filter).output())
        .map_err(|error| Skip(format!("cannot run ss: {error}")))?;
    assert!(output.status.success(), "ss {filter:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // With a single state in the filter, ss leaves out its column.
    let single = match filter {
        ["state", state, ..] if STATES.contains(state) => Some(*state),
        _ => None,
    };
    Ok(text
        .lines()
        .map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if let Some(state) = single {
                words.insert(0, state);
            }
            let state = match words[0] {
                "ESTAB" => "established".into(),
                "listening" | "LISTEN" => "listen".into(),
                other => other.to_lowercase().replace("fin-wait-", "fin_wait").replace('-', "_"),
            };
            (state, words[3].to_owned(), words[4].to_owned())
        })
        .collect())
}

/// What `conntrace list` shows in the namespace, and what `conntrace count` counts.
fn of_ours(ns: &NetNs, filter: &[&str]) -> (Sockets, usize) {
    let netns = ns.inum().to_string();
    let run = |command: &[&str]| {
        let ended = Setup::new(command.iter().chain(&["--netns", &netns]).chain(filter)).run();
        ended.expect_code(0);
        ended.stdout
    };
    let rows = run(&["list", "-o", "json"]);
    let listed = rows.iter().map(|line| socket(&serde_json::from_str(line).expect("an object"))).collect();
    let counted = run(&["count"]);
    (listed, counted.concat().parse().expect("a number"))
}

/// A row as ss has it: from this end.
fn socket(row: &Value) -> (String, String, String) {
    let text = |key: &str| row[key].as_str().unwrap_or("-").to_owned();
    let end = |address: &str, port: &str| {
        let (address, port) = (text(address), &row[port]);
        let any = if port == 0 { "*".to_owned() } else { port.to_string() };
        if address.contains(':') { format!("[{address}]:{any}") } else { format!("{address}:{any}") }
    };
    let (src, dst) = (end("src", "sport"), end("dst", "dport"));
    let is_src_ours = row["direction"] == "out" || row["local_end"] == "src";
    if is_src_ours { (text("state"), src, dst) } else { (text("state"), dst, src) }
}

/// Both show the same sockets, some at least, and as many are counted.
fn agree(ns: &NetNs, ours: &[&str], filter: &[&str]) -> Outcome {
    // What is closed is forgotten some time: both look at the same if it is there before and after.
    let (expected, listed, counted) = loop {
        let before = of_ss(ns, filter)?;
        let (listed, counted) = of_ours(ns, ours);
        if before == of_ss(ns, filter)? {
            break (before, listed, counted);
        }
    };
    let differ: Vec<_> = listed.symmetric_difference(&expected).collect();
    assert!(differ.is_empty(), "{ours:?}, only in one of both: {differ:#?}");
    assert!(!expected.is_empty() && counted == expected.len(), "{ours:?}: {counted} are not {expected:#?}");
    Ok(())
}

#[apply(needs_tracing)]
fn states_equal_those_of_ss(_: &Host) -> Outcome {
    let (ns, _held) = every_state();
    for state in STATES {
        agree(&ns, &["--state", state], &["state", state])?;
    }
    agree(&ns, &["--state", "all"], &["exclude", "listening"])?;
    agree(&ns, &["state", "synchronized", "and", "not", "state", "listening"], &["state", "synchronized"])
}

#[apply(needs_tracing)]
fn filters_select_what_ss_selects(_: &Host) -> Outcome {
    let (ns, _held) = every_state();
    let of_one = of_ss(&ns, &["state", "closing", "src", "127.0.0.1"])?;
    let client = of_one.first().expect("one").1.rsplit_once(':').expect("a port").1.to_owned();
    // ss knows the local and the remote end, conntrace the initiator and the responder. Either end matches here.
    for (ours, theirs) in [
        (&["--dport", "7001"][..], "sport = :7001 or dport = :7001"),
        (&["--sport", &client], &format!("sport = :{client} or dport = :{client}")),
        (&["--src", "::1"], "src [::1]"),
        (&["--dst", "127.0.0.0/8"], "dst 127.0.0.0/8"),
        (&["service = :7002 or src 127.0.0.1"], "sport = :7002 or dport = :7002 or src 127.0.0.1"),
    ] {
        let (ours, theirs) = ([&["--state", "all"], ours].concat(), ["exclude", "listening", theirs]);
        agree(&ns, &ours, &theirs)?;
    }
    for state in STATES.iter().filter(|&&state| state != "listening") {
        let theirs = ["state", state, "( sport = :7001 or dport = :7001 )"];
        if !of_ss(&ns, &theirs)?.is_empty() {
            agree(&ns, &["--state", state, "--dport", "7001"], &theirs)?;
        }
    }
    Ok(())
}
