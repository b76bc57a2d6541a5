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
    let read = args::read(args, options.map(std::ffi::OsStr::new)).map(|(cli, _)| cli);
    read.map_err(|refusal| match refusal {
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
        ("conntrace", "-c 1"),
        ("conntrace", "dport = 22"),
        ("conntrace", "count"),
        ("conntrace", "--dport '22"),
        ("conntrace evnets", "--dport 22"),
    ]
    .map(|(line, options)| read(line, Some(options)).unwrap_err());
    insta::assert_snapshot!(errors.join("\n"), @r#"
    CONNTRACE_OPTS: unexpected argument '--no-such' found
    CONNTRACE_OPTS: conntrack's -c has no meaning here: a security mark belongs to connection tracking. Filter by port, address or owner instead. netstat -tnc is here: conntrace
    CONNTRACE_OPTS takes options only, no filter expression: use options like --dport 22
    CONNTRACE_OPTS takes options only, no filter expression: use options like --dport 22
    CONNTRACE_OPTS: missing closing quote in "--dport '22"
    error: unrecognized subcommand 'evnets'
    "#);
}

#[test]
fn options_of_conntrack_are_refused_by_name() {
    let errors = [
        "-c 1",
        "-l x",
        "--label-add x",
        "--orig-zone 1",
        "-n 192.0.2.1",
        "-n192.0.2.1",
        "-En192.0.2.0/24",
        "-L -n 2001:db8::/32",
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
    -c 1: conntrack's -c has no meaning here: a security mark belongs to connection tracking. Filter by port, address or owner instead. netstat -tnc is here: conntrace
    -l x: conntrack's -l has no meaning here: labels belong to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm. netstat -tulpn is here: conntrace list --listening -n -p tcp,udp; ss -tln is here: conntrace list --listening -n
    --label-add x: conntrack's --label-add has no meaning here: labels belong to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm
    --orig-zone 1: conntrack's --orig-zone has no meaning here: zones belong to connection tracking. Use --netns for a network namespace, or add --forwarded
    -n 192.0.2.1: -n takes no address: it shows numbers of ports. In conntrack it is --src-nat, and a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket, or add --forwarded
    -n192.0.2.1: -n takes no address: it shows numbers of ports. In conntrack it is --src-nat, and a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket, or add --forwarded
    -En192.0.2.0/24: -n takes no address: it shows numbers of ports. In conntrack it is --src-nat, and a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket, or add --forwarded
    -L -n 2001:db8::/32: -n takes no address: it shows numbers of ports. In conntrack it is --src-nat, and a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket, or add --forwarded
    --mask-src 255.0.0.0: conntrack's --mask-src has no meaning here: write the prefix with the address: --src 10.0.0.0/8
    -z: conntrack's -z has no meaning here: counters are never reset. Use stats --interval for rates, or subtract two reports
    --zero: conntrack's --zero has no meaning here: counters are never reset. Use stats --interval for rates, or subtract two reports
    -Ez: conntrack's -z has no meaning here: counters are never reset. Use stats --interval for rates, or subtract two reports
    -u ASSURED: conntrack's -u has no meaning here: a socket has no status bits of connection tracking. Use --state, or the reason of an end in -o json. netstat -tulpn is here: conntrace list --listening -n -p tcp,udp; ss -ua is here: conntrace list -p udp --state all -o table
    -t 120: conntrack's -t has no meaning here: a socket has no timeout like an entry of connection tracking. Use --timeout 20s to end after some time. netstat -t is here: conntrace list -o table --resolve; ss -t is here: conntrace list -o table; tcptracer -t is here: conntrace -e NEW,DESTROY -o table
    -i 5: conntrack's -i has no meaning here: conntrace gives ids while it runs, so no id is known before. -o json shows them. ss -ti is here: conntrace list -o table --columns +srtt_us,retransmits
    -I: conntrack's -I has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    --create: conntrack's --create has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -A: conntrack's -A has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -D: conntrack's -D has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking. tcplife -D 80 is here: conntrace life --direction out --dport 80
    -U: conntrack's -U has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -F: conntrack's -F has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -R x: conntrack's -R has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking
    -G: conntrack's -G has no meaning here: use a filter to find one connection: 'client 192.0.2.7:40000 and server 192.0.2.22:22'
    --tuple-src 192.0.2.1: conntrack's --tuple-src has no meaning here: expectations belong to connection tracking. conntrace shows connections only
    -E expect: there is no table "expect": it belongs to connection tracking, and conntrace has connections only
    -C dying: there is no table "dying": it belongs to connection tracking, and conntrace has connections only
    -S unconfirmed: there is no table "unconfirmed": it belongs to connection tracking, and conntrace has connections only
    expect: ["expect"]
    "#);
}

/// What ss, netstat and bcc mean by an option, which conntrack or conntrace means otherwise.
#[test]
fn options_of_other_tools_get_the_right_form() {
    let errors = [
        "-t",
        "-a",
        "-4",
        "-6",
        "-l",
        "-tulpn",
        "-tln",
        "-H",
        "-s",
        "-D 80",
        "-L 80",
        "-L 80,443",
        "-P 80",
        "-T",
        "life -L 80",
        "life -D 80",
        "list -t",
        "list -a",
        "count -4",
        "-x",
    ]
    .map(|words| format!("{words}: {}", read(&format!("conntrace {words}"), None).unwrap_err()));
    insta::assert_snapshot!(errors.join("\n"), @"
    -t: conntrack's -t has no meaning here: a socket has no timeout like an entry of connection tracking. Use --timeout 20s to end after some time. netstat -t is here: conntrace list -o table --resolve; ss -t is here: conntrace list -o table; tcptracer -t is here: conntrace -e NEW,DESTROY -o table
    -a: conntrack's -a has no meaning here: expectations belong to connection tracking. conntrace shows connections only. netstat -tan is here: conntrace list -o table -n --state all; ss -ta is here: conntrace list -o table --state all
    -4: there is no -4. ss -t4 is here: conntrace list -o table -f ipv4
    -6: there is no -6. ss -t6 is here: conntrace list -o table -f ipv6
    -l: conntrack's -l has no meaning here: labels belong to connection tracking. Filter by port, address or owner instead: --dport, --src, --comm. netstat -tulpn is here: conntrace list --listening -n -p tcp,udp; ss -tln is here: conntrace list --listening -n
    -tulpn: conntrack's -t has no meaning here: a socket has no timeout like an entry of connection tracking. Use --timeout 20s to end after some time. netstat -tulpn is here: conntrace list --listening -n -p tcp,udp; ss -tulpn is here: conntrace list --listening -n -p tcp,udp
    -tln: conntrack's -t has no meaning here: a socket has no timeout like an entry of connection tracking. Use --timeout 20s to end after some time. ss -tln is here: conntrace list --listening -n
    -H: there is no -H. ss -tH is here: conntrace list -o table --no-header
    -s: -s takes a value. ss -s is here: conntrace count --by state; tcplife -s is here: conntrace life -o csv
    -D 80: conntrack's -D has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking. tcplife -D 80 is here: conntrace life --direction out --dport 80
    -L 80: conntrack's -L prints the list and takes no port. tcplife -L 80 is here: conntrace life --direction in --dport 80
    -L 80,443: conntrack's -L prints the list and takes no port. tcplife -L 80 is here: conntrace life --direction in --dport 80
    -P 80: there is no -P. tcpconnect -P 80 is here: conntrace -e NEW --direction out --dport 80; tcpaccept -P 80 is here: conntrace -e NEW --direction in --dport 80
    -T: there is no -T. tcplife -T is here: conntrace life
    life -L 80: there is no -L. tcplife -L 80 is here: conntrace life --direction in --dport 80
    life -D 80: conntrack's -D has no meaning here: conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking. tcplife -D 80 is here: conntrace life --direction out --dport 80
    list -t: conntrack's -t has no meaning here: a socket has no timeout like an entry of connection tracking. Use --timeout 20s to end after some time. netstat -t is here: conntrace list -o table --resolve; ss -t is here: conntrace list -o table; tcptracer -t is here: conntrace -e NEW,DESTROY -o table
    list -a: conntrack's -a has no meaning here: expectations belong to connection tracking. conntrace shows connections only. netstat -tan is here: conntrace list -o table -n --state all; ss -ta is here: conntrace list -o table --state all
    count -4: there is no -4. ss -t4 is here: conntrace list -o table -f ipv4
    -x: there is no -x. netstat -xap is here: conntrace list -p unix --state all; ss -xa is here: conntrace list -p unix --state all
    ");
    // The forms are commands of conntrace.
    for line in errors.iter().flat_map(|error| error.split("is here: ").skip(1)) {
        let command = line.split("; ").next().unwrap();
        assert!(read(command, None).is_ok(), "{command}");
    }
}

#[test]
fn count_without_a_number_is_conntracks() {
    for (line, words) in [
        ("conntrace --count", "conntrace count"),
        ("conntrace --count --dport 80", "conntrace count --dport 80"),
        ("conntrace --dport 80 --count", "conntrace count --dport 80"),
        ("conntrace --count conntrack -f ipv4", "conntrace count -f ipv4"),
        ("conntrace --count 5", "conntrace events --count 5"),
        ("conntrace --count many", "conntrace events --count many"),
        ("conntrace --count -5", "conntrace events --count -5"),
        ("conntrace -E --count", "conntrace events --count"),
        ("conntrace life --count", "conntrace life --count"),
        ("conntrace --count -S", "conntrace stats --count"),
    ] {
        assert_eq!(rewritten(line), words, "{line}");
    }
    assert!(rewrite_args(["conntrace", "--count", "expect"].map(OsString::from).to_vec()).is_err());
}
