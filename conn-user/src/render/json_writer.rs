//! The members of a JSON object, written one after the other.

use std::net::IpAddr;

use conn_common::owner::Owner;

use super::address::endpoint;
use super::{address, integer};
use crate::column::{Cell, Column};
use crate::event::enriched::Enriched;
use crate::event::errno;
use crate::event::process::until_zero;
use crate::host::clock::{WallClock, rfc3339};
use crate::render::human;
use crate::render::sanitize;

/// Appends an object of these columns, leaving out those that mean nothing for the event.
pub(super) fn columns(event: &Enriched, columns: &[&Column], clock: &WallClock, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    for column in columns.iter().filter(|column| column.is_in(event.kind)) {
        object.cell(column.id, (column.get)(event, clock));
    }
    object.close();
}

/// Writes the members of an object. Keys and words need no escapes. Methods are inlined, so that a few instructions
/// of constant length copy a key: a line has forty keys.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    /// Where the object begins. Until the object is closed, a comma stands there, so that all members are written
    /// alike.
    start: usize,
}

impl<'a> Object<'a> {
    pub(super) fn open(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start }
    }

    pub(super) fn close(self) {
        match self.out.get_mut(self.start) {
            Some(comma) => *comma = b'{',
            None => self.out.push(b'{'),
        }
        self.out.push(b'}');
    }

    #[inline(always)]
    pub(super) fn key(&mut self, key: &str) {
        self.out.extend_from_slice(b",\"");
        self.out.extend_from_slice(key.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    /// A member that is an object.
    pub(super) fn object(&mut self, key: &str) -> Object<'_> {
        self.key(key);
        Object::open(self.out)
    }

    /// A member that is JSON already.
    pub(super) fn raw(&mut self, key: &str, json: &str) {
        self.key(key);
        self.out.extend_from_slice(json.as_bytes());
    }

    #[inline(always)]
    pub(super) fn integer(&mut self, key: &str, value: impl itoa::Integer) {
        self.key(key);
        integer(value, self.out);
    }

    #[inline(always)]
    pub(super) fn boolean(&mut self, key: &str, value: bool) {
        self.key(key);
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
    }

    #[inline(always)]
    pub(super) fn word(&mut self, key: &str, value: &str) {
        self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
    }

    #[inline(always)]
    pub(super) fn address(&mut self, key: &str, value: IpAddr) {
        self.quoted(key, |out| address(value, out));
    }

    #[inline(always)]
    pub(super) fn time(&mut self, key: &str, unix_ns: i64) {
        self.quoted(key, |out| rfc3339(unix_ns, out));
    }

    /// The name of an errno number, or the number of an error without name. `null` for 0.
    pub(super) fn error(&mut self, key: &str, errno: u16) {
        if errno == 0 {
            self.null(key);
        } else {
            self.quoted(key, |out| error(errno, out));
        }
    }

    /// Bytes from outside, escaped.
    #[inline(always)]
    pub(super) fn name(&mut self, key: &str, value: &[u8]) {
        self.key(key);
        sanitize::json_string(value, self.out);
    }

    /// The bytes of a name as hexadecimal digits, if the name is no text: [`Object::name`] loses those bytes.
    #[inline(always)]
    pub(super) fn hex(&mut self, key: &str, value: &[u8]) {
        if !value.is_ascii() && std::str::from_utf8(value).is_err() {
            self.quoted(key, |out| sanitize::hex_digits(value, out));
        }
    }

    #[inline(always)]
    pub(super) fn null(&mut self, key: &str) {
        self.key(key);
        self.out.extend_from_slice(b"null");
    }

    #[inline(always)]
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        value: Option<T>,
        write: impl FnOnce(&mut Self, &str, T),
    ) {
        match value {
            Some(value) => write(self, key, value),
            None => self.null(key),
        }
    }

    /// A value of any type.
    pub(super) fn cell(&mut self, key: &str, cell: Cell<'_>) {
        match cell {
            Cell::Unknown => self.null(key),
            Cell::Boolean(value) => self.boolean(key, value),
            Cell::Number(number) | Cell::Bytes(number) => self.integer(key, number),
            Cell::UnixNs(ns) => self.integer(key, ns),
            Cell::Time(ns) | Cell::Date(ns) => self.time(key, ns),
            Cell::Word(word) => self.word(key, word),
            Cell::Name(name) | Cell::Container { name, .. } => self.name(key, name),
            Cell::Unit(name) => self.name(key, name.as_bytes()),
            Cell::Processes(processes) => self.processes(key, processes),
            Cell::Errno(errno) => self.error(key, errno),
            Cell::Service(port) => self.integer(key, port),
            Cell::Address { ip, .. } => self.address(key, ip),
            Cell::Duration { .. } | Cell::Endpoint { .. } => self.quoted(key, |out| plain(cell, out)),
        }
    }

    /// An array with an object for each process.
    fn processes(&mut self, key: &str, processes: &[Owner]) {
        self.key(key);
        self.out.push(b'[');
        for (number, process) in processes.iter().enumerate() {
            if number > 0 {
                self.out.push(b',');
            }
            let mut object = Object::open(self.out);
            object.integer("pid", process.pid);
            object.name("comm", until_zero(&process.comm));
            object.close();
        }
        self.out.push(b']');
    }

    /// Members for both ends: the initiator is the client, the responder the server.
    pub(super) fn client_and_server(
        &mut self,
        event: &Enriched,
        [client, client_port, server, server_port]: [&str; 4],
    ) {
        let (initiator, responder) = (event.initiator(), event.responder());
        self.address(client, initiator.ip());
        self.integer(client_port, initiator.port());
        self.address(server, responder.ip());
        self.integer(server_port, responder.port());
    }

    /// Members for the columns of the native schema, under the names of a convention. Unknown values and columns
    /// without a name there are left out.
    pub(super) fn native_columns(
        &mut self,
        event: &Enriched,
        clock: &WallClock,
        name: fn(&Column) -> &'static str,
    ) {
        for column in Column::native().filter(|column| column.is_in(event.kind)) {
            let (name, cell) = (name(column), (column.get)(event, clock));
            if !name.is_empty() && cell != Cell::Unknown {
                self.cell(name, cell);
            }
        }
    }

    #[inline(always)]
    fn quoted(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.key(key);
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }
}

/// Appends the name of an errno number, or `errno 999`.
pub(super) fn error(number: u16, out: &mut Vec<u8>) {
    if let Some(name) = errno::name(number) {
        out.extend_from_slice(name.as_bytes());
    } else {
        out.extend_from_slice(b"errno ");
        integer(number, out);
    }
}

/// Appends a value as plain text for machines. Unknown values are empty, names are escaped.
pub(super) fn plain(cell: Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Unknown => {}
        Cell::Boolean(value) => out.extend_from_slice(if value { b"true" } else { b"false" }),
        Cell::Number(number) | Cell::Bytes(number) => integer(number, out),
        Cell::UnixNs(ns) => integer(ns, out),
        Cell::Time(ns) | Cell::Date(ns) => rfc3339(ns, out),
        Cell::Duration { ns, at_least } => {
            out.extend_from_slice(if at_least { b">=" } else { b"" });
            human::seconds(ns, out);
        }
        Cell::Word(word) => out.extend_from_slice(word.as_bytes()),
        Cell::Name(name) | Cell::Container { name, .. } => sanitize::word(name, out),
        Cell::Unit(name) => sanitize::unit(name, out),
        Cell::Processes(processes) => self::processes(processes, out),
        Cell::Errno(errno) => error(errno, out),
        Cell::Service(port) => integer(port, out),
        Cell::Address { ip, .. } => address(ip, out),
        Cell::Endpoint { socket, .. } => endpoint(socket, out),
    }
}

/// Appends processes as `pid/name`, with commas between. A comma in a name is escaped.
fn processes(processes: &[Owner], out: &mut Vec<u8>) {
    for (number, process) in processes.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        integer(process.pid, out);
        out.push(b'/');
        for (number, part) in until_zero(&process.comm).split(|&byte| byte == b',').enumerate() {
            out.extend_from_slice(if number > 0 { b"\\x2c" } else { b"" });
            sanitize::word(part, out);
        }
    }
}
