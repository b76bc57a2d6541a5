//! The output options of every command that prints events.

use clap::Args;

use crate::render::style::Color;

/// The output options as typed.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Output")]
#[expect(clippy::struct_excessive_bools, reason = "options that do not depend on each other")]
pub struct OutputArgs {
    /// Output format: conntrack, table, json, csv, logfmt, xml, save, json-otel or json-ecs. timestamp, id,
    /// extended and ktimestamp add fields to conntrack and xml. The default is conntrack; it is table for `life`
    /// and for `list` on a terminal
    #[arg(short, long, value_name = "FORMAT[,...]")]
    pub output: Vec<String>,
    /// Columns of table, csv, logfmt and json, by name, or all. +NAME adds to the default columns. `conntrace
    /// help formats` lists the names
    #[arg(long, value_name = "[+]NAME[,NAME...]")]
    pub columns: Option<String>,
    /// Leave out the line with the names of the columns, in table and csv
    #[arg(long)]
    pub no_header: bool,
    /// When to use colours. auto: on a terminal, unless `NO_COLOR` is set or TERM is dumb
    #[arg(
        long,
        value_name = "auto|always|never",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub color: Color,
    /// Print times in UTC instead of local time. csv, json and logfmt always have UTC
    #[arg(long)]
    pub utc: bool,
    /// Show port numbers instead of service names in tables: 22, not ssh. Cancels an earlier --resolve
    #[arg(short, long, overrides_with = "resolve")]
    pub numeric: bool,
    /// Look up names of addresses in /etc/hosts and DNS. Tables show them instead of addresses, other formats
    /// as `src_name` and `dst_name`. No event waits for a name: until a name is known, the address is shown.
    /// `list` waits up to two seconds. A name that does not lead back to its address has a ? behind it
    #[arg(long, overrides_with = "numeric")]
    pub resolve: bool,
}
