//! The style of events from the options of how to print.

use crate::cli::OutputArgs;
use crate::column::{self, Column, Columns};
use crate::complaint::{Complaint, as_typed, complaint};
use crate::error::UsageError;
use crate::host::services::Services;
use crate::render::style::{ConntrackFields, Format, Style, View};

/// Validates the options of a command that shows `view`.
///
/// # Errors
/// The first option that is wrong.
pub(crate) fn from_args(args: &OutputArgs, view: View, services: &Services) -> Result<Style, UsageError> {
    let chosen = args.columns.is_some();
    let format = format(&args.output, chosen || view.is_tabular())
        .map_err(|complaint| UsageError::value("--output", &args.output.join(","), complaint))?;
    let columns = args.columns.as_deref().map(|text| {
        columns(text, format, view).map_err(|complaint| UsageError::value("--columns", text, complaint))
    });
    if args.resolve && matches!(format, Format::Save | Format::Xml(_)) {
        return Err(UsageError::conflict(
            "--resolve",
            "xml and save are formats of conntrack and have no names of addresses: use another format",
        ));
    }
    Ok(Style {
        format,
        columns: columns.transpose()?,
        header: !args.no_header,
        color: args.color,
        utc: args.utc,
        resolve: args.resolve,
        services: services.unless(args.numeric),
    })
}

/// Reads the names of `--columns`.
fn columns(text: &str, format: Format, view: View) -> Result<Columns, Complaint> {
    match format {
        Format::Table => column::parse(text, view.columns()),
        Format::Csv | Format::Logfmt | Format::Json => {
            let native: Vec<&str> = Column::native().map(|column| column.id).collect();
            column::parse(text, &native)
        }
        _ => Err("this format has no columns: use -o table, csv, logfmt or json".into()),
    }
}

/// Reads the words of `-o`. The default is a table if `tabular`: the view is a table, or columns were chosen.
fn format(texts: &[String], tabular: bool) -> Result<Format, Complaint> {
    let mut chosen: Option<(String, Format)> = None;
    let mut extras = ConntrackFields::default();
    for typed in texts.iter().flat_map(|text| text.split(',')).map(str::trim) {
        let word = typed.to_ascii_lowercase();
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
            "conntrack" => Format::Conntrack(ConntrackFields::default()),
            "save" => Format::Save,
            "xml" => Format::Xml(ConntrackFields::default()),
            "table" => Format::Table,
            "csv" => Format::Csv,
            "json" => Format::Json,
            "logfmt" => Format::Logfmt,
            "json-otel" => Format::Otel,
            "json-ecs" => Format::Ecs,
            "labels" | "userspace" => {
                return Err(complaint!(
                    "{word} has no meaning here: a socket has no labels of connection tracking"
                ));
            }
            _ => {
                return Err(complaint!(
                    "unknown format {}: use conntrack, table, json, csv, logfmt, xml, save, json-otel or \
                     json-ecs, and with conntrack and xml also timestamp, id, extended, ktimestamp",
                    as_typed(typed)
                ));
            }
        };
        match &chosen {
            Some((before, other)) if *other != format => {
                return Err(complaint!("{before} and {word} cannot be combined: choose one"));
            }
            _ => chosen = Some((word, format)),
        }
    }
    let default = if tabular && extras == ConntrackFields::default() {
        Format::Table
    } else {
        Format::Conntrack(ConntrackFields::default())
    };
    Ok(match chosen.map_or(default, |(_, format)| format) {
        Format::Conntrack(_) => Format::Conntrack(extras),
        Format::Xml(_) => Format::Xml(extras),
        Format::Save if extras != ConntrackFields::default() => {
            return Err("save cannot be combined with other words, as in conntrack".into());
        }
        // The other formats always have time, id and family.
        format => format,
    })
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
        from_args(&args, View::Events, &Services::default()).map_err(|error| error.to_string())
    }

    fn ids(output: &str, columns: &str) -> String {
        let columns = style(output, Some(columns)).unwrap().columns.unwrap();
        columns.iter().map(|column| column.id).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn formats_combine_where_that_means_something() {
        let format = |text| style(text, None).unwrap().format;
        assert_eq!(format(""), Format::Conntrack(ConntrackFields::default()));
        assert_eq!(format("json"), Format::Json);
        assert_eq!(format("JSON,timestamp"), Format::Json);
        assert_eq!(format("save,save"), Format::Save);
        let stamped = ConntrackFields { timestamp: true, id: true, ..ConntrackFields::default() };
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
        assert!(ids("json", "all").ends_with("dropped"));
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
        --output: json and xml cannot be combined: choose one
        --output: save cannot be combined with other words, as in conntrack
        --output: labels has no meaning here: a socket has no labels of connection tracking
        --columns: there is no column "source": use some of event, time, time_ns, id, direction, family, protocol, state, old_state, src, sport, dst, dport, src_name, dst_name, pid, tid, uid, comm, thread, owner, holders, cgroup, container, container_name, container_user, pod, pod_namespace, unit, user_unit, netns, interface, interface_index, preexisting, attempt_ns, established_ns, handshake_ns, lifetime_ns, age_ns, at_least_ns, failed, reason, reset, error, attempt, bytes_sent, bytes_received, segments_sent, segments_received, retransmits, srtt_us, min_rtt_us, idle_ns, receive_queue, send_queue, half_open, dropped, local, peer, started, handshake, lifetime, age, idle, slice, user_slice, processes, cmdline, or all
        --columns: this format has no columns: use -o table, csv, logfmt or json
        --columns: this format has no columns: use -o table, csv, logfmt or json
        "#);
    }
}
