//! What users outside of the daemon's group see with `access = "everyone"`: all connections, and the processes of their own.

use conn_tests::{
    daemon::{self, Answer, Daemon, as_user},
    harness::Outcome,
    host::Host,
    needs_tracing,
    port::Port,
    traffic::crew::Worker,
};
use macro_rules_attribute::apply;
use nix::unistd::setresuid;
use serde_json::Value;
use std::{
    env, fs,
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::{linux::net::SocketAddrExt as _, unix::net},
    path::PathBuf,
    process,
};

/// A user without a name, in no group.
const STRANGER: u32 = 54_321;
/// The fields of a process. Of others, a stranger gets none of them.
const OF_OWNERS: [&str; 17] = [
    "pid",
    "tid",
    "uid",
    "comm",
    "thread",
    "holders",
    "cgroup",
    "container",
    "container_name",
    "container_user",
    "pod",
    "pod_namespace",
    "unit",
    "user_unit",
    "processes",
    "cmdline",
    "slice",
];

/// A daemon that everybody may ask, with the configuration that says so.
struct Open {
    daemon: Daemon,
    config: PathBuf,
}

impl Open {
    fn start() -> Self {
        let config = env::temp_dir().join(format!("conn-access-{}.toml", process::id()));
        fs::write(&config, "access = \"everyone\"\n").unwrap();
        Self { daemon: Daemon::with(&["--transient", "--config", config.to_str().unwrap()]), config }
    }

    /// What a stranger gets.
    fn get(&self, target: &str) -> Answer {
        let (socket, target) = (self.daemon.socket(), target.to_owned());
        as_user(STRANGER, STRANGER, move || daemon::get(&socket, &target).unwrap())
    }

    /// The records that a stranger gets.
    fn records(&self, target: &str) -> Vec<Value> {
        let answer = self.get(target);
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.config);
    }
}

/// A process of this user that has a connection and a Unix socket, and makes another connection when it is resumed.
fn worker(uid: u32, server: SocketAddr) -> Worker {
    let name = format!("conn-of-{uid}");
    Worker::start(&name, &[], |line| {
        setresuid(uid.into(), uid.into(), uid.into()).unwrap();
        let _connection = TcpStream::connect(server).unwrap();
        let address = net::SocketAddr::from_abstract_name(format!("conn-access-{uid}-{}", process::id()));
        let _listener = net::UnixListener::bind_addr(&address.unwrap()).unwrap();
        line.ready();
        line.wait();
        let mut short = TcpStream::connect(server).unwrap();
        short.write_all(b"x").unwrap();
        short.shutdown(Shutdown::Write).unwrap();
        assert_eq!(short.read(&mut [0]).unwrap(), 0);
        drop(short);
        line.ready();
        line.wait();
    })
}

/// The fields of a process that a record has.
fn owner_fields(record: &Value) -> Vec<(&str, &Value)> {
    let known = OF_OWNERS.iter().map(|&field| (field, &record[field]));
    let word = ("owner", &record["owner"]);
    known.chain([word]).filter(|(_, value)| !value.is_null() && **value != "-").collect()
}

/// Of two records, the one with the stranger's process names it, and the other names none.
fn check_pair(records: &[Value], own: u32) {
    assert_eq!(records.len(), 2, "{records:?}");
    let (mine, others): (Vec<&Value>, Vec<&Value>) = records.iter().partition(|record| record["pid"] == own);
    assert_eq!((mine.len(), others.len()), (1, 1), "{records:?}");
    assert_eq!(
        (&mine[0]["uid"], &mine[0]["comm"]),
        (&STRANGER.into(), &format!("conn-of-{STRANGER}").into())
    );
    assert_eq!(owner_fields(others[0]), [], "{records:?}");
}

#[apply(needs_tracing)]
fn strangers_see_processes_of_their_own_only(_: &Host) -> Outcome {
    let open = Open::start();
    let port = Port::claim();
    let listener = TcpListener::bind(port.v4()).unwrap();
    let (mine, others) = (worker(STRANGER, port.v4()), worker(0, port.v4()));
    let _held: Vec<_> = (0..2).map(|_| listener.accept().unwrap()).collect();
    mine.await_ready();
    others.await_ready();
    let of_port = format!("dport={}&direction=out", port.v4().port());
    let columns = format!("columns=all,{}", ["processes", "cmdline", "slice", "user_slice"].join(","));

    // Every format has all connections, and one process.
    let listed = open.records(&format!("/v1/list?{of_port}&{columns}"));
    check_pair(&listed, mine.pid());
    assert_eq!(open.daemon.json(&format!("/v1/count?{of_port}"))["open"], 2);
    for output in ["csv", "json-otel", "extended"] {
        let text = open.get(&format!("/v1/list?{of_port}&output={output}"));
        assert_eq!(text.status, 200, "{text:?}");
        assert!(!text.body.contains("conn-of-0"), "{text:?}");
    }
    let with_owners = open.get(&format!("/v1/list?{of_port}&columns=sport,pid,comm&output=table")).body;
    assert!(with_owners.contains(&format!("conn-of-{STRANGER}")), "{with_owners}");
    // The group sees both.
    let all = open.daemon.get(&format!("/v1/list?{of_port}")).body;
    assert!(all.contains("conn-of-0") && all.contains(&format!("conn-of-{STRANGER}")), "{all}");

    // No filter tells anything of the other process.
    let count = |query: &str| open.records(&format!("/v1/count?{of_port}&{query}"))[0]["open"].as_u64();
    assert_eq!(count(""), Some(2));
    assert_eq!(count(&format!("comm=conn-of-{STRANGER}")), Some(1));
    for query in [
        "comm=conn-of-0".to_owned(),
        format!("pid={}", others.pid()),
        "uid=0".to_owned(),
        "uid=-".to_owned(),
        "filter=fwmark+%3D+0".to_owned(),
        "container=*".to_owned(),
        "cgroup=/".to_owned(),
        format!("filter=comm+%3D+conn-of-0+or+uid+!%3D+{STRANGER}"),
        format!("filter=not+pid+%3D+{}", mine.pid()),
        format!("filter=not+comm+%3D+conn-of-{STRANGER}"),
    ] {
        let expected = if query.contains("fwmark") || query == "cgroup=/" { 0..=1 } else { 0..=0 };
        assert!(expected.contains(&count(&query).unwrap()), "{query}: {:?}", count(&query));
    }
    let groups = open.records(&format!("/v1/count?{of_port}&by=comm"));
    assert!(groups.iter().all(|group| !group.to_string().contains("conn-of-0")), "{groups:?}");
    for (query, parameter) in
        [("forwarded".to_owned(), "forwarded"), (format!("netns={}", others.pid()), "netns")]
    {
        let refused = open.get(&format!("/v1/list?{query}"));
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.body.contains(&format!("\"parameter\":\"{parameter}\"")), "{refused:?}");
    }

    // Unix domain sockets.
    let unix = open.get("/v1/list?protocol=unix&listening").body;
    let of_worker = |uid: u32, pid: u32| {
        let name = format!("conn-access-{uid}-{pid}");
        let line = unix.lines().find(|line| line.contains(&name)).unwrap_or_else(|| panic!("{name}: {unix}"));
        serde_json::from_str::<Value>(line).unwrap()
    };
    assert_eq!(of_worker(STRANGER, mine.pid())["pid"], mine.pid());
    assert_eq!(owner_fields(&of_worker(0, others.pid())), []);

    // Streams.
    let stream = |target: String| {
        let socket = open.daemon.socket();
        as_user(STRANGER, STRANGER, move || {
            daemon::Stream::of(net::UnixStream::connect(socket).unwrap(), &target).unwrap()
        })
    };
    let mut events = stream(format!("/v1/events?{of_port}&event-mask=destroy&{columns}"));
    let mut ends = stream(format!("/v1/lifetimes?{of_port}&columns=all"));
    let mut hidden = stream(format!("/v1/events?{of_port}&event-mask=new&uid=0,{STRANGER}"));
    assert_eq!([events.status, ends.status, hidden.status], [200; 3]);
    mine.resume();
    others.resume();
    for _ in 0..2 {
        let (mut accepted, _) = listener.accept().unwrap();
        accepted.read_exact(&mut [0]).unwrap();
        drop(accepted);
    }
    mine.await_ready();
    others.await_ready();
    for stream in [&mut events, &mut ends] {
        let records: Vec<Value> =
            stream.lines(2).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        check_pair(&records, mine.pid());
    }
    let new: Value = serde_json::from_str(&hidden.lines(1)[0]).unwrap();
    assert_eq!(new["pid"], mine.pid());
    drop((events, ends, hidden));
    assert_eq!(open.get("/v1/stats?total").status, 200);
    mine.resume();
    others.resume();
    Ok(())
}
