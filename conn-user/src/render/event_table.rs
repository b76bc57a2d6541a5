//! A table of events, written line by line. A column starts with its usual width and widens with the first wider
//! value. On a terminal, a table that becomes too wide leaves columns out by rank, under a new header; a name that has no
//! room is cut, and every other value is whole.

use std::net::IpAddr;

use super::address::{address, scoped};
use super::color::{self, painted};
use super::integer;
use super::json_writer::{error, plain};
use super::style::{Terminal, View};
use crate::column::{Cell, Column, Columns, Type, named};
use crate::event::enriched::Enriched;
use crate::host::clock::WallClock;
use crate::host::services::Services;
use crate::render::human::{self, Zone};
use crate::render::sanitize;

/// Blanks between two columns.
const GAP: usize = 2;

/// The usual width of a column.
fn usual(column: &Column) -> usize {
    column.width.max(column.title.len())
}

/// The width of a column where the terminal is narrow: enough for most values, and the least width of names.
fn compact(column: &Column) -> usize {
    let width = match column.kind {
        Type::Address => 12,
        Type::Text => 8,
        Type::Duration => 0,
        _ => column.width,
    };
    width.min(column.width).max(column.title.len())
}

/// True if a value of the column may be cut.
fn is_name(column: &Column) -> bool {
    column.kind == Type::Text
}

/// The columns and their current widths.
#[derive(Debug)]
pub(super) struct EventTable {
    /// The view whose columns these are; `None` for columns that were chosen by name.
    view: Option<View>,
    columns: Columns,
    widths: Vec<usize>,
    /// Columns to leave out, the first one first, once the table is wider than the terminal.
    droppable: &'static [&'static str],
    /// The width of the terminal; `None` without one, and for columns that were chosen by name.
    room: Option<usize>,
    /// The mark of a cut name: an ellipsis where the terminal can show one.
    mark: &'static str,
    /// Names of ports; empty for numbers.
    services: Services,
    cell: Vec<u8>,
}

impl EventTable {
    /// A table of these columns, as wide as they need.
    pub(super) fn new(columns: Columns) -> Self {
        let widths = columns.iter().map(|column| usual(column)).collect();
        let services = Services::default();
        Self { view: None, columns, widths, droppable: &[], room: None, mark: "", services, cell: Vec::new() }
    }

    /// The table of a view, which fits into the terminal.
    pub(super) fn fitted(view: View, terminal: Terminal) -> Self {
        let mut table = Self {
            view: Some(view),
            droppable: view.droppable(),
            room: terminal.width,
            mark: terminal.ellipsis(),
            ..Self::new(named(view.columns()))
        };
        table.widths = table.columns.iter().map(|column| compact(column)).collect();
        table.fit();
        table.grow(usual);
        table
    }

    /// The same table with names of ports.
    pub(super) fn with_services(self, services: Services) -> Self {
        Self { services, ..self }
    }

    /// The columns.
    pub(super) fn columns(&self) -> &[&'static Column] {
        &self.columns
    }

    /// True if the column of reasons has the states of events that are no ends, since the column of states is left out.
    fn says_state_in(&self, column: &Column) -> bool {
        self.view == Some(View::Events)
            && column.id == "reason"
            && self.columns.iter().all(|column| column.id != "state")
    }

    fn width(&self) -> usize {
        self.widths.iter().map(|width| width + GAP).sum::<usize>().saturating_sub(GAP)
    }

    /// Narrows names, then leaves columns out, until the table fits. True if a column was left out.
    fn fit(&mut self) -> bool {
        let before = self.columns.len();
        let Some(room) = self.room else { return false };
        while let Some(excess) = self.width().checked_sub(room).filter(|&excess| excess > 0) {
            let mut names = self.columns.iter().zip(&mut self.widths).filter(|(column, _)| is_name(column));
            if let Some((column, width)) = names.find(|(column, width)| **width > compact(column)) {
                *width = (*width).saturating_sub(excess).max(compact(column));
                continue;
            }
            let [first, rest @ ..] = self.droppable else { break };
            self.droppable = rest;
            if let Some(at) = self.columns.iter().position(|column| column.id == *first) {
                self.columns.remove(at);
                self.widths.remove(at);
            }
        }
        self.columns.len() < before
    }

    /// Makes the columns as wide as the values of these events need, or as their titles.
    pub(super) fn measure(&mut self, events: &[Enriched], clock: &WallClock, zone: &Zone) {
        if let Some(view) = self.view {
            (self.columns, self.droppable) = (named(view.columns()), view.droppable());
        }
        self.widths = self.columns.iter().map(|column| column.title.len()).collect();
        for event in events {
            for (column, width) in self.columns.iter().zip(&mut self.widths) {
                self.cell.clear();
                text(column.of(event, clock), zone, &self.services, &mut self.cell);
                *width = (*width).max(self.cell.len());
            }
        }
        let needed: Vec<_> = self.columns.iter().map(|column| column.id).zip(self.widths.clone()).collect();
        self.fit();
        // Names get back what the columns that were left out needed.
        self.grow(|column| needed.iter().find(|(id, _)| *id == column.id).map_or(0, |(_, width)| *width));
    }

    /// Widens the columns to what they want, names first, as far as there is room.
    fn grow(&mut self, wanted: impl Fn(&Column) -> usize) {
        let (names, others): (Vec<usize>, Vec<usize>) =
            (0..self.columns.len()).partition(|&at| is_name(self.columns[at]));
        for at in names.into_iter().chain(others) {
            let wanted = wanted(self.columns[at]);
            let free = self.room.map_or(wanted, |room| room.saturating_sub(self.width()));
            self.widths[at] = self.widths[at].max(wanted.min(self.widths[at] + free));
        }
    }

    /// Appends the header with line end.
    pub(super) fn header(&self, color: bool, out: &mut Vec<u8>) {
        painted(color, color::HEADER, out, |out| {
            let mut line = Line { out, owed: 0, first: true };
            for (column, &width) in self.columns.iter().zip(&self.widths) {
                let title = if self.says_state_in(column) { "STATE/REASON" } else { column.title };
                line.cell(title.as_bytes(), width, column.kind.is_right(), None);
            }
        });
        out.push(b'\n');
    }

    /// Widens columns for an event of a stream. True if the table has other columns from now on.
    pub(super) fn widen(&mut self, event: &Enriched, clock: &WallClock, zone: &Zone) -> bool {
        for at in 0..self.columns.len() {
            self.cell.clear();
            let cell = self.columns[at].of(event, clock);
            text(cell, zone, &self.services, &mut self.cell);
            // A port whose name has no room is written as its number.
            let is_optional = matches!(cell, Cell::Service(_));
            if !is_optional || self.cell.len() <= self.widths[at] + self.free() {
                self.widths[at] = self.widths[at].max(self.cell.len());
            }
        }
        self.fit()
    }

    /// How many characters a column may take before another one is left out.
    fn free(&self) -> usize {
        let names = self.columns.iter().zip(&self.widths).filter(|(column, _)| is_name(column));
        let spare: usize = names.map(|(column, width)| width.saturating_sub(compact(column))).sum();
        self.room.map_or(usize::MAX / 2, |room| (room + spare).saturating_sub(self.width()))
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
        for (column, &width) in self.columns.iter().zip(&self.widths) {
            self.cell.clear();
            let cell = match column.of(event, clock) {
                Cell::Unknown if self.says_state_in(column) => Cell::word(event.state()),
                cell => cell,
            };
            text(cell, zone, &self.services, &mut self.cell);
            if let Cell::Service(port) = cell
                && self.cell.len() > width
            {
                self.cell.clear();
                integer(port, &mut self.cell);
            }
            if self.room.is_some() && is_name(column) && self.cell.len() > width {
                self.cell.truncate(width.saturating_sub(1));
                self.cell.extend_from_slice(self.mark.as_bytes());
            }
            let paint = match column.id {
                "event" | "state" => Some(color::kind(event)),
                "reason" if event.is_failed() => Some(color::FAILED),
                _ => None,
            };
            line.cell(&self.cell, width, column.kind.is_right(), paint.filter(|_| color));
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
        // An ellipsis has three bytes, of which two continue the first.
        let pad = width.saturating_sub(text.iter().filter(|byte| !(0x80..0xc0).contains(*byte)).count());
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
        Cell::Unknown => out.push(b'-'),
        Cell::Boolean(value) => out.extend_from_slice(if value { b"yes" } else { b"no" }),
        Cell::Time(ns) => zone.time(ns, out),
        Cell::Date(ns) => zone.date(ns, out),
        Cell::Duration { ns, at_least } => {
            out.extend_from_slice(if at_least { b">=" } else { b"" });
            human::duration(ns, out);
        }
        Cell::Number(number) => integer(number, out),
        Cell::Bytes(bytes) => human::bytes(bytes, out),
        Cell::Name(name) => sanitize::word(name, out),
        Cell::Container { name, user } => {
            sanitize::word(name, out);
            if let Some(user) = user {
                out.push(b'@');
                integer(user, out);
            }
        }
        Cell::Unit(name) => sanitize::unit(name, out),
        Cell::Errno(errno) => error(errno, out),
        Cell::Service(port) => service(port, services, out),
        Cell::Address { name: Some(name), .. } => sanitize::word(name.as_bytes(), out),
        Cell::Address { ip, name: None, scope } => scoped(ip, scope, out),
        Cell::Endpoint { socket, name, scope, is_service } => {
            match (name, socket.ip()) {
                (Some(name), _) => sanitize::word(name.as_bytes(), out),
                (None, ip @ IpAddr::V4(_)) => address(ip, out),
                (None, ip @ IpAddr::V6(_)) => {
                    out.push(b'[');
                    scoped(ip, scope, out);
                    out.push(b']');
                }
            }
            out.push(b':');
            if is_service { service(socket.port(), services, out) } else { integer(socket.port(), out) }
        }
        cell @ (Cell::UnixNs(_) | Cell::Word(_) | Cell::Processes(_)) => plain(cell, out),
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
    use crate::column::Column;
    use crate::event::tests::*;
    use crate::render::Renderer;
    use crate::render::style::{Style, Terminal};
    use crate::render::tests::{CLOCK, loss, rendered, rendered_on, style};
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
        TIME              EVENT    STATE        DIR  SRC                          SPORT  DST           DPORT   PID  COMM                               LIFETIME  REASON
        03:04:06.000000Z  new      syn_sent     out  192.0.2.7                    43210  198.51.100.9  https  1234  curl                                      -  -
        03:04:06.001500Z  update   established  out  192.0.2.7                    43210  198.51.100.9  https  1234  curl                                      -  -
        03:05:07.000000Z  destroy  close        out  192.0.2.7                    43210  198.51.100.9  https  1234  curl                                  1m01s  closed_by_us
        03:04:06.000001Z  destroy  close        out  192.0.2.7                    43210  198.51.100.9  https  1234  curl                                 1.00us  refused
        03:05:07.000000Z  destroy  close        out  192.0.2.7                    43210  198.51.100.9  https     -  -                                   >=1m01s  reset_by_peer
        03:04:06.000000Z  new      syn_recv     in   2001:db8::7                  43210  2001:db8::22     22     -  -                                         -  -
        03:04:06.000000Z  new      syn_sent     out  x\x20dst\x3d1\x0a\x1b\x5b2J  43210  198.51.100.9  https  1234  x\x0a\x5bNEW]\x20pid\x3d1\x1b\xff         -  -
        ");
        insta::assert_snapshot!(rendered(Format::Table, Some("id,started,handshake,cgroup,failed,error"), &events), @"
                   ID  STARTED               HANDSHAKE  CGROUP  FAILED  ERROR
                   41  2026-01-02 03:04:06Z          -    6789  -       -
                   41  2026-01-02 03:04:06Z     1.50ms    6789  -       -
                   41  2026-01-02 03:04:06Z     1.50ms    6789  no      -
                   41  2026-01-02 03:04:06Z          -    6789  yes     ECONNREFUSED
        1024000000003  -                             -       -  no      -
                   41  2026-01-02 03:04:06Z          -       -  -       -
                   41  2026-01-02 03:04:06Z          -    6789  -       -
        ");
        insta::assert_snapshot!(loss(Format::Table), @"   [LOST] 72 since=1767323046.000000 until=1767323046.012345");
    }

    #[test]
    fn narrow_terminals_get_fewer_columns() {
        let narrow = Terminal { color: true, ..terminal(100) };
        insta::assert_snapshot!(rendered_on(narrow, View::Events, Format::Table, &[closed(), failed(ECONNREFUSED, 1)]), @"
        ESC[1mTIME              EVENT    STATE  DIR  SRC        DST           DPORT  COMM  LIFETIME  REASONESC[0m
        03:05:07.000000Z  ESC[33mdestroyESC[0m  ESC[33mcloseESC[0m  out  192.0.2.7  198.51.100.9  https  curl     1m01s  closed_by_us
        03:04:06.000000Z  ESC[1;31mdestroyESC[0m  ESC[1;31mcloseESC[0m  out  192.0.2.7  198.51.100.9  https  curl       1ns  ESC[1;31mrefusedESC[0m
        ");
        insta::assert_snapshot!(rendered_on(Terminal::NONE, View::Lives, Format::Table, &[closed(), preexisting()]), @"
        TIME              DIR   PID  COMM  OWNER    SRC        SPORT  DST           DPORT  SENT  RECEIVED  HANDSHAKE  LIFETIME  OLD_STATE   REASON
        03:05:07.000000Z  out  1234  curl  connect  192.0.2.7  43210  198.51.100.9  https  517B   64.0KiB     1.50ms     1m01s  fin_wait2   closed_by_us
        03:05:07.000000Z  out     -  -     -        192.0.2.7  43210  198.51.100.9  https  517B   64.0KiB          -   >=1m01s  close_wait  reset_by_peer
        ");
        insta::assert_snapshot!(rendered_on(Terminal::NONE, View::Open, Format::Table, &[open()]), @"
        STATE        DIR  RECV-Q   SEND-Q  LOCAL                 PEER                 AGE   PID  COMM
        established  out     12B  3.38KiB  laptop.example:43210  web.example:https  10.0s  1234  curl
        ");
        let plain = |event: Enriched| Enriched { src_name: None, dst_name: None, ..event };
        for (view, event, addresses) in [
            (View::Events, closed(), 40),
            (View::Events, long_v6(closed()), 60),
            (View::Lives, closed(), 40),
            (View::Lives, long_v6(closed()), 60),
            (View::Open, plain(open()), 40),
            (View::Open, plain(long_v6(open())), 60),
            (View::Listeners, listening(), 40),
            (View::Listeners, long_v6(listening()), 60),
            (View::Sockets, plain(open()), 40),
            (View::Sockets, plain(long_v6(open())), 60),
            (View::Unconnected, plain(open()), 40),
            (View::Unconnected, plain(long_v6(open())), 60),
        ] {
            for width in addresses..200 {
                let lines = rendered_on(terminal(width), view, Format::Table, std::slice::from_ref(&event));
                let longest = lines.lines().map(|line| line.chars().count()).max().unwrap();
                assert!(longest <= width, "{view:?} {width}: {longest}\n{lines}");
            }
        }
    }

    #[test]
    fn a_stream_keeps_fitting_under_a_new_header() {
        let mut long = closed();
        long.connection.owner.comm[..15].copy_from_slice(b"systemd-resolve");
        let mut other = closed();
        other.connection.dport = 5432;
        let events = [established(), closed(), other, long, long_v6(closed()), failed(ECONNREFUSED, 1)];
        let services = Services::parse("https 443/tcp\npostgresql 5432/tcp");
        for width in 60..200 {
            let style = Style { services: services.clone(), ..style(Format::Table, None) };
            let mut renderer = Renderer::new(&style, View::Events, terminal(width));
            let mut out = Vec::new();
            renderer.begin(&mut out);
            for event in &events {
                renderer.event(event, &CLOCK, &mut out);
            }
            let text = String::from_utf8(out).unwrap();
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}\n{text}");
            if width == 80 {
                insta::assert_snapshot!(text, @"
                EVENT    SRC           DST           DPORT  COMM        LIFETIME  STATE/REASON
                update   192.0.2.7     198.51.100.9  https  curl               -  established
                destroy  192.0.2.7     198.51.100.9  https  curl           1m01s  closed_by_us
                destroy  192.0.2.7     198.51.100.9   5432  curl           1m01s  closed_by_us
                destroy  192.0.2.7     198.51.100.9  https  systemd-r…     1m01s  closed_by_us
                EVENT    DST                                      DPORT  COMM
                destroy  fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd  https  curl
                destroy  198.51.100.9                             https  curl
                ");
            }
        }
    }

    fn terminal(width: usize) -> Terminal {
        Terminal { width: Some(width), is_terminal: true, color: false, utf8: true }
    }

    fn long_v6(mut event: Enriched) -> Enriched {
        event.connection.family = 6;
        event.connection.src = [0xfd; 16];
        event.connection.dst = [0xfd; 16];
        event
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
