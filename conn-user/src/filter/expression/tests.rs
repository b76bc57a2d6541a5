use conn_common::connection::{Connection, IN, OUT};
use conn_common::owner::{CONNECT, Owner};
use conn_common::state::{ESTABLISHED, SYN_RECV};

use super::*;
use crate::host::lookup::fixed::FixedLookup;

/// A valid expression.
pub(super) fn parsed(text: &str) -> Expression {
    parse(text, &FixedLookup::default()).unwrap_or_else(|error| panic!("{}", error.show(text)))
}

/// An SSH connection from 10.0.0.7 that curl of www-data (pid 100) opened.
fn ssh() -> Connection {
    let mut connection = Connection {
        dport: 22,
        sport: 40_000,
        family: 4,
        direction: OUT,
        state: ESTABLISHED,
        netns: 4_026_532_177,
        owner: Owner { pid: 100, uid: 33, cgroup: 77, source: CONNECT, ..Owner::NONE },
        ..Connection::UNSEEN
    };
    connection.src[..4].copy_from_slice(&[10, 0, 0, 7]);
    connection.dst[..4].copy_from_slice(&[192, 0, 2, 22]);
    connection.owner.comm[..4].copy_from_slice(b"curl");
    connection
}

fn web6() -> Connection {
    let mut connection = Connection {
        dport: 443,
        sport: 8080,
        family: 6,
        direction: IN,
        state: SYN_RECV,
        ..Connection::UNSEEN
    };
    connection.src[0] = 0xfd;
    connection.dst[15] = 1;
    connection
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of expressions")]
fn expressions_match_as_in_ss() {
    for (text, on_ssh, on_web) in [
        ("dport = :ssh", true, false),
        ("service = :https", false, true),
        ("sport = :https", false, true),
        ("server ::1", false, true),
        ("client [fd00::/8]:8080", false, true),
        ("client-port = 40000,8080", true, true),
        ("service :ssh", true, false),
        ("service=22", true, false),
        ("service eq 22", true, false),
        ("service != :22", false, true),
        ("service >= :22", true, true),
        ("service gt 22 and service lt :https", false, false),
        ("client-port <= 8080", false, true),
        ("service = 22,https,8000-8099", true, true),
        ("service = !22", false, true),
        ("service = 0-1000,!443", true, false),
        ("client 10.0.0.0/8", true, false),
        ("client = 10.0.0.7:40000", true, false),
        ("client 10.0.0.7:40001", false, false),
        ("client :40000", true, false),
        ("server *:443", false, true),
        ("client *", true, true),
        ("server [::1]:443", false, true),
        ("server [::1]", false, true),
        ("server ::1", false, true),
        ("client [fd00::/8]:8080", false, true),
        ("client [fd00::]/8:8080", false, true),
        ("server inet:*:22", true, false),
        ("service = *:22", true, false),
        ("server inet6:*", false, true),
        ("service = inet6::22", false, false),
        ("client ::/0", false, true),
        ("not client 10.0.0.0/8", false, true),
        ("client != 10.0.0.0/8", false, true),
        ("client 10.0.0.0/8,!10.0.0.7", false, false),
        ("! ( service = :ssh )", false, true),
        ("!(service=:ssh)", false, true),
        ("service = :ssh or ( service >= :8000 and server 10.0.0.0/8 ) and not state time-wait", true, false),
        ("service = :ssh | service = :443", true, true),
        ("service = :ssh || service = :443", true, true),
        ("service = :ssh & client 10.0.0.0/8", true, false),
        ("service = :ssh && client 10.0.0.0/8", true, false),
        ("service = :ssh client 10.0.0.0/8", true, false),
        // `and` binds tighter than `or`, as in ss.
        ("service = 22 or service = 443 and direction out", true, false),
        ("(service = 22 or service = 443) and direction out", true, false),
        ("service = 443 or service = 22 and direction in", false, true),
        // What ss takes, from the side of this host.
        ("src 10.0.0.7:40000 dst 192.0.2.22:22", true, false),
        ("src [::1]:443 dst [fd00::]:8080", false, true),
        ("dport = 8080", false, true),
        ("sport = 443 or sport = 40000", true, true),
        ("( sport = :22 or dport = :22 )", true, false),
        ("src 10/8", true, false),
        ("src 10.0/16", true, false),
        ("src 10", false, false),
        ("dst 192.0.2.1/24", true, false),
        ("dst any", true, true),
        ("dst all:22", true, false),
        ("src default", true, true),
        ("dst 192.0.2.22:", true, false),
        ("src localhost", false, true),
        ("src localhost:443", false, true),
        ("src inet:localhost", false, false),
        ("dst fd00::/8:8080", false, true),
        ("autobound", true, false),
        ("not autobound", false, true),
        ("dev = eth0", false, false),
        ("not dev = eth0", true, true),
        ("dev != 3", true, true),
        ("fwmark = 0x1/0x3", false, false),
        ("not fwmark 1", true, true),
        ("src [::1%eth0]", false, false),
        ("state established exclude time-wait", true, false),
        // States at the beginning stand apart, as in ss.
        ("state established dport = 22 or sport = 443", true, false),
        ("state syn-recv state established sport = 443 or dport = 22", true, true),
        ("state established and dport = 22 or sport = 443", true, true),
        ("(state established dport = 22) or sport = 443", true, true),
        ("state all exclude syn-recv state syn-recv", true, true),
        ("state connected excl established", false, true),
        ("failed", false, false),
        ("not failed", true, true),
        ("reason = refused", false, false),
        ("error != ECONNREFUSED", true, true),
        ("lifetime > 1s", false, false),
        ("bytes > 1M", false, false),
        ("bytes = -", true, true),
        ("container = web", false, false),
        ("not unit = nginx", true, true),
        ("state established", true, false),
        ("state ESTABLISHED", true, false),
        ("state connected", true, true),
        ("state bucket", false, true),
        ("state big", true, false),
        ("exclude syn-recv", true, false),
        ("state syn-recv state established", true, true),
        ("state syn-recv and state established", false, false),
        ("state syn-recv,established", true, true),
        ("direction in", false, true),
        ("dir out", true, false),
        ("family ipv6", false, true),
        ("pid = 100", true, false),
        ("pid = 50-150", true, false),
        ("pid > 99", true, false),
        ("pid != 100", false, true),
        ("not pid > 99", false, true),
        ("pid < 200", true, false),
        ("pid = -", false, true),
        ("uid www-data", true, false),
        ("uid = root,33", true, false),
        ("uid != root", true, true),
        ("comm = curl", true, false),
        ("comm = \"curl\"", true, false),
        (r"comm = c\x75rl", true, false),
        ("comm != curl", false, true),
        ("comm = -", false, true),
        ("netns = blue", true, false),
        ("netns /run/netns/blue", true, false),
        ("netns = 4026532177", true, false),
        ("cgroup = /web", true, false),
        ("cgroup 77", true, false),
    ] {
        let expression = parsed(text);
        let simple = expression.clone().simplified();
        for (connection, expected) in [(&ssh(), on_ssh), (&web6(), on_web)] {
            assert_eq!(expression.matches(&connection.into()), expected, "{text}: {connection:?}");
            assert_eq!(simple.matches(&connection.into()), expected, "{text} as {simple}: {connection:?}");
        }
    }
}

#[test]
fn expressions_are_simplified() {
    for (text, simple) in [
        ("dport = 22 or dport = 80", "dport = 22,80"),
        ("not (dport = 22 or dport = 80)", "dport != 22,80"),
        ("not (dport = 22 and src 10.0.0.0/8)", "dport != 22 or src != 10.0.0.0/8"),
        ("dport >= 8000 and dport < 8100 and not dport = 8080", "dport = 8000-8079,8081-8099"),
        ("not not dport = 22", "dport = 22"),
        ("dport = 22 and dport = 80 and src 10.0.0.0/8", "dport != *"),
        ("src 10.0.0.0/8 or dport = *", "dport = *"),
        ("src 10.0.0.0/8 and dport = *", "src = 10.0.0.0/8"),
        ("src 10.0.0.0/9 or src 10.128.0.0/9", "src = 10.0.0.0/8"),
        ("pid = 5 or pid != 5", "pid = *"),
        ("(dport = 22 or src 10.0.0.0/8) and dport = 22", "dport = 22 and (dport = 22 or src = 10.0.0.0/8)"),
        ("not state bucket", "state != syn-recv,time-wait"),
    ] {
        assert_eq!(parsed(text).simplified().to_string(), simple, "{text}");
    }
}

fn errors(texts: &[&str]) -> String {
    let show = |text: &&str| parse(text, &FixedLookup::default()).unwrap_err().show(text);
    texts.iter().map(show).collect::<Vec<_>>().join("\n")
}

#[test]
fn errors_point_at_the_word() {
    insta::assert_snapshot!(
        errors(&[
            "dport = 22 or",
            "( dport = 22",
            "dport = 22 )",
            "dport = 22 and or sport = 1",
            "dport",
            "dport = ",
            "dport = and",
            "dport !22",
            "dport = ! 22",
            "dport = !!22",
            "evnets",
            "dport = 22 23",
            "ct = 1",
            "proto = unix",
            "fwmark = x",
            "dev > eth0",
            "Größe!",
            "comm = \"curl",
            "dport = 22 = 23",
            "",
            "größe = 1 und dport = 22",
        ]),
        @r#"
        filter: a test is missing here: write one like service = :22 or client 10.0.0.0/8
          dport = 22 or
                       ^
        filter: this ( is never closed: write the ) behind it
          ( dport = 22
          ^
        filter: this ) closes nothing: take it out, or write the ( before
          dport = 22 )
                     ^
        filter: a test is missing here: write one like service = :22 or client 10.0.0.0/8
          dport = 22 and or sport = 1
                         ^^
        filter: a value is missing behind dport: write a number, a service name, or a range like 8000-8099
          dport
               ^
        filter: a value is missing behind dport: write a number, a service name, or a range like 8000-8099
          dport =
                 ^
        filter: a value is missing behind dport: write a number, a service name, or a range like 8000-8099
          dport = and
                  ^^^
        filter: write dport != ... for this
          dport !22
                ^
        filter: a port is missing behind ! in "!": write a number, a service name, or a range like 8000-8099
          dport = ! 22
                  ^
        filter: a port is missing behind ! in "!": write a number, a service name, or a range like 8000-8099
          dport = !!22
                  ^
        filter: "evnets" cannot be asked for: use client, server, client-port, service, src, dst, sport, dport, state, direction, family, proto, netns, pid, uid, cgroup, comm, failed, reason, error, lifetime, bytes, fwmark, dev, container, unit, user-unit
          evnets
          ^^^^^^
        filter: "23" cannot be asked for: use client, server, client-port, service, src, dst, sport, dport, state, direction, family, proto, netns, pid, uid, cgroup, comm, failed, reason, error, lifetime, bytes, fwmark, dev, container, unit, user-unit
          dport = 22 23
                     ^^
        filter: ct cannot be asked for: connection tracking is not used: ask for state
          ct = 1
          ^^
        filter: an expression cannot choose unix: use the option -p unix
          proto = unix
                  ^^^^
        filter: "x" is no mark: write a number, or a number and a mask like 0x1/0xff
          fwmark = x
                   ^
        filter: dev has no order: use = or !=
          dev > eth0
              ^
        filter: "Größe" cannot be asked for: use client, server, client-port, service, src, dst, sport, dport, state, direction, family, proto, netns, pid, uid, cgroup, comm, failed, reason, error, lifetime, bytes, fwmark, dev, container, unit, user-unit
          Größe!
          ^^^^^
        filter: this quote is never closed: end it with "
          comm = "curl
                 ^^^^^
        filter: a test is missing here: write one like service = :22 or client 10.0.0.0/8
          dport = 22 = 23
                     ^
        filter: a test is missing here: write one like service = :22 or client 10.0.0.0/8
          (nothing)
          ^
        filter: "größe" cannot be asked for: use client, server, client-port, service, src, dst, sport, dport, state, direction, family, proto, netns, pid, uid, cgroup, comm, failed, reason, error, lifetime, bytes, fwmark, dev, container, unit, user-unit
          größe = 1 und dport = 22
          ^^^^^
        "#
    );
}

#[test]
fn errors_point_at_the_value() {
    insta::assert_snapshot!(
        errors(&[
            "dport = :sshh",
            "dport = 22,70000,80",
            "src nowhere",
            "src fd00::1:22",
            "src [::1",
            "src fd00::1:zz:80:x",
            "src > 10.0.0.1",
            "state opened",
            "pid = curl",
            "pid > curl",
            "uid = nobody-here",
            "netns = red",
            "cgroup = /nowhere",
            r"comm = a\b",
            "family ipx",
            "direction up",
            "dport >= 22,23",
            "reason = tired",
            "error = EFOO",
            "lifetime > soon",
            "bytes > 1X",
            "src 10.0.0/33",
        ]),
        @r#"
        filter: unknown service "sshh": not in /etc/services; use a number
          dport = :sshh
                  ^^^^^
        filter: port 70000 is out of range: ports are 0 to 65535
          dport = 22,70000,80
                     ^^^^^
        filter: no address of the host nowhere
          src nowhere
              ^^^^^^^
        filter: fd00::1:22 may be an address, or one with a port: write [fd00::1:22], or [fd00::1]:22
          src fd00::1:22
              ^^^^^^^^^^
        filter: a ] is missing in "[::1"
          src [::1
              ^^^^
        filter: "fd00::1:zz:80:x" is no address: write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8
          src fd00::1:zz:80:x
              ^^^^^^^^^^^^^^^
        filter: src has no order: use = or !=
          src > 10.0.0.1
              ^
        filter: unknown state "opened": write established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, close-wait, last-ack, closing, closed, or a group: all, connected, synchronized, bucket, big
          state opened
                ^^^^^^
        filter: "curl" is not a process id: write a number, a range like 100-200, or - for an unknown owner
          pid = curl
                ^^^^
        filter: "curl" is no number: write a number, a range like 100-200, or - for an unknown owner
          pid > curl
                ^^^^
        filter: no user "nobody-here" on this host: write a number, a login name, a range like 1000-1999, or - for an unknown owner
          uid = nobody-here
                ^^^^^^^^^^^
        filter: no network namespace "red"
          netns = red
                  ^^^
        filter: no cgroup /nowhere
          cgroup = /nowhere
                   ^^^^^^^^
        filter: "a\b" has a lone backslash: write \\ for it, and \x20 for a byte
          comm = a\b
                 ^^^
        filter: "ipx" is not a family: write ipv4 or ipv6
          family ipx
                 ^^^
        filter: "up" is not a direction: write in or out, or - where it is not known
          direction up
                    ^^
        filter: unknown service "22,23": not in /etc/services; use a number
          dport >= 22,23
                   ^^^^^
        filter: "tired" is not a reason: write refused, timed_out, unreachable, reset_by_peer, abandoned, local, aborted, unknown, closed_by_us, closed_by_peer, reset_by_us or not_accepted; - for no end yet
          reason = tired
                   ^^^^^
        filter: "EFOO" is not an error: write a name like ECONNREFUSED, a number, or - for no error
          error = EFOO
                  ^^^^
        filter: "soon" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
          lifetime > soon
                     ^^^^
        filter: "1X" is no number of bytes: write a number, or one with K, M, G or T
          bytes > 1X
                  ^^
        filter: "33" is no prefix length: 10.0.0.0 takes 0 to 32
          src 10.0.0/33
              ^^^^^^^^^
        "#
    );
}

#[test]
fn deep_expressions_are_refused_and_wide_ones_parse() {
    let names = FixedLookup::default();
    let deep = |depth: usize| format!("{}dport = 22{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&deep(100), &names).is_ok());
    assert!(parse(&deep(101), &names).unwrap_err().to_string().contains("flatter"));
    assert!(parse(&"(".repeat(100_000), &names).is_err());
    assert!(parse(&format!("{} dport = 22", "! ".repeat(100_000)), &names).is_err());
    let wide = vec!["dport = 22"; 20_000].join(" or ");
    assert_eq!(parse(&wide, &names).unwrap().simplified().to_string(), "dport = 22");
    let long = format!("{} dport = :sshh", "dport = 22 or ".repeat(50));
    insta::assert_snapshot!(parse(&long, &names).unwrap_err().show(&long), @r#"
    filter: unknown service "sshh": not in /etc/services; use a number
      ... = 22 or dport = 22 or dport = 22 or dport = 22 or  dport = :sshh
                                                                     ^^^^^
    "#);
}

#[test]
fn expressions_differ_from_commands() {
    for word in [
        "dport",
        "dport = 22",
        "( dport",
        "(",
        "!",
        "not",
        "state",
        "exclude",
        "dev",
        "SRC 10.0.0.1",
        "foo = 1",
    ] {
        assert!(parser::begins(word), "{word}");
    }
    for word in ["events", "evnets", "count", "help"] {
        assert!(!parser::begins(word), "{word}");
    }
}

#[test]
fn keywords_as_names_need_quotes() {
    let names = FixedLookup::default();
    for name in ["lt", "And", "NOT"] {
        let quoted = format!("comm = \"{name}\"");
        let expression = parse(&quoted, &names).unwrap();
        assert_eq!(parse(&expression.to_string(), &names).unwrap(), expression, "{expression}");
        assert!(parse(&format!("comm = {name}"), &names).is_err());
    }
}
