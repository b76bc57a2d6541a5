//! conntrace beside other programs on the same hooks, and under settings of the host that are others' to make: none
//! of them changes what it counts.

use conn_tests::{
    exclusive::Exclusive,
    harness::{Outcome, Skip, tool},
    host::Host,
    ledger::{Ledger, Report},
    needs_whole_machine,
    port::Port,
    scenario,
    tracer::{Setup, Tracer},
    traffic::LIMIT,
    truth::Truth,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

// They change the whole host, and look at what others do.
/// Ends of several kinds.
const SCENARIOS: [&str; 4] = ["client_first", "refused_then_connected", "unread_data", "unaccepted"];

/// Makes connections of several kinds.
fn traffic(ports: &[Port]) -> Result<Truth, Skip> {
    let mut truth = Truth::default();
    for (name, port) in SCENARIOS.iter().zip(ports) {
        let scenario = scenario::ALL.iter().find(|scenario| scenario.name == *name).expect("a scenario");
        truth += (scenario.run)(port.number())?;
    }
    Ok(truth)
}

fn ports() -> (Vec<Port>, Vec<u16>) {
    let ports = Port::block(SCENARIOS.len() as u16);
    let numbers = ports.iter().map(Port::number).collect();
    (ports, numbers)
}

/// The ledger is the truth, and no audit had to help.
fn check(ledger: Ledger, truth: &Truth) -> Report {
    ledger.await_equal(truth);
    let last = ledger.stop();
    last.check_identity();
    assert_eq!(last.differences(truth), Vec::<String>::new());
    assert_eq!(last.repaired, 0, "{}", last.to_text());
    last
}

/// Each has its own programs and its own memory of each socket.
#[apply(needs_whole_machine)]
fn another_conntrace_changes_no_count(_: &Host) -> Outcome {
    let (ports, numbers) = ports();
    let ledger = Ledger::start(&numbers, "100ms");
    let other = Ledger::start(&numbers, "100ms");
    let mut truth = traffic(&ports)?;
    check(other, &truth);
    let brief = Tracer::start(["-e", "NEW"]);
    truth += traffic(&ports)?;
    brief.stop().expect_code(0);
    truth += traffic(&ports)?;
    check(ledger, &truth);
    Ok(())
}

/// A program that lets no other be attached to socket operations. conntrace goes on without that hook, and says why.
#[apply(needs_whole_machine)]
fn exclusive_sock_ops_change_no_count(_: &Host) -> Outcome {
    let root = super::workload::cgroup_root()?;
    let deadline = Instant::now() + *LIMIT;
    let exclusive = loop {
        match Exclusive::attach(&root) {
            Ok(attached) => break attached,
            // Another tracer of this host is there.
            Err(error) if Instant::now() > deadline => {
                return Err(Skip(format!("socket operations of {} are in use: {error}", root.display())));
            }
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    };
    let (ports, numbers) = ports();
    let tracer = Setup::new(["-e", "NEW"]).start();
    let ledger = Ledger::start(&numbers, "100ms");
    drop(exclusive);
    let ended = tracer.stop();
    let text = ended.expect_code(0);
    assert!(text.contains("has the socket operations") && !text.contains("seccomp"), "{text}");
    let truth = traffic(&ports)?;
    let last = check(ledger, &truth);
    assert!(
        last.programs.contains_key("set_state_again") && !last.programs.contains_key("sock_ops"),
        "{last:?}"
    );
    Ok(())
}

/// A tool of another project's with a program on the same tracepoint.
#[apply(needs_whole_machine)]
fn tcpstates_on_the_same_tracepoint_changes_no_count(_: &Host) -> Outcome {
    let program = tool("/usr/sbin/tcpstates")?;
    let (ports, numbers) = ports();
    let ledger = Ledger::start(&numbers, "100ms");
    let other = Setup::new(["-oL", program]).program(tool("/usr/bin/stdbuf")?);
    let other = other.mounting(c"tracefs", Path::new("/sys/kernel/tracing")).spawn();
    other.await_stdout("its first line", |line| line.contains("NEWSTATE"));
    let mut truth = traffic(&ports)?;
    let port = format!(" {} ", numbers[0]);
    other.await_stdout("a connection", |line| format!("{line} ").contains(&port));
    other.stop();
    truth += traffic(&ports)?;
    check(ledger, &truth);
    Ok(())
}

/// A setting of the kernel's, as it was again in the end.
struct Sysctl {
    path: &'static str,
    before: String,
}

impl Sysctl {
    fn set(path: &'static str, value: &str) -> Result<Self, Skip> {
        let read = || fs::read_to_string(path).map_err(|error| Skip(format!("{path}: {error}")));
        let set = Self { path, before: read()? };
        let written = fs::write(path, value);
        if read()?.trim() == value {
            return Ok(set);
        }
        Err(Skip(format!("{path} cannot be set to {value}: {written:?}")))
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        let _ = fs::write(self.path, self.before.trim());
    }
}

#[apply(needs_whole_machine)]
fn timed_programs_count_the_same(_: &Host) -> Outcome {
    let (ports, numbers) = ports();
    let _timed = Sysctl::set("/proc/sys/kernel/bpf_stats_enabled", "1")?;
    let ledger = Ledger::start(&numbers, "100ms");
    let last = check(ledger, &traffic(&ports)?);
    assert!(
        last.programs.values().all(|program| program.runs > 0 && program.run_ns > 0),
        "{}",
        last.to_text()
    );
    Ok(())
}

#[apply(needs_whole_machine)]
fn interpreted_programs_count_the_same(_: &Host) -> Outcome {
    let (ports, numbers) = ports();
    let _interpreted = Sysctl::set("/proc/sys/net/core/bpf_jit_enable", "0")?;
    let ledger = Ledger::start(&numbers, "100ms");
    check(ledger, &traffic(&ports)?);
    let ended = Setup::new(["doctor", "-o", "json"]).run();
    let findings: Value = serde_json::from_str(&ended.stdout.join("\n")).expect("one object");
    let degradations = findings["degradations"].as_array().expect("degradations");
    assert!(
        degradations
            .iter()
            .any(|one| one["fact"].as_str().is_some_and(|fact| fact.contains("bpf_jit_enable")))
    );
    let outcomes = findings["selftest"].as_array().expect("outcomes");
    assert!(outcomes.iter().all(|outcome| outcome["passed"] == true), "{findings}");
    Ok(())
}
