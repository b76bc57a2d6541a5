//! `kill -9` leaves nothing behind in the kernel, and the next start is exact.

use aya::{maps::loaded_maps, programs::loaded_links, programs::loaded_programs};
use conn_tests::{
    flood::{Ending, Flood},
    harness::Outcome,
    host::Host,
    kernel::settled,
    ledger::Ledger,
    needs_tracing,
    netns::NetNs,
    port::Port,
    timeout,
    tracer::Tracer,
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use std::{collections::BTreeSet, fs, thread, time::Instant};

/// Programs, maps and links by their numbers, which the kernel does not use again soon.
#[derive(Debug, Default, PartialEq, Eq)]
struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
    links: BTreeSet<u32>,
}

impl Objects {
    /// All that this process has: by its descriptors, and what its programs use.
    fn of(tracer: &Tracer) -> Self {
        let mut objects = Self::default();
        for entry in fs::read_dir(format!("/proc/{}/fdinfo", tracer.pid())).unwrap() {
            // Descriptors come and go.
            let Ok(text) = fs::read_to_string(entry.unwrap().path()) else { continue };
            let number = |name: &str| -> Option<u32> {
                let mut lines = text.lines().filter_map(|line| line.split_once(':'));
                lines.find(|(key, _)| *key == name)?.1.trim().parse().ok()
            };
            objects.links.extend(number("link_id"));
            objects.maps.extend(number("map_id"));
            objects.programs.extend(number("prog_id"));
        }
        let programs = loaded_programs().flatten().filter(|program| objects.programs.contains(&program.id()));
        let used: Vec<u32> =
            programs.flat_map(|program| program.map_ids().unwrap().unwrap_or_default()).collect();
        objects.maps.extend(used);
        objects
    }

    /// Those of them that the kernel still has.
    fn left(&self) -> Self {
        let programs = loaded_programs().flatten().map(|program| program.id());
        let maps = loaded_maps().flatten().map(|map| map.id());
        let links = loaded_links().flatten().map(|link| link.id());
        Self {
            programs: programs.filter(|id| self.programs.contains(id)).collect(),
            maps: maps.filter(|id| self.maps.contains(id)).collect(),
            links: links.filter(|id| self.links.contains(id)).collect(),
        }
    }

    /// All of them are there, and among them those without which conntrace is not conntrace.
    fn check(&self) {
        assert_eq!(self.left(), *self);
        let programs: BTreeSet<String> = loaded_programs()
            .flatten()
            .filter(|program| self.programs.contains(&program.id()))
            .filter_map(|program| program.name_as_str().map(str::to_owned))
            .collect();
        let maps: BTreeSet<String> = loaded_maps()
            .flatten()
            .filter(|map| self.maps.contains(&map.id()))
            .filter_map(|map| map.name_as_str().map(str::to_owned))
            .collect();
        for name in ["set_state", "destroy_sock"] {
            assert!(programs.contains(name), "{name} is not in {programs:?}");
        }
        for name in ["SOCKET_STATES", "LEDGER", "EVENTS", "NETNS", "COUNTERS", "SWITCHES"] {
            assert!(maps.contains(name), "{name} is not in {maps:?}");
        }
        assert!(self.links.len() >= 2, "{self:?}");
    }

    /// The kernel frees programs after the process is gone and after their last run. No event announces that, so the
    /// test polls.
    fn await_none(&self) {
        let deadline = Instant::now() + timeout::seconds(10);
        loop {
            let left = self.left();
            if left == Self::default() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind: {left:?} of {self:?}");
            thread::yield_now();
        }
    }
}

fn kill(tracer: Tracer) {
    tracer.signal(Signal::SIGKILL);
    assert_eq!(tracer.await_end().signal, Some(Signal::SIGKILL as i32));
}

fn leaves_nothing<const N: usize>(args: [&str; N]) {
    let tracer = Tracer::start(args);
    let objects = Objects::of(&tracer);
    objects.check();
    kill(tracer);
    objects.await_none();
}

#[apply(needs_tracing)]
fn kill_9_of_stats_leaves_nothing(_: &Host) -> Outcome {
    leaves_nothing(["stats", "-o", "json", "--interval", "100ms"]);
    Ok(())
}

#[apply(needs_tracing)]
fn kill_9_of_events_leaves_nothing(_: &Host) -> Outcome {
    leaves_nothing(["events", "-o", "json", "--dport", "1"]);
    Ok(())
}

#[apply(needs_tracing)]
fn kill_9_under_load_leaves_nothing_and_the_next_start_is_exact(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let [busy, quiet] = [ports[0].number(), ports[1].number()];
    let ns = NetNs::new().unwrap();
    let flood = ns.run(|| Flood { open: 50, ..Flood::new(busy, u64::MAX, Ending::Mixed) }.start());
    for _ in 0..3 {
        let tracer = Tracer::start(["stats", "-o", "json", "--interval", "100ms"]);
        tracer.await_stdout("a report", |_| true);
        let objects = Objects::of(&tracer);
        objects.check();
        kill(tracer);
        objects.await_none();
    }
    let ledger = Ledger::start(&[busy, quiet], "100ms");
    let (_, pairs) = flood.halt();
    let truth = ns.run(|| close::orderly(ports[1].v4(), 7, First::Server));
    let kernel = ns.run(|| settled(&[busy, quiet]));
    assert!(!kernel.is_empty());
    ledger.await_report(&format!("{kernel:?}"), |report| report.open(&[busy, quiet]) == kernel);
    ledger.await_equal(&truth);
    drop(pairs);
    ledger.await_report("all closed", |report| report.open(&[busy, quiet]).is_empty());
    let last = ledger.stop();
    last.check_identity();
    assert_eq!(last.differences(&truth), Vec::<String>::new());
    Ok(())
}
