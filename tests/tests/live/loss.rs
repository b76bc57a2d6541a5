//! Events that found no room are told, with their number.

use conn_tests::{
    flood::{Ending, Flood},
    harness::{Live, Outcome, Skip},
    host::{Host, Need},
    live,
    port::Port,
    tracer::{Setup, Tracer},
};

pub(crate) const TESTS: &[Live] = live!(Need::Tracing; loss:
    lost_events_are_told_at_once_and_at_the_end,
);

/// The number in a line that says how many events were lost.
fn lost(line: &str) -> Option<u64> {
    line.contains("lost").then_some(())?;
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).max()
}

fn lost_events_are_told_at_once_and_at_the_end(_: &Host) -> Outcome {
    let help = Setup::new(["events", "--help"]).run();
    if !help.stdout.iter().any(|line| line.trim_start().starts_with("-b")) {
        return Err(Skip("conntrace has no option -b".into()));
    }
    let port = Port::take();
    let tracer = Tracer::start(["-b", "4K", "--dport", &port.to_string()]);
    let flood = Flood::new(port.number(), u64::MAX, Ending::Mixed).start();
    tracer.await_stderr("a line about lost events while it runs", |line| lost(line).is_some_and(|n| n > 0));
    let truth = flood.stop();
    let ended = tracer.stop();
    let total = ended.expect_code(0).lines().filter_map(lost).max().expect("a number");
    assert!(total > 0, "{}", ended.stderr);
    // Per connection and side at least NEW, ESTABLISHED and DESTROY: what is not shown was lost.
    let least = 3 * (truth.outgoing(port.number()).opened + truth.incoming(port.number()).opened);
    assert!(ended.stdout.len() as u64 + total >= least, "{total} lost of {least}: {}", ended.stderr);
    Ok(())
}
