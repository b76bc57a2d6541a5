//! What a run of flows cannot do is refused, and where nothing tracks there is nothing.

use super::watch;
use conn_tests::{
    harness::Outcome, host::Host, needs_namespaces, needs_nothing, routed::Routed, tracer::Setup,
};
use macro_rules_attribute::apply;

#[apply(needs_nothing)]
fn options_of_sockets_are_refused_by_name(_: &Host) -> Outcome {
    for (arguments, said) in [
        (&["count", "--forwarded", "--pid", "1"][..], "flows are counted without the processes"),
        (&["--forwarded", "-e", "LISTEN"], "--event-mask: connection tracking has neither"),
        (&["--forwarded", "-o", "xml"], "--output: xml and save"),
        (&["--zone", "3"], "add --forwarded"),
        (&["stats", "--netns", "."], "--netns: sockets are counted by service and direction"),
        (&["stats", "-w", "3"], "add --forwarded"),
        (&["stats", "--forwarded", "comm = curl"], "flows are counted without the processes"),
        (&["stats", "--direction", "forward", "-o", "prometheus"], "there are no metrics of forwarded flows"),
        (&["stats", "--forwarded", "--lifetimes"], "--lifetimes: it is for sockets"),
    ] {
        let ended = Setup::new(arguments).run();
        assert!(ended.expect_code(2).contains(said), "{arguments:?}: {}", ended.stderr);
    }
    Ok(())
}

#[apply(needs_namespaces)]
fn a_router_that_does_not_track_shows_nothing(_: &Host) -> Outcome {
    let routed = Routed::new().unwrap();
    let tracer = watch(&routed, &[]);
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    routed.exchange(server.address).unwrap();
    let ended = tracer.stop();
    assert!(ended.stdout.is_empty(), "{ended:#?}");
    assert!(ended.stderr.contains("produced 0 = shown 0 + filtered 0 + lost 0: holds"), "{}", ended.stderr);
    Ok(())
}
