//! How events are printed: the options for it, the same on every command that prints events.

use std::io::{self, IsTerminal as _};

use clap::{Args, ValueEnum};

use crate::column::{self, Columns};
use crate::error::Error;
use crate::host::services::Services;
use crate::render::{Extras, Format, Subject};

/// The options.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "How to print")]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct OutputArgs {
    /// conntrack (the default), table, json, csv, logfmt, xml, save, json-otel or json-ecs. As in
    /// conntrack also timestamp, id, extended and ktimestamp, which add to its line and to xml
    #[arg(short, long, value_name = "FORMAT[,…]")]
    pub output: Vec<String>,
    /// Which columns of table, csv, logfmt and json: names, or all; +NAME adds to the usual ones.
    /// `conntrace help formats` has them
    #[arg(long, value_name = "[+]NAME[,NAME…]")]
    pub columns: Option<String>,
    /// No line with the names of the columns in table and csv
    #[arg(long)]
    pub no_header: bool,
    /// Colours: auto is on a terminal, unless `NO_COLOR` is set
    #[arg(
        long,
        value_name = "auto|always|never",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub color: Color,
    /// Times for people in UTC instead of local time. Machines always get UTC
    #[arg(long)]
    pub utc: bool,
    /// Numbers instead of names in tables: 22, not ssh. Takes back --resolve; of the two the last counts
    #[arg(short, long, overrides_with = "resolve")]
    pub numeric: bool,
    /// Names of addresses, by /etc/hosts and DNS: in tables instead of them, elsewhere as `src_name` and
    /// `dst_name`. No event waits for a name: what is not known yet is shown by its address, and asked for.
    /// `list` waits for two seconds at most
    #[arg(long, overrides_with = "numeric")]
    pub resolve: bool,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The options, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Columns that were chosen.
    pub columns: Option<Columns>,
    /// A line with the names of the columns.
    pub header: bool,
    /// When there are colours.
    pub color: Color,
    /// Times for people in UTC.
    pub utc: bool,
    /// Names of addresses.
    pub resolve: bool,
    /// Names of ports, for tables; none if nobody wants any.
    pub services: Services,
}

impl Style {
    /// Validates the options of a command that shows `subject`.
    ///
    /// # Errors
    /// [`Error::Usage`] for the first option that is wrong.
    pub fn new(args: &OutputArgs, subject: Subject, services: &Services) -> Result<Self, Error> {
        let chosen = args.columns.is_some();
        let format = format(&args.output, chosen || subject.is_tabular()).map_err(usage("--output"))?;
        let columns = match (&args.columns, format) {
            (None, _) => None,
            (Some(text), Format::Table) => Some(column::parse(text, subject.columns())),
            (Some(text), Format::Csv | Format::Logfmt | Format::Json) => {
                let native: Vec<&str> = column::Column::native().map(|column| column.id).collect();
                Some(column::parse(text, &native))
            }
            (Some(_), _) => {
                Some(Err("this format has no columns: use it with -o table, csv, logfmt or json".into()))
            }
        };
        if args.resolve && matches!(format, Format::Save | Format::Xml(_)) {
            return Err(usage("--resolve")(
                "xml and save are conntrack's and have no names: use it with another format".into(),
            ));
        }
        Ok(Self {
            format,
            columns: columns.transpose().map_err(usage("--columns"))?,
            header: !args.no_header,
            color: args.color,
            utc: args.utc,
            resolve: args.resolve,
            services: services.unless(args.numeric),
        })
    }
}

fn usage(option: &str) -> impl Fn(String) -> Error {
    move |complaint| Error::Usage(format!("{option}: {complaint}"))
}

/// Reads the words of `-o`. Without a format it is a table if `tabular`: the command's subject is one, or
/// somebody chose columns.
fn format(texts: &[String], tabular: bool) -> Result<Format, String> {
    let mut chosen: Option<(String, Format)> = None;
    let mut extras = Extras::default();
    for word in texts.iter().flat_map(|text| text.split(',')).map(|word| word.trim().to_ascii_lowercase()) {
        let format = match word.as_str() {
            "timestamp" => {
                extras.timestamp = true;
                continue;
            }
            "extended" => {
                extras.extended = true;
                continue;
            }
            "id" => {
                extras.id = true;
                continue;
            }
            "ktimestamp" => {
                extras.ktimestamp = true;
                continue;
            }
            "conntrack" => Format::Conntrack(Extras::default()),
            "save" => Format::Save,
            "xml" => Format::Xml(Extras::default()),
            "table" => Format::Table,
            "csv" => Format::Csv,
            "json" => Format::Json,
            "logfmt" => Format::Logfmt,
            "json-otel" => Format::Otel,
            "json-ecs" => Format::Ecs,
            "labels" | "userspace" => {
                return Err(format!("{word} means nothing here: sockets have no connection tracking labels"));
            }
            _ => {
                return Err(format!(
                    "unknown format {word:?}: use conntrack, table, json, csv, logfmt, xml, save, json-otel \
                     or json-ecs, and with conntrack and xml also timestamp, id, extended, ktimestamp"
                ));
            }
        };
        match &chosen {
            Some((before, other)) if *other != format => {
                return Err(format!("{before} and {word} exclude each other: choose one"));
            }
            _ => chosen = Some((word, format)),
        }
    }
    let default = if tabular && extras == Extras::default() {
        Format::Table
    } else {
        Format::Conntrack(Extras::default())
    };
    Ok(match chosen.map_or(default, |(_, format)| format) {
        Format::Conntrack(_) => Format::Conntrack(extras),
        Format::Xml(_) => Format::Xml(extras),
        Format::Save if extras != Extras::default() => {
            return Err("save excludes all others, as in conntrack: leave them out".into());
        }
        // The others have time, id and family anyway.
        format => format,
    })
}

/// Where standard output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// How many columns it has; `None` if it is no terminal.
    pub width: Option<usize>,
    /// There shall be colours.
    pub color: bool,
}

impl Terminal {
    /// A file.
    pub const NONE: Self = Self { width: None, color: false };

    /// Standard output of this process.
    pub fn stdout(color: Color) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let refused = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0)),
            color: match color {
                Color::Auto => is_terminal && !refused(),
                Color::Always => true,
                Color::Never => false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(output: &str, columns: Option<&str>) -> Result<Style, String> {
        let args = OutputArgs {
            output: Some(output).filter(|text| !text.is_empty()).map(str::to_owned).into_iter().collect(),
            columns: columns.map(str::to_owned),
            ..OutputArgs::default()
        };
        Style::new(&args, Subject::Events, &Services::default()).map_err(|error| error.to_string())
    }

    fn ids(output: &str, columns: &str) -> String {
        let columns = style(output, Some(columns)).unwrap().columns.unwrap();
        columns.iter().map(|column| column.id).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn formats_combine_where_that_means_something() {
        let format = |text| style(text, None).unwrap().format;
        assert_eq!(format(""), Format::Conntrack(Extras::default()));
        assert_eq!(format("json"), Format::Json);
        assert_eq!(format("JSON,timestamp"), Format::Json);
        assert_eq!(format("save,save"), Format::Save);
        let stamped = Extras { timestamp: true, id: true, ..Extras::default() };
        assert_eq!(format("conntrack,timestamp,id"), Format::Conntrack(stamped));
        assert_eq!(format("id,xml,timestamp"), Format::Xml(stamped));
    }

    #[test]
    fn columns_are_chosen_by_name() {
        assert_eq!(style("", Some("src")).unwrap().format, Format::Table);
        assert_eq!(ids("csv", "dst, SRC,dst"), "dst src");
        assert_eq!(
            ids("table", "+retransmits,pid"),
            "time event state direction src sport dst dport pid comm lifetime reason retransmits"
        );
        assert!(ids("json", "all").ends_with("send_queue"));
    }

    #[test]
    fn errors_name_the_option_and_the_remedy() {
        let errors = [
            style("yaml", None),
            style("json,xml", None),
            style("save,id", None),
            style("labels", None),
            style("csv", Some("source")),
            style("xml", Some("src")),
            style("timestamp", Some("src")),
        ]
        .map(|style| style.unwrap_err());
        insta::assert_snapshot!(errors.join("\n"), @r#"
        --output: unknown format "yaml": use conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs, and with conntrack and xml also timestamp, id, extended, ktimestamp
        --output: json and xml exclude each other: choose one
        --output: save excludes all others, as in conntrack: leave them out
        --output: labels means nothing here: sockets have no connection tracking labels
        --columns: there is no column "source": use some of event, time, time_ns, id, direction, family, protocol, state, old_state, src, sport, dst, dport, src_name, dst_name, pid, tid, uid, comm, thread, owner, cgroup, container, container_name, pod, pod_namespace, unit, netns, preexisting, attempt_ns, established_ns, handshake_ns, lifetime_ns, age_ns, at_least_ns, failed, reason, reset, error, bytes_sent, bytes_received, segments_sent, segments_received, retransmits, srtt_us, min_rtt_us, idle_ns, receive_queue, send_queue, local, peer, started, handshake, lifetime, age, idle, cmdline, or all
        --columns: this format has no columns: use it with -o table, csv, logfmt or json
        --columns: this format has no columns: use it with -o table, csv, logfmt or json
        "#);
    }
}
