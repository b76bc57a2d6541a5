//! Flows that a flowtable forwards, past connection tracking: each begins once and ends once, with the kernel's counters.

use super::{beside_conntrack, counts, flush, run, watch};
use crate::live::conntrack_parity::listen;
use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    line::{Kind, Line},
    needs_namespaces,
    routed::Routed,
    timeout,
    tracer::{Setup, Tracer},
    traffic::{LIMIT, socket::tcp_info},
};
use macro_rules_attribute::apply;
use serde_json::Value;
use std::{
    cell::Cell,
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Instant,
};

/// Messages of each flow in each direction, in turn, and their size: a packet has one.
const EXCHANGES: usize = 40;
const SIZE: usize = 1_000;
/// What one connection sends in one piece. The kernel may count several segments as one packet.
const BULK: usize = 1 << 20;
/// Packets that each direction of a flow may have before it is offloaded.
const BEFORE: u64 = 4;

/// A router that hands flows over to a flowtable when both ends have sent. Entries go soon after their last packet.
fn offloading(option: &str) -> Result<Routed, Skip> {
    run("nft", &["--version"])?;
    run("conntrack", &["--version"])?;
    let routed = Routed::new().unwrap();
    let [inside, outside] = routed.links();
    let rules = format!(
        "add table inet t; \
         add flowtable inet t f {{ hook ingress priority 0; devices = {{ {inside}, {outside} }}; {option} }}; \
         add chain inet t c {{ type filter hook forward priority 0; }}; \
         add rule inet t c ct state established flow add @f"
    );
    let added = routed.router.run(|| run("nft", &[&rules]));
    added.map_err(|Skip(said)| {
        let first = said.lines().next().unwrap_or_default();
        Skip(format!("this kernel has no flowtables ({first})"))
    })?;
    for (name, value) in
        [("acct", "1"), ("tcp_timeout_time_wait", "1"), ("udp_timeout", "1"), ("udp_timeout_stream", "1")]
    {
        routed.router.sysctl(&format!("net.netfilter.nf_conntrack_{name}"), value).unwrap();
    }
    Ok(routed)
}

/// Two ends of a flow that stay open.
enum Ends {
    Tcp { client: TcpStream, server: TcpStream },
    Udp { client: UdpSocket, server: UdpSocket },
}

/// Packets and bytes of a direction: the least and the most.
type Bounds = [(u64, u64); 2];

impl Ends {
    fn tcp(routed: &Routed, ip: IpAddr) -> Self {
        let listener = routed.server.run(|| TcpListener::bind((ip, 0))).unwrap();
        let client = routed.client.run(|| TcpStream::connect(listener.local_addr().unwrap())).unwrap();
        let (server, _) = listener.accept().unwrap();
        for stream in [&client, &server] {
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(*LIMIT)).unwrap();
        }
        Self::Tcp { client, server }
    }

    fn udp(routed: &Routed, from: IpAddr, to: IpAddr) -> Self {
        let (client, server) = (routed.client_socket(from).unwrap(), routed.server_socket(to).unwrap());
        client.connect(server.local_addr().unwrap()).unwrap();
        server.connect(client.local_addr().unwrap()).unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(*LIMIT)).unwrap();
        }
        Self::Udp { client, server }
    }

    fn protocol(&self) -> &'static str {
        match self {
            Self::Tcp { .. } => "tcp",
            Self::Udp { .. } => "udp",
        }
    }

    /// Where the flow begins.
    fn from(&self) -> SocketAddr {
        match self {
            Self::Tcp { client, .. } => client.local_addr().unwrap(),
            Self::Udp { client, .. } => client.local_addr().unwrap(),
        }
    }

    /// One message in each direction.
    fn exchange(&mut self) {
        let mut buffer = [b'x'; SIZE];
        match self {
            Self::Tcp { client, server } => {
                client.write_all(&buffer).unwrap();
                server.read_exact(&mut buffer).unwrap();
                server.write_all(&buffer).unwrap();
                client.read_exact(&mut buffer).unwrap();
            }
            Self::Udp { client, server } => {
                for (one, other) in [(&*client, &*server), (server, client)] {
                    assert_eq!(one.send(&buffer).unwrap(), SIZE);
                    assert_eq!(other.recv(&mut buffer).unwrap(), SIZE);
                }
            }
        }
    }

    /// The same so often.
    fn exchanges(&mut self, count: usize) {
        for _ in 0..count {
            self.exchange();
        }
    }

    /// Sends a lot from the client.
    fn send_bulk(&mut self) {
        let Self::Tcp { client, server } = self else { panic!("a connection") };
        thread::scope(|scope| {
            scope.spawn(|| client.write_all(&vec![b'x'; BULK]).unwrap());
            server.read_exact(&mut vec![0; BULK]).unwrap();
        });
    }

    /// Waits until no packet is under way.
    fn settle(&self) {
        let Self::Tcp { client, server } = self else { return };
        let begin = Instant::now();
        while [client, server].iter().any(|stream| tcp_info(*stream).tcpi_unacked > 0) {
            assert!(begin.elapsed() < *LIMIT, "unacknowledged");
            thread::yield_now();
        }
    }

    /// Ends a connection in both directions. Its sockets stay, for [`Self::sent`].
    fn end(&self) {
        let Self::Tcp { client, server } = self else { return };
        for (one, mut other) in [(client, server), (server, client)] {
            one.shutdown(Shutdown::Write).unwrap();
            assert_eq!(other.read(&mut [0]).unwrap(), 0);
        }
        self.settle();
    }

    /// What passed in each direction, by the sockets: packets, and bytes with headers, at least and at most.
    fn sent(&self, messages: usize, bulk: usize) -> [Bounds; 2] {
        let ip = if self.from().is_ipv4() { 20 } else { 40 };
        let payload = (messages * SIZE) as u64;
        match self {
            Self::Udp { .. } => {
                let packets = messages as u64;
                [[(packets, payload + packets * (ip + 8)); 2]; 2]
            }
            Self::Tcp { client, server } => {
                let [client, server] = [client, server].map(tcp_info);
                // The server answers the first packet before it has a socket of the connection.
                let segments = [u64::from(client.tcpi_segs_out), u64::from(server.tcpi_segs_out) + 1];
                let least = if bulk > 0 { BEFORE } else { segments[0] };
                let of = |least: u64, most: u64, payload: u64, again: u64| {
                    [(least, payload + least * (ip + 20)), (most, payload + again + most * (ip + 60))]
                };
                [
                    of(least, segments[0], payload + bulk as u64, client.tcpi_bytes_retrans),
                    of(segments[1], segments[1], payload, server.tcpi_bytes_retrans),
                ]
            }
        }
    }
}

/// The flow in these lines.
fn find<'a>(lines: &'a [Line], ends: &Ends) -> &'a Line {
    let is_it = |line: &&Line| line.protocol == ends.protocol() && line.original.source == ends.from();
    let found: Vec<&Line> = lines.iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "{} from {}: {lines:#?}", ends.protocol(), ends.from());
    found[0]
}

/// The counters of a line: the true ones if the flowtable counts, else those of the packets before.
fn check(line: &Line, sent: [Bounds; 2], counts: bool) {
    for (side, [least, most]) in [&line.original, &line.reply].into_iter().zip(sent) {
        let (packets, bytes) = side.counters.expect("nf_conntrack_acct is on");
        if counts {
            let is_true = (least.0..=most.0).contains(&packets) && (least.1..=most.1).contains(&bytes);
            assert!(is_true, "{packets} packets, {bytes} bytes, not {least:?} to {most:?}: {line:?}");
        } else {
            assert!(packets > 0 && packets < least.0.max(EXCHANGES as u64) / 2, "not offloaded: {line:?}");
        }
    }
}

/// Lists of both, of the same moment.
fn lists(routed: &Routed) -> [Vec<Line>; 2] {
    let netns = routed.router.inum().to_string();
    let listed = Setup::new(["list", "--forwarded=all", "-p", "tcp,udp", "--netns", &netns]).run();
    listed.expect_code(0);
    let theirs = ["ipv4", "ipv6"].map(|family| counts::conntrack(routed, &["-L", "-f", family])).concat();
    let parse = |lines: &mut dyn Iterator<Item = &str>| -> Vec<Line> {
        lines.map(|line| line.parse().unwrap()).collect()
    };
    [parse(&mut listed.stdout.iter().map(String::as_str)), parse(&mut theirs.lines())]
}

/// Waits until so many ends are shown.
fn await_ends(tracer: &Tracer, ends: usize) {
    if ends == 0 {
        return;
    }
    let seen = Cell::new(0);
    tracer.await_stdout("all ends", |text| {
        seen.set(seen.get() + usize::from(text.parse::<Line>().unwrap().kind == Kind::Destroy));
        seen.get() == ends
    });
}

fn flows_begin_and_end_once(option: &str, counts: bool) -> Outcome {
    let routed = offloading(option)?;
    // Reports once, at its end: a report makes the kernel evict what has expired.
    let stats =
        Setup::new(["stats", "--forwarded", "-o", "json", "--netns", &routed.router.inum().to_string()])
            .start();
    let theirs = routed.router.run(|| listen(&["-b", "67108864"]));
    let ours = watch(&routed, &["--forwarded=all"]);
    let (from, to) = (routed.client_end(), routed.server_end());
    let mut flows = [
        Ends::tcp(&routed, to.v4.into()),
        Ends::tcp(&routed, to.v6.into()),
        Ends::udp(&routed, from.v4.into(), to.v4.into()),
        Ends::udp(&routed, from.v6.into(), to.v6.into()),
        Ends::tcp(&routed, to.v4.into()),
    ];
    let bulk = |number: usize| if number == 4 { BULK } else { 0 };
    for ends in &mut flows {
        ends.exchanges(EXCHANGES);
    }
    flows[4].send_bulk();
    flows.iter().for_each(Ends::settle);
    let lists = lists(&routed);
    for (number, ends) in flows.iter().enumerate() {
        let [our, their] = lists.each_ref().map(|lines| find(lines, ends));
        assert!(our.offload && our.timeout.is_none() && our.state.is_none(), "{our:?}");
        assert_eq!(beside_conntrack::text(our), beside_conntrack::text(their));
        check(our, ends.sent(EXCHANGES, bulk(number)), counts);
    }
    // From now on, what is idle for a second leaves the flowtable.
    for protocol in ["tcp", "udp"] {
        routed.router.sysctl(&format!("net.netfilter.nf_flowtable_{protocol}_timeout"), "1").unwrap();
    }
    for ends in &mut flows {
        ends.exchanges(1);
    }
    flows.iter().for_each(Ends::end);
    let last = Instant::now();
    await_ends(&ours, flows.len());
    assert!(last.elapsed() < timeout::seconds(20), "ends come {:?} late", last.elapsed());
    println!("{option:?}: the last end came after {:?}", last.elapsed());
    await_ends(&theirs, flows.len());
    let stats = stats.stop();
    stats.expect_code(0);
    let report: Value = serde_json::from_str(stats.stdout.last().unwrap()).unwrap();
    let account = &report["forwarded"]["namespaces"][0];
    let numbers = ["begun", "ended", "tracked", "lost_begun", "lost_ended"].map(|key| account[key].as_u64());
    let all = flows.len() as u64;
    assert_eq!(numbers, [all, all, 0, 0, 0].map(Some), "{account}");
    assert_eq!(account["holds"], true, "{account}");
    let (ours, theirs) = (ours.stop(), theirs.stop());
    ours.expect_balance();
    beside_conntrack::compare(&ours.events(), &theirs.events());
    let events = ours.events();
    for (number, ends) in flows.iter().enumerate() {
        let of =
            |kind: Kind| -> Vec<Line> { events.iter().filter(|line| line.kind == kind).cloned().collect() };
        find(&of(Kind::New), ends);
        let all = of(Kind::Destroy);
        let end = find(&all, ends);
        assert!(end.key("lifetime").is_some(), "{end:?}");
        check(end, ends.sent(EXCHANGES + 1, bulk(number)), counts);
    }
    Ok(())
}

#[apply(needs_namespaces)]
fn offloaded_flows_have_all_packets_if_the_flowtable_counts(_: &Host) -> Outcome {
    flows_begin_and_end_once("counter;", true)
}

#[apply(needs_namespaces)]
fn offloaded_flows_have_the_packets_that_the_kernel_counts(_: &Host) -> Outcome {
    flows_begin_and_end_once("", false)
}

#[apply(needs_namespaces)]
fn a_flush_ends_offloaded_flows_as_conntrack_shows(_: &Host) -> Outcome {
    let routed = offloading("counter;")?;
    let theirs = routed.router.run(|| listen(&["-b", "67108864"]));
    let ours = watch(&routed, &["--forwarded=all"]);
    let (from, to) = (routed.client_end(), routed.server_end());
    let mut flows = [Ends::tcp(&routed, to.v4.into()), Ends::udp(&routed, from.v4.into(), to.v4.into())];
    for ends in &mut flows {
        ends.exchanges(EXCHANGES);
    }
    flows.iter().for_each(Ends::settle);
    let [before, _] = lists(&routed);
    assert!(flows.iter().all(|ends| find(&before, ends).offload), "{before:#?}");
    flush(&routed)?;
    let left = lists(&routed);
    let [our, their] =
        left.each_ref().map(|lines| lines.iter().map(beside_conntrack::text).collect::<Vec<_>>());
    assert_eq!(our, their);
    println!("{} of {} offloaded flows are left after a flush", our.len(), flows.len());
    for tracer in [&ours, &theirs] {
        await_ends(tracer, flows.len() - our.len());
    }
    let (ours, theirs) = (ours.stop(), theirs.stop());
    ours.expect_balance();
    beside_conntrack::compare(&ours.events(), &theirs.events());
    Ok(())
}
