//! The scenarios themselves, without conntrace: each closes every connection that it makes.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_namespaces,
    port::Port,
    scenario::ALL,
};
use macro_rules_attribute::apply;
use std::thread;

#[apply(needs_namespaces)]
fn every_scenario_closes_its_connections(_: &Host) -> Outcome {
    let mut skipped = Vec::new();
    let ports: Vec<Vec<Port>> = ALL.iter().map(|_| Port::block(2)).collect();
    thread::scope(|scope| {
        let running: Vec<_> = ALL
            .iter()
            .zip(&ports)
            .map(|(scenario, ports)| (scenario, scope.spawn(|| (scenario.run)(ports[0].number()))))
            .collect();
        for (scenario, thread) in running {
            match thread.join().unwrap_or_else(|_| panic!("scenario {}", scenario.name)) {
                Ok(truth) => {
                    for (key, counts) in &truth.counts {
                        assert_eq!(counts.open(), 0, "{} {key:?} {counts:?}", scenario.name);
                    }
                }
                Err(Skip(reason)) => skipped.push(format!("{}: {reason}", scenario.name)),
            }
        }
    });
    if skipped.is_empty() { Ok(()) } else { Err(Skip(format!("some scenarios: {}", skipped.join("; ")))) }
}
