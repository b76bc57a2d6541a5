//! Pins that a daemon must not go on with: each is named, and counting begins anew.

use super::{anew, unpinned};
use aya::maps::MapData;
use conn_tests::{
    flood::{Ending, Flood},
    harness::Outcome,
    host::Host,
    ledger::Report,
    map, needs_tracing,
    netns::NetNs,
    pins::{OTHER_BUILD, Pins, TAKEN_OVER, kill},
    port::Port,
    tracer::{Setup, Tracer},
    truth::Direction,
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// A daemon that counts, whatever it found before. Ends it.
fn counts(pins: &Pins, daemon: Tracer) {
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let truth = ns.run(|| Flood::new(port.number(), 200, Ending::Mixed).run());
    pins.await_equal(&truth);
    drop(ns);
    daemon.stop().expect_code(0);
}

/// What a test does to the pins, and what the daemon says of it.
type Spoil = (fn(&Path), &'static str);

const SPOILED: [Spoil; 7] = [
    (|epoch| fs::remove_file(epoch.join("maps/LEDGER")).unwrap(), "map LEDGER is missing"),
    (|epoch| fs::remove_file(epoch.join("links/sock_ops")).unwrap(), "hook sock_ops: its link is missing"),
    (|epoch| fs::remove_file(epoch.join("meta")).unwrap(), "not made by conntrace"),
    // aya would open each of these without a look.
    (|epoch| replace(&epoch.join("maps"), "LEDGER", "WALKED"), "of map LEDGER is"),
    (
        |epoch| fs::rename(epoch.join("progs/sock_ops"), epoch.join("maps/LEDGER")).unwrap(),
        "is of another kind",
    ),
    (
        |epoch| fs::rename(epoch.join("links/set_state"), epoch.join("links/destroy_sock")).unwrap(),
        "hook destroy_sock: its link runs program",
    ),
    (|epoch| other_size(epoch), "the number of entries of map LEDGER is 1, not"),
];

/// Puts the map `from` in the place of the map `to`, too.
fn replace(maps: &Path, to: &str, from: &str) {
    fs::remove_file(maps.join(to)).unwrap();
    MapData::from_pin(maps.join(from)).unwrap().pin(maps.join(to)).unwrap();
}

/// Puts a ledger of another run in the place of the ledger: one that does not count.
fn other_size(epoch: &Path) {
    let events = Setup::new(["events", "--dport", "1"]).start();
    let aya::maps::Map::HashMap(ledger) = map::of(events.pid(), "LEDGER") else { panic!("no ledger") };
    fs::remove_file(epoch.join("maps/LEDGER")).unwrap();
    ledger.pin(epoch.join("maps/LEDGER")).unwrap();
    events.stop();
}

#[apply(needs_tracing)]
fn spoiled_pins_are_named_and_never_used(_: &Host) -> Outcome {
    for (spoil, named) in SPOILED {
        let pins = Pins::new();
        kill(pins.serve().start());
        spoil(&pins.epoch());
        let daemon = pins.serve().start();
        if named.starts_with("not made") {
            // Without the record, nothing says that conntrace made them: they stay.
            let why = unpinned(&daemon);
            assert!(why.contains(named), "{why}");
            counts(&pins, daemon);
            assert!(pins.epoch().join("links/sock_ops").exists());
            continue;
        }
        let why = anew(&daemon);
        assert!(why.contains(named), "{named}: {why}");
        counts(&pins, daemon);
        // The new pins are whole.
        let daemon = pins.serve().start();
        daemon.await_stderr(TAKEN_OVER, |line| line.contains(TAKEN_OVER));
    }
    Ok(())
}

#[apply(needs_tracing)]
fn start_that_was_killed_is_no_epoch(_: &Host) -> Outcome {
    let pins = Pins::new();
    // From the first pin on, at ever later moments, up to one that is ready.
    for maps in [1, 10, 20] {
        let inode = |epoch: &PathBuf| fs::metadata(epoch).map(|found| found.ino()).ok();
        let before: Vec<_> = pins.epochs().iter().filter_map(inode).collect();
        let daemon = pins.serve().spawn();
        let pinned = || {
            let mut epochs = pins.epochs();
            epochs.retain(|epoch| inode(epoch).is_some_and(|inode| !before.contains(&inode)));
            epochs.iter().filter_map(|epoch| fs::read_dir(epoch.join("maps")).ok()).flatten().count()
        };
        while pinned() < maps {
            std::thread::yield_now();
        }
        kill(daemon);
    }
    let daemon = pins.serve().start();
    let why = anew(&daemon);
    assert!(why.contains("the start that made the pins did not finish"), "{why}");
    assert_eq!(pins.epochs().len(), 1);
    counts(&pins, daemon);
    Ok(())
}

fn json(pins: &Pins, target: &str) -> Value {
    serde_json::from_str(&pins.get(target)).unwrap()
}

#[apply(needs_tracing)]
fn another_layout_is_another_epoch(_: &Host) -> Outcome {
    let pins = Pins::new();
    let first = pins.serve().start();
    let (ns, port) = (NetNs::new().unwrap(), Port::claim());
    let truth = ns.run(|| Flood::new(port.number(), 200, Ending::Mixed).run());
    let known = pins.await_equal(&truth);
    let began = json(&pins, "/v1/health")["epoch"].clone();
    assert_eq!(json(&pins, "/v1/stats")["earlier"], Value::Array(vec![]));
    first.stop().expect_code(0);
    drop(ns);
    let before = pins.epoch();
    // Without cgroups, other hooks share the maps in another way.
    let daemon = pins.serve().without(Path::new("/sys/fs/cgroup")).start();
    let why = anew(&daemon);
    assert!(why.contains("have another layout: the option witnesses was"), "{why}");
    assert_ne!(pins.epoch(), before);
    // The sums of the earlier epoch are kept, and no part of the new ones.
    let stats = json(&pins, "/v1/stats");
    let earlier = &stats["earlier"][0];
    assert_eq!((&earlier["epoch"], stats["earlier"].as_array().unwrap().len()), (&began, 1), "{stats}");
    for (direction, code) in [("in", Direction::In), ("out", Direction::Out)] {
        let (sums, numbers) = (&earlier["counts"][direction], known.numbers(code, port.number()));
        let number = |name: &str| sums[name].as_u64().unwrap();
        // Other connections of the host are in the sums, too.
        assert!(number("opened") >= numbers.opened && number("closed") >= numbers.closed, "{earlier}");
        let open = i64::try_from(number("opened") + number("preexisting")).unwrap()
            - i64::try_from(number("failed") + number("closed")).unwrap();
        assert_eq!(sums["open"].as_i64(), Some(open), "{earlier}");
    }
    assert!(Report::parse(&stats.to_string()).numbers(Direction::Out, port.number()).opened == 0, "{stats}");
    // They stay for the next daemon of the same epoch.
    kill(daemon);
    let daemon = pins.serve().without(Path::new("/sys/fs/cgroup")).start();
    daemon.await_stderr(TAKEN_OVER, |line| line.contains(TAKEN_OVER));
    assert_eq!(json(&pins, "/v1/stats")["earlier"], stats["earlier"]);
    daemon.stop().expect_code(0);
    Ok(())
}

#[apply(needs_tracing)]
fn second_daemon_is_refused(_: &Host) -> Outcome {
    let pins = Pins::new();
    let first = pins.serve().start();
    for setup in [pins.serve_beside(), pins.serve_beside().variable(OTHER_BUILD, "1")] {
        let second = setup.run();
        assert_eq!(second.code, Some(1), "{}", second.stderr);
        assert!(second.stderr.contains("another conntrace serve uses the pins below"), "{}", second.stderr);
    }
    let detach = pins.detach();
    assert_eq!(detach.code, Some(1), "{}", detach.stderr);
    assert!(detach.stderr.contains("stop it first"), "{}", detach.stderr);
    // The first one goes on.
    counts(&pins, first);
    Ok(())
}
