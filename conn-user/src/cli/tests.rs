use std::ffi::OsString;

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::args::Refusal;
use super::*;

fn rewritten(line: &str) -> String {
    let args = rewrite_args(line.split(' ').map(OsString::from).collect()).unwrap();
    args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ")
}

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(rewrite_args(line.split(' ').map(OsString::from).collect()).unwrap())
}

#[test]
fn definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_way_to_say_events_is_the_same() {
    for line in [
        "conntrace -e NEW --dport 22",
        "conntrace -E -e NEW --dport 22",
        "conntrace -e NEW -E --dport 22",
        "conntrace -e NEW --dport 22 -E",
        "conntrace --event -e NEW --dport 22",
        "conntrace -Ee NEW --dport 22",
        "conntrace events -e NEW --dport 22",
    ] {
        assert_eq!(rewritten(line), "conntrace events -e NEW --dport 22", "{line}");
    }
    assert_eq!(rewritten("conntrace"), "conntrace events");
    assert_eq!(rewritten("conntrace -v events -e NEW"), "conntrace events -v -e NEW");
    assert_eq!(rewritten("conntrace --event-mask NEW"), "conntrace events --event-mask NEW");
    assert_eq!(rewritten("conntrace -- -E"), "conntrace events -- -E");
}

#[test]
fn help_and_version_are_not_rewritten() {
    assert_eq!(rewritten("conntrace --help"), "conntrace --help");
    assert_eq!(rewritten("conntrace -h"), "conntrace -h");
    assert_eq!(rewritten("conntrace -E --help"), "conntrace events --help");
    assert_eq!(rewritten("conntrace -e NEW --help"), "conntrace events -e NEW --help");
    assert_eq!(rewritten("conntrace -E -V"), "conntrace --version");
    assert_eq!(rewrite_args(Vec::new()).unwrap(), ["events"]);
    assert_eq!(Cli::command().render_version(), "conntrace 0.1.0\n");
}

#[test]
fn reads_what_was_typed() {
    let cli = parse(
        "conntrace -v -e NEW,DESTROY -e u -p tcp --dport ssh,80 --orig-port-dst 443 --sport 1024-2048 \
         --direction in -f ipv6 -o json --count 5 --timeout 1m -b 64M -v",
    )
    .unwrap();
    assert_eq!(cli.verbose, 2);
    let Command::Events(events) = cli.command else { panic!("events was typed") };
    assert_eq!(events.event_mask, ["NEW,DESTROY", "u"]);
    assert_eq!(events.filter.dport, ["ssh,80", "443"]);
    assert_eq!(events.filter.direction, Some(Direction::In));
    assert_eq!(events.filter.family, Some(Family::V6));
    assert_eq!(events.stream.count.as_deref(), Some("5"));
    assert_eq!(events.stream.buffer_size.as_deref(), Some("64M"));
}

#[test]
fn wrong_words_are_refused() {
    for (line, kind) in [
        ("conntrace evnets", ErrorKind::InvalidSubcommand),
        ("conntrace --dprot 22", ErrorKind::UnknownArgument),
        ("conntrace --direction up", ErrorKind::InvalidValue),
        ("conntrace --dport", ErrorKind::InvalidValue),
        // Hooks are chosen for commands that attach some.
        ("conntrace list --witnesses set_state", ErrorKind::UnknownArgument),
        ("conntrace count --accept-hook graft", ErrorKind::UnknownArgument),
        ("conntrace doctor --witnesses set_state", ErrorKind::UnknownArgument),
    ] {
        let error = parse(line).unwrap_err();
        assert_eq!((error.kind(), error.exit_code()), (kind, 2), "{line}");
    }
}

#[test]
fn help_shows_examples_and_options() {
    let help = Cli::command().render_help().to_string();
    assert!(help.starts_with("Examples:"), "{help}");
    for word in ["--event-mask", "--dport", "--timeout", "--buffer-size"] {
        assert!(help.contains(word), "{word} is missing:\n{help}");
    }
}

fn read(line: &str, options: Option<&str>) -> Result<Cli, String> {
    let args = shell_words::split(line).unwrap().into_iter().map(OsString::from).collect();
    args::read(args, options.map(std::ffi::OsStr::new)).map_err(|refusal| match refusal {
        Refusal::Usage(error) => error.to_string(),
        Refusal::Clap(error) => error.render().to_string().lines().next().unwrap_or_default().to_owned(),
    })
}

#[test]
fn filters_are_the_last_words() {
    for (line, words) in [
        ("conntrace 'dport = :22 or src 10.0.0.0/8'", vec!["dport = :22 or src 10.0.0.0/8"]),
        ("conntrace dport = :22", vec!["dport", "=", ":22"]),
        ("conntrace '( dport = 22 )'", vec!["( dport = 22 )"]),
        ("conntrace '!' dport = 22", vec!["!", "dport", "=", "22"]),
        ("conntrace -v state established", vec!["state", "established"]),
        ("conntrace -E 'dport = 22'", vec!["dport = 22"]),
        ("conntrace -E conntrack 'dport = 22'", vec!["dport = 22"]),
        ("conntrace -e NEW --dport 22 not state established", vec!["not", "state", "established"]),
        ("conntrace -C dport = 22", vec!["dport", "=", "22"]),
        ("conntrace count --by port 'dport = 22'", vec!["dport = 22"]),
        ("conntrace stats -- dport = 22", vec!["dport", "=", "22"]),
    ] {
        assert_eq!(read(line, None).unwrap().command.expression(), words, "{line}");
    }
}

#[test]
fn the_environment_has_options() {
    let events = |line, options| match read(line, Some(options)).unwrap().command {
        Command::Events(args) => args,
        other => panic!("not events: {other:?}"),
    };
    let args = events("conntrace -e NEW dport = 22", "--dport 80 -b '64M' --strict");
    assert_eq!((args.filter.dport, args.stream.buffer_size.as_deref()), (vec!["80".to_owned()], Some("64M")));
    assert!(args.stream.strict && args.filter.expression.len() == 3);
    // Typed options are later, so they override.
    assert_eq!(events("conntrace -b 1M", "-b 64M").stream.buffer_size.as_deref(), Some("1M"));
    assert_eq!(events("conntrace", "").stream.buffer_size, None);
    // Options of other commands are dropped, with their values.
    let options = "-b 64M --by=port --buffer-size 1M -e NEW --dport 80 --strict -o json";
    let Command::Count(args) = read("conntrace count", Some(options)).unwrap().command else { panic!() };
    assert_eq!(
        (args.filter.dport, args.by, args.output),
        (vec!["80".to_owned()], vec![Group::Port], TableFormat::Json)
    );
    assert!(read("conntrace doctor", Some("--dport 22 -d 10.0.0.0/8 -v")).is_ok());
    let errors = [
        ("conntrace", "--no-such"),
        ("conntrace", "-m 5"),
        ("conntrace", "dport = 22"),
        ("conntrace", "count"),
        ("conntrace", "--dport '22"),
        ("conntrace evnets", "--dport 22"),
    ]
    .map(|(line, options)| read(line, Some(options)).unwrap_err());
    insta::assert_snapshot!(errors.join("\n"), @r#"
    CONNTRACE_OPTS: unexpected argument '--no-such' found
    CONNTRACE_OPTS: conntrack's -m has no meaning here: marks belong to packets and to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm
    CONNTRACE_OPTS takes options only, no filter expression: use options like --dport 22
    CONNTRACE_OPTS takes options only, no filter expression: use options like --dport 22
    CONNTRACE_OPTS: missing closing quote in "--dport '22"
    error: unrecognized subcommand 'evnets'
    "#);
}

#[test]
fn options_of_conntrack_are_refused_by_name() {
    let errors = [
        "-m 5",
        "--mark=5",
        "-c 1",
        "-l x",
        "--label-add x",
        "-w 1",
        "--orig-zone 1",
        "--src-nat",
        "-g 192.0.2.1",
        "--dst-nat",
        "-j",
        "--any-nat",
        "--mask-src 255.0.0.0",
        "-z",
        "--zero",
        "-Ez",
        "-u ASSURED",
        "-t 120",
        "-i 5",
        "-I",
        "--create",
        "-A",
        "-D",
        "-U",
        "-F",
        "-R x",
        "-G",
        "--tuple-src 192.0.2.1",
        "-E expect",
        "-C dying",
        "-S unconfirmed",
        "expect",
    ]
    .map(|words| {
        let line = format!("conntrace {words}");
        match read(&line, None) {
            Err(error) => format!("{words}: {error}"),
            Ok(cli) => format!("{words}: {:?}", cli.command.expression()),
        }
    });
    insta::assert_snapshot!(errors.join("\n"), @r#"
    -m 5: conntrack's -m has no meaning here: marks belong to packets and to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm
    --mark=5: conntrack's --mark has no meaning here: marks belong to packets and to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm
    -c 1: conntrack's -c has no meaning here: marks belong to packets and to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm
    -l x: conntrack's -l has no meaning here: labels belong to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm
    --label-add x: conntrack's --label-add has no meaning here: labels belong to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm
    -w 1: conntrack's -w has no meaning here: zones belong to connection tracking. Use --netns for a network namespace
    --orig-zone 1: conntrack's --orig-zone has no meaning here: zones belong to connection tracking. Use --netns for a network namespace
    --src-nat: conntrack's --src-nat has no meaning here: a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket
    -g 192.0.2.1: conntrack's -g has no meaning here: a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket
    --dst-nat: conntrack's --dst-nat has no meaning here: a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket
    -j: conntrack's -j has no meaning here: a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket
    --any-nat: conntrack's --any-nat has no meaning here: a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket
    --mask-src 255.0.0.0: conntrack's --mask-src has no meaning here: write the prefix with the address: --src 10.0.0.0/8
    -z: conntrack's -z has no meaning here: counters are never reset. Use stats --interval for rates, or subtract two reports
    --zero: conntrack's --zero has no meaning here: counters are never reset. Use stats --interval for rates, or subtract two reports
    -Ez: conntrack's -z has no meaning here: counters are never reset. Use stats --interval for rates, or subtract two reports
    -u ASSURED: conntrack's -u has no meaning here: a socket has no status bits of connection tracking. Use --state, or the reason of an end in -o json
    -t 120: conntrack's -t has no meaning here: a socket has no timeout like an entry of connection tracking. Use --timeout 20s to end after some time
    -i 5: conntrack's -i has no meaning here: conntrace gives ids while it runs, so no id is known before. -o json shows them
    -I: conntrack's -I has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    --create: conntrack's --create has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -A: conntrack's -A has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -D: conntrack's -D has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -U: conntrack's -U has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -F: conntrack's -F has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -R x: conntrack's -R has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -G: conntrack's -G has no meaning here: use a filter to find one connection: 'src 192.0.2.7:40000 and dst 192.0.2.22:22'
    --tuple-src 192.0.2.1: conntrack's --tuple-src has no meaning here: expectations belong to connection tracking. conntrace shows connections only
    -E expect: there is no table "expect": it belongs to connection tracking, and conntrace has connections only
    -C dying: there is no table "dying": it belongs to connection tracking, and conntrace has connections only
    -S unconfirmed: there is no table "unconfirmed": it belongs to connection tracking, and conntrace has connections only
    expect: ["expect"]
    "#);
}
