//! Events that found no room are told, with their number.

use conn_tests::{
    flood::{self, Flood},
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    port::Port,
    tracer::{Ended, Setup, Tracer},
    traffic::{LIMIT, Server},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::time::Instant;

/// The number behind a word.
fn number(line: &str, key: &str) -> u64 {
    let rest = line.split_once(key).unwrap_or_else(|| panic!("no {key:?} in {line:?}")).1;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no number after {key:?} in {line:?}"))
}

/// Floods a tracer with a ring that is too small, until it has told a loss.
fn too_much(arguments: &[&str]) -> (Ended, u64) {
    let port = Port::take().to_string();
    let tracer = Tracer::start([&["-b", "4K", "--dport", &port], arguments].concat());
    let flood = Flood::new(port.parse().expect("a port"), u64::MAX, flood::Ending::Mixed).start();
    tracer.await_stderr("a line about lost events while it runs", |line| line.contains("events were lost"));
    let truth = flood.stop();
    let port = port.parse().expect("a port");
    // Per connection and side at least NEW, ESTABLISHED and DESTROY.
    let least = 3 * (truth.outgoing(port).opened + truth.incoming(port).opened);
    (tracer.stop(), least)
}

/// The balance adds up, and says `lost`.
fn check_balance(ended: &Ended, shown: u64, lost: u64, least: u64) {
    let stderr = ended.expect_code(0);
    let balance = stderr.lines().find(|line| line.contains("produced ")).expect("a balance");
    assert!(balance.ends_with(": holds"), "{balance}");
    assert_eq!((number(balance, "shown "), number(balance, "lost ")), (shown, lost), "{balance}");
    assert!(lost > 0 && number(balance, "produced ") >= least, "{least}: {balance}");
    let told: u64 = stderr
        .lines()
        .filter(|line| line.contains("events were lost"))
        .map(|line| number(line, "conntrace: "))
        .sum();
    assert_eq!(told, lost, "{stderr}");
}

#[apply(needs_tracing)]
fn json_losses_stand_in_their_interval(_: &Host) -> Outcome {
    let (ended, least) = too_much(&["-o", "json"]);
    let (mut shown, mut total, mut until) = (0, 0, 0);
    for line in &ended.stdout {
        let object: Value = serde_json::from_str(line).expect("JSON");
        let ns = |name: &str| object[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
        if object["event"] == "lost" {
            total += ns("lost");
            assert!(until <= ns("since_ns") && ns("since_ns") <= ns("until_ns"), "{line}");
            until = ns("until_ns");
        } else {
            shown += 1;
            // What is shown before a loss had happened by then.
            assert!(until == 0 || shown > 1, "nothing before the first loss");
        }
    }
    check_balance(&ended, shown, total, least);
    Ok(())
}

#[apply(needs_tracing)]
fn line_losses_stand_between_events(_: &Host) -> Outcome {
    let (ended, least) = too_much(&[]);
    let (lost, events): (Vec<&String>, Vec<&String>) =
        ended.stdout.iter().partition(|line| line.starts_with("   [LOST] "));
    let total = lost.iter().map(|line| number(line, "[LOST] ")).sum();
    check_balance(&ended, events.len() as u64, total, least);
    Ok(())
}

#[apply(needs_tracing)]
fn csv_losses_go_to_standard_error(_: &Host) -> Outcome {
    let (ended, least) = too_much(&["-o", "csv"]);
    let stderr = ended.expect_code(0);
    let told = stderr.lines().filter(|line| line.contains("events were lost"));
    let total = told.map(|line| number(line, "conntrace: ")).sum();
    check_balance(&ended, ended.stdout.len() as u64 - 1, total, least);
    Ok(())
}

#[apply(needs_tracing)]
fn losses_at_the_end_are_reported(_: &Host) -> Outcome {
    let port = Port::take().to_string();
    let tracer = Tracer::start(["-b", "4K", "-o", "json", "--dport", &port]);
    let flood = Flood::new(port.parse().expect("a port"), u64::MAX, flood::Ending::Mixed).start();
    tracer.await_stdout("a loss", |line| line.contains("\"event\":\"lost\""));
    // It ends in the middle of a flood.
    let ended = tracer.stop();
    flood.stop();
    let objects: Vec<Value> =
        ended.stdout.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let lost: u64 = objects.iter().filter_map(|object| object["lost"].as_u64()).sum();
    let shown = objects.iter().filter(|object| object["event"] != "lost").count();
    check_balance(&ended, shown as u64, lost, 0);
    assert!(!ended.stderr.contains("unread"), "{}", ended.stderr);
    Ok(())
}

#[apply(needs_tracing)]
fn strict_fails_on_a_lost_event(_: &Host) -> Outcome {
    let (ended, _) = too_much(&["--strict"]);
    assert!(ended.expect_code(3).contains("--strict"), "{}", ended.stderr);
    // Nothing lost, nothing to complain about.
    let port = Port::take().to_string();
    let quiet = Tracer::start(["--strict", "--dport", &port]).stop();
    quiet.expect_code(0);
    Ok(())
}

#[apply(needs_tracing)]
fn strict_fails_on_a_missed_transition(_: &Host) -> Outcome {
    let port = Port::take();
    let stats = |more: &[&str]| {
        let args = ["stats", "--strict", "-o", "json", "--dport", &port.to_string()];
        Setup::new(args.iter().chain(more)).spawn()
    };
    let missed = |ended: &Ended| {
        let report: Value = serde_json::from_str(ended.stdout.last().expect("a report")).expect("JSON");
        let failures = ["storage_failed", "ledger_failed", "netns_failed", "spans_failed"];
        let failures = failures.map(|name| report["witness"][name].as_u64().expect("a number"));
        let differences = report["audit"]["differences"].as_array().expect("a list").len() as u64;
        report["repaired"].as_u64().expect("a number") + failures.iter().sum::<u64>() + differences
    };
    // This hook alone does not see the end of a connection that is older than it is, unless another conntrace (of a
    // test beside this one) has asked for the steps of that socket.
    let deadline = Instant::now() + *LIMIT;
    loop {
        let pair = Server::listen(port.v4()).pair();
        let blind = stats(&["--witnesses", "sock_ops"]);
        if !blind.is_ready() {
            return Err(Skip("no cgroup v2 here, so there is no hook that misses ends".into()));
        }
        drop(pair);
        let ended = blind.stop();
        if missed(&ended) > 0 {
            assert!(ended.expect_code(3).contains("--strict"), "{}", ended.stderr);
            break;
        }
        assert!(Instant::now() < deadline, "{ended:#?}");
    }

    let ended = stats(&["--timeout", "100ms"]).await_end();
    ended.expect_code(if missed(&ended) > 0 { 3 } else { 0 });
    Ok(())
}
