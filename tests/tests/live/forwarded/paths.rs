//! Other ways than through two interfaces of a router: back by the same one, and across a bridge.

use super::{await_event, run, tracked, watch};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    line::Kind,
    needs_tracing,
    netns::NetNs,
};
use macro_rules_attribute::apply;
use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process,
};

#[apply(needs_tracing)]
fn a_hairpin_has_both_tuples_and_the_process(_: &Host) -> Outcome {
    let routed = tracked()?;
    // The service and its client are both inside, and the client knows the outer address only.
    let inside = IpAddr::V4(routed.client_end().v4);
    let listener = routed.client.run(|| TcpListener::bind((inside, 0))).unwrap();
    let service = listener.local_addr().unwrap();
    let rules = format!(
        "add chain inet t d {{ type nat hook prerouting priority dstnat; }}; \
         add rule inet t d tcp dport 80 dnat ip to {service}; \
         add chain inet t p {{ type nat hook postrouting priority srcnat; }}; \
         add rule inet t p ip saddr {inside} ip daddr {inside} masquerade"
    );
    routed.router.run(|| run("nft", &[&rules]))?;
    let (tracer, json) = (watch(&routed, &[]), watch(&routed, &["-o", "json", "--any-nat", "-e", "NEW"]));
    let asked = SocketAddr::from((routed.outer_end().v4, 80));
    routed.client.route(asked.ip(), 32, routed.inner_end().v4.into()).unwrap();
    let stream = routed.client.run(|| TcpStream::connect(asked)).unwrap();
    let client = stream.local_addr().unwrap();
    let new = await_event(&tracer, Kind::New, client);
    assert_eq!((new.original.destination, new.reply.source), (asked, service));
    assert_eq!(new.reply.destination.ip(), IpAddr::V4(routed.inner_end().v4));
    let own = process::id().to_string();
    assert_eq!((new.key("dir"), new.key("pid")), (Some("forward"), Some(own.as_str())), "{new:?}");
    let event = json.await_json("NEW", |event| event["sport"] == client.port());
    assert_eq!(event["nat"], "both", "{event}");
    // One entry, so one flow: the socket of the service accepted from the router's address.
    assert_eq!(listener.accept().unwrap().1, new.reply.destination);
    tracer.stop().expect_balance();
    assert_eq!(json.stop().stdout.len(), 1);
    Ok(())
}

#[apply(needs_tracing)]
fn a_flow_across_a_bridge_passes_through(_: &Host) -> Outcome {
    if !Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists() {
        return Err(Skip("this kernel has no br_netfilter, or has not loaded it".into()));
    }
    let [client, middle, server] = [(); 3].map(|()| NetNs::new().unwrap());
    let _residents = [client.settle(), middle.settle(), server.settle()];
    let [one, other] = [&client, &server].map(|netns| middle.join(netns).unwrap());
    middle.run(|| {
        run("nft", &["add table inet t; add chain inet t f { type filter hook forward priority 0; }; add rule inet t f ct state new counter"])
    })?;
    middle.sysctl("net.bridge.bridge-nf-call-iptables", "1").unwrap();
    let [from, to] = middle.bridge((&client, &one), (&server, &other)).unwrap();
    let listener = server.run(|| TcpListener::bind((to, 0))).unwrap();
    let tracer = conn_tests::tracer::Tracer::start([
        "--forwarded",
        "-p",
        "tcp",
        "--netns",
        &middle.inum().to_string(),
    ]);
    let stream = client.run(|| TcpStream::connect(listener.local_addr().unwrap())).unwrap();
    let own = stream.local_addr().unwrap();
    assert_eq!(own.ip(), IpAddr::V4(from));
    let new = await_event(&tracer, Kind::New, own);
    let pid = process::id().to_string();
    assert_eq!((new.key("dir"), new.key("pid")), (Some("forward"), Some(pid.as_str())), "{new:?}");
    tracer.stop().expect_balance();
    Ok(())
}
