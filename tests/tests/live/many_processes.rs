//! Owners of as many short connections as the machine can make, between several processes on each side.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    kernel::settled,
    needs_whole_machine,
    netns::NetNs,
    port::Port,
    tracer::Setup,
    traffic::{
        Server,
        crew::{CallReport, Owner, Worker, set_long_timeout},
        socket::connect,
    },
};
use macro_rules_attribute::apply;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Deserialize;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process,
    time::Instant,
};

/// Processes on each side.
const SIDE: u8 = 3;
/// Connections of each calling process.
const CALLS: usize = 10_000;
/// How many a caller keeps open: the acceptors find several waiting, and need not sleep between them.
const AT_ONCE: usize = 50;

/// How many connections are open before the tracer comes. Where few other files are open, not all of their sockets find
/// places in its tables.
const BEFORE: u16 = 9_000;

/// What is compared of an end.
#[derive(Deserialize)]
struct End {
    preexisting: bool,
    direction: String,
    dst: Ipv4Addr,
    sport: u16,
    pid: Option<u32>,
    owner: String,
    comm: Option<String>,
}

/// A file of events that goes with the test.
struct Events(PathBuf);

impl Drop for Events {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Owners of the connections of an address and a client's port, which may be used more than once.
type Owners = BTreeMap<(Ipv4Addr, u16), Vec<u32>>;

/// Accepts, announces itself and closes, until it is killed.
fn answer(server: &Server) {
    let me = Owner::current();
    loop {
        let (accepted, _) = server.socket.accept().expect("a caller");
        me.announce(&accepted).expect("the caller waits");
    }
}

/// Calls in batches, by as few system calls as that takes, and collects the acceptors.
fn call_many(server: SocketAddrV4) -> Vec<CallReport> {
    let me = Owner::current();
    let address = SockAddr::from(server);
    let mut reports = Vec::with_capacity(CALLS);
    while reports.len() < CALLS {
        let sockets: Vec<Socket> = (0..AT_ONCE)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
                socket.connect(&address).expect("connect");
                socket
            })
            .collect();
        reports.extend(sockets.iter().map(|socket| CallReport {
            server: server.ip().octets(),
            client: socket.local_addr().unwrap().as_socket().unwrap().port(),
            caller: me,
            acceptor: Owner::of_acceptor(socket),
        }));
    }
    reports
}

#[apply(needs_whole_machine)]
fn each_process_owns_its_connections(_: &Host) -> Outcome {
    crowd(&NetNs::new().unwrap(), "quiet", 0);
    Ok(())
}

/// Packets interrupt the hooks. A step that no hook saw may lose an owner, but never yield a wrong one.
#[apply(needs_whole_machine)]
fn interrupts_on_all_cpus_lose_no_owner(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    ns.spread().map_err(|error| Skip(format!("cannot spread packets over the CPUs: {error}")))?;
    crowd(&ns, "interrupted", usize::from(SIDE) * CALLS / 1_000);
    Ok(())
}

/// A process has both ends of many connections open, which all end beside the tracer.
#[apply(needs_whole_machine)]
fn earlier_connections_have_their_owners(_: &Host) -> Outcome {
    let files = u64::from(BEFORE) * 2 + 100;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if most < files {
        return Err(Skip(format!("a process may open no more than {most} files")));
    }
    let port = Port::claim();
    let address = port.v4();
    let ns = NetNs::new().unwrap();
    let holder = ns.run(|| {
        Worker::start("conn-holds", &[], |line| {
            setrlimit(Resource::RLIMIT_NOFILE, files, most).expect("it is no more than is allowed");
            let server = Server::listen(address);
            let open: Vec<_> = (0..BEFORE).map(|_| (connect(address), server.accept())).collect();
            line.ready();
            line.wait();
            drop(open);
            line.ready();
            line.wait();
        })
    });
    holder.await_ready();
    let events = Events(env::temp_dir().join(format!("conn-tests-{}-before.events", process::id())));
    let arguments = ["-e", "DESTROY", "-o", "json", "-b", "64M", "--dport", &port.to_string()];
    let tracer = Setup::new(arguments).stdout_to(&events.0).start();
    holder.resume();
    holder.await_ready();
    ns.run(|| await_ends(&port));
    let ended = tracer.stop();
    assert!(ended.expect_balance().contains("lost 0: holds"), "{}", ended.stderr);

    let mut ends = BTreeMap::<String, u16>::new();
    for line in BufReader::new(fs::File::open(&events.0).unwrap()).lines() {
        let line = line.unwrap();
        let end: End = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let owner = (end.owner.as_str(), end.pid, end.comm.as_deref());
        assert_eq!(owner, ("files", Some(holder.pid()), Some("conn-holds")), "{line}");
        assert!(end.preexisting, "{line}");
        *ends.entry(end.direction).or_default() += 1;
    }
    assert_eq!(ends, ["in", "out"].map(|side| (side.to_owned(), BEFORE)).into());
    holder.resume();
    holder.join();
    Ok(())
}

/// Waits until no connection of this port is open: the last packets may come after the last `close()`.
fn await_ends(port: &Port) {
    let open = settled(&[port.number()]);
    assert!(open.is_empty(), "{open:?}");
}

/// Every end has the right owner, except for so many without an owner or without an event.
fn crowd(ns: &NetNs, what: &str, may_miss: usize) {
    // The side that closes first leaves a mini-socket. A machine with little memory has room for some thousands; without one the
    // peer is reset.
    ns.sysctl("net.ipv4.tcp_max_tw_buckets", "262144").unwrap();
    let port = Port::claim();
    let events = Events(env::temp_dir().join(format!("conn-tests-{}-crowd.events", process::id())));
    let arguments = ["-v", "-e", "DESTROY", "-o", "json", "-b", "128M", "--dport", &port.to_string()];
    let tracer = Setup::new(arguments).stdout_to(&events.0).start();
    let (reports, speed) = ns.run(|| {
        let server = Server::listen_with(port.at([0, 0, 0, 0]), 4096, set_long_timeout);
        let acceptors: Vec<Worker> = (0..SIDE)
            .map(|number| {
                Worker::start(&format!("conn-in-{number}"), &[server.socket.as_raw_fd()], |_| answer(&server))
            })
            .collect();
        let callers: Vec<Worker> = (0..SIDE)
            .map(|number| {
                // An address of its own for each, so that no two use the same port at the same time.
                let address = SocketAddrV4::new(Ipv4Addr::new(127, 0, 1, number), port.number());
                Worker::start(&format!("conn-out-{number}"), &[], |line| {
                    line.ready();
                    line.wait();
                    let reports = call_many(address);
                    line.ready();
                    line.report(&reports);
                })
            })
            .collect();
        callers.iter().for_each(Worker::await_ready);
        let start = Instant::now();
        callers.iter().for_each(Worker::resume);
        callers.iter().for_each(Worker::await_ready);
        let took = start.elapsed().as_secs_f64();
        let reports: Vec<CallReport> = callers.into_iter().flat_map(Worker::join).collect();
        drop(acceptors);
        await_ends(&port);
        let speed = reports.len() as f64 / took;
        (reports, speed)
    });
    assert_eq!(reports.len(), usize::from(SIDE) * CALLS);
    let ended = tracer.stop();
    assert!(ended.expect_balance().contains("lost 0: holds"), "{}", ended.stderr);

    let (mut callers, mut acceptors) = (Owners::new(), Owners::new());
    for report in &reports {
        let key = (Ipv4Addr::from(report.server), report.client);
        callers.entry(key).or_default().push(report.caller.pid);
        acceptors.entry(key).or_default().push(report.acceptor.pid);
    }
    let mut provisional = 0;
    for line in BufReader::new(fs::File::open(&events.0).unwrap()).lines() {
        let line = line.unwrap();
        let end: End = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let (owners, source, name) = match end.direction.as_str() {
            "out" => (&mut callers, "connect", "conn-out-"),
            _ => (&mut acceptors, "accept", "conn-in-"),
        };
        if end.owner != source {
            provisional += 1;
            // No process of this test is both.
            assert!(end.owner == "listener" && end.pid == Some(process::id()), "{line}");
            continue;
        }
        assert!(end.comm.is_some_and(|comm| comm.starts_with(name)), "{line}");
        // Each end takes its owner from the reports of the processes.
        let pids = owners.get_mut(&(end.dst, end.sport)).unwrap_or_else(|| panic!("no owner: {line}"));
        let at = pids.iter().position(|pid| Some(*pid) == end.pid);
        pids.swap_remove(at.unwrap_or_else(|| panic!("it was one of {pids:?}: {line}")));
    }
    let left = |owners: &Owners| owners.values().map(Vec::len).sum::<usize>();
    let missed = left(&callers) + left(&acceptors);
    println!(
        "crowd: {what}, {} connections, {speed:.0} per second, no owner wrong, {missed} ends without theirs, \
         {provisional} of these known by their listener",
        reports.len()
    );
    callers.retain(|_, pids| !pids.is_empty());
    acceptors.retain(|_, pids| !pids.is_empty());
    assert!(
        missed <= may_miss,
        "{missed} ends without their owners: of callers {callers:?}, of acceptors {acceptors:?}\n{}",
        ended.stderr
    );
}
