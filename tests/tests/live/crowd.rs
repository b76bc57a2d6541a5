//! Owners of as many short connections as the machine can make, between several processes on each side.

use conn_tests::{
    harness::{Live, Outcome},
    host::{Host, Need},
    live,
    netns::NetNs,
    port::Port,
    tracer::Setup,
    traffic::{
        Server,
        crew::{Told, Who, Worker, be_patient, called},
        socket::connect,
    },
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    os::fd::AsRawFd as _,
    path::PathBuf,
    process,
    time::Instant,
};

pub(crate) const TESTS: &[Live] = live!(alone Need::Tracing; crowd:
    each_of_many_has_its_owners,
);

/// Processes on each side.
const SIDE: u8 = 3;
/// Connections of each calling process.
const CALLS: usize = 10_000;
/// How many a caller keeps open: the acceptors find several waiting, and need not sleep between them.
const AT_ONCE: usize = 50;

/// What is compared of an end.
#[derive(Deserialize)]
struct End {
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

/// Owners of the connections of an address and a client's port, which may have been used more than once.
type Owners = BTreeMap<(Ipv4Addr, u16), Vec<u32>>;

fn note(owners: &mut Owners, key: (Ipv4Addr, u16), pid: u32) {
    owners.entry(key).or_default().push(pid);
}

/// Accepts, says who it is and closes, until it is killed.
fn answer(server: &Server) {
    let me = Who::am_i();
    loop {
        let (accepted, _) = server.socket.accept().expect("a caller");
        me.introduce(&accepted).expect("the caller waits");
    }
}

/// Calls in batches, and remembers who answered.
fn call_many(server: SocketAddr) -> Vec<Told> {
    let mut told = Vec::with_capacity(CALLS);
    while told.len() < CALLS {
        let sockets: Vec<_> = (0..AT_ONCE).map(|_| connect(server)).collect();
        let calls: Vec<_> = sockets.into_iter().map(called).collect();
        told.extend(calls.iter().map(Told::of));
    }
    told
}

fn each_of_many_has_its_owners(_: &Host) -> Outcome {
    let port = Port::take();
    let events = Events(env::temp_dir().join(format!("conn-tests-{}-crowd.events", process::id())));
    let arguments = ["-e", "DESTROY", "-o", "json", "-b", "128M", "--dport", &port.to_string()];
    let tracer = Setup::new(arguments).stdout_to(&events.0).start();
    let (told, speed) = NetNs::new().unwrap().run(|| {
        let server = Server::listen_with(port.at([0, 0, 0, 0]), 4096, be_patient);
        let acceptors: Vec<Worker> = (0..SIDE)
            .map(|number| {
                Worker::start(&format!("conn-in-{number}"), &[server.socket.as_raw_fd()], |_| answer(&server))
            })
            .collect();
        let callers: Vec<Worker> = (0..SIDE)
            .map(|number| {
                // An address of its own for each, so that no two use the same port at the same time.
                let address = port.at([127, 0, 1, number]);
                Worker::start(&format!("conn-out-{number}"), &[], |line| {
                    line.ready();
                    line.wait();
                    let told = call_many(address);
                    line.ready();
                    line.tell(&told);
                })
            })
            .collect();
        callers.iter().for_each(Worker::await_ready);
        let start = Instant::now();
        callers.iter().for_each(Worker::go_on);
        callers.iter().for_each(Worker::await_ready);
        let took = start.elapsed().as_secs_f64();
        let told: Vec<Told> = callers.into_iter().flat_map(Worker::join).collect();
        drop(acceptors);
        let speed = told.len() as f64 / took;
        (told, speed)
    });
    assert_eq!(told.len(), usize::from(SIDE) * CALLS);
    let ended = tracer.stop();
    assert!(ended.expect_code(0).contains("lost 0: holds"), "{ended:#?}");

    let (mut callers, mut acceptors) = (Owners::new(), Owners::new());
    for told in &told {
        let key = (Ipv4Addr::from(told.server), told.client);
        note(&mut callers, key, told.caller.pid);
        note(&mut acceptors, key, told.acceptor.pid);
    }
    let (mut out, mut inn) = (Owners::new(), Owners::new());
    for line in BufReader::new(fs::File::open(&events.0).unwrap()).lines() {
        let line = line.unwrap();
        let end: End = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let (owners, source, name) = match end.direction.as_str() {
            "out" => (&mut out, "connect", "conn-out-"),
            _ => (&mut inn, "accept", "conn-in-"),
        };
        assert_eq!(end.owner, source, "{line}");
        assert!(end.comm.is_some_and(|comm| comm.starts_with(name)), "{line}");
        note(owners, (end.dst, end.sport), end.pid.expect("a process"));
    }
    for owners in [&mut callers, &mut acceptors, &mut out, &mut inn] {
        for pids in owners.values_mut() {
            pids.sort_unstable();
        }
    }
    let wrong = |truth: &Owners, shown: &Owners| {
        let keys = truth.keys().chain(shown.keys());
        keys.filter(|key| truth.get(key) != shown.get(key)).take(5).copied().collect::<Vec<_>>()
    };
    assert_eq!(wrong(&callers, &out), [], "callers");
    assert_eq!(wrong(&acceptors, &inn), [], "acceptors");
    println!("crowd: {} connections with both owners, {speed:.0} per second, none wrong", told.len());
    Ok(())
}
