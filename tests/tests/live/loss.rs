//! Events that find the ring full are reported, with their number, and in their place among the events.

use conn_common::name;
use conn_tests::{
    flood::{self, Flood},
    harness::Outcome,
    host::Host,
    line::Line,
    losses::{Item, check_positions},
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Ended, Setup, Tracer},
    traffic::LIMIT,
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

/// Floods a tracer whose ring is too small until the tracer reports a loss. Gives the least number of events, too.
fn flooded(arguments: &[&str]) -> (Ended, u64) {
    let port = Port::claim();
    let filter = port.to_string();
    let tracer = Tracer::start([&["-b", "4K", "--dport", &filter], arguments].concat());
    let flood = Flood::new(port.number(), u64::MAX, flood::Ending::Mixed).start();
    tracer.await_stderr("a line about lost events while it runs", |line| line.contains("events were lost"));
    let truth = flood.stop();
    // Per connection and side at least NEW, ESTABLISHED and DESTROY.
    let least = 3 * (truth.outgoing(port.number()).opened + truth.incoming(port.number()).opened);
    (tracer.stop(), least)
}

/// The accounting on standard error adds up, and includes the losses.
fn check_accounting(ended: &Ended, shown: u64, lost: u64, least: u64) {
    let stderr = ended.expect_balance();
    let accounting = stderr.lines().find(|line| line.contains("produced ")).expect("an accounting");
    assert!(accounting.ends_with(": holds"), "{accounting}");
    assert_eq!((number(accounting, "shown "), number(accounting, "lost ")), (shown, lost), "{accounting}");
    assert!(lost > 0 && number(accounting, "produced ") >= least, "{least}: {accounting}");
    let reported: u64 = stderr
        .lines()
        .filter(|line| line.contains("events were lost"))
        .map(|line| number(line, "conntrace: "))
        .sum();
    assert_eq!(reported, lost, "{stderr}");
}

fn json_items(ended: &Ended) -> Vec<Item> {
    let item = |line: &String| {
        let object: Value = serde_json::from_str(line).expect("JSON");
        let number = |name: &str| object[name].as_u64().unwrap_or_else(|| panic!("{name}: {line}"));
        if object["event"] == "lost" {
            Item::Lost { count: number("lost"), since: number("since_ns"), until: number("until_ns") }
        } else {
            Item::Event { time: number("time_ns") }
        }
    };
    ended.stdout.iter().map(item).collect()
}

#[apply(needs_tracing)]
fn json_losses_stand_in_their_interval(_: &Host) -> Outcome {
    let (ended, least) = flooded(&["-o", "json"]);
    let (shown, lost) = check_positions(&json_items(&ended));
    check_accounting(&ended, shown, lost, least);
    Ok(())
}

#[apply(needs_tracing)]
fn line_losses_stand_between_events(_: &Host) -> Outcome {
    let (ended, least) = flooded(&["-o", "timestamp"]);
    let micros =
        |line: &str, key| number(line, key) * 1_000_000 + number(line.split_once(key).unwrap().1, ".");
    let item = |text: &String| {
        if text.starts_with("   [LOST] ") {
            let (since, until) = (micros(text, "since="), micros(text, "until="));
            Item::Lost { count: number(text, "[LOST] "), since, until }
        } else {
            let stamp = text.parse::<Line>().expect("an event").stamp.expect("a timestamp");
            Item::Event { time: stamp.seconds * 1_000_000 + u64::from(stamp.micros) }
        }
    };
    let (shown, lost) = check_positions(&ended.stdout.iter().map(item).collect::<Vec<_>>());
    check_accounting(&ended, shown, lost, least);
    Ok(())
}

#[apply(needs_tracing)]
fn csv_losses_go_to_standard_error(_: &Host) -> Outcome {
    let (ended, least) = flooded(&["-o", "csv"]);
    let stderr = ended.expect_code(0);
    let losses = stderr.lines().filter(|line| line.contains("events were lost"));
    let lost = losses.map(|line| number(line, "conntrace: ")).sum();
    check_accounting(&ended, ended.stdout.len() as u64 - 1, lost, least);
    Ok(())
}

#[apply(needs_tracing)]
fn losses_at_the_end_are_reported(_: &Host) -> Outcome {
    let port = Port::claim().to_string();
    let tracer = Tracer::start(["-b", "4K", "-o", "json", "--dport", &port]);
    let flood = Flood::new(port.parse().expect("a port"), u64::MAX, flood::Ending::Mixed).start();
    tracer.await_stdout("a loss", |line| line.contains("\"event\":\"lost\""));
    // The tracer ends in the middle of a flood.
    let ended = tracer.stop();
    flood.stop();
    let (shown, lost) = check_positions(&json_items(&ended));
    check_accounting(&ended, shown, lost, 0);
    assert!(!ended.stderr.contains("unread"), "{}", ended.stderr);
    Ok(())
}

#[apply(needs_tracing)]
fn strict_fails_on_a_lost_event(_: &Host) -> Outcome {
    let (ended, _) = flooded(&["--strict"]);
    assert!(ended.expect_code(3).contains("--strict"), "{}", ended.stderr);
    // Without a loss, --strict changes nothing.
    let port = Port::claim().to_string();
    let quiet = Tracer::start(["--strict", "--dport", &port]).stop();
    // The programs' failures are counted for the whole host.
    if !quiet.stderr.contains("the programs failed") {
        quiet.expect_code(0);
    }
    Ok(())
}

/// The report's own counters decide, since other tracers and other tests of this host may repair or add a miss.
#[apply(needs_tracing)]
fn strict_fails_on_a_missed_transition(_: &Host) -> Outcome {
    let port = Port::claim();
    let stats = |more: &[&str]| {
        let arguments = ["stats", "--strict", "-o", "json", "--dport", &port.to_string()];
        Setup::new(arguments.iter().chain(more)).start()
    };
    let missed = |ended: &Ended| {
        let report: Value = serde_json::from_str(ended.stdout.last().expect("a report")).expect("JSON");
        let failures = ["storage_failed", "ledger_failed", "netns_failed", "spans_failed"];
        let failures = failures.map(|name| report["witness"][name].as_u64().expect("a number"));
        let differences = report["audit"]["differences"].as_array().expect("a list").len() as u64;
        report["repaired"].as_u64().expect("a number") + failures.iter().sum::<u64>() + differences
    };
    let ns = NetNs::new().unwrap();
    let deadline = Instant::now() + *LIMIT;
    loop {
        let starved = stats(&[]);
        // Other tests free slots meanwhile, so that a transition may find one. Then the test tries again.
        super::socket_state::table::<3>(&starved, name::COUNTED_STATES)?.exhaust();
        ns.run(|| Flood::new(port.number(), 100, flood::Ending::Mixed).run());
        let ended = starved.stop();
        if missed(&ended) > 0 {
            assert!(ended.expect_code(3).contains("--strict"), "{}", ended.stderr);
            break;
        }
        ended.expect_code(0);
        assert!(Instant::now() < deadline, "{ended:#?}");
    }
    let ended = stats(&["--timeout", "100ms"]).await_end();
    ended.expect_code(if missed(&ended) > 0 { 3 } else { 0 });
    Ok(())
}
