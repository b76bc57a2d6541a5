//! Command lines of owners: those of the process itself, or none.

use super::owner::event;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing,
    port::Port,
    tracer::Tracer,
    traffic::{
        Server,
        crew::{CallReport, Worker, call},
        process::Process,
    },
};
use macro_rules_attribute::apply;
use nix::{
    sys::signal::Signal,
    time::{ClockId, clock_gettime},
};
use serde_json::Value;
use std::{fs, thread};

fn watch(port: &Port) -> Tracer {
    Tracer::start(["-o", "json", "--columns", "+cmdline", "--dport", &port.to_string()])
}

/// This process and its forks have the same.
fn own() -> String {
    let text = String::from_utf8(fs::read("/proc/self/cmdline").unwrap()).expect("UTF-8");
    text.trim_end_matches('\0').replace('\0', " ")
}

#[apply(needs_tracing)]
fn command_lines_of_live_processes_are_shown(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    let address = port.v4();
    let server = Worker::server("conn-line", || Server::listen(address));
    let call = call(address);
    let client = call.tuple.client.port();
    for (direction, pid) in [("out", call.caller.pid), ("in", server.pid())] {
        let new = event(&tracer, "new", direction, client);
        assert_eq!((&new["pid"], &new["cmdline"]), (&pid.into(), &own().into()), "{new}");
    }
    // What was found is remembered.
    drop((call, server));
    for direction in ["out", "in"] {
        assert_eq!(event(&tracer, "destroy", direction, client)["cmdline"], own());
    }
    Ok(())
}

/// Calls from a process that ends before the tracer goes on, and before `then` is over.
fn call_and_go<T>(then: impl FnOnce(u32) -> Result<T, Skip>) -> Outcome {
    let port = Port::claim();
    let tracer = watch(&port);
    let address = port.v4();
    let _server = Worker::server("conn-line", || Server::listen(address));
    tracer.signal(Signal::SIGSTOP);
    let caller = Worker::start("conn-brief", &[], |line| line.report(&[CallReport::new(&call(address))]));
    let pid = caller.pid();
    let call = caller.join()[0];
    let kept = then(pid);
    tracer.signal(Signal::SIGCONT);
    let kept = kept?;
    for kind in ["new", "destroy"] {
        let event = event(&tracer, kind, "out", call.client);
        assert_eq!((&event["pid"], &event["comm"]), (&pid.into(), &"conn-brief".into()), "{event}");
        assert_eq!(event["cmdline"], Value::Null, "{event}");
    }
    drop(kept);
    Ok(())
}

#[apply(needs_tracing)]
fn command_lines_outlive_their_processes(_: &Host) -> Outcome {
    call_and_go(|_| Ok(()))
}

/// Another process gets the id, and has a command line of its own.
#[apply(needs_tracing)]
fn a_reused_pid_yields_no_command_line(_: &Host) -> Outcome {
    call_and_go(|pid| {
        // `/proc` has the start time of a process in hundredths of a second.
        let tick = || {
            let now = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("a clock");
            (now.tv_sec(), now.tv_nsec() / 10_000_000)
        };
        let ended = tick();
        while tick() == ended {
            thread::yield_now();
        }
        let other =
            Process::with_id(pid).map_err(|error| Skip(format!("no process with a chosen id: {error}")))?;
        assert_eq!(
            fs::read(format!("/proc/{pid}/cmdline")).unwrap(),
            fs::read("/proc/self/cmdline").unwrap()
        );
        Ok(other)
    })
}
