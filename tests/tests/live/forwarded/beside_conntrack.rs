//! The same flows as `conntrack -E`, tuple by tuple, in both directions.

use super::{flush, ruled, watch};
use crate::live::conntrack_parity::listen;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    line::{Kind, Line},
    needs_namespaces,
    tracer::Tracer,
    traffic::LIMIT,
};
use macro_rules_attribute::apply;
use std::{cell::Cell, collections::BTreeMap};

const BATCHES: usize = 10;
/// Flows of a batch: 10 of TCP, 20 of UDP.
const BATCH: usize = 30;

/// A line without its timeout and without what only one of both has.
pub(super) fn text(line: &Line) -> String {
    let Line { kind, protocol, state, original, reply, unreplied, assured, offload, .. } = line;
    let ways = [original, reply].map(|way| format!("{} {} {:?}", way.source, way.destination, way.counters));
    format!("{kind:?} {protocol} {state:?} {} {unreplied} {assured} {offload}", ways.join(" "))
}

/// How often each line came. Ports come again, so lines are counted.
fn shown(lines: &[Line]) -> BTreeMap<String, usize> {
    let mut shown = BTreeMap::new();
    for line in lines {
        *shown.entry(text(line)).or_default() += 1;
    }
    shown
}

/// Both show the same lines, equally often.
pub(super) fn compare(ours: &[Line], theirs: &[Line]) {
    let (ours, theirs) = (shown(ours), shown(theirs));
    let only = |one: &BTreeMap<String, usize>, other: &BTreeMap<String, usize>| -> Vec<String> {
        let differs = |(line, count): &(&String, &usize)| other.get(*line) != Some(*count);
        one.iter().filter(differs).map(|(line, _)| line.clone()).collect()
    };
    assert_eq!(
        (only(&ours, &theirs), only(&theirs, &ours)),
        (vec![], vec![]),
        "only here, only in conntrack"
    );
}

fn await_ends(tracer: &Tracer, ends: usize) -> Result<(), String> {
    let seen = Cell::new(0);
    let found = tracer.find_stdout(|text| {
        seen.set(seen.get() + usize::from(text.parse::<Line>().unwrap().kind == Kind::Destroy));
        seen.get() == ends
    });
    found.map(|_| ())
}

#[apply(needs_namespaces)]
fn conntrack_shows_the_same_flows(_: &Host) -> Outcome {
    let routed = ruled(
        "add table inet t; add chain inet t p { type nat hook postrouting priority srcnat; }; \
         add rule inet t p oifname != \"lo\" masquerade",
    )?;
    let theirs = routed.router.run(|| listen(&["-b", "67108864"]));
    let ours = watch(&routed, &["--forwarded=all"]);
    let ends = routed.server_end();
    let servers = [routed.serve(ends.v4.into()).unwrap(), routed.serve(ends.v6.into()).unwrap()];
    let sink = routed.server_socket(ends.v4.into()).unwrap();
    sink.set_read_timeout(Some(*LIMIT)).unwrap();
    for batch in 1..=BATCHES {
        for number in 0..10 {
            routed.exchange(servers[number % 2].address).unwrap();
        }
        // Kept until the flush: a port that came again would go on with the entry of the first flow.
        let mut clients = Vec::new();
        for number in 0..20 {
            let client = routed.client_socket(routed.client_end().v4.into()).unwrap();
            client.send_to(b"query", sink.local_addr().unwrap()).unwrap();
            let (_, from) = sink.recv_from(&mut [0; 8]).unwrap();
            if number % 2 == 0 {
                sink.send_to(b"answer", from).unwrap();
                client.set_read_timeout(Some(*LIMIT)).unwrap();
                client.recv(&mut [0; 8]).unwrap();
            }
            clients.push(client);
        }
        flush(&routed)?;
        await_ends(&ours, batch * BATCH).unwrap();
        if let Err(missing) = await_ends(&theirs, batch * BATCH) {
            assert!(theirs.has_stderr(|line| line.contains("ENOBUFS")), "{missing}");
            return Err(Skip(format!("conntrack loses events here (ENOBUFS): {missing}")));
        }
    }
    let (ours, theirs) = (ours.stop(), theirs.stop());
    ours.expect_balance();
    let events = ours.events();
    compare(&events, &theirs.events());
    assert!(events.len() > 2 * BATCHES * BATCH);
    Ok(())
}
