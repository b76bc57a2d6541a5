//! A table of events, written line by line. A column starts with its usual width and widens with the first wider
//! value. No value is cut.

use std::net::IpAddr;

use super::color::{self, painted};
use super::json_writer::{error, plain};
use super::{address, integer};
use crate::column::{Cell, Column, Columns};
use crate::event::enriched::Enriched;
use crate::host::clock::WallClock;
use crate::host::services::Services;
use crate::render::human::{self, Zone};
use crate::render::sanitize;

/// Blanks between two columns.
const GAP: usize = 2;

/// The columns and their current widths.
#[derive(Debug)]
pub(super) struct EventTable {
    columns: Columns,
    widths: Vec<usize>,
    /// Names of ports; empty for numbers.
    services: Services,
    cell: Vec<u8>,
}

impl EventTable {
    /// A table of these columns.
    pub(super) fn new(columns: Columns) -> Self {
        let widths = columns.iter().map(|column| column.width.max(column.title.len())).collect();
        Self { columns, widths, services: Services::default(), cell: Vec::new() }
    }

    /// The same table with names of ports.
    pub(super) fn with_services(self, services: Services) -> Self {
        Self { services, ..self }
    }

    /// A table that drops columns, in the order of `droppable`, until it fits into `width` characters.
    pub(super) fn fitted(columns: Columns, droppable: &[&str], width: Option<usize>) -> Self {
        let mut table = Self::new(columns);
        for id in droppable {
            if width.is_none_or(|width| table.width() <= width) {
                break;
            }
            table = Self::new(table.columns.into_iter().filter(|column| column.id != *id).collect());
        }
        table
    }

    /// The columns.
    pub(super) fn columns(&self) -> &[&'static Column] {
        &self.columns
    }

    fn width(&self) -> usize {
        self.widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
    }

    /// Makes room for an event to come.
    pub(super) fn measure(&mut self, event: &Enriched, clock: &WallClock, zone: &Zone) {
        for (column, width) in self.columns.iter().zip(&mut self.widths) {
            self.cell.clear();
            text(column.of(event, clock), zone, &self.services, &mut self.cell);
            *width = (*width).max(self.cell.len());
        }
    }

    /// Appends the header with line end.
    pub(super) fn header(&self, color: bool, out: &mut Vec<u8>) {
        painted(color, color::HEADER, out, |out| {
            let mut line = Line { out, owed: 0, first: true };
            for (column, &width) in self.columns.iter().zip(&self.widths) {
                line.cell(column.title.as_bytes(), width, column.kind.is_right(), None);
            }
        });
        out.push(b'\n');
    }

    /// Appends the line without line end.
    pub(super) fn event(
        &mut self,
        event: &Enriched,
        clock: &WallClock,
        zone: &Zone,
        color: bool,
        out: &mut Vec<u8>,
    ) {
        let mut line = Line { out, owed: 0, first: true };
        for (column, width) in self.columns.iter().zip(&mut self.widths) {
            self.cell.clear();
            text(column.of(event, clock), zone, &self.services, &mut self.cell);
            *width = (*width).max(self.cell.len());
            let paint = match column.id {
                "event" | "state" => Some(color::kind(event)),
                "reason" if event.is_failed() => Some(color::FAILED),
                _ => None,
            };
            line.cell(&self.cell, *width, column.kind.is_right(), paint.filter(|_| color));
        }
    }
}

/// A line under construction. Blanks are written only before more text, so no line ends in blanks.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    owed: usize,
    first: bool,
}

impl Line<'_> {
    fn cell(&mut self, text: &[u8], width: usize, right: bool, paint: Option<&[u8]>) {
        if !self.first {
            self.owed += GAP;
        }
        self.first = false;
        let pad = width.saturating_sub(text.len());
        if right {
            self.owed += pad;
        }
        if !text.is_empty() {
            self.out.extend(std::iter::repeat_n(b' ', self.owed));
            self.owed = 0;
            painted(paint.is_some(), paint.unwrap_or_default(), self.out, |out| out.extend_from_slice(text));
        }
        if !right {
            self.owed += pad;
        }
    }
}

/// Appends a value for people: visible ASCII without blanks, except in dates.
fn text(cell: Cell<'_>, zone: &Zone, services: &Services, out: &mut Vec<u8>) {
    match cell {
        Cell::Unknown | Cell::Name(b"") => out.push(b'-'),
        Cell::Boolean(value) => out.extend_from_slice(if value { b"yes" } else { b"no" }),
        Cell::Time(ns) => zone.time(ns, out),
        Cell::Date(ns) => zone.date(ns, out),
        Cell::Duration { ns, at_least } => {
            out.extend_from_slice(if at_least { b">=" } else { b"" });
            human::duration(ns, out);
        }
        Cell::Number(number) => integer(number, out),
        Cell::Name(name) => sanitize::word(name, out),
        Cell::Errno(errno) => error(errno, out),
        Cell::Service(port) => service(port, services, out),
        Cell::Address { name: Some(name), .. } => sanitize::word(name.as_bytes(), out),
        Cell::Address { ip, name: None } => address(ip, out),
        Cell::Endpoint { socket, name, is_service } => {
            match (name, socket.ip()) {
                (Some(name), _) => sanitize::word(name.as_bytes(), out),
                (None, ip @ IpAddr::V4(_)) => address(ip, out),
                (None, ip @ IpAddr::V6(_)) => {
                    out.push(b'[');
                    address(ip, out);
                    out.push(b']');
                }
            }
            out.push(b':');
            if is_service { service(socket.port(), services, out) } else { integer(socket.port(), out) }
        }
        cell @ (Cell::UnixNs(_) | Cell::Word(_)) => plain(cell, out),
    }
}

/// Appends the name of a port, or the number of a port without name.
fn service(port: u16, services: &Services, out: &mut Vec<u8>) {
    match services.name(port) {
        Some(name) => sanitize::word(name.as_bytes(), out),
        None => integer(port, out),
    }
}

#[cfg(test)]
mod tests {
    use nix::libc::ECONNREFUSED;
    use proptest::prelude::*;

    use super::*;
    use crate::column::{Column, named};
    use crate::event::tests::*;
    use crate::render::style::Terminal;
    use crate::render::tests::{loss, rendered, rendered_on};
    use crate::render::{Format, View};

    #[test]
    fn every_kind_of_event_is_written() {
        let events = [
            new_out(),
            established(),
            closed(),
            failed(ECONNREFUSED, 1_000),
            preexisting(),
            new_in_v6(),
            nasty(),
        ];
        insta::assert_snapshot!(rendered(Format::Table, None, &events), @r"
        TIME              EVENT    STATE        DIR  SRC                          SPORT  DST              DPORT      PID  COMM                                LIFETIME  REASON
        03:04:06.000000Z  new      syn_sent     out  192.0.2.7                    43210  198.51.100.9     https     1234  curl                                       -  -
        03:04:06.001500Z  update   established  out  192.0.2.7                    43210  198.51.100.9     https     1234  curl                                       -  -
        03:05:07.000000Z  destroy  close        out  192.0.2.7                    43210  198.51.100.9     https     1234  curl                                   1m01s  closed_by_us
        03:04:06.000001Z  destroy  close        out  192.0.2.7                    43210  198.51.100.9     https     1234  curl                                  1.00us  refused
        03:05:07.000000Z  destroy  close        out  192.0.2.7                    43210  198.51.100.9     https        -  -                                    >=1m01s  reset_by_peer
        03:04:06.000000Z  new      syn_recv     in   2001:db8::7                  43210  2001:db8::22        22        -  -                                          -  -
        03:04:06.000000Z  new      syn_sent     out  x\x20dst\x3d1\x0a\x1b\x5b2J  43210  198.51.100.9     https     1234  x\x0a\x5bNEW]\x20pid\x3d1\x1b\xff          -  -
        ");
        insta::assert_snapshot!(rendered(Format::Table, Some("id,started,handshake,cgroup,failed,error"), &events), @"
                   ID  STARTED               HANDSHAKE   CGROUP  FAILED  ERROR
                   41  2026-01-02 03:04:06Z          -     6789  -       -
                   41  2026-01-02 03:04:06Z     1.50ms     6789  -       -
                   41  2026-01-02 03:04:06Z     1.50ms     6789  no      -
                   41  2026-01-02 03:04:06Z          -     6789  yes     ECONNREFUSED
        1024000000003  -                             -        -  no      -
                   41  2026-01-02 03:04:06Z          -        -  -       -
                   41  2026-01-02 03:04:06Z          -     6789  -       -
        ");
        insta::assert_snapshot!(loss(Format::Table), @"   [LOST] 72 since=1767323046.000000 until=1767323046.012345");
    }

    #[test]
    fn narrow_terminals_get_fewer_columns() {
        let narrow = Terminal { width: Some(100), color: true };
        insta::assert_snapshot!(rendered_on(narrow, View::Events, Format::Table, &[closed(), failed(ECONNREFUSED, 1)]), @"
        ESC[1mEVENT    SRC              SPORT  DST              DPORT  COMM              LIFETIME  REASONESC[0m
        ESC[33mdestroyESC[0m  192.0.2.7        43210  198.51.100.9     https  curl                 1m01s  closed_by_us
        ESC[1;31mdestroyESC[0m  192.0.2.7        43210  198.51.100.9     https  curl                   1ns  ESC[1;31mrefusedESC[0m
        ");
        insta::assert_snapshot!(rendered_on(Terminal::NONE, View::Lives, Format::Table, &[closed(), preexisting()]), @"
        TIME              DIR      PID  COMM             OWNER     SRC              SPORT  DST              DPORT       SENT   RECEIVED  HANDSHAKE   LIFETIME  OLD_STATE    REASON
        03:05:07.000000Z  out     1234  curl             connect   192.0.2.7        43210  198.51.100.9     https        517      65536     1.50ms      1m01s  fin_wait2    closed_by_us
        03:05:07.000000Z  out        -  -                -         192.0.2.7        43210  198.51.100.9     https        517      65536          -    >=1m01s  close_wait   reset_by_peer
        ");
        insta::assert_snapshot!(rendered_on(Terminal::NONE, View::Open, Format::Table, &[open()]), @"
        STATE        DIR  RECV-Q  SEND-Q  LOCAL                  PEER                         AGE      PID  COMM
        established  out      12    3456  laptop.example:43210   web.example:https          10.0s     1234  curl
        ");
        for subject in [View::Events, View::Lives, View::Open, View::Listeners] {
            let table = EventTable::fitted(named(subject.columns()), subject.droppable(), Some(100));
            assert!(table.width() <= 100, "{subject:?}: {}", table.width());
        }
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_of_as_many_words(event in any_event()) {
            let text = rendered(Format::Table, Some("all,local,peer,handshake,lifetime,age"), std::slice::from_ref(&event));
            let lines: Vec<&str> = text.lines().collect();
            prop_assert_eq!(lines.len(), 2);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\n'));
            let cells = |line: &str| line.split("  ").filter(|cell| !cell.is_empty()).count();
            prop_assert_eq!(cells(lines[0]), Column::native().count() + 5);
            prop_assert_eq!(cells(lines[1]), cells(lines[0]));
        }
    }
}
