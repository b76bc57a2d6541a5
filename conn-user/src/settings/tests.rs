use clap::Parser as _;
use conn_common::connection::{Connection, OUT};

use super::*;
use crate::cli::rewrite_args;
use crate::error::Error;
use crate::event::kind::Kind;
use crate::filter::workload::WorkloadFilter;
use crate::host::lookup::fixed::FixedLookup;
use crate::render::style::Color;
use crate::render::style::{ConntrackFields, Format};

fn settings(line: &str) -> Result<EventsSettings, Error> {
    let args = line.split(' ').filter(|arg| !arg.is_empty()).map(Into::into);
    let args = rewrite_args(std::iter::once("conntrace".into()).chain(args).collect()).unwrap();
    match Settings::from_cli(&Cli::try_parse_from(args).unwrap(), &FixedLookup::default())? {
        Settings::Events(settings) => Ok(settings),
        other => panic!("events was typed, not {other:?}"),
    }
}

#[test]
fn without_options_everything_is_shown() {
    let expected = EventsSettings {
        forwarded: None,
        kinds: KindSet::ALL,
        protocols: Protocols::TCP,
        is_tcp_by_default: true,
        filter: Filter::all(),
        style: Style {
            format: Format::Conntrack(ConntrackFields::default()),
            columns: None,
            header: true,
            color: Color::Auto,
            utc: false,
            resolve: false,
            services: FixedLookup::default().services().clone(),
        },
        count: None,
        timeout: None,
        ring_bytes: 8 << 20,
        max_flows: 1 << 17,
        summary: false,
        life: None,
        top: None,
        workload: WorkloadFilter::default(),
        strict: false,
        hooks: None,
        accept_hook: None,
        verbose: 0,
    };
    assert_eq!(settings("").unwrap(), expected);
}

#[test]
fn tcp_by_default_is_known_from_tcp_by_choice() {
    for (options, expected) in [
        ("--dport 22", true),
        ("-p tcp", false),
        ("-p all", false),
        ("proto udp", false),
        ("proto tcp and service = 22", false),
    ] {
        assert_eq!(settings(options).unwrap().is_tcp_by_default, expected, "{options}");
    }
}

#[test]
fn options_narrow_the_stream() {
    let settings = settings(
        "-vv -e NEW -e d -p 6 --dport ssh --dport 80-81 --sport 1024-65535 --direction out -f ipv6 \
         -o timestamp --count 6 --timeout 20s -b 100K",
    )
    .unwrap();
    assert_eq!(Kind::ALL.map(|kind| settings.kinds.contains(kind)), [true, false, true]);
    let on = |sport, dport| {
        settings.filter.matches(&Connection { sport, dport, direction: OUT, family: 6, ..Connection::UNSEEN })
    };
    assert_eq!([22, 23, 80, 81].map(|port| on(1024, port)), [true, false, true, true]);
    assert!(!on(1023, 22));
    assert!(!settings.filter.matches(&Connection { sport: 1024, dport: 22, ..Connection::UNSEEN }));
    assert_eq!(
        settings.style.format,
        Format::Conntrack(ConntrackFields { timestamp: true, ..ConntrackFields::default() })
    );
    assert_eq!((settings.count, settings.timeout), (Some(6), Some(Duration::from_secs(20))));
    assert_eq!((settings.ring_bytes, settings.verbose), (128 << 10, 2));
}

#[test]
fn ring_sizes_suit_the_kernel() {
    for (text, bytes) in
        [("1", 4096), ("4096", 4096), ("4097", 8192), ("3m", 4 << 20), ("64M", 64 << 20), ("2G", 1 << 31)]
    {
        assert_eq!(ring_bytes(text), Ok(bytes), "{text}");
    }
}

#[test]
fn errors_name_the_option_and_the_remedy() {
    let errors = [
        "-e GONE",
        "-p icmp",
        "-p 181",
        "--dport 70000",
        "--dport -1",
        "--sport sshh",
        "--orig-port-src 9-8",
        "--dport !",
        "--dport 22,!!80",
        "-s localhost",
        "-d 10.0.0.1:22",
        "-r 300.0.0.1",
        "-q ::/129",
        "--reply-port-src 70000",
        "--reply-port-dst x",
        "--state OPEN",
        "--pid x",
        "--pid 9-3",
        "--uid nobody-here",
        "--netns red",
        "--cgroup /nowhere",
        "--comm a\\b",
        "dport = :sshh",
        "src 10.0.0.0/8 or",
        "-o yaml",
        "-o json,conntrack",
        "--count 0",
        "--count many",
        "--timeout 0",
        "--timeout soon",
        "-b 0",
        "-b 3G",
        "-b 99999999999999999999",
        "-b big",
        "-b ä",
    ]
    .map(|line| {
        let error = settings(line).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    });
    insta::assert_snapshot!(errors.join("\n"), @r#"
    --event-mask: unknown event kind "GONE": use ALL, NEW, UPDATES, DESTROY, ATTEMPT or LISTEN, separated by commas
    --protocol: unknown protocol "icmp": write tcp, udp, unix, all, or a list like tcp,udp
    --protocol: unknown protocol "181": write tcp, udp, unix, all, or a list like tcp,udp. tcplife -p 181 is here: conntrace life --pid 181; tcpconnect -p 181 is here: conntrace -e NEW --direction out --pid 181
    --dport: port 70000 is out of range: ports are 0 to 65535
    --dport: port -1 is out of range: ports are 0 to 65535
    --sport: unknown service "sshh": not in /etc/services; use a number
    --sport: the range 9-8 is reversed: write 8-9
    --dport: a port is missing behind ! in "!": write a number, a service name, or a range like 8000-8099
    --dport: unknown service "!80": not in /etc/services; use a number
    --src: "localhost" is no address, and options look no names up: write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8
    --dst: "10.0.0.1:22" has a port: ports have options of their own, --sport and --dport
    --reply-src: "300.0.0.1" is no address: write an address or a prefix: 192.0.2.7, 10.0.0.0/8, fd00::/8
    --reply-dst: "129" is no prefix length: :: takes 0 to 128
    --reply-port-src: port 70000 is out of range: ports are 0 to 65535
    --reply-port-dst: unknown service "x": not in /etc/services; use a number
    --state: unknown state "OPEN": write established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, close-wait, last-ack, closing, closed, or a group: all, connected, synchronized, bucket, big
    --pid: "x" is not a process id: write a number, a range like 100-200, or - for an unknown owner
    --pid: the range 9-3 is reversed: write 3-9
    --uid: no user "nobody-here" on this host: write a number, a login name, a range like 1000-1999, or - for an unknown owner
    --netns: no network namespace "red"
    --cgroup: no cgroup /nowhere
    --comm: "a\b" has a lone backslash: write \\ for it, and \x20 for a byte
    filter: unknown service "sshh": not in /etc/services; use a number
      dport = :sshh
              ^^^^^
    filter: a test is missing here: write one like service = :22 or client 10.0.0.0/8
      src 10.0.0.0/8 or
                       ^
    --output: unknown format "yaml": use conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs, and with conntrack and xml also timestamp, id, extended, ktimestamp
    --output: json and conntrack cannot be combined: choose one
    --count: 0 is too small: write 1 or more, or leave the option out to run until Ctrl-C
    --count: "many" is not a number of events: write a whole number, 1 or more
    --timeout: 0 is too short: leave the option out to run until Ctrl-C
    --timeout: "soon" is not a duration: write a number of seconds, or numbers with units like 1m30s or 500ms
    --buffer-size: the buffer is too small: write 4096 or more
    --buffer-size: 3G is too large: the limit of the kernel is 2G
    --buffer-size: 99999999999999999999 is too large: the limit of the kernel is 2G
    --buffer-size: "big" is not a size: write a number of bytes, or one with K, M or G, like 64M
    --buffer-size: "ä" is not a size: write a number of bytes, or one with K, M or G, like 64M
    "#);
}

#[test]
fn errors_keep_the_option_and_the_typed_text() {
    let usage = |line| match settings(line).unwrap_err() {
        Error::Usage(error) => error,
        other => panic!("not a usage error: {other:?}"),
    };
    assert!(
        matches!(usage("--dport 22,x"), UsageError::Value { option: "--dport", typed, .. } if typed == "22,x")
    );
    assert!(matches!(usage("dport 22 or"), UsageError::Expression { typed, .. } if typed == "dport 22 or"));
    assert!(matches!(usage("-o xml --resolve"), UsageError::Conflict { option: "--resolve", .. }));
}

#[test]
fn reply_options_swap_source_and_destination() {
    for (reply, original) in [
        ("-r 10.0.0.0/8", "-d 10.0.0.0/8"),
        ("--reply-dst 10.0.0.0/8,!10.1.0.0/16", "--orig-src 10.0.0.0/8,!10.1.0.0/16"),
        ("--reply-port-src ssh", "--orig-port-dst 22"),
        ("--reply-port-dst 1024-65535", "--sport !0-1023"),
    ] {
        assert_eq!(settings(reply).unwrap().filter, settings(original).unwrap().filter, "{reply}");
    }
}

#[test]
fn options_and_expression_are_one_filter() {
    for (options, expression) in [
        ("--dport 22,80 --dport !80", "service = 22"),
        ("-s 10.0.0.0/8 -f ipv4 --direction in", "client 10.0.0.0/8 direction in family ipv4"),
        ("--state ESTABLISHED,FIN_WAIT", "state established,fin-wait-1,fin-wait-2"),
        ("--pid 1-5,! 3", "pid <= 5 pid != 0,3 not pid = -"),
        (
            "--comm curl,- --uid root --netns blue --cgroup /web",
            "comm = curl,- uid 0 netns /run/netns/blue cgroup 77",
        ),
        ("-d !::/0 service = 22", "not server ::/0 and service = ssh"),
        ("-s fe80::1%v0,10/8", "client fe80::1%v0,10.0.0.0/8"),
        (
            "--failed --reason refused,timed-out --error ECONNREFUSED",
            "reason = refused,timed_out error = 111 failed",
        ),
    ] {
        let options = options.replace(",! ", ",!");
        assert_eq!(settings(&options).unwrap().filter, settings(expression).unwrap().filter, "{options}");
    }
}

#[test]
fn stats_knows_ports_and_directions() {
    let filter = |words: &[&str]| {
        let args = [&["conntrace", "stats"], words].concat();
        match Settings::from_cli(&Cli::try_parse_from(args).unwrap(), &FixedLookup::default()) {
            Ok(Settings::Stats(settings)) => Ok(settings.filter),
            Ok(other) => panic!("stats was typed, not {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    };
    let ours = filter(&["--dport", "!22", "direction in or service = 80"]).unwrap();
    assert_eq!(
        [(0, 80), (0, 22), (1, 80), (1, 81)].map(|(to, port)| ours.matches_slot(to, port)),
        [true, false, true, false]
    );
    insta::assert_snapshot!([["service = 22 and pid = 5"], ["sport = :22"], ["dev = eth0"]].map(|words| filter(&words).unwrap_err()).join("\n"), @"
    filter: stats counts by service and direction and knows no pid: use events or count for it
    filter: stats counts by service and direction and knows no sport: write service = :22, or use events or count
    filter: stats counts by service and direction and knows no dev: use events or count for it
    ");
}
