//! The query of a request becomes the arguments of a command, which the parser of the command line reads.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};
use form_urlencoded::parse;

use crate::cli::Cli;
use crate::host::lookup::Lookup;
use crate::ledger::metrics::Format;
use crate::serve::endpoint::Endpoint;
use crate::serve::peer::Rights;
use crate::serve::problem::Problem;
use crate::serve::streams::{self, Stream};
use crate::settings::Settings;

/// The longest query, in bytes.
pub(crate) const MAX_QUERY: usize = 16 << 10;
/// The parameter of the filter expression.
pub(crate) const FILTER: &str = "filter";
/// The parameter that describes the terminal of the client.
pub(crate) const TERMINAL: &str = "terminal";
/// The parameter with the time zone of the client.
pub(crate) const TZ: &str = "tz";
/// The parameter with the name of a stream that outlives the daemon, and that with the lines that the client has of it.
pub(crate) const STREAM: &str = "stream";
pub(crate) const FROM: &str = "from";
/// The option that says whose processes a run shows.
pub(crate) const VIEWER: &str = "viewer";
/// The formats of metrics, as the arguments that the answer's type is made of.
const METRICS: [(Format, &str); 3] = [
    (Format::Older, "--output=prometheus"),
    (Format::Open, "--output=openmetrics"),
    (Format::Protobuf, "--output=protobuf"),
];
/// The longest time zone.
const MAX_TZ: usize = 64;

/// A request: the endpoint and what follows from its parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub(crate) struct Query {
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// Arguments behind the command's name.
    pub(crate) args: Vec<String>,
    /// The terminal of the client, see [`crate::output::terminal`].
    pub(crate) terminal: Option<String>,
    /// The time zone of the client.
    pub(crate) tz: Option<String>,
    /// The stream that the client asks for.
    pub(crate) stream: Option<Stream>,
}

impl Query {
    /// Reads the part of an address behind its question mark.
    ///
    /// # Errors
    /// The first parameter that is wrong.
    pub(crate) fn read(endpoint: Endpoint, query: &str) -> Result<Self, Problem> {
        if query.len() > MAX_QUERY {
            let message = format!("the query has {} bytes, and {MAX_QUERY} are too many", query.len());
            return Err(Problem::new(400, message, "use prefixes and ranges in place of long lists"));
        }
        let mut read = Self { endpoint, args: Vec::new(), terminal: None, tz: None, stream: None };
        let Some(name) = endpoint.command() else {
            return match parse(query.as_bytes()).next() {
                Some((name, _)) => Err(unknown(endpoint, &name)),
                None => Ok(read),
            };
        };
        let mut cli = Cli::command();
        cli.build();
        let command = cli.find_subcommand(name);
        let takes_value = |option: &str| {
            command
                .and_then(|command| command.get_arguments().find(|arg| arg.get_long() == Some(option)))
                .map(|arg| {
                    let least = arg.get_num_args().map_or(1, |count| count.min_values());
                    arg.get_action().takes_values().then_some(least)
                })
        };
        let (mut stream, mut from) = (None, None);
        let (allowed, mut seen, mut filter) = (endpoint.parameters(), BTreeSet::new(), Vec::new());
        for (name, value) in parse(query.as_bytes()) {
            if value.contains('\0') {
                return Err(Problem::parameter(&name, "the value has a NUL byte", "leave the byte out"));
            }
            match name.as_ref() {
                FILTER => filter.push(value.into_owned()),
                TERMINAL => read.terminal = Some(checked(TERMINAL, &value, is_terminal)?),
                TZ => read.tz = Some(checked(TZ, &value, is_time_zone)?),
                STREAM if endpoint.is_stream() => stream = Some(checked(STREAM, &value, streams::is_name)?),
                FROM if endpoint.is_stream() => {
                    from = checked(FROM, &value, |text| text.parse::<u64>().is_ok())?.parse().ok();
                }
                name if allowed.contains(&name) => {
                    seen.insert(name.to_owned());
                    read.args.extend(argument(name, &value, takes_value(name).flatten())?);
                }
                name => return Err(unknown(endpoint, name)),
            }
        }
        read.stream = stream.map(|name| Stream { name, from });
        if !seen.contains("output") {
            read.args.push("--output=json".into());
        }
        if !filter.is_empty() {
            read.args.push("--".into());
            // Each part must hold, as each option must.
            read.args.push(match &filter[..] {
                [one] => one.clone(),
                parts => parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(" and "),
            });
        }
        Ok(read)
    }

    /// The settings that the parser of the command line makes of the arguments, in a run that shows what `rights` allow.
    ///
    /// # Errors
    /// The first option that is wrong, or not for clients.
    pub(crate) fn settings(&self, lookup: &dyn Lookup, rights: Rights) -> Result<Settings, Problem> {
        let name = self.endpoint.command().unwrap_or_default();
        let allowed = self.endpoint.parameters();
        // The front has read the parameters. The back trusts none of what it says.
        for arg in self.args.iter().take_while(|arg| *arg != "--") {
            let option = arg.strip_prefix("--").map(|option| option.split('=').next().unwrap_or(option));
            if !option.is_some_and(|option| allowed.contains(&option)) {
                return Err(unknown(self.endpoint, arg));
            }
        }
        let words = ["conntrace", name].into_iter().map(str::to_owned);
        let words = words.chain(self.viewer(rights)).chain(self.args.iter().cloned());
        let cli = Cli::try_parse_from(words).map_err(|error| Problem::of_clap(name, &error))?;
        Settings::from_cli(&cli, lookup).map_err(|error| Problem::of_usage(name, &error))
    }
}

impl Query {
    /// True of a stream whose lines are the same for all that ask for it, whenever they come: JSON has no header, and none
    /// of the options counts lines or has a word at the end.
    pub(crate) fn is_shareable(&self) -> bool {
        const OWN: [&str; 7] = ["count", "timeout", "strict", "summary", "top", "sort", "columns"];
        let options =
            self.args.iter().take_while(|arg| *arg != "--").filter_map(|arg| arg.strip_prefix("--"));
        let options: Vec<_> = options.map(|option| option.split_once('=').unwrap_or((option, ""))).collect();
        self.endpoint.is_stream()
            && self.stream.is_none()
            && options.contains(&("output", "json"))
            && options
                .iter()
                .all(|(name, value)| !OWN.contains(name) && (*name != "output" || *value == "json"))
    }

    /// The stream that is to outlive the daemon. Only one of single lines without an end of its own does, of TCP and its sockets.
    pub(crate) fn kept_stream(&self) -> Option<&Stream> {
        const OWN: [&str; 7] = ["count", "timeout", "strict", "summary", "top", "forwarded", "protocol"];
        let mut parts = self.args.splitn(2, |arg| arg == "--");
        let options = parts.next().into_iter().flatten().filter_map(|arg| arg.strip_prefix("--"));
        let mut options = options.map(|option| option.split_once('=').unwrap_or((option, "")));
        let is_kept = options.all(|(name, value)| match name {
            "output" => !["csv", "xml"].contains(&value),
            "event-mask" => !value.to_ascii_lowercase().contains("attempt"),
            name => !OWN.contains(&name),
        }) && !parts.flatten().any(|filter| filter.contains("proto"));
        self.stream.as_ref().filter(|_| is_kept && self.endpoint.is_stream())
    }

    /// True of counts that begin now, of a time of their own, which a command counts.
    pub(crate) fn is_of_command(&self) -> bool {
        let has =
            |name: &str| self.args.iter().take_while(|arg| *arg != "--").any(|arg| arg.starts_with(name));
        self.endpoint == Endpoint::Stats && (has("--interval=") || has("--timeout="))
    }

    /// Chooses the format of metrics.
    pub(crate) fn choose_metrics(&mut self, format: Format) {
        let argument = METRICS.iter().find(|(of, _)| *of == format).map(|&(_, argument)| argument.to_owned());
        self.args = argument.into_iter().collect();
    }

    /// The format of metrics that was chosen.
    pub(crate) fn metrics(&self) -> Format {
        let found = METRICS.iter().find(|(_, argument)| self.args == [*argument]);
        found.map_or(Format::Older, |&(format, _)| format)
    }

    /// True if equal requests that wait at the same time get one answer.
    pub(crate) fn is_shared(&self) -> bool {
        self.endpoint.is_shared() && !self.is_of_command()
    }

    /// The argument that limits a run to what `rights` allow, if there is a limit. Counts per service port show no process.
    pub(crate) fn viewer(&self, rights: Rights) -> Option<String> {
        let has_owners = self.endpoint.parameters().contains(&"pid");
        rights.viewer().filter(|_| has_owners).map(|uid| format!("--{VIEWER}={uid}"))
    }
}

/// The argument of a parameter; none for a switch that is off. `least`: how many values the option needs; `None` for a
/// switch.
fn argument(name: &str, value: &str, least: Option<usize>) -> Result<Option<String>, Problem> {
    Ok(match (least, value) {
        // The command's own format.
        (Some(_), "") if name == "output" => None,
        (Some(0), "") | (None, "" | "true" | "1") => Some(format!("--{name}")),
        (Some(_), _) => Some(format!("--{name}={value}")),
        (None, "false" | "0") => None,
        (None, _) => {
            return Err(Problem::parameter(
                name,
                "it is a switch",
                format!("write {name}=true, or leave it out"),
            ));
        }
    })
}

/// A parameter that the endpoint does not have.
fn unknown(endpoint: Endpoint, name: &str) -> Problem {
    if let Some((_, why)) = endpoint.refused().into_iter().find(|(refused, _)| *refused == name) {
        return Problem::parameter(name, "clients of the daemon may not use it", why);
    }
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let remedy = match endpoint.command() {
        Some(command) => format!("parameters are {FILTER} and the long options of conntrace {command}"),
        None => "leave it out".to_owned(),
    };
    Problem::parameter(&name, format!("{} has no such parameter", endpoint.path()), remedy)
}

fn checked(name: &str, value: &str, is_good: impl Fn(&str) -> bool) -> Result<String, Problem> {
    if is_good(value) {
        return Ok(value.to_owned());
    }
    Err(Problem::parameter(name, "the value has no meaning", "leave it out"))
}

/// True for `WIDTH[,utf8][,color]`.
fn is_terminal(text: &str) -> bool {
    let mut words = text.split(',');
    words.next().is_some_and(|width| width.parse::<u16>().is_ok())
        && words.all(|word| ["utf8", "color"].contains(&word))
}

/// True for the name of a zone below the system's directory of zones, and for a rule of POSIX. No file elsewhere has such
/// a name.
fn is_time_zone(text: &str) -> bool {
    let may = |c: char| c.is_ascii_alphanumeric() || "_+-/,.<>:".contains(c);
    text.len() <= MAX_TZ && text.chars().all(may) && !text.starts_with(['/', ':']) && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::lookup::fixed::FixedLookup;

    fn args(endpoint: Endpoint, query: &str) -> Result<String, String> {
        let read = Query::read(endpoint, query).map_err(|problem| problem.text())?;
        read.settings(&FixedLookup::default(), Rights::All).map_err(|problem| problem.text())?;
        Ok(read.args.join(" "))
    }

    #[test]
    fn parameters_are_the_long_options() {
        for (endpoint, query, expected) in [
            (Endpoint::Count, "", "--output=json"),
            (Endpoint::Count, "dport=443&state=established", "--dport=443 --state=established --output=json"),
            (Endpoint::Count, "by=port%2Cstate&output=csv", "--by=port,state --output=csv"),
            (Endpoint::List, "listening&output=", "--listening"),
            (Endpoint::List, "listening=true&exit-code=false", "--listening --output=json"),
            (Endpoint::List, "forwarded", "--forwarded --output=json"),
            (Endpoint::Events, "event-mask=new&count=3", "--event-mask=new --count=3 --output=json"),
            (
                Endpoint::Lifetimes,
                "min=5s&filter=service+%3D+:443",
                "--min=5s --output=json -- service = :443",
            ),
            (
                Endpoint::Events,
                "filter=dport+=+:22+or+dport+=+:23&filter=src+10.0.0.0/8",
                "--output=json -- (dport = :22 or dport = :23) and (src 10.0.0.0/8)",
            ),
            (Endpoint::Stats, "total&tz=Europe/Berlin&terminal=80,utf8", "--total --output=json"),
        ] {
            assert_eq!(args(endpoint, query).as_deref(), Ok(expected), "{query}");
        }
    }

    #[test]
    fn refusals_name_parameter_and_remedy() {
        let refused = [
            (Endpoint::Count, "dport=many"),
            (Endpoint::Count, "port=22"),
            (Endpoint::Count, "filter=dport+%3D"),
            (Endpoint::Events, "buffer-size=1M"),
            (Endpoint::Events, "verbose"),
            (Endpoint::Events, "failed=perhaps"),
            (Endpoint::Stats, "textfile=/tmp/x"),
            (Endpoint::List, "sort=beauty"),
            (Endpoint::List, "terminal=wide"),
            (Endpoint::List, "tz=../../etc/shadow"),
            (Endpoint::Health, "dport=22"),
            (Endpoint::Count, "dport=2%002"),
        ]
        .map(|(endpoint, query)| args(endpoint, query).unwrap_err());
        insta::assert_snapshot!(refused.join("\n\n"));
    }

    #[test]
    fn counts_of_a_time_of_their_own_are_not_shared() {
        let is = |endpoint, query| Query::read(endpoint, query).unwrap().is_shared();
        assert!(is(Endpoint::Stats, "total&sources=9") && is(Endpoint::Count, ""));
        assert!(!is(Endpoint::Stats, "timeout=1s") && !is(Endpoint::Stats, "interval=1s&total"));
    }

    #[test]
    fn streams_of_events_are_shared() {
        let is = |endpoint, query| Query::read(endpoint, query).unwrap().is_shareable();
        assert!(is(Endpoint::Events, "") && is(Endpoint::Events, "dport=22&event-mask=new&filter=--count"));
        assert!(is(Endpoint::Lifetimes, "min=5s"));
        let own = ["count=3", "timeout=5s", "summary", "output=csv", "output=", "strict", "columns=pid"];
        for query in own.iter().chain(&["stream=0123456789abcdef0123456789abcdef"]) {
            assert!(!is(Endpoint::Events, query), "{query}");
        }
        assert!(!is(Endpoint::Lifetimes, "top=3") && !is(Endpoint::List, ""));
    }

    #[test]
    fn streams_of_single_lines_are_kept() {
        let name = "0123456789abcdef0123456789abcdef";
        let is = |query: &str| {
            let read = Query::read(Endpoint::Events, &format!("stream={name}&{query}")).unwrap();
            read.kept_stream().map(|stream| stream.from)
        };
        assert_eq!((is("dport=22"), is("from=7&output=json")), (Some(None), Some(Some(7))));
        for query in [
            "count=3",
            "timeout=5s",
            "summary",
            "output=csv",
            "output=xml",
            "strict",
            "protocol=udp",
            "event-mask=new,attempt",
            "filter=proto+udp",
        ] {
            assert_eq!(is(query), None, "{query}");
        }
        assert!(Query::read(Endpoint::Events, "stream=../../etc").is_err());
        assert!(Query::read(Endpoint::List, &format!("stream={name}")).is_err());
    }

    #[test]
    fn the_back_takes_no_option_that_is_not_for_clients() {
        let read = |args: &[&str]| {
            let args = args.iter().map(|&arg| arg.to_owned()).collect();
            let query = Query { endpoint: Endpoint::Events, args, terminal: None, tz: None, stream: None };
            query.settings(&FixedLookup::default(), Rights::Own(7))
        };
        assert!(read(&["--comm=ssh", "--", "--viewer"]).is_err());
        for args in [&["--viewer=0"][..], &["--daemon=/x"], &["-v"], &["pid = 1"], &["--buffer-size=1M"]] {
            assert!(read(args).is_err(), "{args:?}");
        }
        match read(&["--comm=ssh"]).unwrap() {
            Settings::Events(settings) => assert_eq!(settings.filter.viewer(), Some(7)),
            other => panic!("{other:?}"),
        }
        let forwarded = read(&["--forwarded"]).unwrap_err();
        assert_eq!(forwarded.parameter.as_deref(), Some("forwarded"));
    }

    #[test]
    fn no_value_becomes_an_option() {
        let read = Query::read(Endpoint::Events, "comm=--local&filter=--help").unwrap();
        assert_eq!(read.args, ["--comm=--local", "--output=json", "--", "--help"]);
        assert!(read.settings(&FixedLookup::default(), Rights::All).is_err());
    }
}
