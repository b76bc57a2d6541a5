//! Comma-separated values (RFC 4180, with line feeds). Unknown values are empty. Names are escaped as in conntrack's
//! line, so no cell has a line break, and a name begins no formula of a spreadsheet.

use super::json_writer::plain;
use crate::column::{Cell, Column};
use crate::event::enriched::Enriched;
use crate::host::clock::WallClock;
use crate::render::sanitize;

/// Appends the header with line end.
pub(super) fn header(columns: Option<&[&'static Column]>, out: &mut Vec<u8>) {
    separated(columns, out, |column, out| out.extend_from_slice(column.id.as_bytes()));
    out.push(b'\n');
}

/// Appends the line without line end.
pub(super) fn event(
    event: &Enriched,
    columns: Option<&[&'static Column]>,
    clock: &WallClock,
    out: &mut Vec<u8>,
) {
    separated(columns, out, |column, out| cell(column.of(event, clock), out));
}

fn separated(
    columns: Option<&[&'static Column]>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&Column, &mut Vec<u8>),
) {
    let mut first = true;
    super::each(columns, |column| {
        if !first {
            out.push(b',');
        }
        first = false;
        write(column, out);
    });
}

/// Names alone may need quotes.
fn cell(cell: Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Name(_) | Cell::Container { .. } | Cell::Unit(_) | Cell::Processes(_) => {
            name(out, |out| plain(cell, out));
        }
        cell => plain(cell, out),
    }
}

/// Appends what `write` appends as one field that begins no formula.
pub(super) fn name(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    field(out, |out| {
        let start = out.len();
        write(out);
        sanitize::begin_no_formula(start, out);
    });
}

/// Appends what `write` appends as one field: in quotes if it has a comma, a quote or a line end.
pub(super) fn field(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    if !out[start..].iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) {
        return;
    }
    out.insert(start, b'"');
    let mut at = start + 1;
    while let Some(next) = out[at..].iter().position(|&byte| byte == b'"') {
        out.insert(at + next, b'"');
        at += next + 2;
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use std::slice;

    use proptest::prelude::*;

    use super::*;
    use crate::event::tests::*;
    use crate::render::style::Format;
    use crate::render::tests::{lines, rendered};

    #[test]
    fn every_kind_of_event_is_written() {
        insta::assert_snapshot!(rendered(Format::Csv, None, &[new_out(), closed(), preexisting(), nasty(), open()]), @r#"
        event,time,time_ns,id,direction,family,protocol,state,old_state,src,sport,dst,dport,src_name,dst_name,pid,tid,uid,comm,thread,owner,holders,cgroup,container,container_name,container_user,pod,pod_namespace,unit,user_unit,netns,interface,interface_index,preexisting,attempt_ns,established_ns,handshake_ns,lifetime_ns,age_ns,at_least_ns,failed,reason,reset,error,attempt,bytes_sent,bytes_received,segments_sent,segments_received,retransmits,srtt_us,min_rtt_us,idle_ns,receive_queue,send_queue,half_open,dropped
        new,2026-01-02T03:04:06.000000000Z,1767323046000000000,41,out,ipv4,tcp,syn_sent,,192.0.2.7,43210,198.51.100.9,443,,,1234,1235,1000,curl,resolver,connect,,6789,,,,,,,,4026531840,,,false,1767323046000000000,,,,,,,,,,,,,,,,,,,,,,
        destroy,2026-01-02T03:05:07.000000042Z,1767323107000000042,41,out,ipv4,tcp,close,fin_wait2,192.0.2.7,43210,198.51.100.9,443,,,1234,1235,1000,curl,resolver,connect,,6789,,,,,,,,4026531840,,,false,1767323046000000000,1767323046001500000,1500000,61000000042,,,false,closed_by_us,,,,517,65536,49,51,2,1480,1390,2004000000,,,,
        destroy,2026-01-02T03:05:07.000000042Z,1767323107000000042,1024000000003,out,ipv4,tcp,close,close_wait,192.0.2.7,43210,198.51.100.9,443,,,,,,,,-,,,,,,,,,,4026531840,,,true,,,,,,61000000042,false,reset_by_peer,,,,517,65536,49,51,2,1480,1390,2004000000,,,,
        new,2026-01-02T03:04:06.000000000Z,1767323046000000000,41,out,ipv4,tcp,syn_sent,,192.0.2.7,43210,198.51.100.9,443,x\x20dst\x3d1\x0a\x1b\x5b2J,,1234,1235,1000,x\x0a\x5bNEW]\x20pid\x3d1\x1b\xff,"""\\\x20\xe2\x80\xae",connect,,6789,,,,,,,,4026531840,,,false,1767323046000000000,,,,,,,,,,,,,,,,,,,,,,
        open,2026-01-02T03:04:16.000000000Z,1767323056000000000,41,out,ipv4,tcp,established,,192.0.2.7,43210,198.51.100.9,443,laptop.example,web.example,1234,1235,1000,curl,resolver,connect,2,6789,0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef,app,1000,web-1,prod,docker-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef.scope,app.service,4026531840,,,false,1767323046000000000,1767323046001500000,1500000,,10000000000,,,,,,,517,65536,49,51,2,1480,1390,4000000,12,3456,,
        "#);
        let chosen =
            rendered(Format::Csv, Some("comm,local,lifetime,state"), &[nasty(), closed(), preexisting()]);
        insta::assert_snapshot!(chosen, @r"
        comm,local,lifetime,state
        x\x0a\x5bNEW]\x20pid\x3d1\x1b\xff,192.0.2.7:43210,,syn_sent
        curl,192.0.2.7:43210,61.000000042,close
        ,192.0.2.7:43210,>=61.000000042,close
        ");
    }

    /// Reads one line by the RFC's rules.
    fn read(line: &str) -> Vec<String> {
        let (mut cells, mut quoted) = (vec![String::new()], false);
        let mut chars = line.chars().peekable();
        while let Some(c) = chars.next() {
            let cell = cells.last_mut().unwrap();
            match c {
                '"' if quoted && chars.next_if_eq(&'"').is_some() => cell.push('"'),
                '"' => quoted = !quoted,
                ',' if !quoted => cells.push(String::new()),
                c => cell.push(c),
            }
        }
        assert!(!quoted);
        cells
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_of_as_many_cells(event in any_event()) {
            let text = lines(Format::Csv, slice::from_ref(&event));
            let line = text.strip_suffix('\n').unwrap();
            prop_assert!(line.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
            let cells = read(line);
            prop_assert_eq!(cells.len(), Column::native().count());
            let at = Column::native().position(|column| column.id == "comm").unwrap();
            let mut comm = Vec::new();
            if let Some(owner) = event.owner() {
                sanitize::word(owner.comm, &mut comm);
                sanitize::begin_no_formula(0, &mut comm);
            }
            prop_assert_eq!(cells[at].as_bytes(), comm);
            // The owner's source is a word of conntrace's: a minus stands for an unknown one.
            let is_formula = |cell: &String| cell.len() > 1 && cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
            prop_assert!(!cells.iter().any(is_formula), "{}", line);
        }
    }
}
