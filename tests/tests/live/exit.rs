//! The ends of a run: by a signal, by its own limits, and by a closed pipe.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::Kind,
    needs_tracing,
    port::Port,
    tracer::{Ended, Setup, Tracer},
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;

fn check_footer(ended: &Ended) {
    let footer = format!(
        "conntrace v{}: {} flow events have been shown.\n",
        env!("CARGO_PKG_VERSION"),
        ended.stdout.len()
    );
    assert!(ended.expect_code(0).ends_with(&footer), "no {footer:?}: {ended:#?}");
}

fn ends_by(signal: Signal) {
    let port = Port::claim();
    let tracer = Tracer::start(["--dport", &port.to_string()]);
    let tuple = close::orderly(port.v4(), 1, First::Client).tuple();
    tracer.await_flow(Kind::Destroy, "out", tuple);
    tracer.await_flow(Kind::Destroy, "in", tuple);
    tracer.signal(signal);
    let ended = tracer.await_end();
    assert!(!ended.stdout.is_empty());
    check_footer(&ended);
}

#[apply(needs_tracing)]
fn sigint_prints_the_footer(_: &Host) -> Outcome {
    ends_by(Signal::SIGINT);
    Ok(())
}

#[apply(needs_tracing)]
fn sigterm_prints_the_footer(_: &Host) -> Outcome {
    ends_by(Signal::SIGTERM);
    Ok(())
}

#[apply(needs_tracing)]
fn count_option_ends_the_run(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["--count", "3", "--dport", &port.to_string()]);
    close::orderly(port.v4(), 4, First::Client);
    let ended = tracer.await_end();
    assert_eq!(ended.events().len(), 3, "{ended:#?}");
    check_footer(&ended);
    Ok(())
}

#[apply(needs_tracing)]
fn timeout_option_ends_the_run(_: &Host) -> Outcome {
    let port = Port::claim();
    let ended = Setup::new(["--timeout", "300ms", "--dport", &port.to_string()]).run();
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    check_footer(&ended);
    Ok(())
}

#[apply(needs_tracing)]
fn events_left_in_the_ring_are_shown(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["-e", "NEW", "--dport", &port.to_string()]);
    let truth = close::orderly(port.v4(), 50, First::Client);
    let ended = tracer.stop();
    assert_eq!(ended.events().len(), truth.tuples.len() * 2, "{ended:#?}");
    check_footer(&ended);
    Ok(())
}

#[apply(needs_tracing)]
fn a_closed_pipe_ends_the_run_silently(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Setup::new(["--dport", &port.to_string()]).head(1).start();
    close::orderly(port.v4(), 1, First::Client);
    tracer.await_stdout("the only line that is read", |_| true);
    tracer.await_hang_up();
    close::orderly(port.v4(), 1, First::Client);
    let ended = tracer.await_end();
    assert_eq!(ended.expect_code(0), "", "{ended:#?}");
    Ok(())
}
