//! A reader that cannot keep up: what was received and what was lost is what the kernel sent, to the unit.

use super::{tracked, watch};
use conn_tests::{harness::Outcome, host::Host, needs_namespaces, routed::Routed};
use macro_rules_attribute::apply;
use nix::sys::signal::Signal;
use std::net::SocketAddr;

/// Flows of one packet, each from another port, none of which is a `Port` of other tests. Returns how many.
fn one_packet_flows(routed: &Routed, count: u16) -> u64 {
    let sink = routed.server_socket(routed.server_end().v4.into()).unwrap();
    let to = sink.local_addr().unwrap();
    let ip = routed.client_end().v4;
    routed.client.run(|| {
        for port in 0..count {
            let socket = std::net::UdpSocket::bind(SocketAddr::from((ip, 30_000 + port))).unwrap();
            socket.send_to(b"x", to).unwrap();
        }
    });
    count.into()
}

/// The number behind a word of the accounting.
fn number(text: &str, word: &str) -> u64 {
    let rest = text.split_once(word).unwrap_or_else(|| panic!("no {word:?} in {text:?}")).1;
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

#[apply(needs_namespaces)]
fn a_stopped_reader_knows_how_much_it_lost(_: &Host) -> Outcome {
    let routed = tracked()?;
    for kind in ["new", "destroy"] {
        let tracer = watch(&routed, &["-e", kind, "-b", "64K", "-o", "json", "-p", "udp"]);
        tracer.signal(Signal::SIGSTOP);
        let flows = one_packet_flows(&routed, 3_000);
        super::flush(&routed)?;
        tracer.signal(Signal::SIGCONT);
        tracer.await_json("a loss", |line| line["event"] == "lost");
        let ended = tracer.stop();
        let stderr = ended.expect_balance();
        let accounting = stderr.lines().find(|line| line.contains("produced ")).unwrap();
        let (mut shown, mut lost, mut all_lost) = (0, 0, 0);
        for line in &ended.stdout {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            if line["event"] == "lost" {
                assert_eq!(line["netns"], routed.router.inum(), "{line}");
                all_lost += line["lost"].as_u64().unwrap();
                lost += line["lost"].as_u64().filter(|_| line["lost_event"] == kind).unwrap_or(0);
            } else {
                shown += 1;
            }
        }
        // Beginnings are read for lifetimes, too, if only ends are shown.
        assert_eq!(
            (number(accounting, "shown "), number(accounting, "lost ")),
            (shown, all_lost),
            "{accounting}"
        );
        assert!(accounting.ends_with(": holds") && lost > 1_000, "{accounting}");
        // Nothing but the flows of this test passes through.
        assert_eq!(shown + lost, flows, "{kind}: {accounting}");
    }
    Ok(())
}
