//! The report of conntrace's own cost.

use conn_tests::{
    harness::{Outcome, Skip, tool},
    host::Host,
    needs_tracing,
    port::Port,
    tracer::{self, Ended, Setup},
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::fs;

const CONNECTIONS: usize = 50;

/// The last report of a conntrace that saw some connections.
fn after_traffic(setup: Setup, port: &Port) -> Ended {
    let stats = setup.start();
    close::orderly(port.v4(), CONNECTIONS, First::Client);
    let ended = stats.stop();
    ended.expect_code(0);
    ended
}

#[apply(needs_tracing)]
fn self_cost_is_reported_on_request_only(_: &Host) -> Outcome {
    let port = Port::claim();
    let filter = port.to_string();
    let json = ["stats", "--dport", &filter, "-o", "json"];
    let report =
        |ended: &Ended| serde_json::from_str::<Value>(ended.stdout.last().expect("a report")).unwrap();

    let with = report(&after_traffic(Setup::new([&json[..], &["--self"]].concat()), &port));
    let own = |name: &str| with["self"][name].as_f64().unwrap_or_else(|| panic!("no {name}: {with}"));
    // Each connection has two ends, each of which begins, is established and ends.
    assert!(own("runs") >= 6.0 * CONNECTIONS as f64, "{with}");
    assert!(own("run_ns") >= own("runs"), "less than a nanosecond each: {with}");
    assert!(own("user_seconds") + own("system_seconds") > 0.0, "{with}");
    assert!(own("memory_bytes") > 1e6 && own("memory_peak_bytes") >= own("memory_bytes"), "{with}");
    assert!(own("kernel_memory_bytes") > 1e6, "the ledger alone is larger: {with}");
    assert_eq!((&with["self"]["lost"], with["self"]["skipped"].is_u64()), (&0.into(), true), "{with}");
    let runs = with["programs"].as_object().expect("programs").values();
    let runs: u64 = runs.map(|program| program["runs"].as_u64().expect("a number")).sum();
    assert_eq!(with["self"]["runs"], runs, "{with}");

    let without = report(&after_traffic(Setup::new(json), &port));
    assert_eq!(without["self"], Value::Null, "{without}");

    let text = after_traffic(Setup::new(["stats", "--dport", &filter, "--self"]), &port);
    let lines: Vec<_> = text.stdout.iter().filter(|line| line.starts_with("self: ")).collect();
    assert!(lines.iter().any(|line| line.contains("the programs ran")), "{text:#?}");
    assert!(lines.iter().any(|line| line.contains("sock_ops") || line.contains("set_state")), "{text:#?}");
    assert!(lines.iter().any(|line| line.contains("CPU") && line.contains("MiB")), "{text:#?}");
    Ok(())
}

/// The kernel lets programs be timed with `CAP_SYS_ADMIN` only; the report has everything else.
#[apply(needs_tracing)]
fn untimed_programs_name_the_missing_privilege(_: &Host) -> Outcome {
    let port = Port::claim();
    let program = tracer::binary();
    let program = program.to_str().expect("a path of text");
    let arguments =
        ["--bounding-set", "-sys_admin", program, "stats", "--dport", &port.to_string(), "--self"];
    let ended = after_traffic(Setup::new(arguments).program(tool("/usr/bin/setpriv")?), &port);
    if fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|value| value.trim() != "0") {
        return Err(Skip("kernel.bpf_stats_enabled is on: all programs of the host are timed".into()));
    }
    let lines: Vec<_> = ended.stdout.iter().filter(|line| line.starts_with("self: ")).collect();
    assert!(lines.iter().any(|line| line.contains("CAP_SYS_ADMIN")), "{ended:#?}");
    assert!(lines.iter().any(|line| line.contains("MiB")), "{ended:#?}");
    assert!(!lines.iter().any(|line| line.contains("the programs ran")), "{ended:#?}");
    Ok(())
}
