//! IPv6, and IPv4 in the clothes of IPv6.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::Kind,
    needs_tracing,
    port::Port,
    tracer::Tracer,
    traffic::close::{self, First},
};
use macro_rules_attribute::apply;
use std::net::{Ipv4Addr, SocketAddr};

fn both_ends(tracer: &Tracer, tuple: conn_tests::truth::Tuple) {
    for direction in ["out", "in"] {
        for kind in [Kind::New, Kind::Destroy] {
            tracer.await_flow(kind, direction, tuple);
        }
    }
}

#[apply(needs_tracing)]
fn ipv6_is_printed_whole(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["--dport", &port.to_string()]);
    let tuple = close::orderly(port.v6(), 1, First::Client).tuple();
    assert!(tuple.client.is_ipv6());
    both_ends(&tracer, tuple);
    Ok(())
}

fn mapped(port: &Port) -> SocketAddr {
    port.at(Ipv4Addr::LOCALHOST.to_ipv6_mapped())
}

#[apply(needs_tracing)]
fn a_mapped_socket_is_printed_as_ipv4(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["--dport", &port.to_string()]);
    both_ends(&tracer, close::dual_stack(port.number(), mapped(&port)).tuple());
    Ok(())
}

#[apply(needs_tracing)]
fn an_ipv4_client_of_a_dual_listener_is_ipv4_at_both_ends(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["--dport", &port.to_string()]);
    both_ends(&tracer, close::dual_stack(port.number(), port.v4()).tuple());
    Ok(())
}

#[apply(needs_tracing)]
fn mapped_sockets_match_the_ipv4_filter_only(_: &Host) -> Outcome {
    let port = Port::claim();
    let of = |family| Tracer::start(["-f", family, "-e", "NEW,DESTROY", "--dport", &port.to_string()]);
    let (v4, v6) = (of("ipv4"), of("ipv6"));
    let dressed = close::dual_stack(port.number(), mapped(&port)).tuple();
    let plain = close::dual_stack(port.number(), port.v4()).tuple();
    // The last of each family is the end of what there is to wait for.
    let six = close::orderly(port.v6(), 1, First::Client).tuple();
    both_ends(&v6, six);
    both_ends(&v4, dressed);
    both_ends(&v4, plain);
    assert!(v6.events().iter().all(|line| line.tuple() == six), "{:#?}", v6.events());
    assert!(v4.events().iter().all(|line| line.tuple() != six), "{:#?}", v4.events());
    Ok(())
}
