//! `conntrace help`, `conntrace -h`, and completions.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{CommandFactory as _, ValueEnum as _};
use clap_complete::Shell;

use crate::cli::Cli;
use crate::cli::migration;
use crate::cli::topics::{CompletionsArgs, HelpArgs, Topic};
use crate::column::Column;
use crate::complaint::{as_typed, complaint};
use crate::error::{Error, UsageError};
use crate::output::stdout;

/// Width of help texts that do not follow the terminal.
const WIDTH: usize = 80;

impl Topic {
    /// The text of the topic.
    pub fn text(self) -> String {
        match self {
            Self::Filters => include_str!("filters.txt").into(),
            Self::Formats => include_str!("formats.txt").replace("@COLUMNS@", &columns()),
            Self::States => include_str!("states.txt").replace("@STATES@", &states()),
            Self::Exactness => include_str!("exactness.txt").into(),
            Self::From => migration::text(),
        }
    }
}

/// True if the arguments ask for the short help: `-h` without a command, or of the default command.
pub fn is_short(args: &[OsString]) -> bool {
    let words: Vec<&str> = args.iter().skip(1).filter_map(|arg| arg.to_str()).collect();
    words.len() + 1 == args.len() && matches!(words[..], ["-h"] | ["events" | "-E" | "--event", "-h"])
}

/// The short help, which fits a screen.
pub fn short() -> String {
    include_str!("short.txt").replace("@COMMANDS@", &commands())
}

/// The commands and the topics, which fit a screen.
pub fn overview() -> String {
    let topics = Topic::value_variants().iter().filter_map(Topic::to_possible_value).map(|topic| {
        let about = topic.get_help().map(ToString::to_string).unwrap_or_default();
        format!("  {:<9}  {about}", topic.get_name())
    });
    let topics = topics.collect::<Vec<_>>().join("\n");
    include_str!("overview.txt").replace("@COMMANDS@", &commands()).replace("@TOPICS@", &topics)
}

/// A line for each command.
fn commands() -> String {
    let cli = Cli::command();
    let lines = cli.get_subcommands().filter(|command| !command.is_hide_set()).map(|command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        format!("  {:<9}  {}", command.get_name(), about.replace(" as in conntrack", ""))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// `conntrace help`: a topic, a command, or what there is.
///
/// # Errors
/// The topic is unknown, or standard output cannot be written.
pub fn run(args: &HelpArgs) -> Result<(), Error> {
    let mut cli = Cli::command();
    let Some(name) = &args.topic else { return stdout::print(overview()) };
    if let Ok(topic) = Topic::from_str(name, true) {
        return stdout::print(topic.text());
    }
    cli.build();
    match cli.find_subcommand_mut(name) {
        Some(command) => stdout::print(command.render_long_help().to_string()),
        None => Err(UsageError::Unknown(complaint!(
            "help: there is no topic {}: use filters, formats, states, exactness, from, or the name of a command",
            as_typed(name)
        ))
        .into()),
    }
}

/// The command line for shells and manuals: options of `events` are options without a command, too.
pub fn definition() -> clap::Command {
    let mut cli = Cli::command();
    cli.build();
    let events = cli
        .find_subcommand("events")
        .map(|events| events.get_arguments().filter(|arg| !arg.is_global_set()).cloned().collect::<Vec<_>>());
    let known: Vec<_> = cli.get_arguments().map(|arg| arg.get_id().clone()).collect();
    let added = events.unwrap_or_default().into_iter().filter(|arg| !known.contains(arg.get_id()));
    Cli::command().args(added.map(|arg| arg.help_heading("Options of events, the default")))
}

/// `conntrace completions`: the script for a shell.
///
/// # Errors
/// Standard output cannot be written.
pub fn complete(args: &CompletionsArgs) -> Result<(), Error> {
    stdout::print(completions(args.shell))
}

/// The script for a shell.
pub fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut definition(), "conntrace", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The names of all columns in lines. Columns for people have a line of their own.
fn columns() -> String {
    let (native, human): (Vec<&Column>, Vec<&Column>) = Column::all().partition(|column| column.native);
    format!("{}\n{}", lines(&native), lines(&human))
}

fn lines(columns: &[&Column]) -> String {
    let mut lines = vec![String::from("  ")];
    for column in columns {
        let line = lines.last_mut().filter(|line| line.len() + column.id.len() < WIDTH - 2);
        match line {
            Some(line) if line.trim().is_empty() => line.push_str(column.id),
            Some(line) => {
                line.push(' ');
                line.push_str(column.id);
            }
            None => lines.push(format!("  {}", column.id)),
        }
    }
    lines.join("\n")
}

/// The names of the states, by tool.
fn states() -> String {
    const STATES: [(&str, &str, &str, &str); 10] = [
        ("syn_sent", "SYN_SENT", "SYN-SENT", "this end sent a SYN"),
        ("syn_recv", "SYN_RECV", "SYN-RECV", "a SYN arrived, the last ACK did not yet"),
        ("established", "ESTABLISHED", "ESTAB", "data may flow"),
        ("fin_wait1", "FIN_WAIT", "FIN-WAIT-1", "this end sent its FIN first"),
        ("fin_wait2", "FIN_WAIT", "FIN-WAIT-2", "the peer acknowledged the FIN"),
        ("close_wait", "CLOSE_WAIT", "CLOSE-WAIT", "the peer sent its FIN first"),
        ("last_ack", "LAST_ACK", "LAST-ACK", "this end sent its FIN second"),
        ("closing", "LAST_ACK", "CLOSING", "both ends sent a FIN at once"),
        ("time_wait", "TIME_WAIT", "TIME-WAIT", "the kernel waits for late packets"),
        ("close", "CLOSE", "UNCONN", "the connection has ended"),
    ];
    let mut out = format!("  {:<12} {:<12} {:<11}\n", "json, table", "conntrack", "ss");
    for (ours, conntrack, ss, help) in STATES {
        _ = writeln!(out, "  {ours:<12} {conntrack:<12} {ss:<11} {help}");
    }
    out.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_help_fits_a_screen() {
        let short = short();
        insta::assert_snapshot!(short, @"
        Shows every TCP connection of this host as it opens, fails and closes

        Examples:
          conntrace                             every event of every connection
          conntrace -e NEW --dport 22           SSH attempts, from or to this host
          conntrace --dport ssh --direction in  only SSH connections from others
          conntrace -e DESTROY -o timestamp     ends, with lifetime and reason
          conntrace -o json --count 9 | jq .    the next nine events as JSON

        Commands:
          events     Print events as they happen, until Ctrl-C (the default; -E)
          count      Print how many connections are open now (-C)
          list       Print the connections that are open now, and their processes (-L)
          life       Print each connection when it ends: lifetime, process and reason
          stats      Count opened, failed and closed connections per service port (-S)
          serve      Run as a daemon that counts, and answers on a Unix socket
          rules      Explain the daemon's rules of alarms, and test one
          doctor     Check what conntrace can do on this host, and test it
          help       Explain a command or a topic

        Options of events, the default; most other commands have them, too:
          -e, --event-mask KINDS   NEW, UPDATES, DESTROY, ALL; ATTEMPT; LISTEN; or n,d
          --dport, --sport PORTS   service port, initiator's port: 22, ssh, 8000-8099
          -s, -d, --src, --dst A   addresses and prefixes; !10.0.0.0/8 excludes
          --direction in|out       opened by the peer, or by this host; a connection
                                   within this host has both ends here: shown twice
          -f, --family ipv4|ipv6   address family
          --state, --pid, --comm, --uid, --netns, --cgroup
          --failed, --reason R     failed connections, or ends for a reason: refused
          EXPRESSION               'dst 10.0.0.0/8 and not sport = :ssh', as in ss
          -o, --output FORMAT      conntrack, table, json, csv, logfmt, xml, save,
                                   json-otel, json-ecs; timestamp, id, extended
          --columns NAMES          columns of table, csv, logfmt and json
          -n                       tables show port numbers instead of names
          --resolve                tables show names of addresses
          --count N, --timeout T   end after N events, after 20s
          -b, --buffer-size BYTES  size of the event buffer: 64M
          --summary                print counts per port at the end

        conntrace --help lists all options, conntrace help COMMAND those of one command,
        conntrace help the topics: filters, formats, states, exactness, from.
        ");
        assert!(short.lines().count() <= 45);
        assert!(short.lines().all(|line| line.chars().count() <= WIDTH));
        let mut lines = short.lines().skip_while(|line| *line != "Examples:").skip(1);
        assert_eq!(lines.by_ref().take_while(|line| line.starts_with("  conntrace")).count(), 5);
    }

    #[test]
    fn help_alone_fits_a_screen() {
        let overview = overview();
        insta::assert_snapshot!(overview, @"
        conntrace shows every TCP connection of this host as it opens, fails and closes

        Usage: conntrace [COMMAND] [OPTIONS] [EXPRESSION]

        Commands. conntrace help COMMAND prints all options of one:
          events     Print events as they happen, until Ctrl-C (the default; -E)
          count      Print how many connections are open now (-C)
          list       Print the connections that are open now, and their processes (-L)
          life       Print each connection when it ends: lifetime, process and reason
          stats      Count opened, failed and closed connections per service port (-S)
          serve      Run as a daemon that counts, and answers on a Unix socket
          rules      Explain the daemon's rules of alarms, and test one
          doctor     Check what conntrace can do on this host, and test it
          help       Explain a command or a topic

        Topics. conntrace help TOPIC prints half a screen about one:
          filters    Choose connections, by options or by an expression
          formats    Output formats and their columns
          states     TCP states, under the names of conntrack and ss
          exactness  Which numbers are exact, and how conntrace proves it
          from       Commands of netstat, ss, conntrack and bcc, and their replacements

        conntrace -h       examples, and the most important options, on one screen
        conntrace --help   every option of every command
        ");
        assert!(overview.lines().count() <= 24 && overview.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn help_is_ascii() {
        let mut cli = Cli::command();
        cli.build();
        let names: Vec<String> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        let commands = names.iter().filter_map(|name| {
            cli.find_subcommand(name).map(|command| command.clone().render_long_help().to_string())
        });
        let topics = Topic::value_variants().iter().map(|topic| topic.text());
        for text in commands.chain(topics).chain([short(), overview()]) {
            let other = text.lines().find(|line| !line.is_ascii());
            assert_eq!(other, None, "a terminal without UTF-8 cannot show it");
        }
    }

    #[test]
    fn short_help_names_what_there_is() {
        let definition = definition();
        let known = |word: &str| {
            definition.get_arguments().any(|arg| {
                arg.get_long().is_some_and(|long| word == format!("--{long}"))
                    || arg.get_short().is_some_and(|short| word == format!("-{short}"))
            })
        };
        for word in short().split_ascii_whitespace().map(|word| word.trim_matches([',', '(', ')'])) {
            let command = ["-E", "-C", "-S", "-L", "--help"].contains(&word);
            assert!(!word.starts_with('-') || known(word) || command, "{word}");
        }
    }

    #[test]
    fn topics_take_half_a_screen() {
        for topic in Topic::value_variants() {
            let text = topic.text();
            // The commands of other tools take a screen.
            let most = if *topic == Topic::From { 50 } else { 36 };
            assert!(text.lines().count() <= most, "{topic:?}: {}", text.lines().count());
            for line in text.lines() {
                let width = if *topic == Topic::From { 130 } else { WIDTH };
                assert!(line.chars().count() <= width && !line.ends_with(' '), "{topic:?}: {line}");
            }
            assert!(!text.contains('@'), "{text}");
        }
        insta::assert_snapshot!(Topic::Formats.text(), @r#"
        Output formats: -o FORMAT

          conntrack  the line of conntrack -E, with more fields at its end (default)
                     timestamp: unix time before it; extended: address family;
                     id: the connection's; ktimestamp: begin and end
          table      columns for people; columns without room on the terminal are left
                     out. The default of life, and of list on a terminal
          json       one object a line, fields as below (docs/json.md, the schema in
                     docs/events.schema.json); csv and logfmt have the same names
          xml, save  as in conntrack
          json-otel  a log record with OpenTelemetry's names
          json-ecs   a document with the names of the Elastic Common Schema

        --columns chooses and orders the columns of table, csv, logfmt and json. all is
        all but the last line below; +NAME adds one to the usual columns:

          event time time_ns id direction family protocol state old_state src sport
          dst dport src_name dst_name pid tid uid comm thread owner holders cgroup
          container container_name container_user pod pod_namespace unit user_unit
          netns interface interface_index preexisting attempt_ns established_ns
          handshake_ns lifetime_ns age_ns at_least_ns failed reason reset error
          attempt bytes_sent bytes_received segments_sent segments_received
          retransmits srtt_us min_rtt_us idle_ns receive_queue send_queue half_open
          dropped
          local peer started handshake lifetime age idle slice user_slice processes
          cmdline

        Tables show names of ports; -n shows numbers. With --resolve, tables show names
        of addresses; other formats have them as src_name and dst_name.

        An unknown value is - in lines and tables, null in JSON, an empty cell in CSV,
        and absent elsewhere. An empty name is "", and a name - is \x2d. Names of
        processes and addresses are escaped. A loss is reported at its place: [LOST],
        "event":"lost", a comment in XML, standard error for CSV.
        "#);
        insta::assert_snapshot!(Topic::States.text(), @"
        States of a connection

          json, table  conntrack    ss
          syn_sent     SYN_SENT     SYN-SENT    this end sent a SYN
          syn_recv     SYN_RECV     SYN-RECV    a SYN arrived, the last ACK did not yet
          established  ESTABLISHED  ESTAB       data may flow
          fin_wait1    FIN_WAIT     FIN-WAIT-1  this end sent its FIN first
          fin_wait2    FIN_WAIT     FIN-WAIT-2  the peer acknowledged the FIN
          close_wait   CLOSE_WAIT   CLOSE-WAIT  the peer sent its FIN first
          last_ack     LAST_ACK     LAST-ACK    this end sent its FIN second
          closing      LAST_ACK     CLOSING     both ends sent a FIN at once
          time_wait    TIME_WAIT    TIME-WAIT   the kernel waits for late packets
          close        CLOSE        UNCONN      the connection has ended

        NEW is the attempt. For out, the SYN is about to leave (SYN_SENT). For in, the
        handshake is almost complete, and the kernel has made the socket (SYN_RECV).
        UPDATE is every later change of state. DESTROY is the step to CLOSE.
        ATTEMPT is a SYN that made no connection yet: half_open (a listener took it),
        refused (no socket listens) or dropped (accept queue full). With LISTEN, a
        listener has an event when it begins (LISTEN) and ends (CLOSED). ALL leaves
        attempts and listeners out.

        TIME_WAIT has no events, because the kernel has already freed the socket. It is
        not part of a lifetime, and not counted as open. The same is usually true of
        FIN_WAIT2 once no process has the socket open. A half-open connection (a SYN
        without a complete handshake) has no socket yet.
        ");
    }

    #[test]
    fn unknown_topics_are_named() {
        let error = run(&HelpArgs { topic: Some("nothing".into()) }).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        insta::assert_snapshot!(error, @r#"help: there is no topic "nothing": use filters, formats, states, exactness, from, or the name of a command"#);
    }

    #[test]
    fn options_of_events_complete_without_a_command() {
        definition().debug_assert();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions(shell);
            assert!(script.contains("event-mask"), "{shell}");
        }
    }
}
