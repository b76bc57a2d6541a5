//! What matches is shown and what does not is not. Each test makes first what must not match, then what
//! must, and waits for the end of the last: one ring keeps the order, so what has not come by then was kept
//! out.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    port::Port,
    tracer::Tracer,
    traffic::{
        Server,
        close::{self, First},
        fail, socket,
    },
    truth::Tuple,
};
use macro_rules_attribute::apply;
use std::collections::BTreeSet;

fn connection(port: &Port) -> Tuple {
    close::orderly(port.v4(), 1, First::Client).tuple()
}

#[apply(needs_tracing)]
fn event_filter_selects_kinds(_: &Host) -> Outcome {
    let port = Port::claim();
    let of = |kinds| Tracer::start(["-e", kinds, "--dport", &port.to_string()]);
    let (ends, middles, all) = (of("NEW,DESTROY"), of("UPDATES"), of("ALL"));
    let tuple = connection(&port);
    for direction in ["out", "in"] {
        ends.await_flow(Kind::New, direction, tuple);
        ends.await_flow(Kind::Destroy, direction, tuple);
        middles.await_flow(Kind::Update, direction, tuple);
        for kind in [Kind::New, Kind::Update, Kind::Destroy] {
            all.await_flow(kind, direction, tuple);
        }
    }
    // The second connection flushes what may still come of the first.
    let second = connection(&port);
    ends.await_flow(Kind::New, "out", second);
    middles.await_flow(Kind::Update, "out", second);
    assert!(ends.events().iter().all(|line| line.kind != Kind::Update), "{:#?}", ends.events());
    assert!(middles.events().iter().all(|line| line.kind == Kind::Update), "{:#?}", middles.events());
    Ok(())
}

#[apply(needs_tracing)]
fn event_filter_takes_conntrack_spellings(_: &Host) -> Outcome {
    let port = Port::claim();
    for spelling in ["n", "New", "NEW", "nE"] {
        let tracer = Tracer::start(["-E", "-e", spelling, "-p", "tcp", "--dport", &port.to_string()]);
        let first = connection(&port);
        tracer.await_flow(Kind::New, "in", first);
        let second = connection(&port);
        tracer.await_flow(Kind::New, "in", second);
        tracer.await_flow(Kind::New, "out", second);
        assert!(tracer.events().iter().all(|line| line.kind == Kind::New), "{spelling}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn service_ports_match_lists_and_ranges(_: &Host) -> Outcome {
    let ports = Port::block(8);
    let chosen = [0, 2, 3, 4].map(|n: usize| ports[n].number());
    let spelled = format!("{},{}-{}", ports[0], ports[2], ports[4]);
    let tracer = Tracer::start(["events", "-e", "NEW", "--dport", &spelled]);
    for n in [1, 5, 6, 7, 2, 3, 4, 0] {
        connection(&ports[n]);
    }
    let last = connection(&ports[0]);
    tracer.await_flow(Kind::New, "out", last);
    tracer.await_flow(Kind::New, "in", last);
    let seen: BTreeSet<u16> = tracer.events().iter().map(|line| line.tuple().server.port()).collect();
    assert_eq!(seen, BTreeSet::from(chosen));
    Ok(())
}

/// A connection to `server` from a source port of the test's choice.
fn connection_from(client: &Port, server: &Port) -> Tuple {
    let listener = Server::listen(server.v4());
    let socket = socket::tcp(server.v4());
    socket.set_reuse_address(true).unwrap();
    socket::bind(&socket, client.v4());
    socket.connect(&server.v4().into()).unwrap();
    listener.pair_from(socket).tuple
}

#[apply(needs_tracing)]
fn source_ports_match(_: &Host) -> Outcome {
    let (server, clients) = (Port::claim(), Port::block(2));
    let tracer =
        Tracer::start(["-e", "NEW", "--dport", &server.to_string(), "--sport", &clients[0].to_string()]);
    connection(&server);
    connection_from(&clients[1], &server);
    let wanted = connection_from(&clients[0], &server);
    tracer.await_flow(Kind::New, "out", wanted);
    tracer.await_flow(Kind::New, "in", wanted);
    assert!(tracer.events().iter().all(|line| line.tuple() == wanted), "{:#?}", tracer.events());
    Ok(())
}

#[apply(needs_tracing)]
fn a_source_port_range_needs_no_service_port(_: &Host) -> Outcome {
    let (servers, clients) = (Port::block(2), Port::block(3));
    let range = format!("{}-{}", clients[0], clients[1]);
    let tracer = Tracer::start(["-e", "DESTROY", "--sport", &range]);
    connection_from(&clients[2], &servers[0]);
    let wanted = [connection_from(&clients[0], &servers[0]), connection_from(&clients[1], &servers[1])];
    for tuple in wanted {
        tracer.await_flow(Kind::Destroy, "out", tuple);
        tracer.await_flow(Kind::Destroy, "in", tuple);
    }
    assert!(tracer.events().iter().all(|line| wanted.contains(&line.tuple())), "{:#?}", tracer.events());
    Ok(())
}

#[apply(needs_tracing)]
fn direction_filter_selects_one_side(_: &Host) -> Outcome {
    let port = Port::claim();
    for direction in ["in", "out"] {
        let tracer = Tracer::start(["--direction", direction, "--dport", &port.to_string()]);
        connection(&port);
        let last = connection(&port);
        tracer.await_flow(Kind::Destroy, direction, last);
        let wrong = |line: &Line| line.key("dir") != Some(direction);
        assert!(!tracer.events().iter().any(wrong), "{:#?}", tracer.events());
    }
    Ok(())
}

#[apply(needs_tracing)]
fn family_filter_selects_one_family(_: &Host) -> Outcome {
    let port = Port::claim();
    for (family, wrong, right) in [("ipv4", port.v6(), port.v4()), ("ipv6", port.v4(), port.v6())] {
        let tracer = Tracer::start(["-f", family, "-e", "NEW", "--dport", &port.to_string()]);
        close::orderly(wrong, 1, First::Client);
        let tuple = close::orderly(right, 1, First::Client).tuple();
        tracer.await_flow(Kind::New, "out", tuple);
        tracer.await_flow(Kind::New, "in", tuple);
        assert!(tracer.events().iter().all(|line| line.tuple() == tuple), "{:#?}", tracer.events());
    }
    Ok(())
}

#[apply(needs_tracing)]
fn filters_combine_with_and(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let port = ports[0].to_string();
    let tracer = Tracer::start(["-e", "DESTROY", "-f", "ipv4", "--direction", "in", "--dport", &port]);
    connection(&ports[1]);
    close::orderly(ports[0].v6(), 1, First::Server);
    let tuple = connection(&ports[0]);
    tracer.await_flow(Kind::Destroy, "in", tuple);
    assert_eq!(tracer.events().len(), 1, "{:#?}", tracer.events());
    Ok(())
}

/// A socket of no interest leaves no trace in the kernel until it connects to a port of interest, and the other
/// way round.
#[apply(needs_tracing)]
fn a_reused_socket_is_filtered_anew(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let (other, wanted) = (Server::listen(ports[0].v4()), Server::listen(ports[1].v4()));
    let port = ports[1].to_string();
    let all = Tracer::start(["-e", "ALL", "--dport", &port]);
    let new = Tracer::start(["-e", "NEW", "--dport", &port]);
    let client = socket::tcp(other.address);
    let mut shown = Vec::new();
    for server in [&other, &wanted, &other, &wanted] {
        client.connect(&server.address.into()).unwrap();
        let tuple = socket::tuple_of(&client);
        let accepted = server.accept();
        socket::disconnect(&client);
        socket::await_error(&accepted);
        if server.address == wanted.address {
            shown.push(tuple);
        }
    }
    for &tuple in &shown {
        for direction in ["out", "in"] {
            new.await_flow(Kind::New, direction, tuple);
            all.await_flow(Kind::New, direction, tuple);
            let end = all.await_flow(Kind::Destroy, direction, tuple);
            let owner = if direction == "out" { "connect" } else { "accept" };
            assert_eq!(end.key("owner"), Some(owner), "{end:?}");
        }
    }
    for line in all.events().iter().chain(&new.events()) {
        assert!(shown.contains(&line.tuple()), "{line:?}");
    }
    Ok(())
}

/// Both ends of a connection from the wanted service port to another one: the opener tells the two ends apart.
#[apply(needs_tracing)]
fn a_service_port_is_no_source_port(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let tracer = Tracer::start(["-e", "ALL", "--dport", &ports[0].to_string()]);
    connection_from(&ports[0], &ports[1]);
    let tuple = connection_from(&ports[1], &ports[0]);
    tracer.await_flow(Kind::Destroy, "out", tuple);
    tracer.await_flow(Kind::Destroy, "in", tuple);
    assert!(tracer.events().iter().all(|line| line.tuple() == tuple), "{:#?}", tracer.events());
    Ok(())
}

/// What becomes of a connection is not looked at, but a new one on the same socket is a new one.
#[apply(needs_tracing)]
fn new_only_shows_each_attempt_of_a_socket(_: &Host) -> Outcome {
    let port = Port::claim();
    let tracer = Tracer::start(["-e", "NEW", "--dport", &port.to_string()]);
    let refused_first = fail::refused_then_connected(port.v4());
    let used_twice = close::reuse(port.v4());
    let attempts = [&refused_first, &used_twice].map(|truth| truth.outgoing(port.number()).opened);
    let last = connection(&port);
    tracer.await_flow(Kind::New, "out", last);
    tracer.await_flow(Kind::New, "in", last);
    let outgoing = tracer.events().iter().filter(|line| line.key("dir") == Some("out")).count();
    assert_eq!(outgoing as u64, attempts.iter().sum::<u64>() + 1, "{:#?}", tracer.events());
    Ok(())
}
