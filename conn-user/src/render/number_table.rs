//! Tables of numbers: one description, three formats (aligned text, CSV, JSON).

use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::column::Column;
use crate::host::services::Services;
use crate::render::{csv, human, sanitize};

/// The format of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TableFormat {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON object.
    Json,
    /// Comma-separated values with a header line.
    Csv,
}

/// The format of a report of counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ReportFormat {
    /// Aligned columns for people.
    #[default]
    Table,
    /// One JSON object for each report.
    Json,
    /// Comma-separated values with a header line.
    Csv,
    /// Metrics in the text format of Prometheus.
    Prometheus,
}

impl ReportFormat {
    /// The format of its tables; none for metrics.
    pub(crate) const fn tables(self) -> Option<TableFormat> {
        match self {
            Self::Table => Some(TableFormat::Table),
            Self::Json => Some(TableFormat::Json),
            Self::Csv => Some(TableFormat::Csv),
            Self::Prometheus => None,
        }
    }
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NumberValue {
    /// A number.
    Count(i128),
    /// A number of bytes. Text has a unit, JSON and CSV the number.
    Bytes(i128),
    /// A number per second.
    Rate(f64),
    /// A word.
    Text(String),
    /// Unknown.
    Unknown,
}

impl<T: Into<i128>> From<T> for NumberValue {
    fn from(number: T) -> Self {
        Self::Count(number.into())
    }
}

impl NumberValue {
    /// A port: its name in text for people, if it has one; else its number.
    pub(crate) fn port(port: u16, services: &Services, format: TableFormat) -> Self {
        let name = services.name(port).filter(|_| format == TableFormat::Table);
        name.map_or_else(|| port.into(), |name| Self::Text(sanitize::comm(name.as_bytes())))
    }

    fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    fn text(&self) -> String {
        match self {
            Self::Count(count) | Self::Bytes(count) => count.to_string(),
            Self::Rate(rate) => format!("{rate:.1}"),
            Self::Text(text) => text.clone(),
            Self::Unknown => "-".into(),
        }
    }

    /// The text for people.
    fn human(&self) -> String {
        match self {
            Self::Bytes(bytes) => u64::try_from(*bytes).map_or_else(|_| self.text(), human::bytes_text),
            _ => self.text(),
        }
    }
}

impl Serialize for NumberValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // All counts come from 64-bit counters.
            Self::Count(count) | Self::Bytes(count) => match (i64::try_from(*count), u64::try_from(*count)) {
                (Ok(count), _) => serializer.serialize_i64(count),
                (_, Ok(count)) => serializer.serialize_u64(count),
                _ => serializer.serialize_none(),
            },
            Self::Rate(rate) => serializer.serialize_f64(*rate),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Unknown => serializer.serialize_none(),
        }
    }
}

/// Rows under columns as objects, one at a time: a report may have 131,072 rows.
#[derive(Debug)]
pub(crate) struct RowObjects {
    /// Names of the columns with their place in a row, in alphabetical order.
    members: Vec<(&'static str, usize)>,
}

impl RowObjects {
    /// The columns of all rows.
    pub(crate) fn new(columns: &[NumberColumn]) -> Self {
        let mut members: Vec<_> = columns.iter().zip(0..).map(|(column, at)| (column.name, at)).collect();
        members.sort_unstable();
        Self { members }
    }

    /// A row, which has a value per column.
    pub(crate) fn object<'a>(&'a self, row: &'a [NumberValue]) -> impl Serialize + 'a {
        RowObject { members: &self.members, row }
    }
}

/// One row.
struct RowObject<'a> {
    members: &'a [(&'static str, usize)],
    row: &'a [NumberValue],
}

impl Serialize for RowObject<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.members.iter().map(|&(name, at)| (name, self.row.get(at))))
    }
}

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NumberColumn {
    /// The name in JSON and CSV; in upper case the header of text.
    pub name: &'static str,
    /// True if text has the column. JSON and CSV have all columns.
    pub in_text: bool,
}

/// Rows under columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NumberTable {
    /// The columns.
    pub columns: Vec<NumberColumn>,
    /// Rows, each with a value per column.
    pub rows: Vec<Vec<NumberValue>>,
}

impl NumberTable {
    /// A table without rows.
    pub(crate) fn new(columns: &[NumberColumn]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// In one of the formats; JSON as one line.
    pub(crate) fn write(&self, format: TableFormat) -> String {
        match format {
            TableFormat::Table => self.text(true),
            TableFormat::Csv => self.csv(true),
            TableFormat::Json => format!("{}\n", self.json()),
        }
    }

    /// The same table, whose text leaves columns out, in the order of `droppable`, until it fits into `width` characters.
    #[must_use]
    pub(crate) fn fitted(mut self, droppable: &[&str], width: Option<usize>) -> Self {
        for name in droppable {
            if width.is_none_or(|width| self.width() <= width) {
                break;
            }
            for column in self.columns.iter_mut().filter(|column| column.name == *name) {
                column.in_text = false;
            }
        }
        self
    }

    /// The same table, in which the values of the columns `names` are cut until the text fits into `width` characters,
    /// the longest values first. `mark` is the last character of a cut value.
    #[must_use]
    pub(crate) fn cut(mut self, names: &[&str], width: Option<usize>, mark: &str) -> Self {
        let Some(room) = width else { return self };
        let mut limits = vec![usize::MAX; self.columns.len()];
        while let Some(excess) = self.width().checked_sub(room).filter(|&excess| excess > 0) {
            let length =
                |at: usize| self.rows.iter().map(|row| row[at].text().chars().count()).max().unwrap_or(0);
            let is_name = |at: &usize| self.columns[*at].in_text && names.contains(&self.columns[*at].name);
            let longest = (0..self.columns.len()).filter(is_name).max_by_key(|&at| length(at));
            let Some(at) = longest.filter(|&at| length(at) > MIN_NAME) else { break };
            limits[at] = length(at).saturating_sub(excess).max(MIN_NAME);
            for row in &mut self.rows {
                if let NumberValue::Text(text) = &mut row[at]
                    && text.chars().count() > limits[at]
                {
                    *text = text.chars().take(limits[at] - 1).chain(mark.chars()).collect();
                }
            }
        }
        self
    }

    /// The width of the text, in characters.
    fn width(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + (GAP * widths.len()).saturating_sub(GAP)
    }

    /// The widths of the columns of the text.
    fn widths(&self) -> Vec<usize> {
        let cells = |at: usize| self.rows.iter().map(move |row| row[at].human().chars().count());
        let shown = (0..self.columns.len()).filter(|&at| self.columns[at].in_text);
        shown.map(|at| cells(at).max().unwrap_or(0).max(title(self.columns[at].name).len())).collect()
    }

    /// The same table with a first column that has one value.
    #[must_use]
    pub(crate) fn with_first(mut self, column: NumberColumn, value: &NumberValue) -> Self {
        self.columns.insert(0, column);
        self.rows.iter_mut().for_each(|row| row.insert(0, value.clone()));
        self
    }

    /// Aligned text: numbers to the right, words to the left, two blanks between.
    pub(crate) fn text(&self, has_header: bool) -> String {
        let shown: Vec<usize> = (0..self.columns.len()).filter(|&at| self.columns[at].in_text).collect();
        let are_left: Vec<bool> = shown.iter().map(|&at| self.is_text_column(at)).collect();
        let widths = self.widths();
        let header: Vec<String> = shown.iter().map(|&at| title(self.columns[at].name)).collect();
        let rows = self.rows.iter().map(|row| shown.iter().map(|&at| row[at].human()).collect());
        let mut out = String::new();
        for line in std::iter::once(header).filter(|_| has_header).chain(rows) {
            let begin = out.len();
            for (at, ((cell, is_left), &width)) in line.iter().zip(&are_left).zip(&widths).enumerate() {
                out.extend(std::iter::repeat_n(' ', if at > 0 { GAP } else { 0 }));
                // Writing into a string does not fail.
                _ = if *is_left { write!(out, "{cell:<width$}") } else { write!(out, "{cell:>width$}") };
            }
            out.truncate(begin + out[begin..].trim_end().len());
            out.push('\n');
        }
        out
    }

    fn is_text_column(&self, at: usize) -> bool {
        self.rows.iter().any(|row| row[at].is_text())
    }

    /// Comma-separated values (RFC 4180, with line feeds). Unknown values are empty.
    pub(crate) fn csv(&self, has_header: bool) -> String {
        let mut out = Vec::new();
        if has_header {
            let header: Vec<&str> = self.columns.iter().map(|column| column.name).collect();
            out.extend_from_slice(header.join(",").as_bytes());
            out.push(b'\n');
        }
        for row in &self.rows {
            for (at, value) in row.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                match value {
                    NumberValue::Unknown => {}
                    NumberValue::Text(text) => {
                        csv::name(&mut out, |out| out.extend_from_slice(text.as_bytes()));
                    }
                    number => out.extend_from_slice(number.text().as_bytes()),
                }
            }
            out.push(b'\n');
        }
        // All parts were text.
        String::from_utf8_lossy(&out).into_owned()
    }

    /// An array of objects.
    pub(crate) fn json(&self) -> Json {
        let objects = RowObjects::new(&self.columns);
        // Numbers and text are JSON.
        self.rows.iter().map(|row| serde_json::to_value(objects.object(row)).unwrap_or_default()).collect()
    }
}

/// Blanks between two columns.
const GAP: usize = 2;
/// The least length to which a name is cut, in characters.
const MIN_NAME: usize = 8;

/// The header of a column in text: that of the same column in lists, else the name.
fn title(name: &str) -> String {
    let of_lists = Column::named(name).map(|column| column.title.to_owned());
    of_lists.unwrap_or_else(|| name.replace("_per_s", "/s").to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> NumberTable {
        let mut table = NumberTable::new(&[
            NumberColumn { name: "port", in_text: true },
            NumberColumn { name: "comm", in_text: true },
            NumberColumn { name: "opened", in_text: true },
            NumberColumn { name: "refused", in_text: false },
        ]);
        table.rows.push(vec![22.into(), NumberValue::Text("sshd".into()), 5.into(), 1.into()]);
        table.rows.push(vec![
            443.into(),
            NumberValue::Text("a,\"b\"".into()),
            12_345.into(),
            NumberValue::Unknown,
        ]);
        table
    }

    #[test]
    fn one_table_in_three_formats() {
        insta::assert_snapshot!(table().text(true), @r#"
        PORT  COMM   OPENED
          22  sshd        5
         443  a,"b"   12345
        "#);
        insta::assert_snapshot!(table().csv(true), @r#"
        port,comm,opened,refused
        22,sshd,5,1
        443,"a,""b""",12345,
        "#);
        insta::assert_snapshot!(
            table().json().to_string(),
            @r#"[{"comm":"sshd","opened":5,"port":22,"refused":1},{"comm":"a,\"b\"","opened":12345,"port":443,"refused":null}]"#
        );
    }

    #[test]
    fn csv_names_begin_no_formula() {
        let mut table = NumberTable::new(&[NumberColumn { name: "comm", in_text: true }]);
        table.rows = vec![vec![NumberValue::Text("+1".into())], vec![(-1_i64).into()]];
        // A number stays a number.
        assert_eq!(table.csv(true), "comm\n\\x2b1\n-1\n");
    }

    #[test]
    fn narrow_text_leaves_columns_out_by_rank() {
        let table = || {
            let mut table = table();
            table.columns[3].in_text = true;
            table
        };
        let widths = |width| {
            let text = table().fitted(&["refused", "comm"], width).text(true);
            text.lines().map(str::len).max().unwrap()
        };
        assert_eq!([None, Some(28), Some(27), Some(12), Some(3)].map(widths), [28, 28, 19, 12, 12]);
        // JSON and CSV have all columns.
        assert_eq!(table().fitted(&["comm"], Some(1)).csv(true), table().csv(true));
    }

    #[test]
    fn long_names_are_cut_to_fit() {
        let columns = ["unit", "comm", "open"].map(|name| NumberColumn { name, in_text: true });
        let mut table = NumberTable::new(&columns);
        let text = |text: &str| NumberValue::Text(text.into());
        table.rows.push(vec![
            text(&format!("docker-{}.scope", "a".repeat(64))),
            text("NetworkManager"),
            7.into(),
        ]);
        let cut = |width| table.clone().cut(&["unit", "comm"], width, "~").text(true);
        insta::assert_snapshot!(cut(Some(40)), @"
        UNIT                COMM            OPEN
        docker-aaaaaaaaaa~  NetworkManager     7
        ");
        for width in 26..120 {
            assert!(cut(Some(width)).lines().all(|line| line.len() <= width), "{width}");
        }
        assert_eq!(cut(None), table.text(true));
    }

    #[test]
    fn text_has_units() {
        let columns = ["bytes_sent", "opened_per_s"].map(|name| NumberColumn { name, in_text: true });
        let mut table = NumberTable::new(&columns);
        table.rows.push(vec![NumberValue::Bytes(65_536), NumberValue::Rate(1.5)]);
        insta::assert_snapshot!(table.text(true), @"
           SENT  OPENED/S
        64.0KiB       1.5
        ");
        assert_eq!(table.csv(true), "bytes_sent,opened_per_s\n65536,1.5\n");
    }

    #[test]
    fn large_counters_stay_whole() {
        assert_eq!(serde_json::to_value(NumberValue::from(u64::MAX)).unwrap(), Json::from(u64::MAX));
        assert_eq!(serde_json::to_value(NumberValue::from(-1_i64)).unwrap(), Json::from(-1));
    }
}
