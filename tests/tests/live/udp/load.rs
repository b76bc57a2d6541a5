//! Many exchanges as fast as all processors can: nothing is missing from the counts, nor from what was lost.

use super::{bind, life::set_idle_times, watch};
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    needs_whole_machine,
    netns::NetNs,
    tracer::Tracer,
};
use macro_rules_attribute::apply;
use std::{
    cell::Cell,
    collections::BTreeSet,
    env,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// The environment variable with the number of exchanges.
const EXCHANGES: &str = "CONNTRACE_TEST_EXCHANGES";
/// Pairs of a client and a server.
const PAIRS: usize = 2;
const QUERY: &[u8] = &[1; 40];
const ANSWER: &[u8] = &[2; 100];

/// Exchanges of each pair.
fn exchanges() -> usize {
    env::var(EXCHANGES).map_or(50_000, |text| text.parse().expect("a number")) / PAIRS
}

/// What the generator did.
struct Made {
    /// Exchanges, each through a socket of its own.
    exchanges: u64,
    /// Flows that came in: the ports of clients that each server saw. A port that is used again within the idle time goes on
    /// with its flow.
    came_in: u64,
    /// Still open.
    servers: Vec<UdpSocket>,
}

/// How long a flow lives without packets where no sysctl sets it: where nothing tracks connections.
const IDLE: Duration = Duration::from_secs(30);

/// A tracer with this much room for events, and room for all flows of half a million exchanges, in which no flow ends by idle
/// time, however slow this machine is; and the exchanges beside it.
fn watch_exchanges(netns: &NetNs, room: &str) -> Result<(Tracer, Made), Skip> {
    let idle_time = set_idle_times(netns, 3_600, 3_600);
    let tracer = netns.run(|| watch(netns, &["-e", "NEW,DESTROY", "-b", room, "--max-flows", "512K"]));
    let began = Instant::now();
    let made = generate(netns);
    // A port that is used again after the idle time begins another flow.
    idle_time.or_else(|unset| if began.elapsed() < IDLE { Ok(()) } else { Err(unset) })?;
    Ok((tracer, made))
}

/// A socket for each query, as a resolver has it. Each thread is both sides of its exchanges.
fn generate(netns: &NetNs) -> Made {
    let count = exchanges();
    let servers: Vec<UdpSocket> = (0..PAIRS).map(|_| bind(netns, (Ipv4Addr::LOCALHOST, 0))).collect();
    let exchange_all = |server: &UdpSocket| {
        let address = server.local_addr().unwrap();
        let mut seen = BTreeSet::<SocketAddr>::new();
        let mut buffer = [0; 128];
        for _ in 0..count {
            let client = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            client.connect(address).unwrap();
            client.send(QUERY).unwrap();
            let (length, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(length, QUERY.len());
            seen.insert(from);
            server.send_to(ANSWER, from).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), ANSWER.len());
        }
        seen.len() as u64
    };
    let came_in = thread::scope(|scope| {
        let threads: Vec<_> =
            servers.iter().map(|server| scope.spawn(move || netns.run(|| exchange_all(server)))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
    });
    Made { exchanges: (PAIRS * count) as u64, came_in, servers }
}

/// The value of a key of a line, as a number.
fn value(line: &str, key: &str) -> u64 {
    let text = line.split_once(key).unwrap_or_else(|| panic!("no {key}: {line}")).1;
    text.split(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("{key}: {line}"))
}

/// Flows of one direction, summed up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    begun: u64,
    ended: u64,
    packets: [u64; 2],
    bytes: [u64; 2],
}

impl Sum {
    fn add(&mut self, line: &str) {
        if line.starts_with("[DESTROY]") {
            self.ended += 1;
            for (at, way) in ["sent", "received"].into_iter().enumerate() {
                self.packets[at] += value(line, &format!(" packets_{way}="));
                self.bytes[at] += value(line, &format!(" bytes_{way}="));
            }
        } else {
            self.begun += 1;
        }
    }
}

#[apply(needs_whole_machine)]
fn every_exchange_is_counted(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    // Room for all events.
    let room = (exchanges() * PAIRS * 4 * 208).next_power_of_two();
    let (tracer, Made { exchanges, came_in, servers }) = watch_exchanges(&netns, &room.to_string())?;
    drop(servers);
    let sums = Cell::new([Sum::default(); 2]);
    let all = |ended: &[Sum; 2]| ended.iter().map(|sum| sum.ended).sum::<u64>() == exchanges + came_in;
    let found = tracer.find_stdout(|line| {
        let mut now = sums.get();
        now[usize::from(line.contains(" dir=in "))].add(line);
        sums.set(now);
        all(&now)
    });
    let [out, came] = sums.get();
    let (query, answer) = (exchanges * QUERY.len() as u64, exchanges * ANSWER.len() as u64);
    let packets = [exchanges; 2];
    assert_eq!(out, Sum { begun: exchanges, ended: exchanges, packets, bytes: [query, answer] }, "{found:?}");
    assert_eq!(came, Sum { begun: came_in, ended: came_in, packets, bytes: [answer, query] }, "{found:?}");
    let ended = tracer.stop();
    let accounting = ended.expect_balance();
    let shown = 2 * (exchanges + came_in);
    let expected = format!("conntrace: produced {shown} = shown {shown} + filtered 0 + lost 0: holds\n");
    assert!(accounting.contains(&expected), "{accounting}");
    Ok(())
}

/// With room for a few events only, most lines are lost, and each one is counted.
#[apply(needs_whole_machine)]
fn every_lost_line_is_counted(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    let (tracer, Made { exchanges, came_in, servers }) = watch_exchanges(&netns, "4K")?;
    drop(servers);
    // The sweep ends the flows of both servers, and loses nothing.
    let ended = Cell::new(0);
    tracer.await_stdout("all ends of flows that came in", |line| {
        ended.set(ended.get() + u64::from(line.starts_with("[DESTROY]") && line.contains(" dir=in ")));
        ended.get() == came_in
    });
    let accounting = tracer.stop().expect_balance();
    let line = accounting.lines().find(|line| line.contains("produced ")).unwrap();
    let number = |key: &str| value(&line.replace(':', ""), key);
    let (produced, lost) = (number("produced "), number("lost "));
    assert_eq!(produced, 2 * (exchanges + came_in), "{accounting}");
    assert!(lost > 0 && produced == number("shown ") + lost, "{accounting}");
    assert!(line.ends_with(": holds"), "{accounting}");
    Ok(())
}
