//! Events as text. Writing an event appends to a buffer and allocates nothing but the buffer's growth.

mod address;
mod color;
mod conntrack;
mod csv;
mod ecs;
mod entry;
mod event_table;
pub(crate) mod human;
pub(crate) mod json;
pub mod json_read;
mod json_writer;
mod logfmt;
pub(crate) mod munin;
pub(crate) mod number_table;
pub(crate) mod otel;
pub(crate) mod sanitize;
mod save;
pub mod schema;
mod status;
pub mod style;
pub(crate) mod unix_list;
mod xml;

use crate::column::{Column, Columns};
use crate::event::enriched::Enriched;
use crate::event::lost::Lost;
use crate::host::clock::WallClock;
use crate::render::human::Zone;
use crate::render::style::{Format, Style, Terminal, View};
use address::{address, link};
use event_table::EventTable;

/// Writes events in one format.
#[derive(Debug)]
pub struct Renderer {
    format: Format,
    zone: Zone,
    color: bool,
    header: bool,
    /// The chosen columns of csv, logfmt and JSON.
    columns: Option<Columns>,
    table: EventTable,
}

impl Renderer {
    /// A renderer of `style` for the view of a command.
    pub fn new(style: &Style, subject: View, terminal: Terminal) -> Self {
        let has_zone = match style.format {
            Format::Table | Format::Xml(_) => true,
            Format::Conntrack(fields) => fields.ktimestamp,
            _ => false,
        };
        let zone = if has_zone && !style.utc { Zone::local() } else { Zone::utc() };
        let columns = style.columns.clone();
        let table = match &columns {
            Some(columns) => EventTable::new(columns.clone()),
            None => EventTable::fitted(subject, terminal),
        };
        let table = table.with_services(style.services.clone());
        Self { format: style.format, zone, color: terminal.color, header: style.header, columns, table }
    }

    /// True if the output has one of these columns.
    pub fn shows(&self, ids: &[&str]) -> bool {
        let any = |columns: &[&Column]| columns.iter().any(|column| ids.contains(&column.id));
        match (self.format, &self.columns) {
            (Format::Conntrack(_) | Format::Save | Format::Xml(_), _) => false,
            (Format::Table, _) => any(self.table.columns()),
            (_, Some(columns)) => any(columns),
            (_, None) => Column::native().any(|column| ids.contains(&column.id)),
        }
    }

    /// True if the output has the process behind an event, whether it has these columns or not.
    pub(crate) const fn always_shows_owners(&self) -> bool {
        matches!(self.format, Format::Conntrack(_) | Format::Save | Format::Xml(_))
    }

    /// Makes the columns of a table as wide as these events need. For commands that know all events before the first
    /// line.
    pub fn measure(&mut self, events: &[Enriched], clock: &WallClock) {
        if self.format == Format::Table {
            self.table.measure(events, clock, &self.zone);
        }
    }

    /// Appends the header of the output, if the format has one.
    pub fn begin(&self, out: &mut Vec<u8>) {
        match self.format {
            Format::Xml(_) => out.extend_from_slice(xml::BEGIN),
            Format::Table if self.header => self.table.header(self.color, out),
            Format::Csv if self.header => csv::header(self.columns.as_deref(), out),
            _ => {}
        }
    }

    /// Appends an event, with its line end.
    pub fn event(&mut self, event: &Enriched, clock: &WallClock, out: &mut Vec<u8>) {
        match (self.format, &self.columns) {
            (Format::Conntrack(extras), _) => {
                if extras.timestamp {
                    conntrack::timestamp(clock.to_unix_ns(event.time_ns), out);
                }
                conntrack::event(
                    event,
                    extras,
                    &RenderContext { clock, zone: &self.zone, color: self.color },
                    out,
                );
            }
            (Format::Json, None) => json::event(event, clock, out),
            (Format::Json, Some(columns)) => json_writer::columns(event, columns, clock, out),
            (Format::Save, _) => save::event(event, out),
            (Format::Xml(extras), _) => {
                xml::event(event, extras, &RenderContext { clock, zone: &self.zone, color: false }, out);
            }
            (Format::Table, _) => {
                if self.table.widen(event, clock, &self.zone) && self.header {
                    self.table.header(self.color, out);
                }
                self.table.event(event, clock, &self.zone, self.color, out);
            }
            (Format::Csv, columns) => csv::event(event, columns.as_deref(), clock, out),
            (Format::Logfmt, columns) => logfmt::event(event, columns.as_deref(), clock, out),
            (Format::Otel, _) => otel::event(event, clock, out),
            (Format::Ecs, _) => ecs::event(event, clock, out),
        }
        out.push(b'\n');
    }

    /// Appends a loss with line end. False if the format cannot express losses: then the caller reports the loss
    /// elsewhere.
    pub fn lost(&self, lost: &Lost, clock: &WallClock, out: &mut Vec<u8>) -> bool {
        match self.format {
            Format::Conntrack(_) | Format::Table => {
                color::painted(self.color, color::LOST, out, |out| out.extend_from_slice(b"   [LOST]"));
                conntrack::lost(lost, clock, out);
            }
            Format::Save => {
                out.extend_from_slice(b"# [LOST]");
                conntrack::lost(lost, clock, out);
            }
            Format::Xml(_) => xml::lost(lost, clock, out),
            Format::Json => json::lost(lost, clock, out),
            Format::Logfmt => logfmt::lost(lost, clock, out),
            Format::Otel => otel::lost(lost, clock, out),
            Format::Ecs => ecs::lost(lost, clock, out),
            Format::Csv => return false,
        }
        out.push(b'\n');
        true
    }

    /// Appends the footer of the output, if the format has one.
    pub fn end(&self, out: &mut Vec<u8>) {
        if let Format::Xml(_) = self.format {
            out.extend_from_slice(xml::END);
        }
    }
}

/// Clock, zone and colours, which the formats of conntrack need besides the event.
struct RenderContext<'a> {
    clock: &'a WallClock,
    zone: &'a Zone,
    color: bool,
}

/// Visits the chosen columns, or the native schema.
fn each(columns: Option<&[&'static Column]>, mut visit: impl FnMut(&'static Column)) {
    match columns {
        Some(columns) => columns.iter().for_each(|column| visit(column)),
        None => Column::native().for_each(visit),
    }
}

/// Appends an integer in decimal.
fn integer(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[cfg(test)]
pub(crate) mod tests;
