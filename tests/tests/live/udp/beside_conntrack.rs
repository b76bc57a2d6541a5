//! The same flows as `conntrack -E -p udp`, tuple by tuple and packet by packet.

use super::{bind, watch};
use crate::live::conntrack_parity::{listen, run, track};
use conn_tests::{
    harness::Outcome,
    harness::Skip,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    traffic::LIMIT,
};
use macro_rules_attribute::apply;
use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

const BATCHES: usize = 20;
/// Flows of a batch: see [`batch`].
const BATCH: usize = 50;
/// Bytes of the headers of IP and UDP, which conntrack counts.
const HEADERS: [u64; 2] = [20 + 8, 40 + 8];

/// A server, and what it answers.
struct Server {
    socket: UdpSocket,
    address: SocketAddr,
}

impl Server {
    fn new(netns: &NetNs, ip: impl Into<IpAddr>) -> Self {
        let socket = bind(netns, (ip.into(), 0));
        socket.set_read_timeout(Some(*LIMIT)).unwrap();
        let address = socket.local_addr().unwrap();
        Self { socket, address }
    }

    /// Receives, and answers through a socket. Returns the client.
    fn answer(&self, through: &UdpSocket) {
        let (_, from) = self.socket.recv_from(&mut [0; 64]).unwrap();
        through.send_to(b"the answer", from).unwrap();
    }
}

/// Fifty flows of every kind.
fn batch(netns: &NetNs, servers: &[Server; 2], others: &[Server]) {
    let mut clients = Vec::new();
    let mut client = |ip: IpAddr| {
        clients.push(bind(netns, (ip, 0)));
        clients.last().unwrap().set_read_timeout(Some(*LIMIT)).unwrap();
        clients.last().unwrap().try_clone().unwrap()
    };
    for (server, answered, silent) in [(&servers[0], 20, 10), (&servers[1], 8, 4)] {
        for number in 0..answered + silent {
            let socket = client(server.address.ip());
            socket.connect(server.address).unwrap();
            socket.send(b"query").unwrap();
            if number < answered {
                server.answer(&server.socket);
                assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 10);
                if number % 4 == 0 {
                    socket.send(b"more").unwrap();
                    assert_eq!(server.socket.recv(&mut [0; 64]).unwrap(), 4);
                }
            }
        }
    }
    // One socket with four peers, of which two answer.
    let socket = client(Ipv4Addr::LOCALHOST.into());
    for (number, other) in others.iter().enumerate() {
        socket.send_to(b"to one of several", other.address).unwrap();
        if number % 2 == 0 {
            other.answer(&other.socket);
            assert_eq!(socket.recv(&mut [0; 64]).unwrap(), 10);
        }
    }
    // Two that are refused, and one whose answer comes from another port: that is another flow.
    for _ in 0..2 {
        let closed = bind(netns, (Ipv4Addr::LOCALHOST, 0)).local_addr().unwrap();
        let socket = client(Ipv4Addr::LOCALHOST.into());
        socket.connect(closed).unwrap();
        socket.send(b"x").unwrap();
        assert!(socket.recv(&mut [0; 8]).is_err());
    }
    let socket = client(Ipv4Addr::LOCALHOST.into());
    socket.send_to(b"read", others[1].address).unwrap();
    let other = bind(netns, (Ipv4Addr::LOCALHOST, 0));
    // The silent peer has datagrams of this batch and of others before this one.
    others[1].socket.set_nonblocking(true).unwrap();
    while others[1].socket.recv(&mut [0; 64]).is_ok() {}
    others[1].socket.set_nonblocking(false).unwrap();
    other.send_to(b"data", socket.local_addr().unwrap()).unwrap();
    assert_eq!(socket.recv(&mut [0; 8]).unwrap(), 4);
    for server in servers {
        server.socket.set_nonblocking(true).unwrap();
        while server.socket.recv(&mut [0; 64]).is_ok() {}
        server.socket.set_nonblocking(false).unwrap();
    }
}

/// Which lines are meant.
type Accept = fn(&Line) -> bool;

/// Every tuple of one kind of line, as often as there are lines.
fn tuples(lines: &[Line], accept: impl Fn(&Line) -> bool) -> Vec<String> {
    let mut all: Vec<String> =
        lines.iter().filter(|line| accept(line)).map(|line| line.tuple().to_string()).collect();
    all.sort_unstable();
    all
}

/// Packets and bytes of both directions, as conntrack has them.
fn counters(line: &Line) -> [u64; 4] {
    if let (Some(original), Some(reply)) = (line.original.counters, line.reply.counters) {
        return [original.0, original.1, reply.0, reply.1];
    }
    let [sent, bytes_sent, received, bytes_received] = super::numbers(line);
    let header = HEADERS[usize::from(line.original.source.is_ipv6())];
    [sent, bytes_sent + header * sent, received, bytes_received + header * received]
}

#[apply(needs_tracing)]
fn conntrack_shows_the_same_flows(_: &Host) -> Outcome {
    let netns = NetNs::new().unwrap();
    netns.run(|| {
        track(&netns)?;
        netns.sysctl("net.netfilter.nf_conntrack_acct", "1").unwrap();
        let theirs = listen(&["-p", "udp"]);
        let ours = watch(&netns, &["-b", "16M", "--direction", "out"]);
        let servers = [Server::new(&netns, Ipv4Addr::LOCALHOST), Server::new(&netns, Ipv6Addr::LOCALHOST)];
        let others: Vec<Server> = (0..4).map(|_| Server::new(&netns, Ipv4Addr::LOCALHOST)).collect();
        for number in 1..=BATCHES {
            batch(&netns, &servers, &others);
            // Entries would live on for half a minute; what is flushed is destroyed.
            run("conntrack", &["-F"])?;
            let ended = Cell::new(0);
            let all = theirs.find_stdout(|text| {
                let line: Line = text.parse().unwrap();
                ended.set(ended.get() + usize::from(line.kind == Kind::Destroy));
                ended.get() == number * BATCH
            });
            if let Err(missing) = all {
                assert!(
                    theirs.has_stderr(|line| line.contains("ENOBUFS")),
                    "{missing}: {} ends",
                    ended.get()
                );
                return Err(Skip(format!("conntrack loses events here (ENOBUFS): {} ends", ended.get())));
            }
        }
        let ended = Cell::new(0);
        ours.await_event("all ends", |line| {
            ended.set(ended.get() + usize::from(line.kind == Kind::Destroy));
            ended.get() == BATCHES * BATCH
        });
        let (theirs, ours) = (theirs.events(), ours.events());
        let kinds: [(&str, Accept); 4] = [
            ("NEW", |line| line.kind == Kind::New && line.unreplied),
            ("UPDATE", |line| line.kind == Kind::Update && !line.unreplied && !line.assured),
            ("DESTROY", |line| line.kind == Kind::Destroy),
            ("DESTROY without a reply", |line| line.kind == Kind::Destroy && line.unreplied),
        ];
        for (what, accept) in kinds {
            let (theirs, ours) = (tuples(&theirs, accept), tuples(&ours, accept));
            let differ: Vec<_> = ours.iter().filter(|one| !theirs.contains(one)).take(5).collect();
            assert!(
                theirs == ours && !ours.is_empty(),
                "{what}: conntrack {}, we {}; only here {differ:?}",
                theirs.len(),
                ours.len()
            );
            eprintln!("{what}: {} flows, the same in both", ours.len());
        }
        let ends = |lines: &[Line]| {
            let ends = lines.iter().filter(|line| line.kind == Kind::Destroy);
            let mut all: Vec<_> =
                ends.map(|line| (line.tuple().to_string(), counters(line), line.unreplied)).collect();
            all.sort_unstable();
            all
        };
        let (theirs, ours) = (ends(&theirs), ends(&ours));
        for (their, our) in theirs.iter().zip(&ours) {
            assert_eq!(their, our, "conntrack's, and ours");
        }
        Ok(())
    })
}
