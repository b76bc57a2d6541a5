//! The list of Unix domain sockets: a table for people, CSV, or a JSON object a line.

use std::collections::HashMap;

use conn_common::owner::Owner;
use conn_common::state::CLOSE;

use super::json_writer::Object;
use super::number_table::{NumberColumn, NumberTable, NumberValue};
use super::style::Terminal;
use crate::event::process::until_zero;
use crate::event::state_name;
use crate::event::unix::UnixSocket;
use crate::render::sanitize;

/// The columns of CSV, and those of them that a table has.
const COLUMNS: [(&str, bool); 15] = [
    ("type", true),
    ("state", true),
    ("receive_queue", true),
    ("send_queue", true),
    ("path", true),
    ("abstract", false),
    ("inode", true),
    ("peer_inode", true),
    ("peer_path", true),
    ("id", false),
    ("netns", false),
    ("pid", true),
    ("comm", true),
    ("uid", false),
    ("holders", false),
];
/// The columns that a narrow terminal leaves out, in this order.
const DROPPABLE: [&str; 4] = ["send_queue", "receive_queue", "inode", "peer_inode"];
/// The columns whose values are cut then. A terminal that is still too narrow has no state.
const NAMES: [&str; 3] = ["peer_path", "path", "comm"];

/// The sockets with the addresses of their peers. `all` has the sockets that no filter let through, too.
#[derive(Debug)]
pub(crate) struct UnixList<'a> {
    sockets: &'a [UnixSocket],
    names: HashMap<u32, &'a [u8]>,
}

impl<'a> UnixList<'a> {
    pub(crate) fn new(sockets: &'a [UnixSocket], all: &'a [UnixSocket]) -> Self {
        Self { sockets, names: all.iter().map(|socket| (socket.inode, &socket.name[..])).collect() }
    }

    /// The address of the peer.
    fn peer_name(&self, socket: &UnixSocket) -> Option<&'a [u8]> {
        named(self.names.get(&socket.peer?)?)
    }

    fn table(&self) -> NumberTable {
        let columns = COLUMNS.map(|(name, in_text)| NumberColumn { name, in_text });
        let mut table = NumberTable::new(&columns);
        table.rows = self.sockets.iter().map(|socket| self.row(socket)).collect();
        table
    }

    fn row(&self, socket: &UnixSocket) -> Vec<NumberValue> {
        let text = |text: Option<String>| text.map_or(NumberValue::Unknown, NumberValue::Text);
        let number = |number: Option<u32>| number.map_or(NumberValue::Unknown, NumberValue::from);
        let (owner, holders) = (owner(socket), holders(socket));
        vec![
            text(socket.kind_name().map(Into::into)),
            text(state(socket).map(Into::into)),
            socket.receive_queue.into(),
            socket.send_queue.into(),
            text(named(&socket.name).map(path)),
            text(Some(is_abstract(socket).to_string())),
            socket.inode.into(),
            number(socket.peer),
            text(self.peer_name(socket).map(path)),
            socket.cookie.into(),
            socket.netns.into(),
            number(owner.map(|owner| owner.pid)),
            text(owner.map(|owner| sanitize::comm(&owner.comm))),
            number(owner.map(|owner| owner.uid)),
            number(holders),
        ]
    }

    /// Aligned text, as wide as the terminal.
    pub(crate) fn text(&self, has_header: bool, terminal: Terminal) -> String {
        let Terminal { width, .. } = terminal;
        let table = self.table().fitted(&DROPPABLE, width).cut(&NAMES, width, terminal.ellipsis());
        table.fitted(&["state"], width).text(has_header)
    }

    /// Comma-separated values.
    pub(crate) fn csv(&self, has_header: bool) -> String {
        self.table().csv(has_header)
    }

    /// One object a line.
    pub(crate) fn json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for socket in self.sockets {
            let (owner, holders) = (owner(socket), holders(socket));
            let mut object = Object::open(&mut out);
            object.word("protocol", "unix");
            object.optional("type", socket.kind_name(), Object::word);
            object.optional("state", state(socket), Object::word);
            object.integer("receive_queue", socket.receive_queue);
            object.integer("send_queue", socket.send_queue);
            address(&mut object, ["path", "path_hex"], named(&socket.name));
            object.boolean("abstract", is_abstract(socket));
            object.integer("inode", socket.inode);
            object.optional("peer_inode", socket.peer, Object::integer);
            address(&mut object, ["peer_path", "peer_path_hex"], self.peer_name(socket));
            object.integer("id", socket.cookie);
            object.integer("netns", socket.netns);
            object.optional("pid", owner.map(|owner| owner.pid), Object::integer);
            object.optional("comm", owner.map(|owner| until_zero(&owner.comm)), Object::name);
            object.optional("uid", owner.map(|owner| owner.uid), Object::integer);
            object.optional("holders", holders, Object::integer);
            object.close();
            out.push(b'\n');
        }
        out
    }
}

/// True if the address is an abstract one.
fn is_abstract(socket: &UnixSocket) -> bool {
    socket.name.first() == Some(&0)
}

/// An address; `None` for a socket without one.
fn named(name: &[u8]) -> Option<&[u8]> {
    Some(name).filter(|name| !name.is_empty())
}

/// An address as text: an abstract one begins with `@`, and other bytes than visible ASCII are escaped, as is an `@` at the
/// beginning of a path.
fn path(name: &[u8]) -> String {
    let (begin, rest) = match name {
        [0, rest @ ..] => ("@", rest),
        [b'@', rest @ ..] => ("\\x40", rest),
        path => ("", path),
    };
    if rest.is_empty() { begin.to_owned() } else { format!("{begin}{}", sanitize::text(rest)) }
}

/// Appends an address to an object, with the hexadecimal digits of one that is no text.
fn address(object: &mut Object<'_>, [key, hex_key]: [&str; 2], name: Option<&[u8]>) {
    let text = name.map(|name| match name {
        [0, rest @ ..] => [b"@", rest].concat(),
        path => path.to_vec(),
    });
    object.optional(key, text.as_deref(), Object::name);
    if let Some(text) = &text {
        object.hex(hex_key, text);
    }
}

/// The name of the state: a socket without a peer is unconnected, as in lists of UDP.
fn state(socket: &UnixSocket) -> Option<&'static str> {
    if socket.state == CLOSE { Some(state_name::UNCONNECTED) } else { state_name::name(socket.state) }
}

/// The process; `None` if none has the socket open.
fn owner(socket: &UnixSocket) -> Option<&Owner> {
    Some(&socket.owner).filter(|owner| owner.is_known())
}

/// How many processes have the socket open; `None` for none.
fn holders(socket: &UnixSocket) -> Option<u32> {
    Some(socket.owner.holders.into()).filter(|&holders| holders != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(inode: u32, peer: u32, name: &[u8]) -> UnixSocket {
        let mut comm = [0; 16];
        comm[..6].copy_from_slice(b"a\nb=c\x1b");
        let owner =
            Owner { pid: 7, source: conn_common::owner::FILES, uid: 33, holders: 2, comm, ..Owner::NONE };
        UnixSocket {
            cookie: 9,
            inode,
            peer: Some(peer).filter(|&peer| peer != 0),
            kind: 1,
            state: if peer == 0 { 7 } else { 1 },
            receive_queue: 5,
            send_queue: 0,
            name: name.to_vec(),
            uid: Some(1000),
            netns: 4_026_531_840,
            owner: if peer == 0 { Owner::NONE } else { owner },
        }
    }

    #[test]
    fn addresses_are_escaped() {
        for (name, text) in [
            (&b"/run/x.sock"[..], "/run/x.sock"),
            (b"\0x", "@x"),
            (b"\0", "@"),
            (b"@x", "\\x40x"),
            (b"\0a\0b", "@a\\x00b"),
            (b"/tmp/\x1b[2J\n[NEW]", "/tmp/\\x1b\\x5b2J\\x0a\\x5bNEW]"),
        ] {
            assert_eq!(path(name), text);
        }
    }

    #[test]
    fn every_format_has_the_sockets() {
        let all = [socket(1, 2, b""), socket(2, 1, b"\0x\0\xff\n"), socket(3, 0, b"/run/a b")];
        let list = UnixList::new(&all, &all);
        insta::assert_snapshot!(list.text(true, Terminal::NONE), @r"
        TYPE    STATE        RECV-Q  SEND-Q  PATH            INODE  PEER_INODE  PEER_PATH       PID  COMM
        stream  established       5       0  -                   1           2  @x\x00\xff\x0a    7  a\x0ab\x3dc\x1b
        stream  established       5       0  @x\x00\xff\x0a      2           1  -                 7  a\x0ab\x3dc\x1b
        stream  unconnected       5       0  /run/a\x20b         3           -  -                 -  -
        ");
        let narrow = |width| list.text(true, Terminal { width: Some(width), ..Terminal::NONE });
        insta::assert_snapshot!(narrow(70), @r"
        TYPE    STATE        PATH            PEER_PATH       PID  COMM
        stream  established  -               @x\x00\xff\x0a    7  a\x0ab\x3dc~
        stream  established  @x\x00\xff\x0a  -                 7  a\x0ab\x3dc~
        stream  unconnected  /run/a\x20b     -                 -  -
        ");
        insta::assert_snapshot!(narrow(45), @r"
        TYPE    PATH      PEER_PATH  PID  COMM
        stream  -         @x\x00\~     7  a\x0ab\~
        stream  @x\x00\~  -            7  a\x0ab\~
        stream  /run/a\~  -            -  -
        ");
        insta::assert_snapshot!(list.csv(true), @r"
        type,state,receive_queue,send_queue,path,abstract,inode,peer_inode,peer_path,id,netns,pid,comm,uid,holders
        stream,established,5,0,,false,1,2,\x40x\x00\xff\x0a,9,4026531840,7,a\x0ab\x3dc\x1b,33,2
        stream,established,5,0,\x40x\x00\xff\x0a,true,2,1,,9,4026531840,7,a\x0ab\x3dc\x1b,33,2
        stream,unconnected,5,0,/run/a\x20b,false,3,,,9,4026531840,,,,
        ");
        insta::assert_snapshot!(String::from_utf8(list.json()).unwrap(), @r#"
        {"protocol":"unix","type":"stream","state":"established","receive_queue":5,"send_queue":0,"path":null,"abstract":false,"inode":1,"peer_inode":2,"peer_path":"@x\u0000�\n","peer_path_hex":"407800ff0a","id":9,"netns":4026531840,"pid":7,"comm":"a\nb=c\u001b","uid":33,"holders":2}
        {"protocol":"unix","type":"stream","state":"established","receive_queue":5,"send_queue":0,"path":"@x\u0000�\n","path_hex":"407800ff0a","abstract":true,"inode":2,"peer_inode":1,"peer_path":null,"id":9,"netns":4026531840,"pid":7,"comm":"a\nb=c\u001b","uid":33,"holders":2}
        {"protocol":"unix","type":"stream","state":"unconnected","receive_queue":5,"send_queue":0,"path":"/run/a b","abstract":false,"inode":3,"peer_inode":null,"peer_path":null,"id":9,"netns":4026531840,"pid":null,"comm":null,"uid":null,"holders":null}
        "#);
    }
}
