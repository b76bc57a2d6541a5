//! Words of an expression that ss does not have: those of ends, and the interface of a link-local address.

use conn_tests::{
    harness::Outcome,
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::{NetNs, Veth},
    port::Port,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        close::{self, First},
        fail, socket,
        socket::await_end,
    },
    truth::{Truth, Tuple},
};
use macro_rules_attribute::apply;
use nix::net::if_::if_nametoindex;
use serde_json::Value;
use socket2::Socket;
use std::{
    collections::BTreeSet,
    net::{Ipv6Addr, SocketAddr, SocketAddrV6},
    thread,
    time::Duration,
};

/// What the connections of [`ends`] are, in order.
const REFUSED: usize = 0;
const RESET: usize = 1;
const BYTES: usize = 2;
const HELD: usize = 3;
/// How long the last of them lasts at least.
const LONG: Duration = Duration::from_millis(100);

/// Connections of [`ends`], and the direction of an end.
type Ends = &'static [(usize, &'static str)];

/// Words of the command line, and the ends that they select. Each selects one at least.
const WORDS: [(&[&str], Ends); 14] = [
    (&["failed"], &[(REFUSED, "out")]),
    (&["--failed"], &[(REFUSED, "out")]),
    (&["not failed and bytes < 1K"], &[(RESET, "in"), (RESET, "out"), (HELD, "in"), (HELD, "out")]),
    (&["reason", "=", "refused"], &[(REFUSED, "out")]),
    (&["reason = reset_by_us"], &[(RESET, "in")]),
    (&["--reason", "refused,reset_by_peer"], &[(REFUSED, "out"), (RESET, "out")]),
    (&["error = ECONNREFUSED"], &[(REFUSED, "out")]),
    (&["--error", "ECONNRESET"], &[(RESET, "out")]),
    (&["error = - and not bytes > 1K"], &[(RESET, "in"), (HELD, "in"), (HELD, "out")]),
    (&["bytes > 1199"], &[(BYTES, "in"), (BYTES, "out")]),
    (&["bytes > 1200 or failed"], &[(REFUSED, "out")]),
    (&["lifetime > 1h or reason = reset_by_us"], &[(RESET, "in")]),
    (&["lifetime < 1h and bytes >= 1200"], &[(BYTES, "in"), (BYTES, "out")]),
    (&["--failed", "error != ECONNRESET"], &[(REFUSED, "out")]),
];

/// Connections that end in different ways.
fn ends(address: SocketAddr) -> [Tuple; 4] {
    let refused = fail::refused_bound(address).tuple();
    let reset = close::linger0(address, First::Server).tuple();
    let closed = |act: &dyn Fn(&socket::Pair)| {
        let pair = Server::listen(address).pair();
        act(&pair);
        drop(pair.client);
        await_end(&pair.server);
        pair.tuple
    };
    let bytes = closed(&|pair| pair.exchange(&mut Truth::default(), 600, 600));
    let held = closed(&|_| thread::sleep(LONG));
    [refused, reset, bytes, held]
}

#[apply(needs_tracing)]
fn words_of_ends_select_ends(_: &Host) -> Outcome {
    let ns = NetNs::new().unwrap();
    let netns = ns.inum().to_string();
    let of = |words: &[&str]| Tracer::start([&["-e", "DESTROY", "--netns", &netns], words].concat());
    for some in WORDS.chunks(7) {
        let tracers: Vec<Tracer> = some.iter().map(|(words, _)| of(words)).collect();
        let long = of(&["lifetime > 100ms"]);
        let last = of(&[]);
        let port = Port::claim();
        let tuples = ns.run(|| ends(port.v4()));
        for (end, tuple) in tuples.into_iter().enumerate() {
            last.await_flow(Kind::Destroy, "out", tuple);
            if end != REFUSED {
                last.await_flow(Kind::Destroy, "in", tuple);
            }
        }
        for ((words, wanted), tracer) in some.iter().zip(tracers) {
            let ended = tracer.stop();
            ended.expect_code(0);
            let events = ended.events();
            let end = |line: &Line| {
                let index = tuples.iter().position(|&tuple| tuple == line.tuple()).expect("one of the ends");
                (index, line.key("dir").expect("a direction").to_owned())
            };
            let shown: BTreeSet<_> = events.iter().map(end).collect();
            assert_eq!(shown, wanted.iter().map(|&(end, dir)| (end, dir.to_owned())).collect(), "{words:?}");
        }
        for direction in ["out", "in"] {
            long.await_flow(Kind::Destroy, direction, tuples[HELD]);
        }
    }
    Ok(())
}

/// The address of the far end of each link.
const FAR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const NEAR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);

/// A namespace with two links, on each of which the peer has the same address.
struct Links {
    ns: NetNs,
    peers: [(NetNs, Veth, Server); 2],
    port: Port,
}

impl Links {
    fn new() -> Self {
        let (ns, port) = (NetNs::new().unwrap(), Port::claim());
        let peers = [(); 2].map(|()| {
            let peer = NetNs::new().unwrap();
            let link = ns.join(&peer).unwrap();
            peer.address(&link.name, FAR.into(), 64).unwrap();
            ns.address(&link.name, NEAR.into(), 64).unwrap();
            let server = peer.run(|| Server::listen(port.at(Ipv6Addr::UNSPECIFIED)));
            (peer, link, server)
        });
        Self { ns, peers, port }
    }

    /// A connection over one of the links.
    fn connect(&self, link: usize) -> [Socket; 2] {
        let (peer, veth, server) = &self.peers[link];
        let client = self.ns.run(|| {
            let index = if_nametoindex(veth.name.as_str()).unwrap();
            socket::connect(SocketAddrV6::new(FAR, self.port.number(), 0, index).into())
        });
        [client, peer.run(|| server.accept())]
    }

    /// conntrace in the namespace of the links.
    fn run(&self, words: &[&str]) -> Vec<String> {
        let ended = self.ns.run(|| Setup::new([words, &["--netns", "."]].concat()).run());
        ended.expect_code(0);
        ended.stdout
    }
}

fn port_of(socket: &Socket) -> u16 {
    socket.local_addr().unwrap().as_socket().unwrap().port()
}

#[apply(needs_tracing)]
fn an_interface_tells_equal_link_local_addresses_apart(_: &Host) -> Outcome {
    let links = Links::new();
    let [first, second] = [0, 1].map(|link: usize| links.peers[link].1.name.clone());
    let filter = format!("dst {FAR}%{second}");
    let netns = links.ns.inum().to_string();
    let start = |words: &[&str]| {
        links.ns.run(|| Setup::new([&["-e", "NEW", "--netns", &netns], words].concat()).start())
    };
    let chosen = [start(&[&filter]), start(&["--dst", &format!("{FAR}%{second}")])];
    let last = start(&[]);
    let open = [links.connect(0), links.connect(1)];
    let [one, other] = open.each_ref().map(|pair| port_of(&pair[0]));
    let of = |port: u16| last.await_event("a NEW", |line| line.tuple().client.port() == port);
    // Readers of conntrack's lines find addresses and ports where they always are.
    assert_eq!((of(one).key("interface"), of(other).key("interface")), (Some(&*first), Some(&*second)));
    assert_eq!(of(one).tuple().server, links.port.at(FAR));
    for tracer in chosen {
        let ended = tracer.stop();
        let ports: Vec<_> = ended.events().iter().map(|line| line.tuple().client.port()).collect();
        assert_eq!(ports, [other], "{ended:#?}");
    }
    let listed = links.run(&["list", "-o", "json", &filter]);
    let rows: Vec<Value> = listed.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 1, "{listed:?}");
    assert_eq!((&rows[0]["sport"], &rows[0]["interface"]), (&other.into(), &second.as_str().into()));
    assert_eq!(rows[0]["dst"], FAR.to_string());
    assert_eq!((links.run(&["count", &filter]), links.run(&["count"])), (vec!["1".into()], vec!["2".into()]));
    let table = links.run(&["list", "-o", "table", "--no-header", "--columns", "peer,dst"]);
    let mut shown: Vec<_> = table.iter().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    shown.sort_unstable();
    let expected =
        [&first, &second].map(|name| [format!("[{FAR}%{name}]:{}", links.port), format!("{FAR}%{name}")]);
    assert_eq!(shown, expected);
    let mut peers = links.run(&["count", "--by", "dst", "-o", "csv"]).split_off(1);
    peers.sort_unstable();
    assert_eq!(peers, [format!("{FAR}%{first},1"), format!("{FAR}%{second},1")]);
    Ok(())
}
