//! `conntrace serve`.

use conn_tests::{harness::Outcome, host::Host, needs_tracing, tracer::Tracer};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;

#[apply(needs_tracing)]
fn a_signal_ends_the_daemon(_: &Host) -> Outcome {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let daemon = Tracer::start(["serve", "--transient"]);
        daemon.signal(signal);
        let ended = daemon.await_end();
        ended.expect_code(0);
    }
    Ok(())
}
