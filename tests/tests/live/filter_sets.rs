//! Choosing connections by address, owner and expression, in the kernel and behind it. As in `filter`, what
//! must not match is made first, and what has not come by the time of the last match was kept out.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        close::{self, First},
        process,
    },
    truth::Tuple,
};
use macro_rules_attribute::apply;
use nix::unistd::Uid;
use std::{collections::BTreeSet, fs, net::Ipv4Addr};

/// A connection to this address of the loopback network.
fn connection(port: &Port, last: u8) -> Tuple {
    close::orderly(port.at(Ipv4Addr::new(127, 0, 9, last)), 1, First::Client).tuple()
}

/// The tracer shows the connections `wanted`, and of the ports of this test no other.
fn shows_only(tracer: &Tracer, wanted: &[Tuple]) {
    for &tuple in wanted {
        tracer.await_flow(Kind::New, "out", tuple);
        tracer.await_flow(Kind::New, "in", tuple);
    }
    let seen: BTreeSet<Tuple> = tracer.events().iter().map(Line::tuple).collect();
    assert_eq!(seen, wanted.iter().copied().collect());
}

#[apply(needs_tracing)]
fn prefixes_select_by_address(_: &Host) -> Outcome {
    let port = Port::claim();
    let number = port.to_string();
    let of = |words: &[&str]| Tracer::start([&["-e", "NEW", "--dport", &number], words].concat());
    let (by_dst, by_reply) = (of(&["-d", "127.0.9.0/31"]), of(&["-r", "127.0.9.4,127.0.9.1"]));
    let by_src = of(&["--orig-src", "127.0.0.1/32", "--dst", "127.0.9.4", "--dst", "127.0.9.5"]);
    let none = of(&["-q", "10.0.0.0/8"]);
    let all: Vec<Tuple> = (0..6).map(|last| connection(&port, last)).collect();
    shows_only(&by_dst, &all[0..2]);
    shows_only(&by_reply, &[all[1], all[4]]);
    shows_only(&by_src, &all[4..6]);
    assert_eq!(none.stop().stdout, Vec::<String>::new());
    Ok(())
}

#[apply(needs_tracing)]
fn negated_prefixes_exclude_addresses(_: &Host) -> Outcome {
    let port = Port::claim();
    let number = port.to_string();
    let of = |dst| Tracer::start(["-e", "NEW", "--dport", &number, "-d", dst]);
    let (without, but_one) = (of("!127.0.9.2/31"), of("127.0.9.0/29,!127.0.9.2"));
    let all: Vec<Tuple> = (0..5).map(|last| connection(&port, last)).collect();
    shows_only(&without, &[all[0], all[1], all[4]]);
    shows_only(&but_one, &[all[0], all[1], all[3], all[4]]);
    Ok(())
}

#[apply(needs_tracing)]
fn ipv6_prefixes_select_ipv6_only(_: &Host) -> Outcome {
    let port = Port::claim();
    let number = port.to_string();
    let of = |dst| Tracer::start(["-e", "NEW", "--dport", &number, "-d", dst]);
    let (six, four, loopback) = (of("::/0"), of("0.0.0.0/0"), of("::1,10.0.0.0/8"));
    let v4 = close::orderly(port.v4(), 1, First::Client).tuple();
    let v6 = close::orderly(port.v6(), 1, First::Client).tuple();
    // An IPv6 socket that talks to an IPv4 address.
    let mapped = close::dual_stack(port.number(), port.at(Ipv4Addr::LOCALHOST.to_ipv6_mapped())).tuple();
    shows_only(&six, &[v6]);
    shows_only(&loopback, &[v6]);
    shows_only(&four, &[v4, mapped]);
    Ok(())
}

#[apply(needs_tracing)]
fn ten_thousand_prefixes_and_a_thousand_ports(_: &Host) -> Outcome {
    let ports = Port::block(2);
    // 10,000 networks that have nothing to do with this host, and one of its loopback network.
    let mut prefixes: Vec<String> =
        (0..10_000).map(|n| format!("10.{}.{}.{}/30", n / 4096, n / 16 % 256, n % 16 * 16)).collect();
    prefixes.insert(5_000, "127.0.9.3".into());
    // 1,000 ports that are not beside each other, and the first of ours; without those that others use.
    let mut numbers: Vec<String> = (0..1_000).map(|n| (60_000 + 2 * n).to_string()).collect();
    numbers.insert(500, ports[0].to_string());
    // One word of a command line cannot be as long as all of them.
    let words: Vec<String> = prefixes.chunks(2_000).flat_map(|part| ["-d".into(), part.join(",")]).collect();
    let options = ["-e".into(), "NEW".into(), "--dport".into(), numbers.join(",")];
    let tracer = Tracer::start(options.into_iter().chain(words));
    connection(&ports[0], 2);
    connection(&ports[1], 3);
    shows_only(&tracer, &[connection(&ports[0], 3)]);
    Ok(())
}

#[apply(needs_tracing)]
fn state_filter_applies_to_each_event(_: &Host) -> Outcome {
    let port = Port::claim();
    let number = port.to_string();
    let tracer = Tracer::start(["--dport", &number, "--state", "ESTABLISHED,CLOSE"]);
    let tuple = connection(&port, 1);
    tracer.await_flow(Kind::Destroy, "out", tuple);
    tracer.await_flow(Kind::Destroy, "in", tuple);
    let states: BTreeSet<String> =
        tracer.events().iter().map(|line| line.state.clone().unwrap_or_default()).collect();
    assert_eq!(states, BTreeSet::from(["CLOSE".into(), "ESTABLISHED".into()]));
    Ok(())
}

#[apply(needs_tracing)]
fn owner_filters_match_name_and_pid(_: &Host) -> Outcome {
    let port = Port::claim();
    let number = port.to_string();
    let by_name =
        Tracer::start(["-e", "NEW", "--direction", "out", "--dport", &number, "--comm", "wanted,other"]);
    let without =
        Tracer::start(["-e", "NEW", "--direction", "out", "--dport", &number, "--comm", "!unwanted"]);
    let (_, unwanted) = process::client(port.v4(), 1, "unwanted");
    let (truth, pid) = process::client(port.v4(), 1, "wanted");
    for tracer in [&by_name, &without] {
        let line = tracer.await_flow(Kind::New, "out", truth.tuple());
        assert_eq!(line.key("pid"), Some(pid.to_string().as_str()));
        assert!(tracer.events().iter().all(|line| line.key("pid") != Some(&unwanted.to_string())));
    }
    // The acceptor is known after the beginning of a connection; its end carries that owner.
    let own = std::process::id().to_string();
    let ours = Tracer::start(["-e", "DESTROY", "--direction", "in", "--dport", &number, "--pid", &own]);
    let theirs = Tracer::start(["-e", "DESTROY", "--dport", &number, "pid", "!=", &own]);
    let (truth, client) = process::client(port.v4(), 1, "client");
    ours.await_flow(Kind::Destroy, "in", truth.tuple());
    theirs.await_flow(Kind::Destroy, "out", truth.tuple());
    assert_eq!(theirs.events().len(), 1, "{:#?} of {client}", theirs.events());
    Ok(())
}

#[apply(needs_tracing)]
fn dash_selects_unknown_owners(_: &Host) -> Outcome {
    let port = Port::claim();
    let number = port.to_string();
    let tracer = Tracer::start(["-e", "NEW,DESTROY", "--dport", &number, "--comm", "-"]);
    let known = Tracer::start(["-e", "NEW,DESTROY", "--dport", &number, "--comm", "!-"]);
    let tuple = connection(&port, 1);
    known.await_flow(Kind::Destroy, "out", tuple);
    known.await_flow(Kind::Destroy, "in", connection(&port, 2));
    assert!(known.events().iter().all(|line| line.key("comm") != Some("-")), "{:#?}", known.events());
    let unknown = tracer.stop();
    assert!(unknown.events().iter().all(|line| line.key("comm") == Some("-")), "{unknown:#?}");
    Ok(())
}

#[apply(needs_tracing)]
fn user_and_cgroup_filters_match(_: &Host) -> Outcome {
    let port = Port::claim();
    let number = port.to_string();
    let of = |words: &[&str]| {
        Tracer::start([&["-e", "NEW", "--direction", "out", "--dport", &number], words].concat())
    };
    let uid = Uid::effective().to_string();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let cgroup = own.lines().find_map(|line| line.strip_prefix("0::"));
    let (ours, not_ours) = (of(&["--uid", &uid]), of(&["uid", "!=", &uid]));
    let large = of(&["uid >= 3000000000"]);
    let cgroups = cgroup.map(|path| (of(&["--cgroup", path]), of(&["cgroup", "!=", path])));
    let tuple = connection(&port, 1);
    ours.await_flow(Kind::New, "out", tuple);
    assert_eq!((not_ours.stop().stdout.len(), large.stop().stdout.len()), (0, 0));
    if let Some((same, others)) = cgroups {
        same.await_flow(Kind::New, "out", tuple);
        assert_eq!(others.stop().stdout.len(), 0);
    }
    Ok(())
}

#[apply(needs_tracing)]
fn namespace_filter_matches_inode_and_pid(_: &Host) -> Outcome {
    let port = Port::claim();
    let ns = NetNs::new().unwrap();
    let inside =
        Tracer::start(["-e", "NEW", "--dport", &port.to_string(), "--netns", &ns.inum().to_string()]);
    let own = std::process::id().to_string();
    let outside = Tracer::start(["-e", "NEW", "--dport", &port.to_string(), "--netns", &own]);
    let here = connection(&port, 1);
    let there = ns.run(|| connection(&port, 2));
    shows_only(&inside, &[there]);
    shows_only(&outside, &[here]);
    Ok(())
}

#[apply(needs_tracing)]
fn an_expression_splits_into_kernel_and_user_part(_: &Host) -> Outcome {
    let ports = Port::block(3);
    let [a, b, c] = [0, 1, 2].map(|n: usize| ports[n].number());
    let filter = format!(
        "service = :{a} or ( service >= :{b} and service <= :{b} and server 127.0.9.0/31 ) and not state time-wait"
    );
    let tracer = Tracer::start(["-v", "-e", "NEW", &filter]);
    connection(&ports[1], 2);
    connection(&ports[2], 0);
    let wanted = [connection(&ports[0], 5), connection(&ports[1], 1)];
    shows_only(&tracer, &wanted);
    let ended = tracer.stop();
    let messages = ended.expect_balance();
    assert!(messages.contains(&format!("filter in the kernel: the service port is {a}")), "{messages}");
    assert!(!messages.contains(&format!("{c}")), "{messages}");
    assert!(messages.contains("filter here, on what the kernel lets through: "), "{messages}");
    // Both ends of the connection that only the second part filters out.
    assert!(messages.contains("= shown 4 + filtered 2 + lost 0: holds"), "{messages}");
    Ok(())
}

#[apply(needs_tracing)]
fn expressions_and_options_combine_with_and(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let tracer = Tracer::start(["-e", "NEW", "--dport", &ports[0].to_string(), "server", "127.0.9.1"]);
    connection(&ports[0], 2);
    connection(&ports[1], 1);
    shows_only(&tracer, &[connection(&ports[0], 1)]);
    Ok(())
}

#[apply(needs_tracing)]
fn options_from_the_environment_apply(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let options = format!("-e NEW --dport {}", ports[0]);
    let tracer = Setup::new(["server", "127.0.9.1"]).variable("CONNTRACE_OPTS", &options).start();
    connection(&ports[0], 2);
    connection(&ports[1], 1);
    shows_only(&tracer, &[connection(&ports[0], 1)]);
    Ok(())
}

#[apply(needs_tracing)]
fn count_applies_every_filter(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let servers: Vec<Server> = [1, 2]
        .map(|last| Server::listen(ports[0].at(Ipv4Addr::new(127, 0, 9, last))))
        .into_iter()
        .chain([Server::listen(ports[1].at(Ipv4Addr::new(127, 0, 9, 1)))])
        .collect();
    let _pairs: Vec<_> = servers.iter().map(Server::pair).collect();
    let [a, b] = [0, 1].map(|n: usize| ports[n].to_string());
    let both = format!("{a},{b}");
    let own = std::process::id().to_string();
    let count = |words: &[&str]| {
        // Namespaces of other tests may draw warnings.
        let ended = Setup::new([&["count", "--netns", "."], words].concat()).run();
        assert_eq!(ended.expect_code(0), "");
        ended.stdout.concat().parse::<u64>().unwrap()
    };
    for (words, number) in [
        (vec!["--dport", &a], 4),
        (vec!["--dport", &both, "-d", "127.0.9.1"], 4),
        (vec!["--dport", &both, "-d", "!127.0.9.1"], 2),
        (vec!["--dport", &both, "--direction", "in"], 3),
        (vec!["--dport", &both, "--state", "established", "direction", "out"], 3),
        (vec!["--dport", &both, "state", "close-wait"], 0),
        (vec!["--dport", &both, "--pid", &own], 6),
        (vec!["--dport", &both, "pid", "!=", &own], 0),
        (vec!["--dport", &both, "--uid", &Uid::effective().to_string()], 6),
        (vec!["--dport", &both, "--comm", "-"], 0),
        (vec![&format!("service = :{a} and server 127.0.9.2 or service = :{b} and direction in")], 3),
    ] {
        assert_eq!(count(&words), number, "{words:?}");
    }
    Ok(())
}

#[apply(needs_tracing)]
fn stats_apply_port_and_direction_filters(_: &Host) -> Outcome {
    let ports = Port::block(2);
    let filter =
        format!("service = :{} and direction in or service = :{} and direction out", ports[0], ports[1]);
    let tracer = Setup::new(["stats", "-o", "csv", &filter]).start();
    connection(&ports[0], 1);
    connection(&ports[1], 1);
    let ended = tracer.stop();
    ended.expect_code(0);
    let cells = |line: &String| line.split(',').map(str::to_owned).take(3).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = ended.stdout.iter().skip(1).map(cells).collect();
    let has = |port: &Port, direction: &str| {
        rows.iter().any(|row| row.contains(&port.to_string()) && row.contains(&direction.to_owned()))
    };
    assert!(has(&ports[0], "in") && has(&ports[1], "out"), "{rows:?}");
    assert!(!has(&ports[0], "out") && !has(&ports[1], "in"), "{rows:?}");
    Ok(())
}
