//! Filters of ss select in conntrace what they select in ss: those of the test suite and the manual of iproute2, and
//! further ones of their kinds, on sockets of both families, of both sides, and in several states.

use conn_tests::{
    harness::{Outcome, Skip},
    host::Host,
    line::{Kind, Line},
    needs_tracing,
    netns::NetNs,
    tracer::{Setup, Tracer},
    traffic::{
        Server,
        socket::{self, await_end},
    },
};
use macro_rules_attribute::apply;
use serde_json::Value;
use socket2::Socket;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    process::Command,
    thread,
};

/// `(state, local, peer)`.
type Sockets = BTreeSet<(String, String, String)>;

/// Filters of the test suite (`testsuite/tests/ss/ssfilter.t`, all of them) and of the manual of iproute2.
const OF_IPROUTE2: [&str; 14] = [
    "dport = 22",
    "dport 22",
    "( dport = 22 )",
    "src = 0.0.0.0",
    "src 0.0.0.0",
    "src 0.0.0.0 sport = 22",
    "src 0.0.0.0 and sport = 22",
    "src 10.0.0.1 and sport = 22 and dport = 50312",
    "src 10.0.0.1 and sport = 22 and ( dport = 50312 )",
    "src 10.0.0.1 and ( sport = 22 and dport = 50312 )",
    "( src 10.0.0.1 and sport = 22 ) and dport = 50312",
    "( src 0.0.0.0 or src 10.0.0.1 ) and dst 10.0.0.2",
    "( dport = :ssh or sport = :ssh )",
    "( sport = :http or sport = :https ) dst 193.233.7/24",
];

/// Each operator of ss's grammar (`misc/ssfilter.y`), and each form of a host and a port (`parse_hostcond()` of
/// `misc/ss.c`). No family is asked for where an IPv6 socket has IPv4 addresses, which ss has in `inet6`.
const OF_GRAMMAR: [&str; 55] = [
    "sport = 22",
    "dport == :22",
    "dport eq :ssh",
    "dport != :22",
    "sport neq :https",
    "dport ne 443",
    "dport > :1024",
    "sport gt 80",
    "sport >= 443",
    "dport ge :ssh",
    "sport geq :80",
    "sport < :443",
    "dport lt 80",
    "dport <= :443",
    "sport leq 22",
    "sport = :0x16",
    "dport = 0x1bb",
    "sport :www",
    "sport = :*",
    "dport *",
    "dport = inet::22",
    "dport = inet6::80",
    "sport != inet6::22 dport = :80",
    "dport > inet::22 sport = :443",
    "dport le inet6:80",
    "src *",
    "src = *:22",
    "src == *:*",
    "dst eq 10.0.0.1",
    "dst = 0/0",
    "src 10.0.0/24",
    "dst 10.0.0.1/255.255.255.0",
    "src 10.0.0.1/24:22",
    "dst 10.0.0.2:*",
    "src 10.0.0.1:0x16",
    "dst default",
    "src any:443",
    "src all:ssh",
    "dst localhost:22",
    "src [::/0]:22",
    "dst [::1]:*",
    "src [::1/64]:22",
    "src ::/0:22",
    "dst ::/0:22",
    "src inet:10.0.0.1:22",
    "dst inet:* dport = :443",
    "src inet:*:443",
    "src inet6:[::1]",
    "dst inet6:[::1]:ssh",
    "not sport = inet6::22 dport = :22",
    "src 10.0.0.1 dst 10.0.0.2 sport = :22 dport = :50312",
    "not ( not sport = :22 ) dst 10/8",
    "! ( sport = :22 | sport = :80 | sport = :443 ) ! dport = :80",
    "( ( sport = :22 ) ) && ( ( ( dst 10/8 ) ) )",
    "not not autobound dport = :443",
];

/// Further ones. In none of them does the meaning hang on the order of `and` and `or`.
const OTHERS: [&str; 40] = [
    "sport = :443",
    "sport = :https",
    "sport == 443",
    "sport eq :443",
    "sport != :22",
    "sport ne 22",
    "not sport = :22",
    "! dport neq :22",
    "sport >= :1024",
    "sport le 443 and dport gt 1024",
    "dport < :1024 or sport lt :1024",
    "dport geq 50312 and dport leq 50312",
    "dst 10.0.0.2",
    "dst = 10.0.0.2",
    "dst 10/8",
    "src 10.0.0.2/24",
    "not src 10.0.0.0/8",
    "src 10.0.0.0/255.0.0.0",
    "dst 10.0.0.2:50312",
    "src 10.0.0.1:ssh",
    "src :22",
    "dst *:22",
    "src 10.0.0.0/8:22",
    "dst 10.0.0.2:",
    "src [::1]",
    "dst [::1]:22",
    "src [::1/128]",
    "src inet6:* dst [::1]",
    "sport = inet::22",
    "src any and sport = :22",
    "dst all",
    "src localhost",
    "( src 10.0.0.1 && sport = :22 ) || ( dst 193.233.7.5 & ! sport = :22 )",
    "( src 10/8 | dst 193.233.7/24 ) & ( sport = :22 || dport = :80 )",
    "not ( sport = :22 or dport = :22 )",
    "dev = lo",
    "not dev lo",
    "fwmark = 0x1/0x3",
    "fwmark != 5",
    "autobound dport = :443",
];

fn filters() -> impl Iterator<Item = &'static str> {
    OF_IPROUTE2.into_iter().chain(OF_GRAMMAR).chain(OTHERS)
}

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 50_312);

/// The sockets of one namespace.
struct Stage {
    ns: NetNs,
    servers: Vec<Server>,
}

impl Stage {
    fn new() -> Result<Self, Skip> {
        let ns = NetNs::new().unwrap();
        for address in ["10.0.0.1", "10.0.0.2", "193.233.7.5"] {
            ns.address("lo", address.parse().unwrap(), 32).unwrap();
        }
        let any4 = Ipv4Addr::UNSPECIFIED;
        let servers = ns.run(|| {
            let at = |ip: IpAddr, port| Server::listen(SocketAddr::new(ip, port));
            vec![
                at(any4.into(), 22),
                // Of both families.
                at(Ipv6Addr::UNSPECIFIED.into(), 80),
                at("10.0.0.1".parse().unwrap(), 443),
                at(Ipv6Addr::LOCALHOST.into(), 22),
            ]
        });
        ns.run(|| Command::new("ss").arg("-V").output())
            .map_err(|error| Skip(format!("cannot run ss: {error}")))?;
        Ok(Self { ns, servers })
    }

    /// A connection from `source` to one of the servers.
    fn connect(
        &self,
        server: usize,
        ip: &str,
        source: Option<SocketAddr>,
        set: impl Fn(&Socket) + Sync,
    ) -> [Socket; 2] {
        let server = &self.servers[server];
        self.ns.run(|| {
            let address = SocketAddr::new(ip.parse().unwrap(), server.address.port());
            let client = socket::tcp(address);
            if let Some(source) = source {
                client.set_reuse_address(true).unwrap();
                socket::bind(&client, source);
            }
            set(&client);
            client.connect(&address.into()).unwrap();
            [client, server.accept()]
        })
    }

    /// Connections of both families, one on an interface and one with a mark.
    fn connections(&self) -> Vec<[Socket; 2]> {
        let plain = |_: &Socket| {};
        let of = |ip: &str| Some(SocketAddr::new(ip.parse().unwrap(), 0));
        vec![
            self.connect(0, "10.0.0.1", None, plain),
            self.connect(0, "10.0.0.1", Some(CLIENT), plain),
            self.connect(0, "127.0.0.1", None, |client| client.bind_device(Some(b"lo")).unwrap()),
            self.connect(1, "10.0.0.1", of("193.233.7.5"), plain),
            self.connect(2, "10.0.0.1", of("193.233.7.5"), |client| client.set_mark(5).unwrap()),
            self.connect(1, "::1", None, plain),
            self.connect(3, "::1", None, plain),
        ]
    }

    /// The same in other states: before the end of the handshake, in `FIN_WAIT1`, `LAST_ACK` and `CLOSING` beside a peer that
    /// does not hear, half closed, and in `TIME_WAIT` on either side.
    fn other_states(&self) -> Vec<Socket> {
        let of = |ip: &str| Some(SocketAddr::new(ip.parse().unwrap(), 0));
        let plain = |_: &Socket| {};
        let waiting = self.connect(2, "10.0.0.1", of("193.233.7.5"), plain);
        socket::hear_nothing(&waiting[0]);
        waiting[1].shutdown(Shutdown::Write).unwrap();
        let last = self.connect(0, "10.0.0.1", Some(SocketAddr::new(CLIENT.ip(), 0)), plain);
        last[0].shutdown(Shutdown::Write).unwrap();
        await_end(&last[1]);
        socket::hear_nothing(&last[0]);
        let [last, closed] = last;
        drop(closed);
        let closing = self.connect(3, "::1", None, plain);
        socket::hear_nothing(&closing[0]);
        closing[1].shutdown(Shutdown::Write).unwrap();
        closing[0].shutdown(Shutdown::Write).unwrap();
        await_end(&closing[1]);
        let opening = self.ns.run(|| {
            let server = SocketAddr::new("10.0.0.1".parse().unwrap(), 443);
            let client = socket::tcp(server);
            socket::hear_nothing(&client);
            socket::begin_connect(&client, server);
            client
        });
        let half = self.connect(0, "10.0.0.1", None, plain);
        half[0].shutdown(Shutdown::Write).unwrap();
        await_end(&half[1]);
        for first in [0, 1] {
            let [client, server] = self.connect(2, "10.0.0.1", of("193.233.7.5"), plain);
            let (first, second) = if first == 0 { (client, server) } else { (server, client) };
            first.shutdown(Shutdown::Write).unwrap();
            await_end(&second);
            drop(second);
            await_end(&first);
        }
        waiting.into_iter().chain(closing).chain(half).chain([last, opening]).collect()
    }

    /// What ss shows in the namespace.
    fn of_ss(&self, filter: &[&str]) -> Sockets {
        let output = self.ns.run(|| Command::new("ss").args(["-tanH", "-O"]).args(filter).output().unwrap());
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaint.is_empty(), "ss {filter:?}: {complaint}");
        // ss leaves out the column of a single state.
        let single = matches!(filter, ["state", name, rest @ ..]
            if !["connected", "bucket", "big", "synchronized", "all"].contains(name) && !rest.contains(&"state"));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| row(line, single.then(|| filter[1]))).collect()
    }

    /// What list shows and count counts. Filters name interfaces of the namespace that conntrace runs in.
    fn of_ours(&self, words: &[&str]) -> (Sockets, usize) {
        let netns = self.ns.inum().to_string();
        let run = |command: &[&str]| {
            let words = [command, &["--netns", &netns], words].concat();
            let ended = self.ns.run(|| Setup::new(words).run());
            ended.expect_code(0);
            ended.stdout
        };
        let (listed, counted) = thread::scope(|scope| {
            let counted = scope.spawn(|| run(&["count"]).concat().parse().expect("a number"));
            let listed = run(&["list", "-o", "json"]).iter().map(|line| of_json(line)).collect();
            (listed, counted.join())
        });
        (listed, counted.expect("a count"))
    }

    /// The sockets that one of both selects alone, and how many ss selects. Sockets may end meanwhile, so ss looks before
    /// and after.
    fn compare(&self, states: &[&str], filter: &str) -> (Option<String>, usize) {
        let words = [states, &[filter]].concat();
        loop {
            let before = self.of_ss(&words);
            let (listed, counted) = self.of_ours(&words);
            if before == self.of_ss(&words) {
                let differ: Vec<_> = listed.symmetric_difference(&before).collect();
                let agree = differ.is_empty() && counted == before.len();
                let complaint = format!(
                    "{words:?}: only in one of both {differ:?}; {counted} counted; ss has {before:?}"
                );
                return ((!agree).then_some(complaint), before.len());
            }
        }
    }

    /// Both select the same sockets, and some at least.
    fn agree(&self, states: &[&str], filter: &str) {
        let (complaint, found) = self.compare(states, filter);
        assert!(complaint.is_none() && found > 0, "{filter}: {complaint:?}");
    }
}

/// A line of ss.
fn row(line: &str, single: Option<&str>) -> (String, String, String) {
    let mut words: Vec<&str> = line.split_whitespace().collect();
    if let Some(state) = single {
        words.insert(0, state);
    }
    let state = match words[0] {
        "ESTAB" => "established".into(),
        "listening" | "LISTEN" => "listen".into(),
        "syn-rcv" => "syn_recv".into(),
        other => other.to_lowercase().replace("fin-wait-", "fin_wait").replace('-', "_"),
    };
    (state, end(words[3]), end(words[4]))
}

/// An end without its interface, with an IPv4-mapped address as IPv4.
fn end(text: &str) -> String {
    let (address, port) = text.rsplit_once(':').expect("a port");
    let address = address.split('%').next().unwrap().trim_matches(['[', ']']);
    let address = if address == "*" { "::" } else { address.trim_start_matches("::ffff:") };
    format!("{address} {}", if port == "*" { "0" } else { port })
}

fn of_json(line: &str) -> (String, String, String) {
    let row: Value = serde_json::from_str(line).expect("an object");
    let end = |address: &str, port: &str| format!("{} {}", row[address].as_str().unwrap(), row[port]);
    let (src, dst) = (end("src", "sport"), end("dst", "dport"));
    let is_src_ours = match row["direction"].as_str() {
        Some(direction) => direction == "out",
        None => row["local_end"].as_str().is_none_or(|end| end == "src"),
    };
    let (local, peer) = if is_src_ours { (src, dst) } else { (dst, src) };
    (row["state"].as_str().unwrap().to_owned(), local, peer)
}

/// An event as ss has the connection.
fn of_event(line: &Line) -> (String, String) {
    let tuple = line.tuple();
    let [client, server] = [tuple.client, tuple.server].map(|end| format!("{} {}", end.ip(), end.port()));
    if line.key("dir") == Some("out") { (client, server) } else { (server, client) }
}

#[apply(needs_tracing)]
fn lists_and_counts_select_what_ss_selects(_: &Host) -> Outcome {
    let stage = Stage::new()?;
    let (_open, _others) = (stage.connections(), stage.other_states());
    let connected = |filter| stage.compare(&["state", "connected"], filter);
    let compared: Vec<_> = filters().map(connected).collect();
    let complaints: Vec<_> = compared.iter().filter_map(|(complaint, _)| complaint.as_deref()).collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    // Most of them select something: equal empty sets prove nothing.
    let found = compared.iter().filter(|(_, found)| *found > 0).count();
    assert!(found > 95, "{found} of {}", compared.len());
    Ok(())
}

#[apply(needs_tracing)]
fn states_select_what_ss_selects(_: &Host) -> Outcome {
    let stage = Stage::new()?;
    let (_open, _others) = (stage.connections(), stage.other_states());
    for filter in [
        "sport = :22",
        "src 0.0.0.0",
        "dst 0.0.0.0",
        "src [::]",
        "sport < :80 or sport = :443",
        "dport = 0",
        "not src 10.0.0.1",
        "dst *:0",
    ] {
        stage.agree(&["state", "listening"], filter);
    }
    stage.agree(&["state", "established"], "( dport = :ssh or sport = :ssh )");
    stage.agree(&["state", "fin-wait-1"], OF_IPROUTE2[13]);
    let states = "established ESTABLISHED syn-sent syn-recv syn-rcv fin-wait-1 fin-wait-2 time-wait close-wait last-ack \
                  closing listening connected synchronized bucket";
    for state in states.split(' ') {
        stage.agree(&["state", state], "sport != 1");
    }
    // No socket of TCP that ss shows is closed.
    for state in ["closed", "close", "unconnected"] {
        assert_eq!(stage.compare(&["state", state], "sport != 1"), (None, 0), "{state}");
    }
    stage.agree(&["state", "big", "exclude", "listening"], "src 10/8");
    stage.agree(&["state", "all", "exclude", "listening"], "not dport = 1");
    stage.agree(&["state", "time-wait", "state", "close-wait"], "dst 10/8 or src 10/8");
    stage.agree(&["exclude", "established", "exclude", "listening"], "sport = :443 or dport = :443");
    Ok(())
}

#[apply(needs_tracing)]
fn events_show_what_ss_selects(_: &Host) -> Outcome {
    let stage = Stage::new()?;
    let netns = stage.ns.inum().to_string();
    let filters: Vec<&str> = filters().filter(|filter| !filter.contains("dev")).collect();
    for some in filters.chunks(9) {
        let tracers: Vec<Tracer> =
            some.iter().map(|filter| Tracer::start(["-e", "NEW", "--netns", &netns, filter])).collect();
        let last = Tracer::start(["-e", "NEW", "--netns", &netns]);
        let open = stage.connections();
        let tuples: Vec<_> = open.iter().map(|pair| socket::tuple_of(&pair[0])).collect();
        for direction in ["out", "in"] {
            last.await_flow(Kind::New, direction, *tuples.last().unwrap());
        }
        for (filter, tracer) in some.iter().zip(tracers) {
            let expected = stage.of_ss(&["state", "connected", "exclude", "bucket", filter]);
            let expected: BTreeSet<_> = expected.into_iter().map(|(_, local, peer)| (local, peer)).collect();
            let ended = tracer.stop();
            let messages = ended.expect_code(0);
            let shown: BTreeSet<_> = ended.events().iter().map(of_event).collect();
            let differ: Vec<_> = shown.symmetric_difference(&expected).collect();
            assert!(differ.is_empty(), "{filter}, only in one of both: {differ:#?}");
            // The kernel decided: what does not match was never copied.
            assert!(messages.contains("filtered 0") || !is_whole_in_kernel(filter), "{filter}: {messages}");
        }
    }
    Ok(())
}

/// An `or` of different fields, beside an `and`, is decided here.
fn is_whole_in_kernel(filter: &str) -> bool {
    let is_not_one = filter.contains("inet") && (filter.contains("not") || filter.contains("!="));
    !filter.contains('|') && !is_not_one
}
