//! What happens to the pins of a daemon that runs: it says so, and goes on counting.

use aya::maps::{PerCpuArray, PerCpuValues};
use conn_common::counter::{CELLS, LEDGER_FAILED};
use conn_tests::{
    flood::{Ending, Flood},
    harness::{Outcome, Skip},
    host::Host,
    map, needs_tracing,
    netns::NetNs,
    pins::{Pins, TAKEN_OVER, detach_link, kill},
    port::Port,
    tracer::{Tracer, binary},
};
use macro_rules_attribute::apply;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use super::anew;

/// The daemon counts a load exactly.
fn counts(pins: &Pins) {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let truth = ns.run(|| Flood::new(port.number(), 200, Ending::Mixed).run());
    pins.await_equal(&truth);
    drop(ns);
}

fn expect_warning(daemon: &Tracer, text: &str) {
    daemon.await_stderr(text, |line| line.contains(text));
}

#[apply(needs_tracing)]
fn unmounted_file_system_is_named(_: &Host) -> Outcome {
    let pins = Pins::new();
    let daemon = pins.serve().start();
    umount2(&pins.point(), MntFlags::MNT_DETACH).unwrap();
    expect_warning(&daemon, "is no longer the directory of the pins");
    counts(&pins);
    daemon.stop().expect_code(0);
    Ok(())
}

#[apply(needs_tracing)]
fn covered_and_read_only_file_systems_are_named(_: &Host) -> Outcome {
    let pins = Pins::new();
    let point = pins.point();
    let daemon = pins.serve().start();
    mount(Some("none"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    expect_warning(&daemon, "is no longer the directory of the pins");
    umount2(&point, MntFlags::empty()).unwrap();
    expect_warning(&daemon, "no longer true");
    let remount = |flags| {
        mount(None::<&str>, &point, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>).unwrap();
    };
    remount(MsFlags::MS_RDONLY);
    expect_warning(&daemon, "has become read-only");
    counts(&pins);
    daemon.stop().expect_code(0);
    let refused = pins.detach();
    assert!(refused.expect_code(1).contains("is read-only: mount -o remount,rw"), "{refused:?}");
    remount(MsFlags::empty());
    let daemon = pins.serve().start();
    expect_warning(&daemon, TAKEN_OVER);
    Ok(())
}

#[apply(needs_tracing)]
fn removed_pins_are_named(_: &Host) -> Outcome {
    let pins = Pins::new();
    let daemon = pins.serve().start();
    fs::remove_file(pins.epoch().join("maps/LEDGER")).unwrap();
    expect_warning(&daemon, "maps/LEDGER was removed");
    counts(&pins);
    daemon.stop().expect_code(0);
    Ok(())
}

#[apply(needs_tracing)]
fn detached_hook_is_named(_: &Host) -> Outcome {
    let pins = Pins::new();
    let daemon = pins.serve().start();
    detach_link(&pins.epoch().join("links/sock_ops"));
    expect_warning(&daemon, "hook sock_ops was detached");
    kill(daemon);
    let daemon = pins.serve().start();
    let why = anew(&daemon);
    assert!(why.contains("hook sock_ops: it is detached from the root"), "{why}");
    counts(&pins);
    Ok(())
}

/// Tables have other tables behind them, so no traffic makes a map overflow in time: the test counts in the programs' place.
#[apply(needs_tracing)]
fn map_without_room_is_named(_: &Host) -> Outcome {
    let pins = Pins::new();
    let daemon = pins.serve().start();
    let mut counters = PerCpuArray::<_, [u64; CELLS]>::try_from(map::of(daemon.pid(), "COUNTERS")).unwrap();
    let mut cpus = counters.get(&0, 0).unwrap().to_vec();
    cpus[0][LEDGER_FAILED as usize] += 3;
    counters.set(0, PerCpuValues::try_from(cpus).unwrap(), 0).unwrap();
    expect_warning(&daemon, "had no room or no memory");
    assert!(daemon.has_stderr(|line| line.contains("(ledger_failed 3 since counting began)")));
    assert!(!pins.report().identity.holds);
    Ok(())
}

/// A service whose log is on a full disk.
#[apply(needs_tracing)]
fn full_disk_under_the_log_costs_no_count(_: &Host) -> Outcome {
    let pins = Pins::new();
    let socket = pins.point().with_file_name("socket");
    let command = format!(
        "exec {} -v serve --group 65534 --socket {} --bpffs {} >/dev/full 2>&1",
        binary().display(),
        socket.display(),
        pins.point().display()
    );
    let daemon = conn_tests::tracer::Setup::new(["-c", &command]).program("/bin/sh").start();
    // Each warning fails to be written.
    fs::remove_file(pins.epoch().join("maps/LEDGER")).unwrap();
    counts(&pins);
    daemon.stop().expect_code(0);
    Ok(())
}

/// The clock of the kernel programs is that of the host, whatever clocks a container has.
#[apply(needs_tracing)]
fn no_clock_moves_an_epoch(_: &Host) -> Outcome {
    if !Path::new("/proc/self/ns/time_for_children").exists() || !Path::new("/usr/bin/unshare").exists() {
        return Err(Skip("this host makes no time namespaces".into()));
    }
    let pins = Pins::new();
    let health = |pins: &Pins| serde_json::from_str::<serde_json::Value>(&pins.get("/v1/health")).unwrap();
    let daemon = pins.serve_a_day_ahead().start();
    let metrics = pins.get("/v1/stats?output=prometheus");
    let began = metrics.lines().find_map(|line| line.strip_prefix("conntrace_start_time_seconds "));
    let began = Duration::from_secs_f64(began.expect("the start").parse().unwrap());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    assert!(now.abs_diff(began) < Duration::from_secs(3_600), "{began:?} {now:?}");
    let epoch = health(&pins)["epoch"].clone();
    drop(daemon);
    // The one in the namespace is killed with the process that made the namespace, and then gives the lock back.
    let daemon = loop {
        let daemon = pins.serve().spawn();
        if daemon.is_ready() {
            break daemon;
        }
    };
    expect_warning(&daemon, TAKEN_OVER);
    assert_eq!(health(&pins)["epoch"], epoch);
    Ok(())
}
