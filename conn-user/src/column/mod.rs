//! The one list of what can be told of an event. It feeds tables, CSV, logfmt, the JSON of all three
//! conventions, their schema, the documentation and the help.

mod cell;
mod human;
mod identity;
mod life;
mod traffic;

use std::fmt;

pub use cell::Cell;

use crate::complaint::{Complaint, complaint};
use crate::event::Event;
use crate::event::kind::Kind;
use crate::host::clock::WallClock;

/// In which kinds of events a column means something: bits of [`Kind::bit`].
pub type Kinds = u8;

/// Every kind.
pub const ANY: Kinds = Kind::New.bit() | Kind::Update.bit() | Kind::Destroy.bit() | Kind::Open.bit();
/// Those of the stream.
pub const STREAM: Kinds = ANY & !Kind::Open.bit();
/// Ends.
pub const END: Kinds = Kind::Destroy.bit();
/// What is open now.
pub const NOW: Kinds = Kind::Open.bit();
/// Where a socket's traffic is known.
pub const END_AND_NOW: Kinds = END | NOW;

/// The type of a column's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text that others chose, or that has no list.
    Text,
    /// An IP address.
    Address,
    /// Address and port.
    Endpoint,
    /// A moment.
    Time,
    /// A length of time, written for people.
    Duration,
}

impl Type {
    /// True if its values are written to the right of their column.
    pub const fn is_right(self) -> bool {
        matches!(self, Self::Integer | Self::Duration)
    }
}

/// What a column's numbers count.
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
    /// Its name; empty for none.
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

/// The name of a column in a convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConventionNames {
    /// OpenTelemetry's attribute; ours begin with `conntrace.`. Empty: told elsewhere in the record.
    pub otel: &'static str,
    /// The field of the Elastic Common Schema; ours begin with `conntrace.`. Empty as above.
    pub ecs: &'static str,
}

/// Something that can be told of an event.
pub struct Column {
    /// Stable name: the key in JSON, the header in CSV, what `--columns` takes.
    pub id: &'static str,
    /// Its header in a table.
    pub title: &'static str,
    /// How wide its values usually are in a table.
    pub width: usize,
    /// The type of its values.
    pub kind: Type,
    /// What they count.
    pub unit: Unit,
    /// What it tells.
    pub help: &'static str,
    /// When it is not known; empty if it always is.
    pub unknown: &'static str,
    /// Where it means something. In JSON it is absent from other kinds of events.
    pub kinds: Kinds,
    /// A part of the native schema. The others are for people, who ask for them by name.
    pub native: bool,
    /// Its names elsewhere.
    pub names: ConventionNames,
    /// Its value.
    pub get: for<'a> fn(&'a Event, &WallClock) -> Cell<'a>,
}

/// What most columns have in common.
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
    /// All of them; those of the native schema first, in its order.
    pub fn all() -> impl Iterator<Item = &'static Self> {
        identity::COLUMNS.iter().chain(&life::COLUMNS).chain(&traffic::COLUMNS).chain(&human::COLUMNS)
    }

    /// True if it means something in events of this kind.
    pub const fn is_in(&self, kind: Kind) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// Its value in an event; unknown where it means nothing.
    pub fn of<'a>(&self, event: &'a Event, clock: &WallClock) -> Cell<'a> {
        if self.is_in(event.kind) { (self.get)(event, clock) } else { Cell::Unknown }
    }

    /// The column with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().find(|column| column.id == name)
    }

    /// Those of the native schema, in its order.
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

/// Columns that somebody chose, in their order.
pub type Columns = Vec<&'static Column>;

/// Reads names with commas between; `all` stands for the whole native schema, and a name with `+` before
/// it (the first only) is added to `defaults`.
///
/// # Errors
/// Names the one that is no column.
pub fn parse(text: &str, defaults: &[&str]) -> Result<Columns, Complaint> {
    let (mut chosen, text) = match text.trim().strip_prefix('+') {
        Some(rest) => (named(defaults), rest),
        None => (Columns::new(), text),
    };
    for name in text.split(',').map(str::trim) {
        let name = name.to_ascii_lowercase();
        if name == "all" {
            chosen.extend(Column::native());
            continue;
        }
        let column = Column::named(&name).ok_or_else(|| {
            let names: Vec<&str> = Column::all().map(|column| column.id).collect();
            complaint!("there is no column {name:?}: use some of {}, or all", names.join(", "))
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
pub fn named(names: &[&str]) -> Columns {
    names.iter().filter_map(|name| Column::named(name)).collect()
}

#[cfg(test)]
mod tests;
