//! Flows that pass through a router: each begins once and ends once, with the tuples that conntrack shows.

mod beside_conntrack;
mod churn;
mod counts;
mod disorder;
mod flowtable;
mod forged;
mod losses;
mod owners;
mod paths;
mod refusals;
mod shapes;
mod volume;

use crate::live::conntrack_parity::run;
use conn_tests::{
    harness::{Outcome, Skip},
    line::{Kind, Line},
    routed::Routed,
    tracer::Tracer,
};
use std::net::SocketAddr;

/// A router that tracks what passes.
fn tracked() -> Result<Routed, Skip> {
    ruled(
        "add table inet t; add chain inet t f { type filter hook forward priority 0; }; add rule inet t f ct state new counter",
    )
}

/// A router with rules of nft.
fn ruled(rules: &str) -> Result<Routed, Skip> {
    run("nft", &["--version"])?;
    let routed = Routed::new().unwrap();
    routed.router.run(|| run("nft", &[rules]))?;
    Ok(routed)
}

/// `conntrace --forwarded` of the router.
fn watch(routed: &Routed, arguments: &[&str]) -> Tracer {
    let own = ["--netns".to_owned(), routed.router.inum().to_string()];
    let has_scope = arguments.iter().any(|argument| argument.starts_with("--forwarded"));
    let scope = Some("--forwarded".to_owned()).filter(|_| !has_scope);
    Tracer::start(own.into_iter().chain(scope).chain(arguments.iter().map(ToString::to_string)))
}

/// The event of this kind whose original direction begins at this end.
fn await_event(tracer: &Tracer, kind: Kind, from: SocketAddr) -> Line {
    tracer
        .await_event(&format!("{kind:?} of {from}"), |line| line.kind == kind && line.original.source == from)
}

/// Ends all entries of the router.
fn flush(routed: &Routed) -> Outcome {
    routed.router.run(|| run("conntrack", &["-F"]))
}
