//! `list`, `count` and `stats` of flows, beside what conntrack lists and counts.

use super::{flush, run, tracked};
use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_namespaces, needs_whole_machine,
    routed::Routed,
    tracer::{Setup, Tracer},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{collections::BTreeSet, fs, net::SocketAddr, process::Command};

/// What conntrack prints in the router.
pub(super) fn conntrack(routed: &Routed, arguments: &[&str]) -> String {
    let output = routed.router.run(|| Command::new("conntrack").args(arguments).output()).unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `conntrace COMMAND` of the router.
fn ours(routed: &Routed, arguments: &[&str]) -> Setup {
    Setup::new(arguments.iter().copied().chain(["--netns", &routed.router.inum().to_string()]))
}

/// Flows of UDP to one port, from as many ports. Returns the server's address.
fn udp_flows(routed: &Routed, count: usize) -> SocketAddr {
    let server = routed.server_socket(routed.server_end().v4.into()).unwrap();
    let to = server.local_addr().unwrap();
    // All at the same time, so that no port comes twice.
    let clients: Vec<_> =
        (0..count).map(|_| routed.client_socket(routed.client_end().v4.into()).unwrap()).collect();
    for client in &clients {
        client.send_to(b"x", to).unwrap();
    }
    to
}

/// A row of the report.
fn row<'a>(report: &'a Value, protocol: &str, port: u16) -> &'a Value {
    let rows = report["forwarded"]["ports"].as_array().unwrap();
    let is_one = |row: &&Value| row["protocol"] == protocol && row["port"] == port;
    rows.iter().find(is_one).unwrap_or_else(|| panic!("no {protocol} {port}: {report}"))
}

#[apply(needs_namespaces)]
fn lists_and_counts_are_those_of_conntrack(_: &Host) -> Outcome {
    let routed = tracked()?;
    let to = udp_flows(&routed, 20);
    let server = routed.serve(routed.server_end().v6.into()).unwrap();
    for _ in 0..3 {
        routed.exchange(server.address).unwrap();
    }
    routed.ping(routed.server_end().v4.into()).unwrap();
    let listed = ours(&routed, &["list", "--forwarded=all"]).run();
    assert!(listed.expect_code(0).contains("24 flow entries have been shown"), "{listed:#?}");
    let tuples = |text: &mut dyn Iterator<Item = &str>| -> BTreeSet<String> {
        let of = |line: Line| {
            assert_eq!(line.kind, Kind::Open);
            let Line { protocol, state, original, reply, unreplied, assured, .. } = line;
            format!("{protocol} {state:?} {original:?} {reply:?} {unreplied} {assured}")
        };
        text.map(|line| of(line.parse().unwrap())).collect()
    };
    let theirs: String = ["ipv4", "ipv6"].map(|family| conntrack(&routed, &["-L", "-f", family])).concat();
    assert_eq!(tuples(&mut listed.stdout.iter().map(String::as_str)), tuples(&mut theirs.lines()));
    let counted = ours(&routed, &["count", "--forwarded=all"]).run();
    assert_eq!(counted.stdout, [conntrack(&routed, &["-C"]).trim()]);
    let by_port = ours(&routed, &["count", "--forwarded", "-p", "udp", "--by", "port", "-o", "csv"]).run();
    assert_eq!(by_port.stdout, ["port,open".to_owned(), format!("{},20", to.port())]);
    // The kernel stamps nothing, so no age is certain.
    let aged = ours(&routed, &["list", "--forwarded", "--min-age", "1s", "--exit-code"]).run();
    assert!(aged.expect_code(1).contains("24 other connections may be that old"), "{aged:#?}");
    Ok(())
}

#[apply(needs_namespaces)]
fn filters_of_flows_choose_what_is_counted(_: &Host) -> Outcome {
    let [routed, other] = [tracked()?, tracked()?];
    routed.router.run(|| run("nft", &["insert rule inet t f meta l4proto udp ct mark set 0x17"]))?;
    let own = [routed.server_end().v4.to_string(), routed.client_end().v4.to_string()];
    let [server, client] = own.each_ref().map(String::as_str);
    let wanted = [
        &[][..],
        &["-p", "udp"],
        &["-s", client, "-d", server],
        &["-r", server, "-q", client],
        &["--mark", "0x10/0xf0"],
        &["-f", "ipv4", "--zone", "0", "client 10.0.0.0/8"],
    ];
    let unwanted =
        [&["-p", "tcp"][..], &["-d", client], &["--mark", "7"], &["-w", "3"], &["-g"], &["-f", "ipv6"]];
    let start = |options: &&[&str]| {
        ours(&routed, &["stats", "--forwarded", "-o", "json"]).arguments(*options).start()
    };
    let (wanted, unwanted) =
        (wanted.iter().map(start).collect::<Vec<_>>(), unwanted.iter().map(start).collect::<Vec<_>>());
    for routed in [&routed, &other] {
        udp_flows(routed, 9);
    }
    let report =
        |tracer: Tracer| -> Value { serde_json::from_str(tracer.stop().stdout.last().unwrap()).unwrap() };
    for (tracers, begun) in [(wanted, 9), (unwanted, 0)] {
        for report in tracers.into_iter().map(report) {
            let ports = report["forwarded"]["ports"].as_array().unwrap();
            let sum: u64 = ports.iter().map(|row| row["begun"].as_u64().unwrap()).sum();
            assert_eq!(sum, begun, "{report}");
            // Only this namespace is watched, and its account has all of its flows.
            let all = report["forwarded"]["namespaces"].as_array().unwrap();
            let accounts: Vec<_> = all.iter().map(|one| (&one["netns"], &one["begun"])).collect();
            assert_eq!(accounts, [(&routed.router.inum().into(), &9.into())], "{report}");
        }
    }
    for (options, number) in [(&["-s", client][..], "9"), (&["-m", "0x17"], "9"), (&["-j"], "0")] {
        let counted = ours(&routed, &["count", "--forwarded"]).arguments(options).run();
        assert_eq!(counted.stdout, [number], "{options:?}");
    }
    Ok(())
}

#[apply(needs_namespaces)]
fn accounts_agree_with_the_table(_: &Host) -> Outcome {
    let routed = tracked()?;
    routed.router.sysctl("net.netfilter.nf_conntrack_udp_timeout", "2").unwrap();
    udp_flows(&routed, 7);
    // The report names each namespace.
    let tracer = Setup::new(["stats", "--forwarded", "-o", "json", "--interval", "500ms"]).start();
    let server = routed.serve(routed.server_end().v4.into()).unwrap();
    for _ in 0..5 {
        routed.exchange(server.address).unwrap();
    }
    let to = udp_flows(&routed, 11);
    let own = |report: &Value| -> Value {
        let all = report["forwarded"]["namespaces"].as_array().unwrap();
        all.iter().find(|one| one["netns"] == routed.router.inum()).unwrap_or(&Value::Null).clone()
    };
    // All flows of UDP expire: those from before without a message, unless another program listened before.
    tracer.await_json("the ends", |report| {
        let own = own(report);
        let ends = ["ended", "ended_unseen"].map(|key| own[key].as_u64().unwrap_or(0));
        ends[0] >= 11 && ends[0] + ends[1] == 18 && own["begun"] == 16
    });
    let ended = tracer.stop();
    ended.expect_code(0);
    let report: Value = serde_json::from_str(ended.stdout.last().unwrap()).unwrap();
    let account = own(&report);
    assert_eq!((&account["preexisting"], &account["tracked"]), (&7.into(), &5.into()), "{account}");
    assert_eq!(
        (&account["holds"], &account["moving"], &account["lost_begun"]),
        (&true.into(), &false.into(), &0.into())
    );
    assert_eq!(conntrack(&routed, &["-C"]).trim(), "5");
    let [tcp, udp] = [row(&report, "tcp", server.address.port()), row(&report, "udp", to.port())];
    assert_eq!((&tcp["begun"], &tcp["ended"]), (&5.into(), &0.into()), "{tcp}");
    assert!(udp["begun"].as_u64() >= Some(11) && udp["ended"].as_u64() >= Some(11), "{udp}");
    flush(&routed)
}

/// The size of the tables, until it is dropped: one for the table of each namespace, and where a namespace has its own, that one,
/// too.
pub(super) struct Limit(String);

impl Limit {
    const PATH: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

    pub(super) fn now() -> u64 {
        fs::read_to_string(Self::PATH).map_or(0, |text| text.trim().parse().unwrap())
    }

    pub(super) fn set(routed: &Routed, most: u64) -> Self {
        let before = fs::read_to_string(Self::PATH).unwrap();
        fs::write(Self::PATH, most.to_string()).unwrap();
        let _ = routed.router.sysctl("net.netfilter.nf_conntrack_max", &most.to_string());
        Self(before)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _ = fs::write(Self::PATH, self.0.trim());
    }
}

#[apply(needs_whole_machine)]
fn a_full_table_is_counted(_: &Host) -> Outcome {
    let routed = tracked()?;
    let tracer = Setup::new(["stats", "--forwarded", "-o", "json"]).start();
    let limit = Limit::set(&routed, 1_000);
    udp_flows(&routed, 1_500);
    let ended = tracer.stop();
    drop(limit);
    let report: Value = serde_json::from_str(ended.stdout.last().unwrap()).unwrap();
    let all = report["forwarded"]["namespaces"].as_array().unwrap();
    let own = all.iter().find(|one| one["netns"] == routed.router.inum()).unwrap();
    assert_eq!(own["holds"], true, "{own}");
    assert!(own["tracked"].as_u64() <= Some(1_000) && own["max"] == 1_000, "{own}");
    // Each packet that found no place was dropped, or made an older entry go.
    let failures = own["drop"].as_u64().unwrap() + own["early_drop"].as_u64().unwrap();
    assert!(failures >= 499, "{own}");
    assert_eq!(own["begun"].as_u64().unwrap() + own["drop"].as_u64().unwrap(), 1_500, "{own}");
    flush(&routed)
}
