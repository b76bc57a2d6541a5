//! What a flow looks like: routed, translated, of each protocol, with marks and zones.

use super::{await_event, flush, ruled, tracked, watch};
use conn_tests::{harness::Outcome, host::Host, line::Kind, needs_namespaces, needs_tracing, traffic::LIMIT};
use macro_rules_attribute::apply;
use std::net::{IpAddr, SocketAddr};

#[apply(needs_tracing)]
fn a_routed_connection_begins_changes_and_ends(_: &Host) -> Outcome {
    let routed = tracked()?;
    let (plain, json) = (watch(&routed, &["-o", "id"]), watch(&routed, &["-o", "json"]));
    for ip in [IpAddr::V4(routed.server_end().v4), routed.server_end().v6.into()] {
        let server = routed.serve(ip).unwrap();
        let client = routed.exchange(server.address).unwrap();
        let new = await_event(&plain, Kind::New, client);
        assert_eq!((new.original.destination, new.state.as_deref()), (server.address, Some("SYN_SENT")));
        assert_eq!((new.reply.source, new.reply.destination), (server.address, client));
        assert!(new.unreplied && !new.assured && new.timeout.is_some(), "{new:?}");
        // The client's socket is one of this process.
        let own = std::process::id().to_string();
        assert_eq!(
            (new.key("dir"), new.key("pid"), new.key("owner")),
            (Some("forward"), Some(own.as_str()), Some("socket"))
        );
        let established = plain.await_event("ESTABLISHED", |line| {
            line.original.source == client && line.state.as_deref() == Some("ESTABLISHED")
        });
        assert!(established.kind == Kind::Update && established.assured && !established.unreplied);
        flush(&routed)?;
        let end = await_event(&plain, Kind::Destroy, client);
        assert!(end.assured && end.key("id") == new.key("id"), "{end:?}");
        // The kernel does not stamp, so conntrace's own reading of both is the lifetime.
        assert!(end.key("lifetime").unwrap().parse::<f64>().unwrap() < LIMIT.as_secs_f64());
        let event = json.await_json("the end", |event| {
            event["event"] == "destroy"
                && event["sport"] == client.port()
                && event["src"] == client.ip().to_string()
        });
        for (key, value) in [
            ("direction", "forward"),
            ("state", "close"),
            ("reply_src", &server.address.ip().to_string()),
            ("reply_dst", &client.ip().to_string()),
            ("time_source", "reading"),
        ] {
            assert_eq!(event[key], value, "{key}: {event}");
        }
        assert_eq!(
            (&event["reply_sport"], &event["netns"]),
            (&server.address.port().into(), &routed.router.inum().into())
        );
        assert!(event["nat"].is_null() && event["reason"].is_null(), "{event}");
        assert_eq!(event["pid"], std::process::id(), "{event}");
        assert!(event["lifetime_ns"].as_u64().is_some() && event["replied"] == true, "{event}");
    }
    plain.stop().expect_code(0);
    json.stop().expect_code(0);
    Ok(())
}

#[apply(needs_namespaces)]
fn the_kernels_stamps_are_the_times(_: &Host) -> Outcome {
    let routed = tracked()?;
    routed.router.sysctl("net.netfilter.nf_conntrack_timestamp", "1").unwrap();
    routed.router.sysctl("net.netfilter.nf_conntrack_acct", "1").unwrap();
    let tracer = watch(&routed, &["-o", "json", "-e", "DESTROY"]);
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    let client = routed.exchange(server.address).unwrap();
    flush(&routed)?;
    let end = tracer.await_json("the end", |event| event["sport"] == client.port());
    assert_eq!(end["time_source"], "kernel", "{end}");
    let (began, ended) = (end["attempt_ns"].as_i64().unwrap(), end["time_ns"].as_i64().unwrap());
    assert_eq!(end["lifetime_ns"].as_i64(), Some(ended - began), "{end}");
    // SYN, ACK, a byte, FIN or its ACK; with 52 bytes of headers or more.
    assert!(
        end["segments_sent"].as_u64().unwrap() >= 4 && end["bytes_received"].as_u64().unwrap() > 4 * 52,
        "{end}"
    );
    tracer.stop().expect_code(0);
    Ok(())
}

#[apply(needs_namespaces)]
fn a_masqueraded_flow_has_both_tuples(_: &Host) -> Outcome {
    let routed = ruled(
        "add table inet t; add chain inet t p { type nat hook postrouting priority srcnat; }; \
         add rule inet t p oifname != \"lo\" masquerade",
    )?;
    let tracers = [
        watch(&routed, &[]),
        watch(&routed, &["--src-nat", "-e", "NEW"]),
        watch(&routed, &["-n", &routed.outer_end().v4.to_string(), "-e", "NEW"]),
        watch(&routed, &["-q", &routed.outer_end().v4.to_string(), "-e", "NEW"]),
    ];
    let others = [
        watch(&routed, &["-g", "-e", "NEW"]),
        watch(&routed, &["-n", &routed.client_end().v4.to_string(), "-e", "NEW"]),
        watch(&routed, &["-q", &routed.client_end().v4.to_string(), "-e", "NEW"]),
    ];
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    let client = routed.exchange(server.address).unwrap();
    for tracer in &tracers {
        let new = await_event(tracer, Kind::New, client);
        assert_eq!((new.original.source, new.original.destination), (client, server.address));
        assert_eq!(
            (new.reply.source, new.reply.destination.ip()),
            (server.address, routed.outer_end().v4.into())
        );
    }
    for tracer in tracers.into_iter().chain(others) {
        let ended = tracer.stop();
        let is_translated = |line: &String| line.contains(&format!(" dst={} ", routed.outer_end().v4));
        assert!(ended.stdout.iter().all(is_translated), "{ended:#?}");
        ended.expect_balance();
    }
    Ok(())
}

#[apply(needs_namespaces)]
fn a_redirected_flow_has_both_tuples(_: &Host) -> Outcome {
    let routed = tracked()?;
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    let (to, port) = (routed.server_end().v4, server.address.port());
    let rules = format!(
        "add chain inet t d {{ type nat hook prerouting priority dstnat; }}; \
         add rule inet t d tcp dport 80 dnat ip to {to}:{port}"
    );
    routed.router.run(|| crate::live::conntrack_parity::run("nft", &[&rules]))?;
    let (tracer, json) = (watch(&routed, &["--dport", "80"]), watch(&routed, &["--any-nat", "-o", "json"]));
    // The router's own address: the reply comes from elsewhere, so the flow passes through.
    let asked = SocketAddr::from((routed.inner_end().v4, 80));
    let client = routed.exchange(asked).unwrap();
    let new = await_event(&tracer, Kind::New, client);
    assert_eq!((new.original.destination, new.reply.source), (asked, server.address));
    assert_eq!(new.key("dir"), Some("forward"));
    let event = json.await_json("NEW", |event| event["event"] == "new" && event["sport"] == client.port());
    assert_eq!((&event["nat"], &event["reply_sport"]), (&"dst".into(), &port.into()), "{event}");
    tracer.stop().expect_balance();
    json.stop().expect_balance();
    Ok(())
}

#[apply(needs_namespaces)]
fn flows_of_udp_and_icmp_end_when_they_expire(_: &Host) -> Outcome {
    let routed = tracked()?;
    for name in ["udp", "icmp", "icmpv6"] {
        routed.router.sysctl(&format!("net.netfilter.nf_conntrack_{name}_timeout"), "1").unwrap();
    }
    let tracer = watch(&routed, &["-p", "udp,icmp,icmpv6"]);
    let ip = IpAddr::V4(routed.server_end().v4);
    let (client, server) =
        (routed.client_socket(routed.client_end().v4.into()).unwrap(), routed.server_socket(ip).unwrap());
    client.send_to(b"query", server.local_addr().unwrap()).unwrap();
    server.set_read_timeout(Some(*LIMIT)).unwrap();
    let (_, from) = server.recv_from(&mut [0; 8]).unwrap();
    server.send_to(b"answer", from).unwrap();
    routed.ping(ip).unwrap();
    routed.ping(routed.server_end().v6.into()).unwrap();
    let new = await_event(&tracer, Kind::New, client.local_addr().unwrap());
    assert_eq!((new.protocol.as_str(), new.unreplied, new.state), ("udp", true, None));
    let replied = await_event(&tracer, Kind::Update, client.local_addr().unwrap());
    assert!(!replied.unreplied && !replied.assured);
    let ping = tracer.await_event("NEW of ICMP", |line| line.protocol == "icmp" && line.kind == Kind::New);
    assert_eq!((ping.number, ping.original.destination.port(), ping.reply.destination.port()), (1, 0x800, 0));
    assert_eq!(ping.original.source.port(), ping.reply.source.port(), "the id of request and reply");
    let ping =
        tracer.await_event("NEW of ICMPv6", |line| line.protocol == "icmpv6" && line.kind == Kind::New);
    assert_eq!((ping.number, ping.original.destination.port(), ping.unreplied), (58, 0x8000, true));
    assert_eq!((ping.key("dir"), ping.reply.destination.port()), (Some("forward"), 0x8100), "{ping:?}");
    tracer.await_event("the reply of ICMPv6", |line| {
        line.protocol == "icmpv6" && line.kind == Kind::Update && !line.unreplied
    });
    // No packet comes any more: a dump meets the expired entries.
    await_event(&tracer, Kind::Destroy, client.local_addr().unwrap());
    for name in ["icmp", "icmpv6"] {
        tracer.await_event("the end of an echo", |line| line.protocol == name && line.kind == Kind::Destroy);
    }
    tracer.stop().expect_balance();
    Ok(())
}

#[apply(needs_namespaces)]
fn marks_and_zones_are_shown_and_filtered(_: &Host) -> Outcome {
    let routed = ruled(
        "add table inet t; add chain inet t z { type filter hook prerouting priority raw; }; \
         add rule inet t z ct zone set 3; \
         add chain inet t f { type filter hook forward priority 0; }; add rule inet t f ct mark set 0x17",
    )?;
    let tracers = [
        watch(&routed, &[]),
        watch(&routed, &["--mark", "0x17"]),
        watch(&routed, &["-m", "0x10/0xf0", "-w", "3"]),
    ];
    let others = [watch(&routed, &["--mark", "7"]), watch(&routed, &["--zone", "0,4"])];
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    let client = routed.exchange(server.address).unwrap();
    for tracer in tracers {
        let new = await_event(&tracer, Kind::New, client);
        assert_eq!((new.key("mark"), new.key("zone")), (Some("23"), Some("3")));
        tracer.stop().expect_balance();
    }
    for tracer in others {
        assert!(tracer.stop().stdout.is_empty());
    }
    Ok(())
}

#[apply(needs_namespaces)]
fn flows_from_before_end_although_no_message_says_so(_: &Host) -> Outcome {
    let routed = tracked()?;
    let client = routed.client_socket(routed.client_end().v4.into()).unwrap();
    let server = routed.server_socket(routed.server_end().v4.into()).unwrap();
    client.send_to(b"query", server.local_addr().unwrap()).unwrap();
    server.recv_from(&mut [0; 8]).unwrap();
    let tracer = watch(&routed, &["-o", "json", "-e", "DESTROY"]);
    // It is known by now. Its next packet is its last.
    routed.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "1").unwrap();
    client.send_to(b"query", server.local_addr().unwrap()).unwrap();
    let end = tracer.await_json("the end", |event| event["sport"] == client.local_addr().unwrap().port());
    assert_eq!((&end["preexisting"], &end["protocol"]), (&true.into(), &"udp".into()), "{end}");
    assert!(end["lifetime_ns"].is_null() && end["at_least_ns"].as_u64().is_some(), "{end}");
    tracer.stop().expect_balance();
    Ok(())
}

#[apply(needs_namespaces)]
fn connections_of_the_router_itself_are_shown_on_demand(_: &Host) -> Outcome {
    let routed = ruled(
        "add table inet t; add chain inet t o { type filter hook output priority 0; }; add rule inet t o ct state new counter",
    )?;
    let tracers = [watch(&routed, &["-e", "NEW"]), watch(&routed, &["--forwarded=all", "-e", "NEW"])];
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    // Closed at once: the server has one connection at a time.
    let own = routed.router.run(|| std::net::TcpStream::connect(server.address)?.local_addr()).unwrap();
    let through = routed.exchange(server.address).unwrap();
    for tracer in &tracers {
        assert_eq!(await_event(tracer, Kind::New, through).key("dir"), Some("forward"));
    }
    let [forwarded, all] = tracers;
    assert_eq!(await_event(&all, Kind::New, own).key("dir"), Some("out"));
    all.stop().expect_balance();
    let ended = forwarded.stop();
    assert_eq!(ended.events().len(), 1, "{ended:#?}");
    ended.expect_balance();
    Ok(())
}
