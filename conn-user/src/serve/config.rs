//! The configuration file of the daemon.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::slice;

use serde::Deserialize;
use toml::Spanned;

use crate::complaint::as_typed;
use crate::error::{Error, UsageError};
use crate::event::sort_key::SourceGroup;
use crate::host::lookup::{HostLookup, Lookup};
use crate::serve::alarm::file::{self, Ports, RuleTable};
use crate::serve::lookup::ClientLookup;
use crate::serve::otlp::file::OtlpTable;
use crate::serve::peer::Rights;
use crate::settings::otlp::Chosen;
use crate::settings::{Access, MAX_ADDRESSES, MAX_PORTS, ServeSettings};

/// The file, as written. `packaging/conntrace.toml` documents each key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The socket for clients.
    socket: Option<PathBuf>,
    /// The group whose members may ask.
    group: Option<String>,
    /// Who may ask beside root and the group.
    access: Option<Access>,
    /// Nothing is pinned.
    transient: Option<bool>,
    /// The mount point of the BPF file system for pins.
    bpffs: Option<PathBuf>,
    /// Handshakes and lifetimes are counted.
    lifetimes: Option<bool>,
    /// Remote addresses are counted.
    sources: Option<Sources>,
    /// The addresses on which metrics are to be had.
    listen: Option<Spanned<OneOrMore>>,
    /// Ports whose outgoing connections have metrics of their own.
    ports: Option<Vec<Ports>>,
    /// The most clients at the same time.
    clients: Option<usize>,
    /// The most clients of one user other than root.
    clients_per_user: Option<usize>,
    /// The directory for what outlives the daemon.
    state: Option<PathBuf>,
    /// The program that takes mail.
    sendmail: Option<PathBuf>,
    /// Where metrics go by OTLP.
    otlp: Option<OtlpTable>,
    /// The rules of alarms.
    #[serde(default)]
    rule: Vec<RuleTable>,
}

/// What is counted of remote addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sources {
    Off,
    Address,
    Prefix,
}

impl Sources {
    const fn group(self) -> Option<SourceGroup> {
        match self {
            Self::Off => None,
            Self::Address => Some(SourceGroup::Address),
            Self::Prefix => Some(SourceGroup::Prefix),
        }
    }
}

/// An address, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "write one address, or a list of them: [\"127.0.0.1:9436\"]")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// The most clients that a file may ask for: each takes a descriptor.
const MAX_CLIENTS: usize = 4096;

/// The settings of the command line with those of the file behind them. Without a file at the default place, the settings
/// are those of the command line. `names`: those of this host.
///
/// # Errors
/// The file cannot be read, or the first key that is wrong, with its line and column.
pub(crate) fn with_file(settings: &ServeSettings, names: &HostLookup) -> Result<ServeSettings, Error> {
    let error = |source| Error::Io { context: format!("reading {}", settings.config.display()), source };
    let text = match fs::read_to_string(&settings.config) {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound && !settings.is_config_chosen => {
            return complete(settings.clone(), Chosen::default());
        }
        text => text.map_err(error)?,
    };
    let wrong = |why: String| Error::Config { file: settings.config.clone(), why };
    let config: Config =
        toml::from_str(&text).map_err(|error| wrong(error.to_string().trim_end().to_owned()))?;
    // The export of events is a client.
    let names = ClientLookup { names, rights: Rights::All };
    let (settings, otlp) = merged(settings, &text, config, &names).map_err(wrong)?;
    complete(settings, otlp)
}

/// The settings with what the environment says of OTLP where the file says nothing.
fn complete(settings: ServeSettings, otlp: Chosen) -> Result<ServeSettings, Error> {
    let wants_events = otlp.events.is_some();
    let otlp = otlp
        .with(|name| std::env::var(name).ok())
        .map_err(|(variable, why)| UsageError::conflict(variable, format!("{why}: see docs/otlp.md")))?;
    if wants_events && otlp.as_ref().is_none_or(|otlp| otlp.events.is_none()) {
        log::warn!(
            "[otlp.events] sends nothing: it has no endpoint, or a variable of OpenTelemetry turns it off"
        );
    }
    Ok(ServeSettings { otlp, ..settings })
}

/// The settings of both, and what the file says of OTLP. `text` is the file.
fn merged(
    settings: &ServeSettings,
    text: &str,
    config: Config,
    names: &dyn Lookup,
) -> Result<(ServeSettings, Chosen), String> {
    let services = names.services();
    let absolute = |key: &str, path: Option<PathBuf>| match path {
        Some(path) if !path.is_absolute() => {
            Err(format!("{key}: the path must be absolute: begin it with /"))
        }
        path => Ok(path),
    };
    let limited = |key: &str, number: Option<usize>, usual: usize| match number {
        Some(number) if number == 0 || number > MAX_CLIENTS => {
            Err(format!("{key}: {number} is not between 1 and {MAX_CLIENTS}"))
        }
        number => Ok(number.unwrap_or(usual)),
    };
    let typed = &settings.typed;
    let socket = absolute("socket", config.socket)?.filter(|_| !typed.socket);
    let state = absolute("state", config.state)?;
    let sendmail = absolute("sendmail", config.sendmail)?;
    let pins = absolute("bpffs", config.bpffs)?.filter(|_| !typed.pins);
    let group = config.group.filter(|_| !typed.group);
    let sources = config.sources.map_or(settings.sources, Sources::group);
    let otlp = config.otlp.unwrap_or_default().chosen(text, names)?;
    let settings = ServeSettings {
        socket: socket.unwrap_or_else(|| settings.socket.clone()),
        pins: pins.unwrap_or_else(|| settings.pins.clone()),
        group: group.unwrap_or_else(|| settings.group.clone()),
        access: config.access.unwrap_or(settings.access),
        transient: settings.transient || config.transient.unwrap_or_default(),
        lifetimes: config.lifetimes.unwrap_or(settings.lifetimes),
        sources,
        listen: config.listen.map_or(Ok(Vec::new()), |listen| addresses(text, &listen))?,
        ports: file::ports(&config.ports.unwrap_or_default(), MAX_PORTS, services)
            .map_err(|why| format!("ports: {why}"))?,
        clients: limited("clients", config.clients, settings.clients)?,
        clients_per_user: limited("clients_per_user", config.clients_per_user, settings.clients_per_user)?,
        state: state.unwrap_or_else(|| settings.state.clone()),
        sendmail: sendmail.unwrap_or_else(|| settings.sendmail.clone()),
        rules: file::rules(text, &config.rule, services, sources)?,
        ..settings.clone()
    };
    Ok((settings, otlp))
}

/// The addresses of the key `listen`.
fn addresses(text: &str, listen: &Spanned<OneOrMore>) -> Result<Vec<SocketAddr>, String> {
    let all = match listen.get_ref() {
        OneOrMore::One(one) => slice::from_ref(one),
        OneOrMore::More(all) => all,
    };
    let wrong = |why: String| Err(file::placed(text, listen.span(), &why));
    if all.len() > MAX_ADDRESSES {
        return wrong(format!("there are {} addresses, and {MAX_ADDRESSES} are the most", all.len()));
    }
    let mut addresses = Vec::new();
    for typed in all {
        match typed.parse::<SocketAddr>() {
            Err(_) => {
                return wrong(format!(
                    "{} is no address: write numbers, 127.0.0.1:9436 or [::1]:9436",
                    as_typed(typed)
                ));
            }
            Ok(address) if address.port() == 0 => return wrong("the port must not be 0".into()),
            Ok(address) if addresses.contains(&address) => return wrong(format!("{address} is there twice")),
            Ok(address) => addresses.push(address),
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::ServeArgs;
    use crate::host::lookup::fixed::FixedLookup;
    use crate::settings::otlp::Metrics;

    fn read(text: &str, args: &ServeArgs) -> Result<ServeSettings, String> {
        let settings = ServeSettings::new(args, 0).unwrap();
        let config = toml::from_str(text).map_err(|error| error.to_string())?;
        let (settings, otlp) = merged(&settings, text, config, &FixedLookup::default())?;
        Ok(ServeSettings { otlp: otlp.with(|_| None).unwrap(), ..settings })
    }

    #[test]
    fn the_command_line_wins() {
        let text = "socket = \"/a\"\ngroup = \"b\"\nclients = 9\nclients_per_user = 3\ntransient = true";
        let read = |args: &ServeArgs| read(text, args).unwrap();
        let settings = read(&ServeArgs::default());
        assert_eq!((settings.socket.to_str(), settings.group.as_str()), (Some("/a"), "b"));
        assert_eq!((settings.clients, settings.clients_per_user, settings.transient), (9, 3, true));
        let typed = ServeArgs { socket: Some("/x".into()), group: Some("y".into()), ..ServeArgs::default() };
        let settings = read(&typed);
        assert_eq!((settings.socket.to_str(), settings.group.as_str()), (Some("/x"), "y"));
    }

    #[test]
    fn mistakes_have_their_place() {
        let read = |text| read(text, &ServeArgs::default()).unwrap_err();
        let unknown = read("group = \"x\"\nacess = \"everyone\"");
        assert!(
            unknown.contains("line 2, column 1") && unknown.contains("unknown field `acess`"),
            "{unknown}"
        );
        let access = read("group = \"x\"\naccess = \"anybody\"");
        assert!(access.contains("line 2, column 10") && access.contains("`group` or `everyone`"), "{access}");
        assert!(read("clients = \"many\"").contains("line 1, column 11"));
        assert_eq!(read("clients = 0"), "clients: 0 is not between 1 and 4096");
        assert_eq!(read("socket = \"s\""), "socket: the path must be absolute: begin it with /");
    }

    #[test]
    fn addresses_and_ports_are_read() {
        let read = |text: &str| read(text, &ServeArgs::default());
        let settings = read("listen = \"127.0.0.1:9436\"\nports = [\"https\", 53, \"8000-8100\"]").unwrap();
        assert_eq!(settings.listen, ["127.0.0.1:9436".parse().unwrap()]);
        assert_eq!(settings.ports, [(443, 443), (53, 53), (8000, 8100)]);
        let both = read("listen = [\"127.0.0.1:9436\", \"[::1]:9436\"]").unwrap();
        assert_eq!(both.listen.len(), 2);
        for (text, wrong) in [
            ("listen = \"localhost:9436\"", "line 1, column 10: \"localhost:9436\" is no address"),
            ("listen = [\"127.0.0.1:9436\", \"[::1]\"]", "line 1, column 10: \"[::1]\" is no address"),
            ("listen = \"127.0.0.1:0\"", "the port must not be 0"),
            ("listen = [\"[::1]:1\", \"[::1]:1\"]", "there twice"),
            ("listen = 9436", "write one address, or a list"),
            ("ports = [true]", "write a port, or a list"),
            ("ports = [\"1-600\"]", "ports: 600 ports, and 512 are the most"),
            ("ports = [\"nothing\"]", "unknown service"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
        }
        let many: Vec<String> = (1..=9).map(|port| format!("\"[::1]:{port}\"")).collect();
        assert!(read(&format!("listen = [{}]", many.join(","))).unwrap_err().contains("8 are the most"));
    }

    #[test]
    fn an_export_is_read_and_its_mistakes_have_their_place() {
        let read = |text: &str| read(&format!("group = \"x\"\n[otlp]\n{text}"), &ServeArgs::default());
        let text = "endpoint = \"http://c:4318/\"\ninterval = \"5s\"\nheaders = { a = \"b\" }";
        let Metrics { target, interval } = read(text).unwrap().otlp.unwrap().metrics.unwrap();
        assert_eq!((target.url.as_str(), interval.as_secs()), ("http://c:4318/v1/metrics", 5));
        assert_eq!((target.timeout.as_secs(), target.headers["a"].as_str()), (10, "b"));
        assert_eq!(read("interval = \"5s\"").unwrap().otlp, None);
        for (text, wrong) in [
            ("endpoint = \"c:4318\"", "line 3, column 12: an endpoint is a URL"),
            ("interval = \"5x\"", "line 3, column 12: unknown unit"),
            ("timeout = \"1ms\"", "line 3, column 11: the time is not between 100ms and 1d"),
            ("url = \"http://c\"", "unknown field `url`"),
            ("headers = { \"a b\" = \"s\" }", "line 3, column 11: \"a b\" is not a name of a header"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
        }
        assert!(!read("headers = { a = \"secret\\n\" }").unwrap_err().contains("secret"));
    }

    #[test]
    fn an_export_of_events_is_read_and_its_mistakes_have_their_place() {
        let read = |text: &str| {
            let text = format!("[otlp]\nendpoint = \"http://c\"\n[otlp.events]\n{text}");
            read(&text, &ServeArgs::default()).map(|settings| settings.otlp.unwrap().events.unwrap())
        };
        assert_eq!(read("").unwrap().query, "");
        let events =
            read("event-mask = \"NEW\"\ndport = 22\nfailed = false\nfilter = \"client 10.0.0.0/8\"").unwrap();
        assert_eq!(events.query, "dport=22&event-mask=NEW&failed=false&filter=client+10.0.0.0%2F8");
        assert_eq!(read("dport = [\"https\", 53]").unwrap().query, "dport=https%2C53");
        let events = read("batch = 7\ndelay = \"200ms\"\nendpoint = \"http://l\"").unwrap();
        assert_eq!((events.batch, events.delay.as_millis()), (7, 200));
        assert_eq!(events.target.url, "http://l/v1/logs");
        for (text, wrong) in [
            ("dprot = 22", "line 4, column 1: unknown key: keys are endpoint"),
            ("dport = \"x\"", "line 4, column 9: unknown service"),
            ("event-mask = \"NEW\"\ndport = 99999", "line 5, column 9: "),
            ("event-mask = \"BEGIN\"", "line 4, column 14: "),
            ("filter = \"dport =\"", "line 4, column 10: "),
            ("failed = \"perhaps\"", "line 4, column 10: it is a switch"),
            ("uid = \"nobody-here\"", "line 4, column 7: "),
            ("dport = { a = \"b\" }", "line 4, column 9: write text in quotes"),
            ("output = \"json\"", "line 4, column 1: output is not for an export"),
            ("buffer-size = \"1M\"", "line 4, column 1: unknown key"),
            ("batch = 0", "line 4, column 9: 0 is not between 1 and 8192"),
            ("delay = \"1ms\"", "line 4, column 9: the time is not between"),
            ("endpoint = \"c\"", "line 4, column 12: an endpoint is a URL"),
            ("headers = \"a=b\"", "line 4, column 11: write { name = \"value\" }"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(wrong), "{text}: {said}");
        }
    }

    #[test]
    fn rules_are_read_and_explained() {
        let text = include_str!("../../../packaging/rules.example.toml");
        let settings = read(text, &ServeArgs::default()).unwrap();
        let sentences: Vec<_> = settings.rules.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(sentences.join("\n"));
    }

    #[test]
    fn mistakes_in_rules_have_their_place() {
        let read = |text: &str| read(text, &ServeArgs::default()).unwrap_err();
        let rule = |text: &str| read(&format!("group = \"x\"\n[[rule]]\nname = \"r\"\n{text}"));
        for (text, wrong) in [
            ("opened_above = 3", "line 4, column 1"),
            ("open_above = -1", "line 4, column 14"),
            ("", "line 3, column 8: the rule has no condition"),
            ("open_above = 3\nloss = true", "line 5, column 8: a rule has one condition"),
            ("open_above = 3\nclear_below = 4", "line 5, column 15: an alarm ends below"),
            ("open_above = 3\ndport = \"22,xyz\"", "line 5, column 9: unknown service"),
            ("new_above = 9\nby = \"remote\"", "line 5, column 6: the daemon counts no remote addresses"),
            ("open_above = 9\nby = \"port\"", "line 5, column 6: by means nothing for this condition"),
            ("loss = true\ndport = 22", "line 5, column 9: dport means nothing for this condition"),
            ("loss = true\nfor = \"5s\"", "line 5, column 7: for means nothing for this condition"),
            ("loss = true\npause = \"5x\"", "line 5, column 9: unknown unit"),
            ("failed_above = 20", "line 4, column 16: a share is below 1"),
            ("loss = true\ncommand = [\"mail\"]", "line 5, column 11: the first word is the absolute path"),
            ("loss = true\nwebhook = \"ftp://x\"", "line 5, column 11: a webhook begins with"),
            ("loss = true\nmail = \"-x\"", "line 5, column 8: mail goes to one address"),
            (
                "loss = true\n[[rule]]\nname = \"r\"\nloss = true",
                "line 6, column 8: another rule has this name",
            ),
            ("listening = \"x\"", "line 4, column 13"),
        ] {
            let said = rule(text);
            assert!(said.contains(wrong), "{text}: {said}");
        }
        assert!(read("[[rule]]\nname = \"a b\"").contains("line 2, column 8: a name has"));
    }

    #[test]
    fn the_documented_file_is_the_default() {
        let text = include_str!("../../../packaging/conntrace.toml");
        assert_eq!(toml::from_str::<Config>(text).unwrap(), Config::default());
        // Without the marks of comments, it has every key with its default.
        let keys: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("#").filter(|key| !key.starts_with(' ')))
            .collect();
        let read = read(&keys.join("\n"), &ServeArgs::default()).unwrap();
        assert_eq!(read, ServeSettings::new(&ServeArgs::default(), 0).unwrap());
        let all = [
            "socket",
            "group",
            "access",
            "transient",
            "bpffs",
            "lifetimes",
            "sources",
            "listen",
            "ports",
            "clients",
            "clients_per_user",
            "state",
            "sendmail",
            "otlp",
        ];
        for key in all {
            assert!(keys.iter().any(|line| line.starts_with(&format!("{key} = "))), "{key}");
        }
        assert_eq!(keys.iter().filter(|key| !key.is_empty()).count(), all.len());
    }
}
