//! State that finds no room: a user takes the table, and the memory of the user's own namespace. No connection is invisible.

use conn_tests::{
    attack::{
        Attacker, may_starve,
        sockets::{connect_without_storage, hold},
    },
    harness::Outcome,
    host::Host,
    ledger::Ledger,
    needs_whole_machine,
    port::Port,
    tracer::Setup,
    truth::Direction,
};
use macro_rules_attribute::apply;
use std::{env, fs, path::PathBuf, process};

/// Connections of each process that holds some, with both ends.
const HELD: usize = 9_000;
/// Processes that hold connections: with all of them, no way of the table is free.
const HOLDERS: usize = 2;
/// Connections that are made once there is no memory for socket storage.
const HIDDEN: usize = 500;
/// Hooks of a host without a cgroup v2 hierarchy, which has no table.
pub(crate) const WITHOUT_TABLE: [&str; 2] = ["--witnesses", "set_state,set_state_again,destroy_sock"];

/// A file of events that goes with the test.
struct Events(PathBuf);

impl Events {
    fn new(name: &str) -> Self {
        Self(env::temp_dir().join(format!("conn-tests-{}-{name}.events", process::id())))
    }

    /// How many lines name this service port.
    fn of_port(&self, port: u16) -> usize {
        let text = fs::read_to_string(&self.0).expect("events");
        text.lines().filter(|line| line.contains(&format!("\"dport\":{port},"))).count()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Processes hold connections, and another one makes connections without memory for socket storage.
fn none_is_invisible(name: &str, holders: usize, more: &[&str]) -> Outcome {
    may_starve()?;
    let ports = Port::block(2);
    let [held_port, port] = [0, 1].map(|at: usize| ports[at].number());
    let events = Events::new(name);
    let arguments = ["-e", "NEW,DESTROY", "-o", "json", "-b", "64M", "--strict"];
    let tracer = Setup::new(arguments).arguments(more).stdout_to(&events.0).start();
    let ledger = Ledger::start_with(&[], "500ms", more);
    let hold = |_| Attacker::start("conn-holds", |line| hold(line, HELD, held_port));
    let holders: Vec<Attacker> = (0..holders).map(hold).collect();
    holders.iter().for_each(Attacker::await_ready);
    Attacker::start("conn-starves", |_| connect_without_storage(HIDDEN, port)).join();
    drop(holders);
    let (ended, report) = (tracer.stop(), ledger.stop());
    let shown = events.of_port(port);
    let counted = [Direction::Out, Direction::In].map(|side| report.numbers(side, port).closed);
    println!("{name}: {shown} of {} events shown, {counted:?} of {HIDDEN} counted", 4 * HIDDEN);
    println!("{name}: {} {}", ended.stderr.trim_end().replace('\n', " | "), report.to_text());
    // NEW and DESTROY of both ends.
    assert_eq!(shown, 4 * HIDDEN, "{}", ended.stderr);
    assert!(ended.expect_code(0).contains("lost 0: holds"), "{}", ended.stderr);
    assert_eq!(counted, [HIDDEN as u64; 2], "{}", report.to_text());
    report.check_identity();
    Ok(())
}

#[apply(needs_whole_machine)]
fn no_connection_hides_behind_a_full_table(_: &Host) -> Outcome {
    super::super::workload::cgroup_root()?;
    none_is_invisible("full-table", HOLDERS, &[])
}

#[apply(needs_whole_machine)]
fn no_connection_hides_where_there_is_no_table(_: &Host) -> Outcome {
    none_is_invisible("no-table", 0, &WITHOUT_TABLE)
}
