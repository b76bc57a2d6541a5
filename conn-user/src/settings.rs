//! What the command line means: validated, with nothing asked of the system. Every error names the
//! option, what is wrong with it, and what to write instead.

use std::time::Duration;

use conn_common::connection::{IN, OUT};
use conn_common::filter::{ANY_DIRECTION, ANY_FAMILY, bit, family_bit};

use crate::accept::AcceptHook;
use crate::cli::{Cli, Command, CountArgs, Direction, EventsArgs, Family, FilterArgs, Group, StatsArgs};
use crate::error::Error;
use crate::kind::KindSet;
use crate::output::Style;
use crate::plan::Witnesses;
use crate::port::PortSet;
use crate::render::Subject;
use crate::service::Services;
use crate::span;
use crate::table::TableFormat;

/// Ring for events if none was asked for: room for 49,932 of them.
pub const DEFAULT_RING_BYTES: u32 = 8 << 20;
/// The smallest page there is, and so the smallest ring.
const MIN_RING_BYTES: u64 = 4096;
/// The largest power of two that the kernel takes as the size of a map.
const MAX_RING_BYTES: u64 = 1 << 31;

/// The shortest time between two reports: each of them reads all sockets.
const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// One command and its settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settings {
    /// `conntrace events`.
    Events(EventsSettings),
    /// `conntrace count`.
    Count(CountSettings),
    /// `conntrace stats`.
    Stats(StatsSettings),
    /// `conntrace doctor`.
    Doctor(TableFormat),
}

/// Which connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Service ports; `None` for all.
    pub service_ports: Option<PortSet>,
    /// Source ports; `None` for all.
    pub source_ports: Option<PortSet>,
    /// Mask of directions, see [`conn_common::filter`].
    pub directions: u8,
    /// Mask of address families, see [`conn_common::filter`].
    pub families: u8,
}

/// The settings of `conntrace events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsSettings {
    /// Kinds of events.
    pub kinds: KindSet,
    /// Which connections.
    pub filter: Filter,
    /// How to print.
    pub style: Style,
    /// End after so many events.
    pub count: Option<u64>,
    /// End after so long.
    pub timeout: Option<Duration>,
    /// Size of the ring: a power of two, 4096 or more. Where pages are larger, at least one is needed.
    pub ring_bytes: u32,
    /// Tell at the end what happened per service port.
    pub summary: bool,
    /// Witnesses to use instead of the planned ones.
    pub witnesses: Option<Witnesses>,
    /// The hook that sees who accepts, instead of the best there is.
    pub accept_hook: Option<AcceptHook>,
    /// How often `-v` was given.
    pub verbose: u8,
}

/// The settings of `conntrace count`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountSettings {
    /// Which connections.
    pub filter: Filter,
    /// Groups, in the order of the columns; none for a bare number.
    pub by: Vec<Group>,
    /// How to print.
    pub format: TableFormat,
}

/// The settings of `conntrace stats`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsSettings {
    /// Which slots of the ledger are shown. All are counted.
    pub filter: Filter,
    /// Time between two reports; `None` for one at the end.
    pub interval: Option<Duration>,
    /// End after so long.
    pub timeout: Option<Duration>,
    /// Only the sum.
    pub total: bool,
    /// Histograms of handshakes and lifetimes.
    pub lifetimes: bool,
    /// Witnesses to use instead of the planned ones.
    pub witnesses: Option<Witnesses>,
    /// How to print.
    pub format: TableFormat,
}

impl Settings {
    /// Validates a command line.
    ///
    /// # Errors
    /// [`Error::Usage`] for the first option that is wrong.
    pub fn from_cli(cli: &Cli, services: &Services) -> Result<Self, Error> {
        match &cli.command {
            Command::Events(args) => EventsSettings::new(args, cli, services).map(Self::Events),
            Command::Count(args) => CountSettings::new(args, services).map(Self::Count),
            Command::Stats(args) => StatsSettings::new(args, cli, services).map(Self::Stats),
            Command::Doctor(args) => match args.output {
                TableFormat::Csv => {
                    Err(usage("--output")("findings have no columns: use table or json".into()))
                }
                format => Ok(Self::Doctor(format)),
            },
        }
    }
}

impl EventsSettings {
    fn new(args: &EventsArgs, cli: &Cli, services: &Services) -> Result<Self, Error> {
        Ok(Self {
            kinds: kinds(&args.event_mask)?,
            filter: Filter::new(&args.filter, services)?,
            style: Style::new(&args.output, Subject::Events)?,
            count: optional("--count", args.count.as_deref(), count)?,
            timeout: optional("--timeout", args.timeout.as_deref(), timeout)?,
            ring_bytes: optional("--buffer-size", args.buffer_size.as_deref(), ring_bytes)?
                .unwrap_or(DEFAULT_RING_BYTES),
            summary: args.summary,
            witnesses: witnesses(cli)?,
            accept_hook: optional("--accept-hook", cli.accept_hook.as_deref(), AcceptHook::parse)?,
            verbose: cli.verbose,
        })
    }
}

impl CountSettings {
    fn new(args: &CountArgs, services: &Services) -> Result<Self, Error> {
        Ok(Self { filter: Filter::new(&args.filter, services)?, by: args.by.clone(), format: args.output })
    }
}

impl StatsSettings {
    fn new(args: &StatsArgs, cli: &Cli, services: &Services) -> Result<Self, Error> {
        let filter =
            FilterArgs { dport: args.dport.clone(), direction: args.direction, ..FilterArgs::default() };
        Ok(Self {
            filter: Filter::new(&filter, services)?,
            interval: optional("--interval", args.interval.as_deref(), interval)?,
            timeout: optional("--timeout", args.timeout.as_deref(), timeout)?,
            total: args.total,
            lifetimes: args.lifetimes,
            witnesses: witnesses(cli)?,
            format: args.output,
        })
    }
}

impl Filter {
    /// Every connection.
    pub const ALL: Self =
        Self { service_ports: None, source_ports: None, directions: ANY_DIRECTION, families: ANY_FAMILY };

    /// True if a slot of the ledger passes: it knows direction and service port.
    pub fn wants_slot(&self, direction: u8, port: u16) -> bool {
        self.directions & bit(direction) != 0
            && self.service_ports.as_ref().is_none_or(|ports| ports.contains(port))
    }

    /// Validates the filter options, the same for every command.
    ///
    /// # Errors
    /// [`Error::Usage`] for the first option that is wrong.
    pub fn new(args: &FilterArgs, services: &Services) -> Result<Self, Error> {
        optional("--proto", args.proto.as_deref(), protocol)?;
        Ok(Self {
            service_ports: ports("--dport", &args.dport, services)?,
            source_ports: ports("--sport", &args.sport, services)?,
            directions: args.direction.map_or(ANY_DIRECTION, |direction| match direction {
                Direction::In => bit(IN),
                Direction::Out => bit(OUT),
            }),
            families: args.family.map_or(ANY_FAMILY, |family| match family {
                Family::V4 => family_bit(4),
                Family::V6 => family_bit(6),
            }),
        })
    }
}

/// Names the option that a complaint is about.
fn usage(option: &str) -> impl Fn(String) -> Error {
    move |complaint| Error::Usage(format!("{option}: {complaint}"))
}

fn optional<T>(
    option: &str,
    text: Option<&str>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Error> {
    text.map(parse).transpose().map_err(usage(option))
}

fn witnesses(cli: &Cli) -> Result<Option<Witnesses>, Error> {
    optional("--witnesses", cli.witnesses.as_deref(), Witnesses::parse)
}

fn kinds(words: &[String]) -> Result<KindSet, Error> {
    words
        .iter()
        .map(|word| KindSet::parse(word))
        .reduce(|all, next| Ok(all?.union(next?)))
        .unwrap_or(Ok(KindSet::ALL))
        .map_err(usage("--event-mask"))
}

fn ports(option: &str, texts: &[String], services: &Services) -> Result<Option<PortSet>, Error> {
    let mut all: Option<PortSet> = None;
    for text in texts {
        let set = PortSet::parse(text, services).map_err(usage(option))?;
        all.get_or_insert_default().extend(set);
    }
    Ok(all)
}

fn protocol(text: &str) -> Result<(), String> {
    if text == "6" || text.eq_ignore_ascii_case("tcp") {
        return Ok(());
    }
    Err(format!(
        "protocol {text:?} cannot be traced: conntrace sees TCP sockets only; use tcp, or leave it out"
    ))
}

fn count(text: &str) -> Result<u64, String> {
    match text.trim().parse() {
        Ok(0) => {
            Err("0 events would end at once: write 1 or more, or leave it out to go on until Ctrl-C".into())
        }
        Ok(count) => Ok(count),
        Err(_) => Err(format!("{text:?} is no number of events: write a whole number, 1 or more")),
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let timeout = span::parse(text)?;
    if timeout.is_zero() {
        return Err("no time at all would end at once: leave it out to go on until Ctrl-C".into());
    }
    Ok(timeout)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = span::parse(text)?;
    if interval < MIN_INTERVAL {
        return Err("reports need some time between them: write 100ms or more".into());
    }
    Ok(interval)
}

/// A size in bytes, with K, M or G for powers of 1024, rounded up to what a ring can have.
fn ring_bytes(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = match digits.parse() {
        Ok(number) => number,
        Err(_) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => u64::MAX,
        Err(_) => {
            return Err(format!("{text:?} is no size: write a number of bytes, or one with K, M or G: 64M"));
        }
    };
    if number == 0 {
        return Err("a ring without room loses every event: write 4096 or more".into());
    }
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes <= MAX_RING_BYTES)
        .and_then(|bytes| u32::try_from(bytes.max(MIN_RING_BYTES).next_power_of_two()).ok())
        .ok_or_else(|| format!("{text} is too large: the kernel takes 2G at most"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::rewrite_args;
    use crate::kind::Kind;
    use crate::output::Color;
    use crate::render::{Extras, Format};

    fn settings(line: &str) -> Result<EventsSettings, Error> {
        let args = line.split(' ').filter(|arg| !arg.is_empty()).map(Into::into);
        let args = rewrite_args(std::iter::once("conntrace".into()).chain(args).collect());
        let services = Services::parse("ssh 22/tcp\nhttp 80/tcp");
        match Settings::from_cli(&Cli::try_parse_from(args).unwrap(), &services)? {
            Settings::Events(settings) => Ok(settings),
            other => panic!("events was typed, not {other:?}"),
        }
    }

    #[test]
    fn without_options_everything_is_shown() {
        let expected = EventsSettings {
            kinds: KindSet::ALL,
            filter: Filter {
                service_ports: None,
                source_ports: None,
                directions: ANY_DIRECTION,
                families: ANY_FAMILY,
            },
            style: Style {
                format: Format::Conntrack(Extras::default()),
                columns: None,
                header: true,
                color: Color::Auto,
                utc: false,
            },
            count: None,
            timeout: None,
            ring_bytes: 8 << 20,
            summary: false,
            witnesses: None,
            accept_hook: None,
            verbose: 0,
        };
        assert_eq!(settings("").unwrap(), expected);
    }

    #[test]
    fn options_narrow_it() {
        let settings = settings(
            "-vv -e NEW -e d -p 6 --dport ssh --dport 80-81 --sport 1024-65535 --direction out -f ipv6 \
             -o timestamp --count 6 --timeout 20s -b 100K",
        )
        .unwrap();
        assert_eq!(Kind::ALL.map(|kind| settings.kinds.contains(kind)), [true, false, true]);
        let ports = settings.filter.service_ports.unwrap();
        assert_eq!([22, 23, 80, 81].map(|port| ports.contains(port)), [true, false, true, true]);
        assert!(!settings.filter.source_ports.unwrap().contains(1023));
        assert_eq!((settings.filter.directions, settings.filter.families), (0b10, 0b10));
        assert_eq!(settings.style.format, Format::Conntrack(Extras { timestamp: true, ..Extras::default() }));
        assert_eq!((settings.count, settings.timeout), (Some(6), Some(Duration::from_secs(20))));
        assert_eq!((settings.ring_bytes, settings.verbose), (128 << 10, 2));
    }

    #[test]
    fn rings_have_sizes_that_the_kernel_takes() {
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
            "-p udp",
            "-p 17",
            "--dport 70000",
            "--dport -1",
            "--sport sshh",
            "--orig-port-src 9-8",
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
        --event-mask: unknown event kind "GONE": use ALL, NEW, UPDATES or DESTROY, separated by commas
        --proto: protocol "udp" cannot be traced: conntrace sees TCP sockets only; use tcp, or leave it out
        --proto: protocol "17" cannot be traced: conntrace sees TCP sockets only; use tcp, or leave it out
        --dport: port 70000 is out of range: ports are 0 to 65535
        --dport: port -1 is out of range: ports are 0 to 65535
        --sport: unknown service "sshh": not in /etc/services; use a number
        --sport: the range 9-8 is reversed: write 8-9
        --output: unknown format "yaml": use conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs, and with conntrack and xml also timestamp, id, extended, ktimestamp
        --output: json and conntrack exclude each other: choose one
        --count: 0 events would end at once: write 1 or more, or leave it out to go on until Ctrl-C
        --count: "many" is no number of events: write a whole number, 1 or more
        --timeout: no time at all would end at once: leave it out to go on until Ctrl-C
        --timeout: "soon" is no duration: write a number of seconds, or numbers with units like 1m30s or 500ms
        --buffer-size: a ring without room loses every event: write 4096 or more
        --buffer-size: 3G is too large: the kernel takes 2G at most
        --buffer-size: 99999999999999999999 is too large: the kernel takes 2G at most
        --buffer-size: "big" is no size: write a number of bytes, or one with K, M or G: 64M
        --buffer-size: "ä" is no size: write a number of bytes, or one with K, M or G: 64M
        "#);
    }
}
