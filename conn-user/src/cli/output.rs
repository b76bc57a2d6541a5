//! The options of how to print, for every command that prints events.

use clap::Args;

use crate::render::style::Color;

/// How to print, as typed.
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
