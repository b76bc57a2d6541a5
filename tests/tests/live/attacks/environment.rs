//! What an environment names: descriptors, files, and names that a spreadsheet or a terminal would act on.

use conn_tests::{
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    tracer::{Setup, binary},
    traffic::{Server, crew::Worker},
};
use macro_rules_attribute::apply;
use nix::{sys::stat::Mode, unistd::mkfifo};
use std::{
    env, fs,
    path::Path,
    process::{Command, Stdio},
};

/// Numbers of descriptors that conntrace itself opens during a start, and one beyond them.
const DESCRIPTORS: [u32; 3] = [5, 20, 400];

/// The starter names a descriptor that is not open. Later conntrace has one of its own with that number.
#[apply(needs_tracing)]
fn a_ready_descriptor_that_is_closed_closes_no_other(_: &Host) -> Outcome {
    for number in DESCRIPTORS {
        let mut conntrace = Command::new(binary());
        conntrace.args(["stats", "--timeout", "100ms"]).env("CONNTRACE_READY_FD", number.to_string());
        let ended = conntrace.stdin(Stdio::null()).output().expect("conntrace");
        let message = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{number}: {message}");
        assert!(message.contains("names no open descriptor"), "{number}: {message}");
        assert!(!message.contains("panicked"), "{number}: {message}");
    }
    Ok(())
}

/// `TZ` names a pipe without a writer, or a device that never ends.
#[apply(needs_tracing)]
fn a_time_zone_that_is_no_file_delays_no_start(_: &Host) -> Outcome {
    let pipe = env::temp_dir().join(format!("conn-tests-zone-{}", std::process::id()));
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let port = Port::claim();
    let _pair = Server::listen(port.v4()).pair();
    for zone in [format!(":{}", pipe.display()), pipe.display().to_string(), ":/dev/zero".to_owned()] {
        let arguments = ["list", "-o", "table", "--columns", "started,dport", "--dport", &port.to_string()];
        let ended = Setup::new(arguments).variable("TZ", &zone).run();
        assert!(ended.expect_code(0).contains("times are UTC"), "{zone}: {ended:#?}");
        assert!(ended.stdout.len() == 3, "{zone}: {ended:#?}");
    }
    fs::remove_file(&pipe).unwrap();
    Ok(())
}

/// Names of processes that are formulas, or text that no display shows.
#[apply(needs_tracing)]
fn names_are_neither_formulas_nor_invisible(_: &Host) -> Outcome {
    let names = ["+cmd|'/c x'!A0", "-1+1", "@SUM(A1)", "=1+1", "a\u{61c}b\u{200b}", "a\u{e0041}"];
    for name in names {
        let port = Port::claim();
        let holder = Worker::start(name, &[], |line| {
            let _pair = Server::listen(port.v4()).pair();
            line.ready();
            line.wait();
        });
        holder.await_ready();
        let list = |format: &str| {
            let ended = Setup::new(["list", "-o", format, "--dport", &port.to_string()]).run();
            ended.expect_code(0);
            ended.stdout
        };
        let lines = list("csv");
        assert_eq!(lines.len(), 3, "{name:?}: {lines:?}");
        for cell in lines.iter().flat_map(|line| line.split(',')) {
            let cell = cell.trim_matches('"');
            // A lone minus is an unknown owner.
            assert!(cell == "-" || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{name:?}: {cell:?}");
        }
        for line in list("json") {
            let shown: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(shown["comm"], name, "{line}");
            assert!(!line.contains(['\u{61c}', '\u{200b}', '\u{e0041}']), "{line}");
        }
    }
    Ok(())
}

/// Root has all capabilities. The error names `/proc`, which is missing.
#[apply(needs_tracing)]
fn a_host_without_proc_is_named(_: &Host) -> Outcome {
    for command in ["events", "list", "count", "stats", "doctor"] {
        let ended = Setup::new([command]).without(Path::new("/proc")).run();
        let message = format!("{}{}", ended.expect_code(1), ended.stdout.join("\n"));
        assert!(message.contains("/proc is not mounted"), "{command}: {message}");
        assert!(message.contains("mount -t proc"), "{command}: {message}");
        assert!(!message.contains("CAP_"), "{command}: {message}");
    }
    Ok(())
}
