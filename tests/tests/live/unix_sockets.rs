//! `conntrace list -p unix` beside `ss`.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_tracing, needs_whole_machine,
    netns::NetNs,
    tracer::Setup,
};
use macro_rules_attribute::apply;
use nix::unistd::mkdtemp;
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram, UnixListener, UnixStream},
        },
    },
    path::PathBuf,
    process::Command,
};

/// `(type, state, receive queue, send queue, address, inode number, that of the peer)`.
type Sockets = BTreeSet<(String, String, u64, u64, String, u64, u64)>;

/// How many sockets [`every_kind`] opens.
const SOCKETS: usize = 13;

/// A directory of this test, which is removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        Self(mkdtemp(&std::env::temp_dir().join("conntrace-unix-XXXXXX")).unwrap())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Sockets of every type and state, with paths, abstract names and hostile names, some with unread data.
fn every_kind(directory: &Directory) -> (NetNs, Vec<Box<dyn Send>>) {
    let ns = NetNs::new().unwrap();
    let at = |name: &str| directory.0.join(name);
    let sockets = ns.run(|| {
        let mut sockets: Vec<Box<dyn Send>> = Vec::new();
        let listener = UnixListener::bind(at("listener")).unwrap();
        let waiting = UnixStream::connect(at("listener")).unwrap();
        let abstract_name = SocketAddr::from_abstract_name(b"conntrace\0test").unwrap();
        let heard = UnixListener::bind_addr(&abstract_name).unwrap();
        let client = UnixStream::connect_addr(&abstract_name).unwrap();
        let (server, _) = heard.accept().unwrap();
        std::io::Write::write_all(&mut &client, &[7; 321]).unwrap();
        let (one, other) = UnixDatagram::pair().unwrap();
        one.send(&[7; 11]).unwrap();
        let bound = UnixDatagram::bind(at("x\n[NEW] pid=1")).unwrap();
        let no_text = UnixDatagram::bind(at("").join(OsStr::from_bytes(b"raw\xff"))).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(at("x\n[NEW] pid=1")).unwrap();
        let seqpacket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        seqpacket.bind(&SockAddr::unix(at("seqpacket")).unwrap()).unwrap();
        seqpacket.listen(5).unwrap();
        let pair = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        sockets.push(Box::new((listener, waiting, heard, client, server)));
        sockets.push(Box::new((one, other, bound, no_text, sender, seqpacket, pair)));
        sockets
    });
    (ns, sockets)
}

/// What `ss` shows in the namespace.
fn of_ss(ns: &NetNs) -> Result<Sockets, Skip> {
    let output = ns
        .run(|| Command::new("ss").args(["-xaHO"]).output())
        .map_err(|error| Skip(format!("cannot run ss: {error}")))?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A path may hold a line break, and ss prints it as it is.
    let text = String::from_utf8_lossy(&output.stdout).replace("x\n[NEW] pid=1", "hostile");
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [kind, state, receive, send, path, inode, _, peer, ..] = words[..] else { panic!("{line}") };
        let state = match state {
            "ESTAB" => "established",
            "UNCONN" => "unconnected",
            "LISTEN" => "listen",
            other => panic!("{other}: {line}"),
        };
        let kind = match kind {
            "u_str" => "stream",
            "u_dgr" => "dgram",
            "u_seq" => "seqpacket",
            other => panic!("{other}: {line}"),
        };
        let number = |word: &str| word.parse().unwrap();
        let path = if path == "*" { String::new() } else { path.to_owned() };
        (kind.into(), state.into(), number(receive), number(send), path, number(inode), number(peer))
    };
    Ok(text.lines().map(row).collect())
}

/// Runs `conntrace list -p unix` for the namespace.
fn rows(ns: &NetNs, args: &[&str]) -> Vec<Value> {
    let netns = ns.inum().to_string();
    let ended = Setup::new(["list", "-p", "unix", "-o", "json", "--netns", &netns].iter().chain(args)).run();
    ended.expect_code(0);
    ended.stdout.iter().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// A row as ss has it.
fn socket(row: &Value) -> (String, String, u64, u64, String, u64, u64) {
    let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let number = |key: &str| row[key].as_u64().unwrap_or(0);
    // ss prints a zero byte as @.
    let path = text("path").replace('\0', "@").replace("x\n[NEW] pid=1", "hostile");
    let queues = (number("receive_queue"), number("send_queue"));
    (text("type"), text("state"), queues.0, queues.1, path, number("inode"), number("peer_inode"))
}

#[apply(needs_tracing)]
fn sockets_equal_those_of_ss(_: &Host) -> Outcome {
    let directory = Directory::new();
    let (ns, _sockets) = every_kind(&directory);
    let expected = of_ss(&ns)?;
    let all: Sockets = rows(&ns, &["--state", "all"]).iter().map(socket).collect();
    let differ: Vec<_> = all.symmetric_difference(&expected).collect();
    assert!(differ.is_empty() && expected.len() >= SOCKETS, "only in one of both: {differ:#?}");
    // Without --state, each socket is in one of the two lists.
    let both: Sockets = [rows(&ns, &["-l"]), rows(&ns, &[])].concat().iter().map(socket).collect();
    assert_eq!(both, expected);
    Ok(())
}

/// Alone, since a process that another test forks has the sockets of this one, too, for a moment.
#[apply(needs_whole_machine)]
fn peers_and_processes_are_named(_: &Host) -> Outcome {
    let directory = Directory::new();
    let (ns, _sockets) = every_kind(&directory);
    let pid = std::process::id().to_string();
    let listed = rows(&ns, &["--state", "all", "--pid", &pid]);
    // No process has the server's end of the connection that waits for accept.
    assert_eq!(listed.len(), SOCKETS, "{listed:#?}");
    assert!(listed.iter().all(|row| row["pid"] == std::process::id() && row["holders"] == 1), "{listed:#?}");
    let hostile =
        listed.iter().find(|row| row["peer_path"].as_str().is_some_and(|path| path.contains("[NEW]")));
    assert_eq!(hostile.expect("the sender")["type"], "dgram");
    let no_text = listed.iter().find_map(|row| row["path_hex"].as_str());
    assert!(no_text.is_some_and(|hex| hex.ends_with("2f726177ff")), "{listed:#?}");
    // A table has one line for each socket, whatever its name is.
    let netns = ns.inum().to_string();
    let ended = Setup::new(["list", "-p", "unix", "--state", "all", "--netns", &netns, "--pid", &pid]).run();
    ended.expect_code(0);
    assert_eq!(ended.stdout.len(), 1 + SOCKETS, "{:#?}", ended.stdout);
    Ok(())
}

#[apply(needs_tracing)]
fn hidden_namespaces_are_reported(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let _pair = ns.run(|| UnixStream::pair().unwrap());
    let netns = ns.inum();
    // Only the sockets keep the namespace from here on.
    drop(ns);
    let ended = Setup::new(["list", "-p", "unix", "--state", "all"]).run();
    let warning = format!(
        "conntrace cannot enter network namespace {netns} (no process and no file leads there): sockets there are missing"
    );
    assert!(ended.expect_code(0).contains(&warning), "{}", ended.stderr);
    Ok(())
}
