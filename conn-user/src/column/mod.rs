//! The one list of the fields of an event. Tables, CSV, logfmt, JSON of all three conventions, the schema, the
//! documentation and the help read this list.

mod cell;
mod human;
mod identity;
mod life;
mod traffic;

use std::fmt;

pub(crate) use cell::Cell;

use crate::complaint::{Complaint, as_typed, complaint};
use crate::event::enriched::Enriched;
use crate::event::kind::Kind;
use crate::host::clock::WallClock;

/// In which kinds of events a column means something: bits of [`Kind::bit`].
pub(crate) type Kinds = u8;

/// Every kind.
pub(crate) const ANY: Kinds = STREAM | ATTEMPT | LISTENER | NOW;
/// The kinds of a connection in the stream.
pub(crate) const STREAM: Kinds = Kind::New.bit() | Kind::Update.bit() | Kind::Destroy.bit();
/// Attempts that never become a connection.
pub(crate) const ATTEMPT: Kinds = Kind::Attempt.bit();
/// Begins and ends of listeners.
pub(crate) const LISTENER: Kinds = Kind::Listen.bit() | Kind::Closed.bit();
/// Ends.
pub(crate) const END: Kinds = Kind::Destroy.bit();
/// Open connections.
pub(crate) const NOW: Kinds = Kind::Open.bit();
/// The kinds with known traffic.
pub(crate) const END_AND_NOW: Kinds = END | NOW;

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Processes, each as name and id.
    Processes,
    /// Text from outside, or text without a list of values.
    Text,
    /// An IP address.
    Address,
    /// Address and port.
    Endpoint,
    /// A moment.
    Time,
    /// A duration, written for people.
    Duration,
}

impl Type {
    /// True if values are aligned to the right.
    pub const fn is_right(self) -> bool {
        matches!(self, Self::Integer | Self::Duration)
    }
}

/// The unit of a column's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nothing.
    None,
    /// Nanoseconds.
    Nanoseconds,
    /// Nanoseconds since 1970-01-01 UTC.
    UnixNanoseconds,
    /// Microseconds.
    Microseconds,
    /// Bytes of payload.
    Bytes,
    /// TCP segments.
    Segments,
}

impl Unit {
    /// The name of the unit; empty for none.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Nanoseconds => "ns",
            Self::UnixNanoseconds => "ns since 1970",
            Self::Microseconds => "µs",
            Self::Bytes => "bytes",
            Self::Segments => "segments",
        }
    }
}

/// The names of a column in both conventions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConventionNames {
    /// OpenTelemetry's attribute; conntrace's own begin with `conntrace.`. Empty if another member of the record has
    /// the value.
    pub otel: &'static str,
    /// The field of the Elastic Common Schema; conntrace's own begin with `conntrace.`. Empty as above.
    pub ecs: &'static str,
}

/// A field of an event.
pub struct Column {
    /// Stable name: the key in JSON, the header in CSV, what `--columns` takes.
    pub id: &'static str,
    /// The header in a table.
    pub title: &'static str,
    /// The usual width of a value in a table.
    pub width: usize,
    /// The type of its values.
    pub kind: Type,
    /// The unit of the values.
    pub unit: Unit,
    /// The description, for documentation and schema.
    pub help: &'static str,
    /// When the value is unknown; empty if it is always known.
    pub unknown: &'static str,
    /// The event kinds that have the field. JSON of other kinds lacks the field.
    pub kinds: Kinds,
    /// True for columns of the native schema. The others are for people and shown on demand.
    pub native: bool,
    /// Its names elsewhere.
    pub names: ConventionNames,
    /// Its value.
    pub get: for<'a> fn(&'a Enriched, &WallClock) -> Cell<'a>,
}

/// The defaults of a column.
const PLAIN: Column = Column {
    id: "",
    title: "",
    width: 7,
    kind: Type::Integer,
    unit: Unit::None,
    help: "",
    unknown: "",
    kinds: ANY,
    native: true,
    names: ConventionNames { otel: "", ecs: "" },
    get: |_, _| Cell::Unknown,
};

const NO_ATTEMPT: &str = "attempt not seen";

impl Column {
    /// All columns. The native schema comes first, in its order.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        identity::COLUMNS.iter().chain(&life::COLUMNS).chain(&traffic::COLUMNS).chain(&human::COLUMNS)
    }

    /// True if events of this kind have the field.
    pub const fn is_in(&self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Its value in an event; unknown where it means nothing.
    pub fn of<'a>(&self, event: &'a Enriched, clock: &WallClock) -> Cell<'a> {
        if self.is_in(event.kind) { (self.get)(event, clock) } else { Cell::Unknown }
    }

    /// The column with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|column| column.id == name)
    }

    /// The columns of the native schema, in order.
    pub fn native() -> impl Iterator<Item = &'static Self> {
        Self::all().filter(|column| column.native)
    }
}

/// The identity of a column is its name.
impl PartialEq for Column {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Column {}

impl fmt::Debug for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id)
    }
}

/// Chosen columns, in the chosen order.
pub(crate) type Columns = Vec<&'static Column>;

/// Reads names separated by commas. `all` stands for the whole native schema. A `+` before the first name adds the
/// names to `defaults`.
///
/// # Errors
/// A name is not the name of a column.
pub(crate) fn parse(text: &str, defaults: &[&str]) -> Result<Columns, Complaint> {
    let (mut chosen, text) = match text.trim().strip_prefix('+') {
        Some(rest) => (named(defaults), rest),
        None => (Columns::new(), text),
    };
    for typed in text.split(',').map(str::trim) {
        let name = typed.to_ascii_lowercase();
        if name == "all" {
            chosen.extend(Column::native());
            continue;
        }
        let column = Column::named(&name).ok_or_else(|| {
            let names: Vec<&str> = Column::all().map(|column| column.id).collect();
            complaint!("there is no column {}: use some of {}, or all", as_typed(typed), names.join(", "))
        })?;
        chosen.push(column);
    }
    let mut seen = Columns::new();
    chosen.retain(|column| {
        let new = !seen.contains(column);
        seen.push(column);
        new
    });
    Ok(chosen)
}

/// The columns with these names.
pub(crate) fn named(names: &[&str]) -> Columns {
    names.iter().filter_map(|name| Column::named(name)).collect()
}

#[cfg(test)]
mod tests;
